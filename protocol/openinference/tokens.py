"""Tokens with their log probabilities, and their JSON in V2's `logprobs` output.

Source of `id`, `text`, `logprob` and `special`: OIP generate_rest.yaml, "Token".
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from openinference.errors import InternalError

# What log(0) becomes, for JSON has no infinity; OpenAI's own choice.
LEAST_LOGPROB = -9999.0


@dataclass(frozen=True, slots=True)
class Token:
    """A token: its number in the vocabulary, its text, and the log of its probability.

    `text` is "" where a character is not whole yet; the token that completes it has all of it.
    `top` are the likeliest tokens of this place, likeliest first, as many as were asked for.
    """

    id: int
    text: str
    logprob: float
    special: bool = False
    top: tuple["Token", ...] = ()


def encode(tokens: Sequence[Token]) -> bytes:
    """The JSON list of `tokens`."""
    return orjson.dumps([{**members(t), "top": [members(m) for m in t.top]} for t in tokens])


def decode(text: bytes) -> tuple[Token, ...]:
    """Tokens from their JSON list; raises InternalError, for only a predictor writes one."""
    try:
        return tuple(
            _token(item, tuple(_token(member, ()) for member in item["top"]))
            for item in _list(orjson.loads(text))
        )
    except (KeyError, TypeError, ValueError):
        raise InternalError("the predictor's log probabilities cannot be read") from None


def members(token: Token) -> dict[str, Any]:
    """What OIP tells of a token."""
    return {
        "id": token.id,
        "text": token.text,
        "logprob": token.logprob,
        "special": token.special,
    }


def _list(items: Any) -> list[Any]:
    if not isinstance(items, list):
        raise TypeError(items)
    return items


def _token(item: Any, top: tuple[Token, ...]) -> Token:
    number, text, logprob, special = item["id"], item["text"], item["logprob"], item["special"]
    if (
        type(number) is not int
        or type(text) is not str
        or type(logprob) not in (int, float)
        or not math.isfinite(logprob)
        or type(special) is not bool
    ):
        raise ValueError(item)
    return Token(number, text, float(logprob), special, top)
