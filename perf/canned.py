"""What the cheap predictors answer, and how they keep the pace that a prompt asks for.

Every prompt is answered with the same text. A stream gives one token at a time: "5 ms between
tokens" is its pause, and "5 ms between tokens, in step" waits for the next beat of a clock that all
such streams share, as an engine's batch does. The first token comes at once either way.
"""

import asyncio
import gc
import re
from collections.abc import Callable
from typing import Final, Protocol

ANSWER: Final = " Paris is the capital of France, on the Seine; two million people live in it."
# By turns: LiteLLM breaks a stream off that says the same a hundred times.
_PIECES: Final = (" token", " another")
_PACE: Final = re.compile(rb"([0-9.]+) ms between tokens(, in step)?")


def piece(number: int) -> str:
    """The text of a stream's token, counted from 1."""
    return _PIECES[number % 2]


def pieces(tokens: int) -> list[str]:
    """The texts of a stream's tokens."""
    return [piece(number) for number in range(1, tokens + 1)]


def pace_of(message: bytes) -> tuple[float, bool] | None:
    """The pause in seconds and whether it is in step; None of a prompt that asks for no stream."""
    found = _PACE.search(message)
    return None if found is None else (float(found[1]) / 1e3, found[2] is not None)


async def serve(connection: Callable[[], asyncio.Protocol], port: int) -> None:
    """Serves with one `connection()` each on a loopback port, until the process is ended."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(connection, "127.0.0.1", port, backlog=8192)
    # The less this takes of the core it shares with the driver, the more is left to load with.
    gc.freeze()
    gc.set_threshold(50_000)
    await server.serve_forever()


class Paced:
    """Calls `send(number)` for the tokens 1 to `tokens` of one stream, then is done."""

    __slots__ = ("_due", "_next", "_pause_s", "_send", "_tokens", "ended")

    def __init__(self, send: Callable[[int], None], tokens: int, pause_s: float) -> None:
        self._send, self._tokens, self._pause_s = send, tokens, pause_s
        self._next, self._due, self.ended = 1, 0.0, False

    def token(self) -> bool:
        """Sends a token; whether there is another."""
        number = self._next
        self._next = number + 1
        self._send(number)
        return number < self._tokens

    def begin(self) -> None:
        """The first token now, each next one after its pause, by a clock that does not drift."""
        self._due = asyncio.get_running_loop().time()
        self._beat()

    def _beat(self) -> None:
        if self.ended or not self.token():
            return
        loop = asyncio.get_running_loop()
        if self._pause_s == 0:
            loop.call_soon(self._beat)
        else:
            self._due += self._pause_s
            loop.call_at(self._due, self._beat)


class Steps:
    """The clocks of streams that go in step, one for each pause."""

    def __init__(self) -> None:
        self._streams: dict[float, list[Paced]] = {}

    def join(self, stream: Paced, pause_s: float) -> None:
        """The first token now, the next ones at the beats."""
        if not stream.token():
            return
        streams = self._streams.get(pause_s)
        if streams is None:
            self._streams[pause_s] = [stream]
            loop = asyncio.get_running_loop()
            loop.call_later(pause_s, self._beat, pause_s, loop.time() + pause_s)
        else:
            streams.append(stream)

    def _beat(self, pause_s: float, due: float) -> None:
        streams = [s for s in self._streams.pop(pause_s) if not s.ended and s.token()]
        if streams:
            self._streams[pause_s] = streams
            due += pause_s
            asyncio.get_running_loop().call_at(due, self._beat, pause_s, due)


class Flushes(Protocol):
    """A connection that gathers what it has to say."""

    def flush(self) -> None:
        """Writes what has gathered."""


class Shared:
    """What the connections of a server share: the clocks, and when they write.

    What several streams of a connection say in one turn of the loop goes in one write.
    """

    def __init__(self) -> None:
        self.steps = Steps()
        self._touched: set[Flushes] = set()

    def sent(self, connection: Flushes) -> None:
        """Something waits in `connection`."""
        if not self._touched:
            asyncio.get_running_loop().call_soon(self._flush)
        self._touched.add(connection)

    def _flush(self) -> None:
        for connection in self._touched:
            connection.flush()
        self._touched.clear()
