"""How an answer reaches its caller: through ASGI, or straight onto the connection.

Under our own server the second way is open: the answer is one write, and a body that came with its
head is at hand. Anything that stands between server and endpoint and changes answers (CORS) hands
on another `send` than the server's, and then the answer goes the first way.
"""

from collections.abc import Iterable, Sequence
from typing import Final, Protocol

from starlette.types import Scope, Send
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, RequestResponseCycle

from openinference.deadlines import Caller

# The key under which a scope holds a Wire.
SCOPE: Final = "keepwarm.wire"
Headers = Iterable[tuple[str, str]]


class Answering(Protocol):
    """One request's answer: `whole`, or `begin`, parts and `end`."""

    async def whole(self, status: int, headers: Headers, body: bytes) -> None:
        """Sends all of it."""

    async def begin(self, headers: Headers) -> None:
        """Sends the head of an answer of unknown length, with status 200."""

    async def part(self, data: bytes) -> None:
        """Sends some of its body, which must not be empty."""

    async def end(self) -> None:
        """Ends it."""


class Asgi:
    """By ASGI's messages."""

    def __init__(self, send: Send) -> None:
        self._send = send

    async def whole(self, status: int, headers: Headers, body: bytes) -> None:
        pairs = [*headers, ("content-length", str(len(body)))]
        await self._start(status, pairs)
        await self._send({"type": "http.response.body", "body": body, "more_body": False})

    async def begin(self, headers: Headers) -> None:
        await self._start(200, headers)

    async def part(self, data: bytes) -> None:
        await self._send({"type": "http.response.body", "body": data, "more_body": True})

    async def end(self) -> None:
        await self._send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _start(self, status: int, headers: Headers) -> None:
        raw = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers]
        await self._send({"type": "http.response.start", "status": status, "headers": raw})


class Wire:
    """Onto the connection, as uvicorn's own `send` would; keeps what it keeps."""

    __slots__ = ("_chunked", "caller", "cycle")

    def __init__(self, cycle: RequestResponseCycle) -> None:
        self.cycle = cycle
        # Tell it when the connection is gone.
        self.caller = Caller()
        self._chunked = True

    @property
    def is_open(self) -> bool:
        """Whether the answer is not complete."""
        return not self.cycle.response_complete

    def body(self) -> bytes | None:
        """The request's body when all of it is there; it may be asked for once."""
        return None if self.cycle.more_body else bytes(self.cycle.body)

    async def whole(self, status: int, headers: Headers, body: bytes) -> None:
        cycle = self.cycle
        if cycle.flow.write_paused and not cycle.disconnected:
            await cycle.flow.drain()
        if cycle.disconnected:
            return
        head = self._head(status, headers)
        head.append(b"content-length: %d\r\n\r\n" % len(body))
        if cycle.scope["method"] != "HEAD":
            head.append(body)
        cycle.transport.write(b"".join(head))
        self._complete()

    async def begin(self, headers: Headers) -> None:
        cycle = self.cycle
        if cycle.disconnected:
            return
        head = self._head(200, headers)
        # HTTP/1.0 knows no chunks: there the end of the connection is the answer's.
        self._chunked = cycle.scope["http_version"] != "1.0"
        head.append(b"transfer-encoding: chunked\r\n\r\n" if self._chunked else b"\r\n")
        cycle.transport.write(b"".join(head))

    async def part(self, data: bytes) -> None:
        cycle = self.cycle
        if cycle.flow.write_paused and not cycle.disconnected:
            await cycle.flow.drain()
        if not cycle.disconnected:
            cycle.transport.write(b"%x\r\n%b\r\n" % (len(data), data) if self._chunked else data)

    async def end(self) -> None:
        if not self.cycle.disconnected:
            if self._chunked:
                self.cycle.transport.write(b"0\r\n\r\n")
            self._complete()

    def _head(self, status: int, headers: Headers) -> list[bytes]:
        cycle = self.cycle
        cycle.response_started = True
        cycle.waiting_for_100_continue = False
        head = [STATUS_LINE[status], default_head(cycle.default_headers)]
        said = "".join([f"{name}: {value}\r\n" for name, value in headers])
        head.append(said.encode("latin-1"))
        if not cycle.keep_alive:
            head.append(b"connection: close\r\n")
        return head

    def _complete(self) -> None:
        cycle = self.cycle
        cycle.response_complete = True
        # They hold each other, which only the garbage collector would find.
        cycle.scope.pop(SCOPE, None)  # type: ignore[typeddict-item]
        cycle.message_event.set()
        if not cycle.keep_alive:
            cycle.transport.close()
        cycle.on_response()


class _Latest:
    """The headers of every answer, as they were last; uvicorn makes a new list each second."""

    headers: Sequence[tuple[bytes, bytes]] = ()
    text = b""


def default_head(headers: Sequence[tuple[bytes, bytes]]) -> bytes:
    """Uvicorn's `default_headers` as lines."""
    if headers is not _Latest.headers:
        _Latest.text = b"".join([b"%b: %b\r\n" % pair for pair in headers])
        _Latest.headers = headers
    return _Latest.text


def answering(scope: Scope, send: Send) -> Answering:
    """The shortest way for the answer to a request."""
    wire: Wire | None = scope.get(SCOPE)
    if wire is not None and send == wire.cycle.send:
        return wire
    return Asgi(send)


def body_at_hand(scope: Scope, send: Send) -> bytes | None:
    """The request's body, if it can be had without waiting; then `receive` need not be asked."""
    wire: Wire | None = scope.get(SCOPE)
    return wire.body() if wire is not None and send == wire.cycle.send else None
