"""HTTP/1.1 as strict as RFC 9112 asks, and with an end: uvicorn's httptools protocol, bounded.

uvicorn bounds neither the size of a request's head nor the time a client takes for it, takes any
Host, answers what is not HTTP in plain text, and reads on for ever after an early answer.
"""

import asyncio
import re
from typing import Any, Final

import httptools
import orjson
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from openinference import alarms, clock
from openinference.repeats import SCOPE, Arrival, Candidate, Repeats, arrival
from openinference.rest import _wire

# Request line and headers together; what proxies and servers commonly take is 8 to 64 KiB.
MAX_HEAD_BYTES: Final = 64 * 2**10
# A head must be whole after this many seconds.
HEAD_S: Final = 20.0
# What a client still sends after it was answered is read for this long, so that it can read the
# answer (RFC 9112 9.6), and then cut off.
LINGER_S: Final = 5.0

# RFC 3986 3.2.2: an IP literal or a registered name, and a port; it may be empty (RFC 9112 3.2).
_HOST = re.compile(rb"(\[[0-9A-Fa-f:.]+\]|[\w.~!$&'()*+,;=%-]*)(:[0-9]*)?", re.ASCII)


class StrictHttpProtocol(HttpToolsProtocol):
    """One connection; give it to uvicorn as `http`."""

    def __init__(self, *args: Any, repeats: Repeats | None = None, **options: Any) -> None:
        super().__init__(*args, **options)
        self._repeats = repeats
        # Of requests that are not answered yet: one, where the client does not send ahead.
        self._wires: list[_wire.Wire] = []
        self._messages = 0
        self._in_head = False
        self._in_message = False
        self._head_bytes = 0
        self._refusal = (400, "the request is not valid HTTP/1.1")
        self._alarm: alarms.Alarm | None = None
        self._idle_since = 0.0
        self._idle_alarm: alarms.Alarm | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._arm(self.timeout_keep_alive)

    def connection_lost(self, exc: Exception | None) -> None:
        self._disarm()
        if self._idle_alarm is not None:
            self._idle_alarm.cancel()
        super().connection_lost(exc)
        for wire in self._wires:
            if wire.is_open:
                wire.caller.left()
        self._wires.clear()

    def data_received(self, data: bytes) -> None:
        is_idle = not self._in_message and (self.cycle is None or self.cycle.response_complete)
        if not self._in_message:
            self._disarm()
        arrived = arrival(data) if is_idle and self._repeats is not None else None
        if arrived is not None and self._answer_repeat(arrived):
            return
        messages = self._messages
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserError:
            self._refuse(*self._refusal)
            return
        except httptools.HttpParserUpgrade:
            # An offer of another protocol may be ignored (RFC 9110 7.8).
            pass
        if (
            arrived is not None
            and self._repeats is not None
            and not self._in_message
            and self._messages == messages + 1
            and self.cycle.keep_alive
        ):
            # The request is these bytes, no more and no less; its task has not begun yet.
            scope: dict[str, Any] = self.cycle.scope  # type: ignore[assignment]  # a TypedDict
            scope[SCOPE] = Candidate(self._repeats, arrived.said)
        if self._in_head:
            # The parser gives a header out when it is whole, so an endless one is counted here.
            self._head_bytes += len(data)
            if self._head_bytes > MAX_HEAD_BYTES:
                self._refuse(*_HEAD_TOO_LARGE)
                return
        if self._in_message or self.cycle is None or self.cycle.response_complete:
            if self._alarm is None:
                self._arm(HEAD_S)
        else:
            self._disarm()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._messages += 1
        self._in_head = self._in_message = True
        self._head_bytes = 0

    def on_headers_complete(self) -> None:
        octets, hosts, host = len(self.url), 0, b""
        for name, value in self.headers:
            octets += len(name) + len(value)
            if name == b"host":
                hosts, host = hosts + 1, value
        if octets > MAX_HEAD_BYTES:
            self._refusal = _HEAD_TOO_LARGE
            raise ValueError
        if hosts > 1 or not _HOST.fullmatch(host):
            self._refusal = (400, "header Host must be one host and port")
            raise ValueError
        if not hosts and self.parser.get_http_version() != "1.0":
            self._refusal = (400, "header Host is missing")
            raise ValueError
        self._in_head = False
        before = self.cycle
        super().on_headers_complete()
        if self.cycle is not before:
            # Its task has not begun yet.
            wire = _wire.Wire(self.cycle)
            self.cycle.scope[_wire.SCOPE] = wire  # type: ignore[typeddict-unknown-key]
            if before is None or before.response_complete:
                # Answers go out in the order of their requests: all have.
                self._wires.clear()
            self._wires.append(wire)

    def on_message_complete(self) -> None:
        self._in_message = False
        super().on_message_complete()

    def on_response_complete(self) -> None:
        # What uvicorn does, but for its timer: one is made for a connection here, not for each
        # answer, which would cost a tenth of a cache hit.
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        self.flow.resume_reading()
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())
        else:
            self._idle_since = clock.now()
            if self._idle_alarm is None:
                self._look_at_idle(self._idle_since + self.timeout_keep_alive)
        if self._in_message and not self._in_head:
            self._arm(LINGER_S)

    def _answer_repeat(self, arrived: Arrival) -> bool:
        """Answers a request that came before in the same bytes, if that needs no waiting."""
        if self._repeats is None or self.flow.write_paused or self.transport.is_closing():
            return False
        address = self.client[0] if self.client else ""
        answer = self._repeats.answer(arrived, address)
        if answer is None:
            return False
        said = _wire.default_head(self.server_state.default_headers)
        self.transport.write(b"".join([STATUS_LINE[200], said, answer]))
        self.on_response_complete()
        return True

    def _arm(self, seconds: float) -> None:
        self._disarm()
        self._alarm = alarms.call_at(clock.now() + seconds, self._stalled)

    def _disarm(self) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None

    def _look_at_idle(self, due: float) -> None:
        self._idle_alarm = alarms.call_at(due, self._close_idle)

    def _close_idle(self) -> None:
        """Ends a connection on which nothing was asked for `timeout_keep_alive`."""
        self._idle_alarm = None
        if self.transport.is_closing():
            return
        now = clock.now()
        # There is no cycle where all answers were at hand.
        is_answered = self.cycle is None or self.cycle.response_complete
        if self._in_message or not is_answered:
            self._look_at_idle(now + self.timeout_keep_alive)
        elif now < self._idle_since + self.timeout_keep_alive:
            self._look_at_idle(self._idle_since + self.timeout_keep_alive)
        else:
            self.transport.close()

    def _stalled(self) -> None:
        """The client has not sent in time what it owes."""
        self._alarm = None
        if self.flow.read_paused:
            # It is we who do not read: an earlier request of this connection is being answered.
            self._arm(HEAD_S)
        elif self._in_head:
            self._refuse(408, f"the request's head was not whole after {HEAD_S:g} seconds")
        elif self._in_message and not self.cycle.response_complete:
            # The body's reader has a limit of its own.
            self._arm(HEAD_S)
        else:
            self.transport.close()

    def _refuse(self, status: int, message: str) -> None:
        """Answers what is not a request, and closes; answers still owed go out first."""
        if self.transport.is_closing():
            return
        cycle = self.cycle
        if cycle is not None and not cycle.response_complete and not cycle.more_body:
            cycle.keep_alive = False
            self.flow.pause_reading()
            return
        body = orjson.dumps({"error": message})
        said = _wire.default_head(self.server_state.default_headers)
        rest = (
            b"content-type: application/json\r\ncontent-length: %d\r\nconnection: close\r\n\r\n"
            % len(body)
        )
        self.transport.write(b"".join([STATUS_LINE[status], said, rest, body]))
        self.transport.close()


_HEAD_TOO_LARGE: Final = (431, f"the request's head is over the limit of {MAX_HEAD_BYTES} bytes")
