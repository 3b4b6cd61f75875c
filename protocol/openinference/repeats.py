"""Requests that have come before, byte for byte: what they say need not be read again.

A small request that arrives whole is looked up by its bytes. What is remembered of it is what it
says, no more: whether the caller may ask, what it costs and what the answer is, the service decides
each time, and when it cannot do so at once the request goes the usual way.
"""

import logging
import random
import time
from collections import OrderedDict
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final, Protocol, runtime_checkable

from openinference import metrics
from openinference.context import RequestContext
from openinference.errors import ServingError
from openinference.generation import Chunk, GenerationRequest

logger = logging.getLogger("openinference.repeats")

# Of one request, in bytes: what arrives in one piece is hardly longer.
MOST_BYTES: Final = 16 * 2**10
ALL_BYTES: Final = 16 * 2**20
# What an entry takes beside its bytes.
_ENTRY_BYTES: Final = 4096
# The key under which an ASGI scope holds a Candidate.
SCOPE: Final = "keepwarm.repeat"


@runtime_checkable
class Keeper(Protocol):
    """A service that may have an answer at hand."""

    def kept(
        self, request: GenerationRequest, version: str | None, context: RequestContext
    ) -> AsyncGenerator[Chunk, None] | None:
        """The chunks of an answer that needs no waiting at all; None, and nothing done, else."""


@dataclass(slots=True)
class Repeat:
    """What a request said. `context` is as it was then, `timeout_s` what the request may take.

    `body_of` formats what the same chunks always give; `opening` is what each answer begins with
    anew.
    """

    keeper: Keeper
    endpoint: metrics.Endpoint
    request: GenerationRequest
    version: str | None
    context: RequestContext
    timeout_s: float | None
    body_of: Callable[[Sequence[Chunk]], bytes]
    opening: Callable[[], bytes] = bytes
    chunks: Sequence[Chunk] = ()
    body: bytes = b""

    def answer(self, address: str, now: float) -> bytes | None:
        """The headers and the body of the answer at `now`; None when the service has to wait.

        `address` is the caller's IP.
        """
        began = time.perf_counter()
        was = self.context
        caller = was.caller
        if caller.address != address:
            caller = replace(caller, address=address)
        context = RequestContext(
            f"{random.getrandbits(128):032x}",
            None if self.timeout_s is None else now + self.timeout_s,
            None,
            None,
            was.tenant,
            was.plan,
            was.priority,
            caller,
        )
        try:
            kept = self.keeper.kept(self.request, self.version, context)
            chunks = None if kept is None else _at_once(kept)
        except ServingError:
            return None
        if chunks is None:
            return None
        if not self._is_same(chunks):
            self.body = self.body_of(chunks)
            self.chunks = chunks
        opening = self.opening()
        self.endpoint.at_once("200", time.perf_counter() - began)
        headers = "".join([f"{name}: {value}\r\n" for name, value in context.returned().items()])
        return b"content-length: %d\r\ncontent-type: application/json\r\n%b\r\n%b%b" % (
            len(opening) + len(self.body),
            headers.encode("latin-1"),
            opening,
            self.body,
        )

    def _is_same(self, chunks: Sequence[Chunk]) -> bool:
        return len(chunks) == len(self.chunks) and all(
            new is old for new, old in zip(chunks, self.chunks, strict=True)
        )


class Repeats:
    """What is remembered of requests, the least recently used forgotten first."""

    def __init__(self, all_bytes: int = ALL_BYTES) -> None:
        self._most = all_bytes
        self._repeats: OrderedDict[bytes, Repeat] = OrderedDict()
        self._bytes = 0

    def answer(self, raw: bytes, address: str, now: float) -> bytes | None:
        """What to answer with status 200 to the request `raw`; None for the usual way."""
        repeat = self._repeats.get(raw)
        if repeat is None:
            return None
        self._repeats.move_to_end(raw)
        return repeat.answer(address, now)

    def keep(self, raw: bytes, repeat: Repeat) -> None:
        """Remembers what `raw` says."""
        if raw not in self._repeats:
            self._bytes += _ENTRY_BYTES + len(raw)
        self._repeats[raw] = repeat
        while self._bytes > self._most:
            forgotten, _ = self._repeats.popitem(last=False)
            self._bytes -= _ENTRY_BYTES + len(forgotten)


@dataclass(frozen=True, slots=True)
class Candidate:
    """A request that may come again, and where to remember it."""

    repeats: Repeats
    raw: bytes

    def keep(self, repeat: Repeat) -> None:
        """Remembers what it says."""
        self.repeats.keep(self.raw, repeat)


def _at_once(chunks: AsyncGenerator[Chunk, None]) -> list[Chunk] | None:
    """All chunks of a generator that never waits; None, and it is closed, if it does."""
    got: list[Chunk] = []
    while True:
        step = chunks.__anext__()
        try:
            step.send(None)
        except StopIteration as one:
            got.append(one.value)
        except StopAsyncIteration:
            return got
        else:
            logger.error("an answer that was at hand waits")
            step.close()
            return None
