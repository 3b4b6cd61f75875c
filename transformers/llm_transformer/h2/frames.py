"""HTTP/2 frames as bytes and back (RFC 9113 4 and 6), and gRPC's length prefix."""

from collections.abc import Iterator, Mapping
from struct import Struct
from typing import Final

from llm_transformer.h2.status import FRAME_SIZE_ERROR, PROTOCOL_ERROR

DATA: Final = 0x0
HEADERS: Final = 0x1
RST_STREAM: Final = 0x3
SETTINGS: Final = 0x4
PUSH_PROMISE: Final = 0x5
PING: Final = 0x6
GOAWAY: Final = 0x7
WINDOW_UPDATE: Final = 0x8
CONTINUATION: Final = 0x9

END_STREAM: Final = 0x1
ACK: Final = 0x1
END_HEADERS: Final = 0x4
PADDED: Final = 0x8
PRIORITY: Final = 0x20

HEADER_TABLE_SIZE: Final = 0x1
ENABLE_PUSH: Final = 0x2
MAX_CONCURRENT_STREAMS: Final = 0x3
INITIAL_WINDOW_SIZE: Final = 0x4
MAX_FRAME_SIZE: Final = 0x5
MAX_HEADER_LIST_SIZE: Final = 0x6

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
# What both sides begin with (RFC 9113 6.5.2, 6.9.2); we never announce larger frames.
DEFAULT_FRAME_SIZE: Final = 2**14
DEFAULT_WINDOW: Final = 2**16 - 1
MAX_WINDOW: Final = 2**31 - 1
# Of a gRPC message: whether it is compressed, and its length.
PREFIX_SIZE: Final = 5

_HEAD: Final = Struct(">HBBBL")
_SETTING: Final = Struct(">HL")
_NUMBER: Final = Struct(">L")
_TWO_NUMBERS: Final = Struct(">LL")
_PREFIX: Final = Struct(">BL")
# The head of a DATA frame and the prefix of the message that it holds.
_MESSAGE_HEAD: Final = Struct(">HBBBLBL")
# Frames of a fixed size: of a stream's, and of a connection's.
_SIZES: Final = {RST_STREAM: 4, WINDOW_UPDATE: 4, PING: 8}

Frame = tuple[int, int, int, bytes, int]


class ProtocolError(Exception):
    """The peer breaks HTTP/2; `code` is what it is told."""

    def __init__(self, message: str, code: int = PROTOCOL_ERROR) -> None:
        super().__init__(message)
        self.code = code


class FrameReader:
    """Cuts what arrives into frames."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> Iterator[Frame]:
        """The type, flags, stream id, payload without padding, and length of each whole frame."""
        if self._rest:
            data = self._rest + data
        at, end = 0, len(data)
        while end - at >= 9:
            high, low, kind, flags, stream = _HEAD.unpack_from(data, at)
            length = high << 8 | low
            if length > DEFAULT_FRAME_SIZE:
                raise ProtocolError(f"a frame of {length} bytes", FRAME_SIZE_ERROR)
            begin = at + 9
            if end - begin < length:
                break
            at = begin + length
            payload = data[begin:at]
            if kind > HEADERS:
                if length != _SIZES.get(kind, length):
                    what = f"a frame of type {kind} of {length} bytes"
                    raise ProtocolError(what, FRAME_SIZE_ERROR)
            elif flags & PADDED:
                payload = _unpadded(payload)
            yield kind, flags, stream & MAX_WINDOW, payload, length
        self._rest = data[at:]


def _unpadded(payload: bytes) -> bytes:
    if not payload or payload[0] >= len(payload):
        raise ProtocolError("padding as long as its frame")
    return payload[1 : len(payload) - payload[0]]


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """One frame."""
    length = len(payload)
    return _HEAD.pack(length >> 8, length & 0xFF, kind, flags, stream) + payload


def settings(values: Mapping[int, int]) -> bytes:
    """A SETTINGS frame."""
    return frame(SETTINGS, 0, 0, b"".join(_SETTING.pack(*each) for each in values.items()))


def parse_settings(payload: bytes) -> dict[int, int]:
    """What a SETTINGS frame says; raises ProtocolError for what RFC 9113 6.5.2 forbids."""
    if len(payload) % _SETTING.size:
        raise ProtocolError("a SETTINGS frame of a wrong size", FRAME_SIZE_ERROR)
    values = dict(_SETTING.iter_unpack(payload))
    if values.get(INITIAL_WINDOW_SIZE, 0) > MAX_WINDOW:
        raise ProtocolError("SETTINGS_INITIAL_WINDOW_SIZE over 2^31-1")
    if not DEFAULT_FRAME_SIZE <= values.get(MAX_FRAME_SIZE, DEFAULT_FRAME_SIZE) < 2**24:
        raise ProtocolError("SETTINGS_MAX_FRAME_SIZE out of bounds")
    return values


def window_update(stream: int, octets: int) -> bytes:
    """A WINDOW_UPDATE frame; stream 0 is the connection."""
    return frame(WINDOW_UPDATE, 0, stream, _NUMBER.pack(octets))


def reset(stream: int, code: int) -> bytes:
    """A RST_STREAM frame."""
    return frame(RST_STREAM, 0, stream, _NUMBER.pack(code))


def goaway(code: int) -> bytes:
    """A GOAWAY frame of a client, to which no streams are pushed."""
    return frame(GOAWAY, 0, 0, _TWO_NUMBERS.pack(0, code))


def number(payload: bytes) -> int:
    """The 31 or 32 bits that a RST_STREAM or WINDOW_UPDATE frame holds."""
    (value,) = _NUMBER.unpack_from(payload)
    return int(value)


def last_stream(payload: bytes) -> int:
    """The highest stream that a GOAWAY frame says may have been looked at."""
    if len(payload) < _TWO_NUMBERS.size:
        raise ProtocolError("a GOAWAY frame of a wrong size", FRAME_SIZE_ERROR)
    return number(payload) & MAX_WINDOW


def request(stream: int, head: bytes, message: bytes) -> bytes:
    """A whole request: its header block and its one message, each in one frame."""
    length, octets = len(head), PREFIX_SIZE + len(message)
    return b"".join(
        (
            _HEAD.pack(length >> 8, length & 0xFF, HEADERS, END_HEADERS, stream),
            head,
            _MESSAGE_HEAD.pack(
                octets >> 8, octets & 0xFF, DATA, END_STREAM, stream, 0, len(message)
            ),
            message,
        )
    )


def prefixed(message: bytes) -> bytes:
    """A gRPC message with its length before it, not compressed."""
    return _PREFIX.pack(0, len(message)) + message


class MessageReader:
    """Cuts the DATA of one stream into gRPC messages."""

    __slots__ = ("_needed", "_parts", "partial")

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._needed = 0
        # How many bytes have come of a message whose end has not.
        self.partial = 0

    def feed(self, data: bytes) -> list[bytes]:
        """The messages that are whole; raises ProtocolError for a compressed one."""
        at, end = 0, len(data)
        if self.partial:
            self._parts.append(data)
            self.partial += end
            if self.partial < self._needed:
                return []
            data = b"".join(self._parts)
            self._parts.clear()
            end = len(data)
        messages = []
        self._needed = PREFIX_SIZE
        while end - at >= PREFIX_SIZE:
            compressed, length = _PREFIX.unpack_from(data, at)
            if compressed:
                raise ProtocolError("a compressed message, which was not asked for")
            begin = at + PREFIX_SIZE
            if end - begin < length:
                self._needed = PREFIX_SIZE + length
                break
            at = begin + length
            messages.append(data[begin:at])
        self.partial = end - at
        if self.partial:
            self._parts.append(data[at:])
        return messages
