"""Sampling parameters: one table of names, types and bounds for every protocol.

V2 requests carry them as request parameters, generate in `parameters`, OpenAI in the body. Each
protocol brings its own defaults; what is not in the table is refused by name.
"""

import dataclasses
import math
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

import orjson

from openinference import structured
from openinference.errors import InvalidInput, shown
from openinference.structured import StructuredOutputs

MAX_CHOICES = 128
MAX_STOPS = 16
MAX_SEED = 2**63 - 1
MAX_TOKEN_ID = 2**31 - 1
MAX_LOGPROBS = 20
MAX_BIASED_TOKENS = 300
MAX_BIAS = 100
_LARGEST: Final = sys.float_info.max


@dataclass(frozen=True, slots=True)
class SamplingParams:
    """How to sample. `max_tokens` None means up to the end of the model's context.

    `logprobs` is how many of the likeliest tokens of each place to tell beside the chosen one; None
    tells nothing. `logit_bias` are pairs of token id and what is added to its logit.
    A prompt of more than `max_prompt_tokens` is refused; None is the model's own limit.
    """

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
    logprobs: int | None = None
    logit_bias: tuple[tuple[int, float], ...] = ()
    structured_outputs: StructuredOutputs | None = None
    max_prompt_tokens: int | None = None

    def set_parameters(self) -> dict[str, bool | int | float | str]:
        """What differs from the defaults, as V2 request parameters (lists as JSON strings)."""
        parameters: dict[str, bool | int | float | str] = {}
        for name, default in _DEFAULTS.items():
            value = getattr(self, name)
            if value != default:
                parameters[name] = (
                    value if isinstance(value, _SCALARS) else orjson.dumps(_json(value)).decode()
                )
        return parameters


_DEFAULTS: Final = {field.name: field.default for field in dataclasses.fields(SamplingParams)}
_SCALARS: Final = (bool, int, float, str)


def _json(value: Any) -> Any:
    if isinstance(value, StructuredOutputs):
        return value.members()
    # Pairs are a mapping, whose keys are strings in JSON.
    return {str(k): v for k, v in value} if isinstance(value[0], tuple) else value


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter: what it may be in words and as JSON schema.

    `checked` gives the value that is meant, `from_text` what a V2 parameter's text says; both raise
    ValueError.
    """

    allowed: str
    schema: Mapping[str, Any]
    checked: Callable[[Any], Any]
    from_text: Callable[[str], Any]


def _integer(low: int, high: int) -> Parameter:
    def checked(value: Any) -> int:
        if type(value) is float and value.is_integer():
            value = int(value)
        if type(value) is not int or not low <= value <= high:
            raise ValueError(value)
        return value

    schema = {"type": "integer", "minimum": low, "maximum": high}
    return Parameter(f"an integer from {low} to {high}", schema, checked, int)


def _number(low: float, high: float, *, above_low: bool = False) -> Parameter:
    largest = min(high, _LARGEST)

    def checked(value: Any) -> float:
        if (
            type(value) not in (int, float)
            or not low <= value <= largest
            or (above_low and value == low)
        ):
            raise ValueError(value)
        return float(value)

    allowed = f"a number {'above' if above_low else 'from'} {low:g}"
    schema = {"type": "number", "exclusiveMinimum" if above_low else "minimum": low}
    if math.isfinite(high):
        allowed += f" to {high:g}"
        schema["maximum"] = high
    return Parameter(allowed, schema, checked, float)


def _boolean() -> Parameter:
    def checked(value: Any) -> bool:
        if type(value) is not bool:
            raise ValueError(value)
        return value

    def from_text(text: str) -> Any:
        return {"true": True, "false": False}.get(text.lower(), text)

    return Parameter("true or false", {"type": "boolean"}, checked, from_text)


def _text() -> Parameter:
    def checked(value: Any) -> str:
        if not isinstance(value, str) or not value:
            raise ValueError(value)
        return value

    return Parameter("a non-empty string", {"type": "string", "minLength": 1}, checked, str)


def _list_of(what: str, most: int, item: Parameter) -> Parameter:
    def checked(value: Any) -> tuple[Any, ...]:
        if isinstance(value, str):
            value = [value]
        if not isinstance(value, list) or len(value) > most:
            raise ValueError(value)
        return tuple(map(item.checked, value))

    def from_text(text: str) -> Any:
        # V2 parameters are scalars, so a list comes as its JSON text; other text is one item.
        if text.startswith("["):
            try:
                return orjson.loads(text)
            except orjson.JSONDecodeError:
                pass
        return text

    schema: dict[str, Any] = {"type": "array", "items": item.schema, "maxItems": most}
    if item.schema["type"] == "string":
        schema = {"anyOf": [item.schema, schema]}
    return Parameter(f"a list of at most {most} {what}", schema, checked, from_text)


def _logit_bias() -> Parameter:
    def pair(key: str, bias: Any) -> tuple[int, float]:
        token = int(key) if key.isascii() and key.isdecimal() and len(key) <= 10 else -1
        is_number = type(bias) in (int, float) and abs(bias) <= MAX_BIAS
        if not 0 <= token <= MAX_TOKEN_ID or not is_number:
            raise ValueError(key)
        # Not -0.0, which is equal to 0.0 and another text.
        return token, bias + 0.0

    def checked(value: Any) -> tuple[tuple[int, float], ...]:
        if not isinstance(value, dict) or len(value) > MAX_BIASED_TOKENS:
            raise ValueError(value)
        pairs = dict(pair(key, bias) for key, bias in value.items())
        if len(pairs) < len(value):
            raise ValueError(value)
        return tuple(sorted(pairs.items()))

    schema = {
        "type": "object",
        "maxProperties": MAX_BIASED_TOKENS,
        "propertyNames": {"pattern": "^(0|[1-9][0-9]{0,8})$"},
        "additionalProperties": {"type": "number", "minimum": -MAX_BIAS, "maximum": MAX_BIAS},
    }
    return Parameter(
        f"an object of at most {MAX_BIASED_TOKENS} token ids, each with a number "
        f"from {-MAX_BIAS} to {MAX_BIAS}",
        schema,
        checked,
        orjson.loads,
    )


def _structured_outputs() -> Parameter:
    return Parameter(
        f"an object with one of {', '.join(structured.Kind)}, of at most "
        f"{structured.MAX_SPEC_BYTES} bytes and {structured.MAX_DEPTH} levels",
        structured.SCHEMA,
        structured.parse,
        orjson.loads,
    )


PARAMETERS: Final[dict[str, Parameter]] = {
    "max_tokens": _integer(1, 2**31 - 1),
    "min_tokens": _integer(0, 2**31 - 1),
    "temperature": _number(0, math.inf),
    "top_p": _number(0, 1),
    "top_k": _integer(-1, 2**31 - 1),
    "min_p": _number(0, 1),
    "presence_penalty": _number(-2, 2),
    "frequency_penalty": _number(-2, 2),
    "repetition_penalty": _number(0, math.inf, above_low=True),
    "stop": _list_of("non-empty strings", MAX_STOPS, _text()),
    "stop_token_ids": _list_of("token ids", MAX_STOPS, _integer(0, MAX_TOKEN_ID)),
    "ignore_eos": _boolean(),
    "skip_special_tokens": _boolean(),
    "seed": _integer(-MAX_SEED - 1, MAX_SEED),
    "n": _integer(1, MAX_CHOICES),
    "logprobs": _integer(0, MAX_LOGPROBS),
    "logit_bias": _logit_bias(),
    "structured_outputs": _structured_outputs(),
    "max_prompt_tokens": _integer(1, 2**31 - 1),
}


# Whose values may take any room.
_LONG: Final = frozenset(
    name
    for name, parameter in PARAMETERS.items()
    if parameter.schema.get("type") not in ("integer", "number", "boolean")
)


@lru_cache(maxsize=1024)
def _of_numbers(said: tuple[tuple[str, Any], ...]) -> SamplingParams:
    """Parameters from checked values, of which callers give the same few again and again."""
    return SamplingParams(**dict(said))


def parse(
    values: Mapping[str, Any], *, default_max_tokens: int | None, texts: bool = False
) -> SamplingParams:
    """Sampling parameters from `values`.

    With `texts` any value may come as text, for old V2 clients have no numbers and none has lists.
    Raises InvalidInput for a name that is not in the table, a wrong type, or a value out of
    bounds; the message names the parameter and what is allowed.
    """
    parsed: dict[str, Any] = {"max_tokens": default_max_tokens}
    for name, value in values.items():
        parameter = PARAMETERS.get(name)
        if parameter is None:
            raise InvalidInput(
                f"parameter {shown(name)} is unknown; allowed: {', '.join(PARAMETERS)}"
            )
        try:
            parsed[name] = parameter.checked(
                parameter.from_text(value) if texts and isinstance(value, str) else value
            )
        except ValueError:
            raise InvalidInput(
                f"parameter '{name}' must be {parameter.allowed}, got {shown(value)}"
            ) from None
    sampling = (
        _of_numbers(tuple(parsed.items())) if _LONG.isdisjoint(parsed) else SamplingParams(**parsed)
    )
    if sampling.max_tokens is not None and sampling.min_tokens > sampling.max_tokens:
        raise InvalidInput(
            f"parameter 'min_tokens' must be at most max_tokens ({sampling.max_tokens}), "
            f"got {sampling.min_tokens}"
        )
    return sampling
