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

import orjson

Snapshot = TypeVar("Snapshot")
# A connection that has had no answer for so long ends the run.
STALL_S = 30.0


@dataclass(frozen=True, slots=True)
class Exchange:
    """A request as it goes over the wire, and whether an answer (status, body) is right."""

    request: bytes
    is_right: Callable[[int, bytes], bool]


@dataclass(frozen=True, slots=True)
class Window(Generic[Snapshot]):
    """What was measured from `before` to `after`.

    `latencies_ms` are those of right answers, from the request's first byte to the answer's last;
    `first_ms` those to the answer's first event, and `events` how many came, for answers of
    server-sent events.
    """

    seconds: float
    before: Snapshot
    after: Snapshot
    latencies_ms: list[float]
    first_ms: list[float]
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


def infer_exchange(model: str, number: int, text: str, header: str = "") -> Exchange:
    """A V2 infer of one BYTES tensor; its answer must repeat the id and hold `text`."""
    request_id = f"connection-{number}"
    body = orjson.dumps(
        {
            "id": request_id,
            "inputs": [
                {
                    "name": "text_input",
                    "shape": [1],
                    "datatype": "BYTES",
                    "data": ["The capital of France is"],
                }
            ],
            "parameters": {"max_tokens": 16},
        }
    )

    def is_right(status: int, answer: bytes) -> bool:
        if status != 200:
            return False
        message = orjson.loads(answer)
        (output,) = message["outputs"]
        return bool(message["id"] == request_id and output["data"] == [text])

    return Exchange(http_post(f"/v2/models/{model}/infer", body, header), is_right)


def stream_exchange(model: str, *, tokens: int, pause_ms: float, token: str) -> Exchange:
    """A generate_stream; its events must hold `tokens` times `token`, one each."""
    body = orjson.dumps(
        {"text_input": f"{pause_ms:g} ms between tokens", "parameters": {"max_tokens": tokens}}
    )

    def is_right(status: int, answer: bytes) -> bool:
        events = [
            orjson.loads(event.removeprefix(b"data: ")) for event in answer.split(b"\n\n")[:-1]
        ]
        texts = [event["text_output"] for event in events]
        return status == 200 and texts == [token] * tokens

    return Exchange(http_post(f"/v2/models/{model}/generate_stream", body), is_right)


async def drive(
    port: int,
    exchanges: Sequence[Exchange],
    *,
    warm_up_s: float,
    seconds: float,
    snapshot: Callable[[], Snapshot],
) -> Window[Snapshot]:
    """Drives one connection for each exchange; what ends within the warm-up is not counted.

    Raises TimeoutError when a connection stalls, ConnectionError when one is closed.
    """
    loop = asyncio.get_running_loop()
    connections = []
    for exchange in exchanges:
        _, connection = await loop.create_connection(
            lambda exchange=exchange: _Connection(exchange),  # type: ignore[misc]
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
        sum(c.events for c in connections),
        sum(c.errors for c in connections),
    )


class _Connection(asyncio.Protocol):
    """One caller: sends, reads the whole answer, checks it, sends again."""

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange
        self._counting = False
        self._last = False
        self._began = 0.0
        self._answer = bytearray()
        self._first: float | None = None
        self.latencies_ms: list[float] = []
        self.first_ms: list[float] = []
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
        self._first = None
        self._began = time.perf_counter()
        self._transport.write(self._exchange.request)

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
        if self._counting:
            self.events += events
        if self._first is None and events:
            self._first = time.perf_counter()
            if self._counting:
                self.first_ms.append((self._first - self._began) * 1e3)
        if answer.endswith(b"0\r\n\r\n"):
            self._received(status, _unchunked(bytes(answer[head_end + 4 :])))

    def _received(self, status: int, body: bytes) -> None:
        now = time.perf_counter()
        if not self._exchange.is_right(status, body):
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
