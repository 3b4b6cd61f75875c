"""An open-loop HTTP/1.1 driver: requests leave when they are due, whoever has been answered.

Latencies count from when a request was due, so that a driver or a server that is late cannot hide
it (coordinated omission). Answers are read on raw asyncio protocols: thousands of streams at a time
cost one core little. A request that is neither answered nor cut within its patience is a hung one.
"""

import asyncio
import math
import resource
import ssl
import time
from collections.abc import Callable, Coroutine, Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import urlsplit

import httptools
import orjson
from schedule import Stage, times
from sse import Event, EventReader

if TYPE_CHECKING:
    from array import array


@dataclass(slots=True)
class Reply:
    """What a caller got.

    `status` is 0 when nothing came; `ended` is whether the answer was whole by HTTP's own rules,
    `hung` whether the caller's patience ended it, `failure` what became of the connection
    otherwise. Seconds from when the request was due: `late_s` to when the driver turned to it,
    `first_s` to the first event with text, `total_s` to the end; `gap_s` is the longest time
    between two reads with events after that. `events` are all for who keeps them, else the last.
    """

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    events: list[Event] = field(default_factory=list)
    late_s: float = 0.0
    first_s: float | None = None
    total_s: float = 0.0
    gap_s: float = 0.0
    pieces: int = 0
    ended: bool = False
    hung: bool = False
    failure: str = ""


def _any(_: Event) -> bool:
    return True


class Callers:
    """Callers of one server, who share its idle connections; `gaps` keeps the times between reads.

    A request needs a connection of its own while it lasts, so there are as many as there are
    requests in flight.
    """

    def __init__(
        self,
        url: str,
        *,
        headers: dict[str, str] | None = None,
        has_text: Callable[[Event], bool] = _any,
        keep: bool = False,
        reuse: bool = True,
        gaps: "array[float] | None" = None,
    ) -> None:
        """`keep` keeps every event; without `reuse` each request opens a connection."""
        parts = urlsplit(url)
        self._host = parts.hostname or "127.0.0.1"
        self._ssl = ssl.create_default_context() if parts.scheme == "https" else None
        self._port = parts.port or (443 if self._ssl else 80)
        self._prefix = parts.path.rstrip("/")
        # A Host of the caller's own is what a gateway routes by.
        fields = {"host": parts.netloc, "content-type": "application/json", **(headers or {})}
        lines = [
            *([] if reuse else ["connection: close"]),
            *(f"{name}: {value}" for name, value in fields.items()),
        ]
        self._head = "\r\n".join(lines)
        self._has_text = has_text
        self._keep = keep
        self._reuse = reuse
        self._gaps = gaps
        self._idle: list[_Connection] = []
        self.in_flight = 0
        self.most_in_flight = 0

    def close(self) -> None:
        """Closes the idle connections."""
        for connection in self._idle:
            connection.abort()
        self._idle.clear()

    async def post(
        self, path: str, content: bytes, *, due: float | None = None, patience_s: float = 60.0
    ) -> Reply:
        """One POST of JSON, due at that `time.monotonic`; raises nothing a server can cause."""
        due = time.monotonic() if due is None else due
        reply = Reply()
        request = (
            f"POST {self._prefix}{path} HTTP/1.1\r\n{self._head}\r\n"
            f"content-length: {len(content)}\r\n\r\n"
        ).encode() + content
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            async with asyncio.timeout(max(0.0, due + patience_s - time.monotonic())):
                await self._exchange(request, reply, due)
        except TimeoutError:
            reply.hung = True
        except ConnectionRefusedError:
            reply.failure = "refused"
        except OSError:
            reply.failure = "cut" if reply.status else "reset"
        finally:
            self.in_flight -= 1
            reply.total_s = time.monotonic() - due
        return reply

    async def _exchange(self, request: bytes, reply: Reply, due: float) -> None:
        reply.late_s = time.monotonic() - due
        while True:
            reused = bool(self._idle)
            connection = self._idle.pop() if reused else await self._connected()
            reader = EventReader(self._has_text, keep=self._keep)
            try:
                await connection.exchange(request, reply, reader, due, self._gaps)
            except ConnectionResetError:
                # A server may close what has been idle just when it is used: nothing was answered.
                if reused and not reply.status:
                    continue
                raise
            finally:
                if self._reuse and connection.is_clean:
                    self._idle.append(connection)
                else:
                    connection.abort()
            return

    async def _connected(self) -> "_Connection":
        loop = asyncio.get_running_loop()
        name = self._host if self._ssl else None
        _, connection = await loop.create_connection(
            _Connection, self._host, self._port, ssl=self._ssl, server_hostname=name
        )
        return connection


class _Connection(asyncio.Protocol):
    """One connection; the callbacks from `on_header` on are llhttp's, for one answer at a time."""

    def __init__(self) -> None:
        self._done: asyncio.Future[None] | None = None
        self._lost = False
        self._streams = False
        self._framed = False
        self.is_clean = True

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are none of asyncio's classes.
        self._transport = cast("asyncio.Transport", transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self._lost = True
        self.is_clean = False
        if self._done is None or self._done.done():
            return
        if self._reply.status and not self._framed and exc is None:
            # Neither a length nor chunks: it lasts as long as the connection (RFC 9112, 6.3).
            self.on_message_complete()
        else:
            self._done.set_exception(ConnectionResetError("the server closed the connection"))

    def abort(self) -> None:
        """Closes it at once."""
        self._transport.abort()

    async def exchange(
        self,
        request: bytes,
        reply: Reply,
        reader: EventReader,
        due: float,
        gaps: "array[float] | None",
    ) -> None:
        """Fills `reply`; raises ConnectionResetError when the connection ends before the answer."""
        if self._lost:
            raise ConnectionResetError("the server closed an idle connection")
        self._reply, self._reader, self._due, self._gaps = reply, reader, due, gaps
        self._parser = httptools.HttpResponseParser(self)
        self._body = b""
        self._last = 0.0
        self._streams = self._framed = False
        self.is_clean = False
        self._done = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        await self._done

    def data_received(self, data: bytes) -> None:
        if self._done is None or self._done.done():
            self.is_clean = False
            self._transport.abort()
            return
        self._now = time.monotonic()
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self._transport.abort()

    def on_header(self, name: bytes, value: bytes) -> None:
        self._reply.headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        headers = self._reply.headers
        self._reply.status = self._parser.get_status_code()
        self._streams = headers.get("content-type", "").startswith("text/event-stream")
        self._framed = "content-length" in headers or "transfer-encoding" in headers

    def on_body(self, piece: bytes) -> None:
        if not self._streams:
            self._body += piece
            return
        reply, reader = self._reply, self._reader
        pieces = reader.feed(piece)
        reply.pieces += pieces
        if reply.first_s is None:
            if reader.begun:
                reply.first_s = self._now - self._due
                self._last = self._now
        elif pieces and self._now > self._last:
            gap = self._now - self._last
            self._last = self._now
            reply.gap_s = max(reply.gap_s, gap)
            if self._gaps is not None:
                self._gaps.append(gap)

    def on_message_complete(self) -> None:
        reply = self._reply
        if 100 <= reply.status < 200:
            return
        reply.ended = True
        if self._streams:
            reply.events = self._reader.events or self._reader.last()
        else:
            reply.first_s = time.monotonic() - self._due
            try:
                reply.events = [orjson.loads(self._body)]
            except orjson.JSONDecodeError:
                reply.events = [{"error": "a body that is no JSON"}]
        self.is_clean = self._framed and self._parser.should_keep_alive() and not self._lost
        if self._done is not None and not self._done.done():
            self._done.set_result(None)


def allow_many_connections() -> None:
    """Lets this process have as many open files as it may; a connection is one."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


async def ask(
    port: int,
    path: str,
    body: Any,
    *,
    headers: dict[str, str] | None = None,
    patience_s: float = 60.0,
    due: float | None = None,
) -> Reply:
    """One POST of JSON to a loopback port, over a connection of its own; every event is kept."""
    callers = Callers(f"http://127.0.0.1:{port}", headers=headers, keep=True, reuse=False)
    return await callers.post(path, orjson.dumps(body), patience_s=patience_s, due=due)


def arrivals(rate_per_s: float, seconds: float, seed: int) -> Iterator[float]:
    """Times of a Poisson process, in seconds from its start."""
    return times((Stage(rate_per_s, rate_per_s, seconds),), seed=seed)


async def drive(
    due: Iterable[float], send: Callable[[int, float], Coroutine[Any, Any, None]]
) -> None:
    """Calls `send` with a number and the `time.monotonic` at which it is due; ends when all have.

    Timers have a resolution of a millisecond: rounded up, so that nothing leaves early.
    """
    began = time.monotonic()
    async with asyncio.TaskGroup() as group:
        for number, at in enumerate(due):
            wait = began + at - time.monotonic()
            if wait > 0 or number % 64 == 0:
                await asyncio.sleep(math.ceil(max(0.0, wait) * 1e3) / 1e3)
            group.create_task(send(number, began + at))
