"""The notations that manifests write numbers in: Go durations, Kubernetes quantities, integers."""

import re
from fractions import Fraction

_UNITS = {
    "ns": Fraction(1, 10**9),
    "us": Fraction(1, 10**6),
    "µs": Fraction(1, 10**6),
    "ms": Fraction(1, 1000),
    "s": Fraction(1),
    "m": Fraction(60),
    "h": Fraction(3600),
}
_NUMBER = re.compile(r"[-+.0-9A-Za-z]+")
_PART = re.compile(r"(\d{1,18}(?:\.\d{0,18})?|\.\d{1,18})(ns|us|µs|ms|s|m|h)")


def duration_s(text: str) -> Fraction | None:
    """Seconds of a Go duration (`1m30s`), None if it is none (Go's time.ParseDuration).

    >>> duration_s("1m30s")
    Fraction(90, 1)
    """
    sign = -1 if text.startswith("-") else 1
    body = text.lstrip("+-")
    if body == "0":
        return Fraction(0)
    parts = _PART.findall(body)
    if not parts or "".join(number + unit for number, unit in parts) != body:
        return None
    return sign * sum((Fraction(number) * _UNITS[unit] for number, unit in parts), Fraction(0))


def number(value: object) -> float | None:
    """A number that YAML or a flag wrote, None if it is none."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    # Python reads 1_000 and " 1" as numbers; Go, which reads the manifests, does not.
    if isinstance(value, str) and not _NUMBER.fullmatch(value):
        return None
    try:
        return float(value)
    except (ValueError, OverflowError):
        return None


def whole(value: object) -> int | None:
    """A whole number that YAML or a flag wrote, None if it is none."""
    found = number(value)
    return int(found) if found is not None and found.is_integer() else None
