"""Sampling parameters: one table of names, types and bounds for every protocol.

V2 requests carry them as request parameters, generate in `parameters`, OpenAI in the body. Each
protocol brings its own defaults; what is not in the table is refused by name.
"""

import dataclasses
import math
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

import orjson

from openinference.errors import InvalidInput, shown

MAX_CHOICES = 128
MAX_STOPS = 16
MAX_SEED = 2**63 - 1
MAX_TOKEN_ID = 2**31 - 1
_LARGEST: Final = sys.float_info.max


@dataclass(frozen=True, slots=True)
class SamplingParams:
    """How to sample. `max_tokens` None means up to the end of the model's context."""

    max_tokens: int | None = None
    min_tokens: int = 0
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repetition_penalty: float = 1.0
    stop: tuple[str, ...] = ()
    stop_token_ids: tuple[int, ...] = ()
    ignore_eos: bool = False
    skip_special_tokens: bool = True
    seed: int | None = None
    n: int = 1

    def set_parameters(self) -> dict[str, bool | int | float | str]:
        """What differs from the defaults, as V2 request parameters (lists as JSON strings)."""
        parameters: dict[str, bool | int | float | str] = {}
        for name, default in _DEFAULTS.items():
            value = getattr(self, name)
            if value != default:
                parameters[name] = (
                    orjson.dumps(value).decode() if isinstance(value, tuple) else value
                )
        return parameters


_DEFAULTS: Final = {field.name: field.default for field in dataclasses.fields(SamplingParams)}

Parser = Callable[[str, Any], Any]


def _integer(low: int, high: int) -> Parser:
    def parse(name: str, value: Any) -> int:
        if isinstance(value, str):
            with suppress(ValueError):
                value = int(value)
        if type(value) is float and value.is_integer():
            value = int(value)
        if type(value) is not int or not low <= value <= high:
            raise InvalidInput(
                f"parameter '{name}' must be an integer from {low} to {high}, got {shown(value)}"
            )
        return value

    return parse


def _number(low: float, high: float, *, above_low: bool = False) -> Parser:
    def parse(name: str, value: Any) -> float:
        if isinstance(value, str):
            with suppress(ValueError):
                value = float(value)
        if (
            type(value) not in (int, float)
            or not low <= value <= min(high, _LARGEST)
            or (above_low and value == low)
        ):
            bounds = f"{'above' if above_low else 'from'} {low:g}"
            if math.isfinite(high):
                bounds += f" to {high:g}"
            raise InvalidInput(f"parameter '{name}' must be a number {bounds}, got {shown(value)}")
        return float(value)

    return parse


def _boolean(name: str, value: Any) -> bool:
    if isinstance(value, str) and value.lower() in ("true", "false"):
        return value.lower() == "true"
    if type(value) is not bool:
        raise InvalidInput(f"parameter '{name}' must be true or false, got {shown(value)}")
    return value


def _list_of(what: str, most: int, allowed: Callable[[Any], bool]) -> Parser:
    def parse(name: str, value: Any) -> tuple[Any, ...]:
        if isinstance(value, str):
            # V2 parameters are scalars, so a list comes as its JSON text; other text is one item.
            value = _json_list(value) if value.startswith("[") else [value]
        if (
            not isinstance(value, list)
            or len(value) > most
            or not all(allowed(item) for item in value)
        ):
            raise InvalidInput(
                f"parameter '{name}' must be a list of at most {most} {what}, got {shown(value)}"
            )
        return tuple(value)

    return parse


def _is_stop(item: Any) -> bool:
    return isinstance(item, str) and item != ""


def _is_token_id(item: Any) -> bool:
    return type(item) is int and 0 <= item <= MAX_TOKEN_ID


def _json_list(text: str) -> Any:
    try:
        return orjson.loads(text)
    except ValueError:
        return [text]


PARSERS: Final[dict[str, Parser]] = {
    "max_tokens": _integer(1, 2**31 - 1),
    "min_tokens": _integer(0, 2**31 - 1),
    "temperature": _number(0, math.inf),
    "top_p": _number(0, 1, above_low=True),
    "top_k": _integer(-1, 2**31 - 1),
    "min_p": _number(0, 1),
    "presence_penalty": _number(-2, 2),
    "frequency_penalty": _number(-2, 2),
    "repetition_penalty": _number(0, math.inf, above_low=True),
    "stop": _list_of("non-empty strings", MAX_STOPS, _is_stop),
    "stop_token_ids": _list_of("token ids", MAX_STOPS, _is_token_id),
    "ignore_eos": _boolean,
    "skip_special_tokens": _boolean,
    "seed": _integer(-MAX_SEED - 1, MAX_SEED),
    "n": _integer(1, MAX_CHOICES),
}


def parse(values: Mapping[str, Any], *, default_max_tokens: int | None) -> SamplingParams:
    """Sampling parameters from `values`; numbers and booleans may come as strings.

    Raises InvalidInput for a name that is not in the table, a wrong type, or a value out of
    bounds; the message names the parameter and what is allowed.
    """
    parsed: dict[str, Any] = {"max_tokens": default_max_tokens}
    for name, value in values.items():
        parser = PARSERS.get(name)
        if parser is None:
            raise InvalidInput(f"parameter {shown(name)} is unknown; allowed: {', '.join(PARSERS)}")
        parsed[name] = parser(name, value)
    sampling = SamplingParams(**parsed)
    if sampling.max_tokens is not None and sampling.min_tokens > sampling.max_tokens:
        raise InvalidInput(
            f"parameter 'min_tokens' must be at most max_tokens ({sampling.max_tokens}), "
            f"got {sampling.min_tokens}"
        )
    return sampling
