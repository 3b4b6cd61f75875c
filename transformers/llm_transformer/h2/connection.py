"""One HTTP/2 connection to a predictor: streams, windows, settings, pings, and how it ends."""

import asyncio
import logging
from collections.abc import Callable
from typing import Final, cast

from llm_transformer.h2 import frames, status
from llm_transformer.h2.call import WINDOW, Call
from llm_transformer.h2.frames import FrameReader, ProtocolError
from llm_transformer.h2.headers import MAX_LIST_BYTES, HeaderReader
from llm_transformer.h2.status import CallError
from openinference import clock

logger = logging.getLogger("llm_transformer.h2")

# A half-open connection is found when calls are waiting on it and nothing at all has come for
# SILENCE_S, then nothing for PONG_S more, in which it was asked to say something.
SILENCE_S: Final = 10.0
PONG_S: Final = 5.0
# A look that comes later than this says that it is this process that was held up.
LATE_S: Final = 1.0
# All streams together: each has a window of its own, which holds back who sends too much.
_CONNECTION_WINDOW: Final = 2**30
_LAST_STREAM: Final = 2**31 - 1
_SETTINGS: Final = {
    frames.HEADER_TABLE_SIZE: 0,
    frames.ENABLE_PUSH: 0,
    frames.INITIAL_WINDOW_SIZE: WINDOW,
    frames.MAX_HEADER_LIST_SIZE: MAX_LIST_BYTES,
}
_HELLO: Final = (
    frames.PREFACE
    + frames.settings(_SETTINGS)
    + frames.window_update(0, _CONNECTION_WINDOW - frames.DEFAULT_WINDOW)
)


class Connection(asyncio.Protocol):
    """A connection; `ready` is done when the peer has said its settings, or with an error."""

    def __init__(self, changed: Callable[[], None]) -> None:
        """`changed` is called whenever a call may go that could not, and when the end has come."""
        self.loop = asyncio.get_running_loop()
        self._changed = changed
        self.ready: asyncio.Future[None] = self.loop.create_future()
        # Nobody may be waiting for it.
        self.ready.add_done_callback(lambda ready: ready.cancelled() or ready.exception())
        # No new calls: the peer or we have said goodbye, or it is over.
        self.is_leaving = False
        self.is_lost = False
        self._transport: asyncio.Transport | None = None
        self._frames = FrameReader()
        self._headers = HeaderReader()
        self._calls: dict[int, Call] = {}
        self._blocked: dict[int, Call] = {}
        self._next_stream = 1
        self._max_streams = _LAST_STREAM
        self._frame_size = frames.DEFAULT_FRAME_SIZE
        self._stream_window = frames.DEFAULT_WINDOW
        self._send_window = frames.DEFAULT_WINDOW
        self._uncredited = 0
        self._block: tuple[int, int, list[bytes]] | None = None  # headers that are not whole
        self._is_full = False
        self._heard_at = 0.0
        self._asked_at = 0.0
        self._look_due = 0.0
        self._timer: asyncio.TimerHandle | None = None

    @property
    def in_flight(self) -> int:
        """How many calls have begun and not ended."""
        return len(self._calls)

    @property
    def has_room(self) -> bool:
        """Whether another call may go."""
        return not self.is_leaving and len(self._calls) < self._max_streams

    def send(self, call: Call, head: bytes) -> None:
        """Begins a call with a header block and its only message; needs room."""
        stream = self._next_stream
        self._next_stream += 2
        if self._next_stream > _LAST_STREAM:
            self.leave()
        call.begin(self, stream, self._stream_window)
        self._calls[stream] = call
        self._is_full = len(self._calls) >= self._max_streams
        if self._timer is None:
            self._heard_at = clock.now()
            self._look_at(self._heard_at + SILENCE_S)
        message, most = call.message, self._frame_size
        octets = frames.PREFIX_SIZE + len(message)
        if (
            octets <= most
            and len(head) <= most
            and octets <= self._send_window
            and octets <= call.send_window
        ):
            self._send_window -= octets
            call.send_window -= octets
            self._write(frames.request(stream, head, message))
        else:
            call.pending = frames.prefixed(message)
            self._write(self._head(stream, head))
            self._pump(call)

    def leave(self) -> None:
        """Takes no new calls, and closes when those in flight have ended."""
        self.is_leaving = True
        if not self._calls:
            self._close()

    def abort(self, why: str) -> None:
        """Ends the connection and what is in flight at once."""
        self._close()
        self._lose(why)

    # What calls ask.

    def credit(self, stream: int, octets: int) -> None:
        """See Call."""
        self._write(frames.window_update(stream, octets))

    def abandon(self, stream: int) -> None:
        """See Call."""
        if self._forget(stream) is not None:
            self._write(frames.reset(stream, status.CANCEL))
            self._settle()

    # What asyncio tells.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Says hello."""
        # uvloop's transports are none of asyncio's classes.
        self._transport = cast("asyncio.Transport", transport)
        tls = transport.get_extra_info("ssl_object")
        if tls is not None and tls.selected_alpn_protocol() != "h2":
            self.abort("the server does not offer HTTP/2")
            return
        self._transport.write(_HELLO)

    def data_received(self, data: bytes) -> None:
        """Hands frames to their calls."""
        self._heard_at = clock.now()
        try:
            for kind, flags, stream, payload, length in self._frames.feed(data):
                if self._block is not None and kind != frames.CONTINUATION:
                    raise ProtocolError("a header block that is not continued")  # noqa: TRY301
                if kind == frames.DATA:
                    self._on_data(flags, stream, payload, length)
                elif kind in _HANDLERS:
                    # Others are ignored (RFC 9113 4.1).
                    _HANDLERS[kind](self, flags, stream, payload)
        except ProtocolError as error:
            logger.warning("closing a predictor's connection: %s", error)
            self._write(frames.goaway(error.code))
            self.abort(f"the server breaks HTTP/2: {error}")
            return
        if self._uncredited >= _CONNECTION_WINDOW // 2:
            self._write(frames.window_update(0, self._uncredited))
            self._uncredited = 0
        self._settle()

    def connection_lost(self, exc: Exception | None) -> None:
        """Fails what is in flight."""
        self._lose("the connection has ended" if exc is None else "the connection broke")

    def _on_data(self, flags: int, stream: int, payload: bytes, octets: int) -> None:
        # Padding counts for windows.
        self._uncredited += octets
        call = self._calls.get(stream)
        if call is None:
            self._check_opened(stream)
            return
        ends = bool(flags & frames.END_STREAM)
        if ends:
            self._forget(stream)
        call.data(payload, octets, ends=ends)

    def _on_headers(self, flags: int, stream: int, payload: bytes) -> None:
        block = payload[5:] if flags & frames.PRIORITY else payload
        if flags & frames.END_HEADERS:
            self._on_block(flags, stream, block)
        else:
            self._block = flags, stream, [block]

    def _on_reset(self, _flags: int, stream: int, payload: bytes) -> None:
        if (call := self._forget(stream)) is not None:
            call.fail(status.of_reset(frames.number(payload)))

    def _on_ping(self, flags: int, _stream: int, payload: bytes) -> None:
        if not flags & frames.ACK:
            self._write(frames.frame(frames.PING, frames.ACK, 0, payload))

    def _on_push(self, _flags: int, _stream: int, _payload: bytes) -> None:
        raise ProtocolError("a pushed stream")

    def _on_block(self, flags: int, stream: int, block: bytes) -> None:
        fields = self._headers.read(block)
        ends = bool(flags & frames.END_STREAM)
        call = self._forget(stream) if ends else self._calls.get(stream)
        if call is not None:
            call.headers(fields, ends=ends)
        else:
            self._check_opened(stream)

    def _on_continuation(self, flags: int, stream: int, payload: bytes) -> None:
        if self._block is None or self._block[1] != stream:
            raise ProtocolError("a continuation of nothing")
        begun, _, parts = self._block
        parts.append(payload)
        if sum(map(len, parts)) > MAX_LIST_BYTES:
            raise ProtocolError("an endless header block", status.ENHANCE_YOUR_CALM)
        if flags & frames.END_HEADERS:
            self._block = None
            self._on_block(begun, stream, b"".join(parts))

    def _on_settings(self, flags: int, _stream: int, payload: bytes) -> None:
        if flags & frames.ACK:
            return
        values = frames.parse_settings(payload)
        self._max_streams = values.get(frames.MAX_CONCURRENT_STREAMS, self._max_streams)
        self._is_full = len(self._calls) >= self._max_streams
        self._frame_size = min(
            values.get(frames.MAX_FRAME_SIZE, self._frame_size), frames.DEFAULT_FRAME_SIZE
        )
        window = values.get(frames.INITIAL_WINDOW_SIZE, self._stream_window)
        grown = window - self._stream_window
        self._stream_window = window
        for call in self._calls.values():
            call.send_window += grown
        self._write(frames.frame(frames.SETTINGS, frames.ACK, 0))
        if not self.ready.done():
            self.ready.set_result(None)
        self._pump_all()
        self._changed()

    def _on_window_update(self, _flags: int, stream: int, payload: bytes) -> None:
        octets = frames.number(payload) & frames.MAX_WINDOW
        if stream == 0:
            self._send_window += octets
            if self._send_window > frames.MAX_WINDOW:
                raise ProtocolError("a window over 2^31-1", status.FLOW_CONTROL_ERROR)
            self._pump_all()
        elif (call := self._calls.get(stream)) is not None:
            call.send_window += octets
            self._pump(call)

    def _on_goaway(self, _flags: int, _stream: int, payload: bytes) -> None:
        """Calls after the last one it names were not looked at; those before go on."""
        last = frames.last_stream(payload)
        self.is_leaving = True
        for stream in [each for each in self._calls if each > last]:
            call = self._forget(stream)
            if call is not None:
                call.fail(status.lost("the server leaves", is_unseen=True))
        self._changed()

    def _check_opened(self, stream: int) -> None:
        # An abandoned stream's last frames may be on their way.
        if stream == 0 or stream % 2 == 0 or stream >= self._next_stream:
            raise ProtocolError(f"a frame of stream {stream}, which is not there")

    def _pump_all(self) -> None:
        for call in list(self._blocked.values()):
            self._pump(call)

    def _pump(self, call: Call) -> None:
        """Sends of a request what the windows allow."""
        sent = 0
        pending = call.pending
        while sent < len(pending):
            room = min(self._frame_size, self._send_window, call.send_window)
            part = pending[sent : sent + room] if room > 0 else b""
            if not part:
                break
            sent += len(part)
            self._send_window -= len(part)
            call.send_window -= len(part)
            end = frames.END_STREAM if sent == len(pending) else 0
            self._write(frames.frame(frames.DATA, end, call.stream, part))
        call.pending = pending[sent:]
        if call.pending:
            self._blocked[call.stream] = call
        else:
            self._blocked.pop(call.stream, None)

    def _head(self, stream: int, head: bytes) -> bytes:
        """The header block in as many frames as it needs."""
        if len(head) <= self._frame_size:
            return frames.frame(frames.HEADERS, frames.END_HEADERS, stream, head)
        pieces = [head[at : at + self._frame_size] for at in range(0, len(head), self._frame_size)]
        kinds = [frames.HEADERS] + [frames.CONTINUATION] * (len(pieces) - 1)
        flags = [0] * (len(pieces) - 1) + [frames.END_HEADERS]
        return b"".join(
            frames.frame(kind, flag, stream, piece)
            for kind, flag, piece in zip(kinds, flags, pieces, strict=True)
        )

    def _forget(self, stream: int) -> Call | None:
        if self._blocked:
            self._blocked.pop(stream, None)
        return self._calls.pop(stream, None)

    def _settle(self) -> None:
        """After calls have ended: others may go, or nothing holds the connection any more."""
        if self.is_leaving:
            if not self._calls:
                self._close()
        elif self._is_full and self.has_room:
            self._is_full = False
            self._changed()

    def _write(self, data: bytes) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)

    def _close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    def _lose(self, why: str) -> None:
        if self.is_lost:
            return
        self.is_leaving = self.is_lost = True
        if self._timer is not None:
            self._timer.cancel()
        error = status.lost(why)
        if not self.ready.done():
            self.ready.set_exception(error)
        calls = list(self._calls.values())
        self._calls.clear()
        self._blocked.clear()
        for call in calls:
            call.fail(CallError(error.code, error.details))
        self._changed()

    def _look_at(self, due: float) -> None:
        self._look_due = due
        self._timer = self.loop.call_at(due, self._look)

    def _look(self) -> None:
        """Asks a silent peer whether it is there; ends the connection of one that says nothing."""
        self._timer = None
        if not self._calls:
            return
        now = clock.now()
        if now < self._heard_at + SILENCE_S:
            self._look_at(self._heard_at + SILENCE_S)
        elif self._asked_at <= self._heard_at or now > self._look_due + LATE_S:
            # Also again, when this process was held up: what came meanwhile has not been read yet.
            self._asked_at = now
            self._write(frames.frame(frames.PING, 0, 0, bytes(8)))
            self._look_at(now + PONG_S)
        else:
            self.abort("the server is silent")


_HANDLERS: Final = {
    frames.HEADERS: Connection._on_headers,  # noqa: SLF001
    frames.RST_STREAM: Connection._on_reset,  # noqa: SLF001
    frames.SETTINGS: Connection._on_settings,  # noqa: SLF001
    frames.PUSH_PROMISE: Connection._on_push,  # noqa: SLF001
    frames.PING: Connection._on_ping,  # noqa: SLF001
    frames.GOAWAY: Connection._on_goaway,  # noqa: SLF001
    frames.WINDOW_UPDATE: Connection._on_window_update,  # noqa: SLF001
    frames.CONTINUATION: Connection._on_continuation,  # noqa: SLF001
}
