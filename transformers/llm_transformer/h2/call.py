"""One call: a request going out as the peer's window allows, messages and a status coming in."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Final, Protocol

from grpc import StatusCode

from llm_transformer.h2 import status
from llm_transformer.h2.frames import MessageReader, ProtocolError
from llm_transformer.h2.status import CallError, Headers

# What a peer may send ahead of who reads the call. A message that is larger is let through.
WINDOW: Final = 2**18


class Connection(Protocol):
    """What a call needs of its connection."""

    def credit(self, stream: int, octets: int) -> None:
        """Lets the peer send more on a stream."""

    def abandon(self, stream: int) -> None:
        """Tells the peer that nobody waits for the stream any more."""


class Call:
    """Sent by `Channel.open`; `close` it, whatever became of it."""

    __slots__ = (
        "_begun",
        "_connection",
        "_error",
        "_held",
        "_is_over",
        "_loop",
        "_messages",
        "_reader",
        "_resend",
        "_timer",
        "_uncredited",
        "_waiter",
        "pending",
        "send_window",
        "stream",
        "trailing",
    )

    def __init__(self, resend: Callable[["Call"], Awaitable[bool]]) -> None:
        """`resend` sends what no server has looked at once more; False if it was tried enough."""
        self._resend = resend
        self._loop = asyncio.get_running_loop()
        self.trailing: Headers = ()
        self._reader = MessageReader()
        self._messages: deque[bytes] = deque()
        self._held = 0  # bytes in messages that nobody has taken
        self._uncredited = 0  # bytes received that the peer was given no new window for
        self._waiter: asyncio.Future[None] | None = None
        self._error: CallError | None = None
        self._is_over = False
        self._begun = False
        self._timer: asyncio.TimerHandle | None = None

    def begin(self, connection: Connection, stream: int, send_window: int) -> None:
        """The call is about to be sent there."""
        self._connection = connection
        self.stream = stream
        self.send_window = send_window
        # What of the request has not been sent.
        self.pending = b""
        self._error = None
        self._is_over = self._begun = False

    async def read(self) -> list[bytes]:
        """The messages that have come, at least one; none when the call has ended well.

        Raises CallError when it has not, after the messages that came before.
        """
        while not self._messages:
            if self._is_over:
                if self._error is None:
                    return []
                if self._error.is_unseen and await self._resend(self):
                    continue
                raise self._error
            self._waiter = self._loop.create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        messages = list(self._messages)
        self._messages.clear()
        self._held = 0
        self._give_credit()
        return messages

    def close(self) -> None:
        """Ends the call; what is still to come is not wanted."""
        self._drop("closed", StatusCode.CANCELLED)

    def end_at(self, due: float) -> None:
        """Gives the call a deadline, on the event loop's clock."""
        self._timer = self._loop.call_at(
            due, self._drop, "the deadline has passed", StatusCode.DEADLINE_EXCEEDED
        )

    # What the connection tells.

    def headers(self, headers: Headers, *, ends: bool) -> None:
        """A header block has come: the first, or the trailers."""
        if not self._begun:
            self._begun = True
            if wrong := status.of_headers(headers):
                # Not for us; what it says beside its status is not read.
                self._finish(wrong)
                if not ends:
                    self._connection.abandon(self.stream)
                return
            if not ends:
                return
        elif not ends:
            # Neither first nor last: informational headers are not gRPC's.
            return
        error, self.trailing = status.of_trailers(headers)
        if error is None and self._reader.partial:
            error = CallError(StatusCode.INTERNAL, "the answer ends within a message")
        self._finish(error)

    def data(self, payload: bytes, octets: int, *, ends: bool) -> None:
        """DATA has come; `octets` is its size with padding. Raises ProtocolError."""
        if not self._begun:
            raise ProtocolError("an answer without headers")
        messages = self._reader.feed(payload)
        self._uncredited += octets
        if messages:
            self._messages.extend(messages)
            self._held += sum(map(len, messages))
            self._wake()
        if ends:
            self._finish(CallError(StatusCode.INTERNAL, "the answer ends without a status"))
        else:
            self._give_credit()

    def fail(self, error: CallError) -> None:
        """The stream or its connection is gone."""
        self._finish(error)

    def _drop(self, why: str, code: StatusCode) -> None:
        if not self._is_over:
            self._finish(CallError(code, why))
            self._connection.abandon(self.stream)

    def _finish(self, error: CallError | None) -> None:
        if self._is_over:
            return
        self._is_over = True
        self._error = error
        self.pending = b""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _give_credit(self) -> None:
        owed = self._uncredited - self._held
        if owed >= WINDOW // 2 and not self._is_over:
            self._uncredited -= owed
            self._connection.credit(self.stream, owed)
