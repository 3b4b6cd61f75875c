"""Numbers and durations as Go reads and prints them: what Knative's settings are written in.

Each reader raises ValueError with Go's own words (strconv, time).
"""

import math
import re
from decimal import Decimal

NANOSECONDS = 1_000_000_000
INT32_MAX = (1 << 31) - 1
INT64_MAX = (1 << 63) - 1

_UNITS = {
    "ns": 1,
    "us": 1_000,
    "µs": 1_000,
    "μs": 1_000,
    "ms": 1_000_000,
    "s": NANOSECONDS,
    "m": 60 * NANOSECONDS,
    "h": 3600 * NANOSECONDS,
}
_TERM = re.compile(r"([0-9]*)(?:\.([0-9]*))?([^0-9.]*)")
_INTEGER = re.compile(r"[+-]?[0-9]+")
_DIGITS = "[0-9]+(?:_[0-9]+)*"
_FLOAT = re.compile(
    rf"[+-]?(?:(?:{_DIGITS}\.?(?:{_DIGITS})?|\.{_DIGITS})(?:e[+-]?{_DIGITS})?|inf|infinity)|nan",
    re.IGNORECASE,
)
_HEX_FLOAT = re.compile(
    r"[+-]?0x_?(?:[0-9a-f]+(?:_[0-9a-f]+)*\.?[0-9a-f]*|\.[0-9a-f]+)p[+-]?[0-9]+", re.IGNORECASE
)
_BOOLEANS = dict.fromkeys(("1", "t", "T", "TRUE", "true", "True"), True) | dict.fromkeys(
    ("0", "f", "F", "FALSE", "false", "False"), False
)


def quoted(text: str) -> str:
    """Go's %q, for the printable."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'


def parse_bool(text: str) -> bool:
    """strconv.ParseBool."""
    if text not in _BOOLEANS:
        raise ValueError(f"strconv.ParseBool: parsing {quoted(text)}: invalid syntax")
    return _BOOLEANS[text]


def parse_int32(text: str) -> int:
    """strconv.ParseInt(text, 10, 32)."""
    return _integer(text, "ParseInt", INT32_MAX)


def parse_int(text: str) -> int:
    """strconv.Atoi."""
    return _integer(text, "Atoi", INT64_MAX)


def _integer(text: str, function: str, most: int) -> int:
    if not _INTEGER.fullmatch(text):
        raise ValueError(f"strconv.{function}: parsing {quoted(text)}: invalid syntax")
    digits = text.lstrip("+-0")  # Python refuses thousands of digits
    value = int(text) if len(digits) < 20 else most + 1
    if not -most - 1 <= value <= most:
        raise ValueError(f"strconv.{function}: parsing {quoted(text)}: value out of range")
    return value


def parse_float(text: str) -> float:
    """strconv.ParseFloat(text, 64)."""
    if _FLOAT.fullmatch(text):
        value = float(text)
    elif _HEX_FLOAT.fullmatch(text):
        value = float.fromhex(text.replace("_", ""))
    else:
        raise ValueError(f"strconv.ParseFloat: parsing {quoted(text)}: invalid syntax")
    if math.isinf(value) and "inf" not in text.lower():
        raise ValueError(f"strconv.ParseFloat: parsing {quoted(text)}: value out of range")
    return value


def parse_duration(text: str) -> int:
    """time.ParseDuration: nanoseconds."""
    sign, rest = (-1, text[1:]) if text[:1] == "-" else (1, text[text[:1] == "+" :])
    if rest == "0":
        return 0
    total = 0
    while rest:
        term = _TERM.match(rest)
        assert term  # the pattern matches the empty string too
        whole, fraction, unit = term.groups()
        if not whole and not fraction:
            break
        if not unit:
            raise ValueError(f"time: missing unit in duration {quoted(text)}")
        if unit not in _UNITS:
            raise ValueError(f"time: unknown unit {quoted(unit)} in duration {quoted(text)}")
        total += int(whole or 0) * _UNITS[unit]
        if fraction:
            total += int(int(fraction) * (_UNITS[unit] / 10 ** len(fraction)))
        rest = rest[term.end() :]
    if rest or not text.lstrip("+-") or total > (1 << 63) - 1:
        raise ValueError(f"time: invalid duration {quoted(text)}")
    return sign * total


def format_duration(nanoseconds: int) -> str:
    """time.Duration.String: 1h0m1s, 1.5s, 1ms."""
    if nanoseconds == 0:
        return "0s"
    sign, value = ("-" if nanoseconds < 0 else ""), abs(nanoseconds)
    if value < NANOSECONDS:
        for unit in ("ms", "µs", "ns"):
            if value >= _UNITS[unit]:
                return f"{sign}{_decimal(value, _UNITS[unit])}{unit}"
    minutes, rest = divmod(value, _UNITS["m"])
    hours, minutes = divmod(minutes, 60)
    seconds = f"{_decimal(rest, NANOSECONDS)}s"
    if hours:
        return f"{sign}{hours}h{minutes}m{seconds}"
    return f"{sign}{minutes}m{seconds}" if minutes else f"{sign}{seconds}"


def _decimal(value: int, unit: int) -> str:
    whole, rest = divmod(value, unit)
    digits = str(rest).rjust(len(str(unit)) - 1, "0").rstrip("0")
    return f"{whole}.{digits}" if digits else str(whole)


def format_float(value: float) -> str:
    """Go's %v of a float64: the shortest digits, with an exponent from a million on."""
    if not math.isfinite(value):
        return _not_finite(value)
    sign, digits, scale = Decimal(repr(value)).normalize().as_tuple()
    assert isinstance(scale, int)
    exponent = len(digits) + scale - 1 if value else 0
    if -4 <= exponent < 6 or not value:
        return f"{value:.{max(-scale, 0)}f}" if value else "-0" if sign else "0"
    first, *rest = map(str, digits)
    fraction = "." + "".join(rest) if rest else ""
    return f"{'-' * sign}{first}{fraction}e{exponent:+03d}"


def format_fixed(value: float) -> str:
    """Go's %f: six decimals."""
    return f"{value:f}" if math.isfinite(value) else _not_finite(value)


def _not_finite(value: float) -> str:
    if math.isnan(value):
        return "NaN"
    return "+Inf" if value > 0 else "-Inf"
