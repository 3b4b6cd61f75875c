"""A closed-loop HTTP/1.1 driver on raw sockets: each connection sends when it has its answer.

Requests are bytes made before the run and answers are parsed just enough to check them, so that
the driver costs a fraction of what it measures. A closed loop waits with a slow server: its
latencies are those of so many callers, not of an arrival rate.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar, cast

Snapshot = TypeVar("Snapshot")
# A connection that has had no answer for so long ends the run.
STALL_S = 30.0


@dataclass(frozen=True, slots=True)
class Exchange:
    """A request as it goes over the wire, and whether an answer (status, body) is right.

    `fresh` makes a request that nobody has sent before, where that matters; else `request` is sent
    again and again.
    """

    request: bytes
    is_right: Callable[[int, bytes], bool]
    fresh: Callable[[], bytes] | None = None


@dataclass(frozen=True, slots=True)
class Window(Generic[Snapshot]):
    """What was measured from `before` to `after`.

    `latencies_ms` are those of right answers, from the request's first byte to the answer's last;
    `first_ms` those to the answer's first event, `between_ms` those from one read with events to
    the next of the same answer, and `events` how many came, for answers of server-sent events.
    """

    seconds: float
    before: Snapshot
    after: Snapshot
    latencies_ms: list[float]
    first_ms: list[float]
    between_ms: list[float]
    events: int
    errors: int


def http_post(path: str, body: bytes, header: str = "") -> bytes:
    """A POST of JSON as it goes over the wire; `header` is one more."""
    more = f"{header}\r\n" if header else ""
    head = (
        f"POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
        f"content-length: {len(body)}\r\n{more}\r\n"
    )
    return head.encode() + body


async def drive(
    port: int,
    exchanges: Sequence[Exchange],
    *,
    warm_up_s: float,
    seconds: float,
    snapshot: Callable[[], Snapshot],
    early_firsts: bool = False,
) -> Window[Snapshot]:
    """Drives one connection for each exchange; what ends within the warm-up is not counted.

    With `early_firsts` the times to a first event within the warm-up are: those of streams so long
    that none begins after it.

    Raises TimeoutError when a connection stalls, ConnectionError when one is closed.
    """
    loop = asyncio.get_running_loop()
    connections = []
    for exchange in exchanges:
        _, connection = await loop.create_connection(
            lambda exchange=exchange: _Connection(exchange, early_firsts=early_firsts),  # type: ignore[misc]
            "127.0.0.1",
            port,
        )
        connections.append(connection)
    # Spread, so that streams of one length do not all begin and end together.
    for connection in connections:
        connection.send()
        await asyncio.sleep(warm_up_s / len(connections))
    for connection in connections:
        connection.begin_window()
    start, before = time.perf_counter(), snapshot()
    await asyncio.sleep(seconds)
    end, after = time.perf_counter(), snapshot()
    for connection in connections:
        connection.end_window()
    await asyncio.wait_for(asyncio.gather(*(c.idle for c in connections)), STALL_S)
    return Window(
        end - start,
        before,
        after,
        [latency for c in connections for latency in c.latencies_ms],
        [first for c in connections for first in c.first_ms],
        [between for c in connections for between in c.between_ms],
        sum(c.events for c in connections),
        sum(c.errors for c in connections),
    )


class _Connection(asyncio.Protocol):
    """One caller: sends, reads the whole answer, checks it, sends again."""

    def __init__(self, exchange: Exchange, *, early_firsts: bool) -> None:
        self._exchange = exchange
        self._early_firsts = early_firsts
        self._counting = False
        self._last = False
        self._began = 0.0
        self._answer = bytearray()
        self._latest: float | None = None
        self.latencies_ms: list[float] = []
        self.first_ms: list[float] = []
        self.between_ms: list[float] = []
        self.events = 0
        self.errors = 0
        self.idle: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are none of asyncio's classes.
        self._transport = cast("asyncio.Transport", transport)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.idle.done():
            self.idle.set_exception(ConnectionError(f"the server closed a connection: {exc}"))

    def begin_window(self) -> None:
        """From now on answers count."""
        self._counting = True

    def end_window(self) -> None:
        """From now on answers do not count, and the next one is the last."""
        self._counting = False
        self._last = True

    def send(self) -> None:
        self._answer.clear()
        self._latest = None
        fresh = self._exchange.fresh
        request = self._exchange.request if fresh is None else fresh()
        self._began = time.perf_counter()
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        answer = self._answer
        answer += data
        head_end = answer.find(b"\r\n\r\n")
        if head_end < 0:
            return
        head = bytes(answer[:head_end]).lower()
        status = int(head[9:12])
        at = head.find(b"content-length:")
        if at >= 0:
            length = int(head[at + 15 :].split(b"\r\n", 1)[0])
            if len(answer) - head_end - 4 == length:
                self._received(status, bytes(answer[head_end + 4 :]))
            return
        events = data.count(b"data: ")
        if events:
            now, latest = time.perf_counter(), self._latest
            self._latest = now
            since_ms = (now - (self._began if latest is None else latest)) * 1e3
            if self._counting:
                self.events += events
                if latest is not None:
                    self.between_ms.append(since_ms)
            if latest is None and (self._counting or self._early_firsts):
                self.first_ms.append(since_ms)
        if answer.endswith(b"0\r\n\r\n"):
            self._received(status, _unchunked(bytes(answer[head_end + 4 :])))

    def _received(self, status: int, body: bytes) -> None:
        now = time.perf_counter()
        try:
            is_right = self._exchange.is_right(status, body)
        except (ValueError, LookupError, TypeError):
            # What cannot be read is wrong.
            is_right = False
        if not is_right:
            self.errors += 1
        elif self._counting:
            self.latencies_ms.append((now - self._began) * 1e3)
        if self._last:
            self.idle.set_result(None)
            self._transport.close()
        else:
            self.send()


def _unchunked(body: bytes) -> bytes:
    """A body without its chunked transfer coding."""
    parts: list[bytes] = []
    while True:
        size, _, body = body.partition(b"\r\n")
        length = int(size, 16)
        if length == 0:
            return b"".join(parts)
        parts.append(body[:length])
        body = body[length + 2 :]
