"""Requests that have come before, byte for byte: what they say need not be read again.

A small request that arrives whole is looked up by its bytes, but for its X-Request-ID and its
traceparent, of which proxies give one to each. What is remembered is what it says, no more: whether
the caller may ask, what it costs and what the answer is, the service decides each time, and when it
cannot do so at once the request goes the usual way.
"""

import re
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, NamedTuple, Protocol, runtime_checkable

from openinference import metrics
from openinference.context import (
    REQUEST_ID,
    TRACEPARENT,
    RequestContext,
    new_request_id,
    usable_request_id,
    usable_traceparent,
)
from openinference.errors import ServingError
from openinference.generation import Chunk, GenerationRequest

# Of one request, in bytes: what arrives in one piece is hardly longer.
MOST_BYTES: Final = 16 * 2**10
ALL_BYTES: Final = 16 * 2**20
# A longer body is formatted each time.
BODY_BYTES: Final = 8 * 2**10
# What an entry takes at most beside its own bytes: the body, its texts, and the rest.
_ENTRY_BYTES: Final = 2 * BODY_BYTES + 4096
# Header lines of a head; a value that is not plain text is the parser's to refuse.
_IDS: Final = re.compile(
    rb"\r\n(?:(%b)|(%b)):([\x20-\x7e]*)(?=\r\n)" % (REQUEST_ID.encode(), TRACEPARENT.encode()),
    re.IGNORECASE,
)
# The key under which an ASGI scope holds a Candidate.
SCOPE: Final = "keepwarm.repeat"


class Arrival(NamedTuple):
    """A request's bytes: `said` without the lines of its ids, and those where they are usable."""

    said: bytes
    request_id: str | None = None
    traceparent: str | None = None


def arrival(data: bytes) -> Arrival | None:
    """What has arrived; None for what is too long to be remembered or has an id twice."""
    if len(data) > MOST_BYTES:
        return None
    request_id = traceparent = None
    said, read = b"", 0
    # Of the head, with the end of its last line.
    for line in _IDS.finditer(data, 0, data.find(b"\r\n\r\n") + 2):
        value = line[3].decode().strip()
        if line[2] is None and request_id is None:
            request_id = value
        elif line[2] is not None and traceparent is None:
            traceparent = value
        else:
            return None
        said += data[read : line.start()]
        read = line.end()
    if not read:
        return Arrival(data)
    return Arrival(
        said + data[read:], usable_request_id(request_id), usable_traceparent(traceparent)
    )


@runtime_checkable
class Keeper(Protocol):
    """A service that may have an answer at hand."""

    @property
    def keeps(self) -> bool:
        """Whether it ever has one; if not, nothing need be remembered for it."""

    def kept(
        self, request: GenerationRequest, version: str | None, context: RequestContext
    ) -> tuple[Chunk, ...] | None:
        """The chunks of an answer that needs no waiting at all; None, and nothing done, else.

        The same tuple for the same answer, where that is known.
        """


@dataclass(slots=True)
class Repeat:
    """What a request said. `context` is as it was then; its deadline says nothing of another time.

    `body_of` formats what the same chunks always give; `opening` is what each answer begins with
    anew.
    """

    keeper: Keeper
    endpoint: metrics.Endpoint
    request: GenerationRequest
    version: str | None
    context: RequestContext
    body_of: Callable[[tuple[Chunk, ...]], bytes]
    opening: Callable[[], bytes] = bytes
    chunks: tuple[Chunk, ...] = ()
    body: bytes = b""

    def answer(self, arrived: Arrival, address: str) -> bytes | None:
        """The headers and the body of the answer; None when the service has to wait.

        `address` is the caller's IP.
        """
        began = time.perf_counter()
        was = self.context
        caller = was.caller
        if caller.address != address:
            caller = caller._replace(address=address)
        context = RequestContext(
            arrived.request_id or new_request_id(),
            None,
            arrived.traceparent,
            None,
            was.tenant,
            was.plan,
            was.priority,
            caller,
        )
        try:
            chunks = self.keeper.kept(self.request, self.version, context)
        except ServingError:
            return None
        if chunks is None:
            return None
        body = self.body if self.body and chunks is self.chunks else self._formatted(chunks)
        opening = self.opening()
        self.endpoint.answered("200", time.perf_counter() - began)
        headers = "\r\n".join([": ".join(each) for each in context.returned().items()])
        return b"content-length: %d\r\ncontent-type: application/json\r\n%b\r\n\r\n%b%b" % (
            len(opening) + len(body),
            headers.encode("latin-1"),
            opening,
            body,
        )

    def _formatted(self, chunks: tuple[Chunk, ...]) -> bytes:
        body = self.body_of(chunks)
        is_kept = len(body) <= BODY_BYTES
        self.body, self.chunks = (body, chunks) if is_kept else (b"", ())
        return body


class Repeats:
    """What is remembered of requests, the least recently used forgotten first."""

    def __init__(self, all_bytes: int = ALL_BYTES) -> None:
        self._most = all_bytes
        self._repeats: OrderedDict[bytes, Repeat] = OrderedDict()
        self._bytes = 0

    def answer(self, arrived: Arrival, address: str) -> bytes | None:
        """What to answer with status 200; None for the usual way."""
        repeat = self._repeats.get(arrived.said)
        if repeat is None:
            return None
        self._repeats.move_to_end(arrived.said)
        return repeat.answer(arrived, address)

    def keep(self, said: bytes, repeat: Repeat) -> None:
        """Remembers what `said` says."""
        if said not in self._repeats:
            self._bytes += _size(said)
        self._repeats[said] = repeat
        while self._bytes > self._most:
            forgotten, _ = self._repeats.popitem(last=False)
            self._bytes -= _size(forgotten)


@dataclass(frozen=True, slots=True)
class Candidate:
    """A request that may come again, and where to remember it."""

    repeats: Repeats
    said: bytes

    def keep(self, repeat: Repeat) -> None:
        """Remembers what it says."""
        self.repeats.keep(self.said, repeat)


def _size(said: bytes) -> int:
    """What an entry takes: what was said is there as bytes and as a request."""
    return _ENTRY_BYTES + 3 * len(said)
