"""A V2 gRPC predictor of ready-made HTTP/2 frames: what `dummy_predictor.py` answers, far cheaper.

grpcio's server takes more CPU time for a call than the transformers that are measured, and would
bound them. This one reads what it must (frames, the message, its windows) and nothing that it does
not need: it never looks at a header, for the message tells which call it is. Real gRPC clients take
its answers (tests/unit/perf/test_canned_grpc.py). A message has no compression; an answer is
shorter than a stream's first window.
"""

import argparse
import asyncio
import struct
from collections import deque
from typing import Final, cast

import uvloop
from canned import Paced, Shared, pace_of, serve
from canned_messages import Answers, varint

from openinference.proto import inference_pb2 as pb

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, SETTINGS, PING, WINDOW_UPDATE = 0, 1, 3, 4, 6, 8
END_STREAM, ACK, PADDED, END_HEADERS = 1, 1, 8, 4
FIRST_WINDOW: Final = 65_535
MOST_WINDOW: Final = 2**31 - 1
# Of what a client may have sent, so much is given back at a time.
GIVEN_BACK: Final = 2**30
# RFC 7541, Appendix A: `:status: 200` is entry 8, the name `content-type` entry 31.
_RESPONSE: Final = b"\x88\x0f\x10\x10application/grpc"
READY: Final = pb.ModelReadyResponse(ready=True).SerializeToString()


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    """A frame, RFC 9113 section 4.1."""
    size = len(payload)
    return struct.pack(">BHBBL", size >> 16, size & 0xFFFF, kind, flags, stream) + payload


def _field(name: bytes, value: bytes) -> bytes:
    """A header that no table keeps, RFC 7541 section 6.2.2; both parts under 127 bytes."""
    return b"\x00" + bytes([len(name)]) + name + bytes([len(value)]) + value


# What a predictor of ours says at the end of each answer.
_TRAILERS: Final = (
    _field(b"grpc-status", b"0")
    + _field(b"x-keepwarm-queue-ms", b"0.0")
    + _field(b"x-keepwarm-weights", b"canned")
)


def message(body: bytes) -> bytes:
    """A gRPC message without compression: flag, length, bytes."""
    return struct.pack(">BL", 0, len(body)) + body


class _Call:
    """One stream of a connection: what has come of its request, and its answer while that goes."""

    __slots__ = ("body", "closed", "finished", "paced")

    def __init__(self) -> None:
        self.body = b""
        # The request's end has come; the answer's last token has gone.
        self.closed = self.finished = False
        self.paced: Paced | None = None


class Connection(asyncio.Protocol):
    """A client's connection."""

    def __init__(self, predictor: "CannedPredictor") -> None:
        self._predictor = predictor
        self._received = b""
        self._calls: dict[int, _Call] = {}
        self._window = FIRST_WINDOW
        self._owed = 0
        self._out: list[bytes] = []
        # Frames behind a window that is used up, with the bytes that count against it.
        self._waiting: deque[tuple[bytes, int]] = deque()
        self._batching = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are none of asyncio's classes.
        self._transport = cast("asyncio.Transport", transport)
        window = struct.pack(">HL", 4, MOST_WINDOW)
        grant = struct.pack(">L", MOST_WINDOW - FIRST_WINDOW)
        self._transport.write(frame(SETTINGS, 0, 0, window) + frame(WINDOW_UPDATE, 0, 0, grant))
        self._preface = len(PREFACE)

    def connection_lost(self, exc: Exception | None) -> None:
        for call in self._calls.values():
            if call.paced is not None:
                call.paced.ended = True
        self._calls.clear()

    def data_received(self, data: bytes) -> None:
        received = self._received + data if self._received else data
        at = 0
        if self._preface:
            if len(received) < self._preface:
                self._received = received
                return
            at, self._preface = self._preface, 0
        self._batching = True
        end = len(received)
        while end - at >= 9:
            size = int.from_bytes(received[at : at + 3], "big")
            if end - at - 9 < size:
                break
            stream = int.from_bytes(received[at + 5 : at + 9], "big")
            body = received[at + 9 : at + 9 + size]
            self._on_frame(received[at + 3], received[at + 4], stream, body)
            at += 9 + size
        self._received = received[at:]
        self._batching = False
        self.flush()

    def _on_frame(self, kind: int, flags: int, stream: int, body: bytes) -> None:
        if kind == DATA:
            self._on_data(flags, stream, body)
        elif kind == HEADERS:
            self._calls[stream] = _Call()
        elif kind == WINDOW_UPDATE and stream == 0:
            self._window += int.from_bytes(body, "big")
            while self._waiting and self._window >= self._waiting[0][1]:
                self._put(*self._waiting.popleft())
        elif kind == PING and not flags & ACK:
            self._out.append(frame(PING, ACK, 0, body))
        elif kind == SETTINGS and not flags & ACK:
            self._out.append(frame(SETTINGS, ACK, 0, b""))
        elif kind == RST_STREAM:
            call = self._calls.pop(stream, None)
            if call is not None and call.paced is not None:
                call.paced.ended = True

    def _on_data(self, flags: int, stream: int, body: bytes) -> None:
        self._owed += len(body)
        if self._owed >= GIVEN_BACK:
            self._out.append(frame(WINDOW_UPDATE, 0, 0, struct.pack(">L", self._owed)))
            self._owed = 0
        call = self._calls.get(stream)
        if call is None:
            return
        if flags & PADDED:
            body = body[1 : len(body) - body[0]]
        call.body += body
        call.closed = bool(flags & END_STREAM)
        if call.paced is None and len(call.body) >= 5:
            size = int.from_bytes(call.body[1:5], "big")
            if len(call.body) >= 5 + size:
                self._on_message(stream, call, call.body[5 : 5 + size])
        if call.closed and call.finished:
            self._end(stream)

    def _on_message(self, stream: int, call: _Call, body: bytes) -> None:
        request = pb.ModelInferRequest.FromString(body)
        if not request.inputs:
            # A ModelReady, whose first field is the name too, or a ServerReady.
            if call.closed:
                self._whole(stream, READY)
            return
        pace = pace_of(body)
        identity = request.id.encode()
        # Fields that follow add to the message before them: protobuf, "Last One Wins".
        suffix = b"\x1a" + varint(identity) + identity if identity else b""
        if pace is None:
            if call.closed:
                self._whole(stream, self._predictor.answers.shape(request, 0).whole + suffix)
            return
        tokens = int(request.parameters["max_tokens"].int64_param)
        pieces = self._predictor.answers.shape(request, tokens).pieces
        more = b"\x12" + varint(suffix) + suffix if suffix else b""
        if sum(map(len, pieces)) + tokens * (5 + len(more)) > FIRST_WINDOW:
            raise ValueError(f"{tokens} tokens are more than a stream's first window holds")
        self._out.append(frame(HEADERS, END_HEADERS, stream, _RESPONSE))

        def send(number: int) -> None:
            payload = message(pieces[number - 1] + more)
            self._put(frame(DATA, 0, stream, payload), len(payload))
            if number == tokens:
                call.finished = True
                if call.closed:
                    self._end(stream)
            self._predictor.sent(self)

        call.paced = Paced(send, tokens, pace[0])
        if pace[1]:
            self._predictor.steps.join(call.paced, pace[0])
        else:
            call.paced.begin()

    def _whole(self, stream: int, body: bytes) -> None:
        payload = message(body)
        self._out.append(frame(HEADERS, END_HEADERS, stream, _RESPONSE))
        self._put(frame(DATA, 0, stream, payload), len(payload))
        self._end(stream)

    def _end(self, stream: int) -> None:
        del self._calls[stream]
        self._put(frame(HEADERS, END_HEADERS | END_STREAM, stream, _TRAILERS), 0)

    def _put(self, data: bytes, counted: int) -> None:
        if self._waiting or counted > self._window:
            self._waiting.append((data, counted))
        else:
            self._window -= counted
            self._out.append(data)

    def flush(self) -> None:
        """Writes what has gathered, in one piece; while frames are read, later."""
        if self._out and not self._batching:
            self._transport.write(b"".join(self._out))
            self._out.clear()


class CannedPredictor(Shared):
    """What the connections share."""

    def __init__(self) -> None:
        super().__init__()
        self.answers = Answers()

    def connection(self) -> Connection:
        """A protocol for a new connection."""
        return Connection(self)


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--grpc_port", type=int, required=True)
    uvloop.run(serve(CannedPredictor().connection, parser.parse_args().grpc_port))


if __name__ == "__main__":
    main()
