"""One call: a request going out as the peer's window allows, messages and a status coming in."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, Protocol

from grpc import StatusCode

from llm_transformer.h2.frames import MessageReader, ProtocolError
from llm_transformer.h2.status import CallError, Fields, Headers
from openinference import alarms

# What a peer may send ahead of who reads the call. A message that is larger is let through.
WINDOW: Final = 2**18
# It is told of new room when there is so much.
LEAST_CREDIT: Final = WINDOW // 2


class Connection(Protocol):
    """What a call needs of its connection."""

    loop: asyncio.AbstractEventLoop

    def credit(self, stream: int, octets: int) -> None:
        """Lets the peer send more on a stream."""

    def abandon(self, stream: int) -> None:
        """Tells the peer that nobody waits for the stream any more."""


class Call:
    """Sent by `Channel.open`; `close` it, whatever became of it."""

    __slots__ = (
        "_alarm",
        "_begun",
        "_connection",
        "_error",
        "_held",
        "_is_over",
        "_messages",
        "_reader",
        "_resend",
        "_uncredited",
        "_waiter",
        "due",
        "message",
        "metadata",
        "opening",
        "pending",
        "refused",
        "send_window",
        "stream",
        "trailing",
    )

    def __init__(
        self,
        opening: bytes,
        metadata: bytes,
        message: bytes,
        due: float | None,
        resend: Callable[["Call"], Awaitable[bool]],
    ) -> None:
        """`opening` and `metadata` are of the header block, `due` is on the event loop's clock.

        `resend` sends what no server has looked at once more; False if it was tried enough.
        """
        self.opening = opening
        self.metadata = metadata
        self.message = message
        self.due = due
        self._resend = resend
        # How often a server has not looked at it.
        self.refused = 0
        self.trailing: Headers = ()
        self._reader = MessageReader()
        self._messages: list[bytes] = []
        self._held = 0  # bytes in messages that nobody has taken
        self._uncredited = 0  # bytes received that the peer was given no new window for
        self._waiter: asyncio.Future[None] | None = None
        self._alarm: alarms.Alarm | None = None

    def begin(self, connection: Connection, stream: int, send_window: int) -> None:
        """The call is about to be sent there."""
        self._connection = connection
        self.stream = stream
        self.send_window = send_window
        # What of the message has not been sent, its prefix included.
        self.pending = b""
        self._error: CallError | None = None
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
            self._waiter = self._connection.loop.create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        messages, self._messages = self._messages, []
        self._held = 0
        if self._uncredited >= LEAST_CREDIT:
            self._give_credit()
        return messages

    def close(self) -> None:
        """Ends the call; what is still to come is not wanted."""
        if not self._is_over:
            self._drop(CallError(StatusCode.CANCELLED, "closed"))

    def end_at(self, due: float) -> None:
        """Gives the call a deadline, on the event loop's clock."""
        self._alarm = alarms.call_at(due, self._expire)

    # What the connection tells.

    def headers(self, fields: Fields, *, ends: bool) -> None:
        """A header block has come: the first, or the trailers."""
        if not self._begun:
            self._begun = True
            wrong = fields.wrong()
            if wrong is not None:
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
        error, self.trailing = fields.ending()
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
            self._messages += messages
            for message in messages:
                self._held += len(message)
            self._wake()
        if ends:
            self._finish(CallError(StatusCode.INTERNAL, "the answer ends without a status"))
        elif self._uncredited >= LEAST_CREDIT:
            self._give_credit()

    def fail(self, error: CallError) -> None:
        """The stream or its connection is gone."""
        self._finish(error)

    def _expire(self) -> None:
        if not self._is_over:
            self._drop(CallError(StatusCode.DEADLINE_EXCEEDED, "the deadline has passed"))

    def _drop(self, error: CallError) -> None:
        self._finish(error)
        self._connection.abandon(self.stream)

    def _finish(self, error: CallError | None) -> None:
        if self._is_over:
            return
        self._is_over = True
        self._error = error
        self.pending = b""
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _give_credit(self) -> None:
        owed = self._uncredited - self._held
        if owed >= LEAST_CREDIT and not self._is_over:
            self._uncredited -= owed
            self._connection.credit(self.stream, owed)
