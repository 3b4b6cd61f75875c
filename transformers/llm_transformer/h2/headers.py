"""Header blocks (RFC 7541): ours written plainly, a peer's that are not plain read by `hpack`.

Neither side uses HPACK's dynamic table: ours never adds to it, the peer is told a size of 0. So the
same bytes always mean the same headers, and what came before is looked up.
"""

from collections.abc import Iterable
from functools import lru_cache
from typing import Final

import hpack

from llm_transformer.h2 import plain_block
from llm_transformer.h2.frames import ProtocolError
from llm_transformer.h2.status import COMPRESSION_ERROR, Fields, Headers

MAX_LIST_BYTES: Final = 64 * 2**10
_REMEMBERED: Final = 512
# Of a block that is remembered.
_SHORT: Final = 512
# Fields of the static table (RFC 7541, appendix A).
_METHOD_POST: Final = b"\x83"
_SCHEME: Final = {"http": b"\x86", "https": b"\x87"}
_PATH: Final = b"\x04"
_AUTHORITY: Final = b"\x01"


def _text(value: str) -> bytes:
    """A string literal, not Huffman-coded (RFC 7541 5.2)."""
    octets = value.encode("latin-1")
    length = len(octets)
    if length < 127:
        return b"%c%b" % (length, octets)
    rest, varint = length - 127, bytearray(b"\x7f")
    while rest >= 128:
        varint.append(rest & 127 | 128)
        rest >>= 7
    varint.append(rest)
    return bytes(varint) + octets


@lru_cache(256)
def _named(name: str) -> bytes:
    """The begin of a field that is not to be indexed (RFC 7541 6.2.2), its value left out."""
    return b"\x00" + _text(name)


def literal(name: str, value: str) -> bytes:
    """A field that is not to be indexed."""
    return _named(name) + _text(value)


def opening(scheme: str, authority: str, path: str) -> bytes:
    """What each call of a method begins with (PROTOCOL-HTTP2.md, "Requests")."""
    return b"".join(
        (
            _METHOD_POST,
            _SCHEME[scheme],
            _PATH + _text(path),
            _AUTHORITY + _text(authority),
            literal("te", "trailers"),
            literal("content-type", "application/grpc"),
            literal("user-agent", "grpc-python-keepwarm"),
        )
    )


def metadata(pairs: Iterable[tuple[str, str]]) -> bytes:
    """Metadata, names in lower case."""
    return b"".join([literal(name, value) for name, value in pairs])


def timeout(seconds: float) -> bytes:
    """The deadline as the wire knows it: at most eight digits and a unit, never longer."""
    microseconds = max(1, int(seconds * 1e6))
    if microseconds < 10**8:
        told = b"%du" % microseconds
    elif microseconds < 10**11:
        told = b"%dm" % (microseconds // 1_000)
    else:
        told = b"%dS" % min(microseconds // 1_000_000, 10**8 - 1)
    return b"%b%c%b" % (_TIMEOUT, len(told), told)


_TIMEOUT: Final = _named("grpc-timeout")


class HeaderReader:
    """Reads one connection's header blocks."""

    def __init__(self) -> None:
        self._decoder = hpack.Decoder(MAX_LIST_BYTES)
        self._decoder.header_table_size = 0
        self._decoder.max_allowed_table_size = 0
        self._known: dict[bytes, Fields] = {}

    def read(self, block: bytes) -> Fields:
        """The block's fields; raises ProtocolError."""
        known = self._known.get(block)
        if known is not None:
            return known
        # A short block's list is never over the limit.
        is_short = len(block) <= _SHORT
        fields = Fields((plain_block.read(block) if is_short else None) or self._decoded(block))
        if is_short:
            if len(self._known) >= _REMEMBERED:
                self._known.clear()
            self._known[block] = fields
        return fields

    def _decoded(self, block: bytes) -> Headers:
        try:
            return [
                (name.decode("latin-1"), value.decode("latin-1"))
                for name, value in self._decoder.decode(block, raw=True)
            ]
        except hpack.HPACKError as error:
            raise ProtocolError(f"a header block: {error}", COMPRESSION_ERROR) from None
