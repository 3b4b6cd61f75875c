"""Which requests are the same: one digest for all that must get the same answer.

Two requests are the same when the engine would be asked the same, whatever protocol they came by:
defaults are resolved, and what changes nothing (streaming, request id, deadline, and at temperature
0 whatever only shapes chance) is not in it. The weights that answer are not in it either: they are
known only afterwards, and stand beside the digest wherever an answer is kept.
"""

import dataclasses
import hashlib
from operator import attrgetter
from typing import Final

import orjson

from openinference.generation import GenerationRequest
from openinference.sampling import SamplingParams
from openinference.text_tensors import UNBOUNDED

# Part of the digest and of every name in Redis: a change of either form leaves the old behind.
SCHEMA: Final = 1
DIGEST_BYTES: Final = 20
REMEMBERED: Final = 1024
# Longer ones (a grammar, stop strings) are said each time; this bounds what is held.
REMEMBERED_BYTES: Final = 1024

_NAMES: Final = tuple(field.name for field in dataclasses.fields(SamplingParams))
_values: Final = attrgetter(*_NAMES)
_AT: Final = {name: position for position, name in enumerate(_NAMES)}
_DEFAULTS: Final = _values(SamplingParams())
# At temperature 0 the likeliest token is taken: nothing is drawn, and nothing to draw from is cut.
_OF_CHANCE: Final = tuple(_AT[name] for name in ("seed", "top_p", "top_k", "min_p"))


def digest_of(request: GenerationRequest, scope: str | None) -> bytes:
    """The request's digest; `scope` is the tenant that the answer is for, None for everybody."""
    prompts = [p if isinstance(p, str) else p.messages for p in request.prompts]
    canonical = orjson.dumps(
        [SCHEMA, scope, request.model, prompts, _said(request.sampling)],
        option=orjson.OPT_SORT_KEYS,
    )
    return hashlib.blake2b(canonical, digest_size=DIGEST_BYTES).digest()


# Callers mostly say one of a few.
_remembered: Final[dict[SamplingParams, orjson.Fragment]] = {}


def _said(sampling: SamplingParams) -> orjson.Fragment:
    """What `sampling` asks of the engine, as a part of JSON."""
    known = _remembered.get(sampling)
    if known is not None:
        return known
    # Without -0.0, which is equal to 0.0 and another text.
    values = [value + 0.0 if type(value) is float else value for value in _values(sampling)]
    if sampling.max_tokens is None:
        values[_AT["max_tokens"]] = UNBOUNDED
    if sampling.temperature == 0:
        for position in _OF_CHANCE:
            values[position] = _DEFAULTS[position]
    elif sampling.top_k < 0:
        values[_AT["top_k"]] = _DEFAULTS[_AT["top_k"]]
    text = orjson.dumps(values, option=orjson.OPT_SORT_KEYS)
    said = orjson.Fragment(text)
    if len(text) <= REMEMBERED_BYTES:
        if len(_remembered) >= REMEMBERED:
            _remembered.clear()
        _remembered[sampling] = said
    return said


class Digests:
    """The digests of requests that come again as the same object, as the edge may hand them in."""

    def __init__(self) -> None:
        self._of: dict[tuple[int, str | None], tuple[GenerationRequest, bytes]] = {}

    def of(self, request: GenerationRequest, scope: str | None) -> bytes:
        """`digest_of`, remembered."""
        found = self._of.get((id(request), scope))
        # What is remembered is held, so nothing else can have its id.
        if found is not None:
            return found[1]
        if len(self._of) >= REMEMBERED:
            self._of.clear()
        digest = digest_of(request, scope)
        self._of[id(request), scope] = request, digest
        return digest
