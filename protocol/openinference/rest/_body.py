"""Reading a request body: bounded before it is whole, gzip and deflate undone within the bound."""

import asyncio
import zlib
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

from openinference import clock
from openinference.errors import (
    ClientLeft,
    InvalidInput,
    PayloadTooLarge,
    SlowRequest,
    UnsupportedEncoding,
)

# zlib's window bits: 16 more means a gzip header, 32 more detects gzip or zlib.
_WINDOW_BITS: Final = {
    "gzip": 16 + zlib.MAX_WBITS,
    "x-gzip": 16 + zlib.MAX_WBITS,
    "deflate": zlib.MAX_WBITS,
}

# How long a body may take: this many seconds, and more for what has come, at the lowest speed that
# is worth a connection.
BODY_S: Final = 20.0
MIN_BYTES_PER_S: Final = 16 * 2**10


async def read(
    headers: Mapping[str, str],
    receive: Callable[[], Awaitable[Any]],
    max_bytes: int,
    at_hand: bytes | None = None,
) -> bytes:
    """The whole body, decoded; `at_hand` as it came, where all of it is there.

    Raises PayloadTooLarge as soon as it is over `max_bytes` (before or after decompression),
    UnsupportedEncoding, InvalidInput for broken compression, SlowRequest, ClientLeft.
    """
    length = headers.get("content-length", "")
    if length.isdecimal() and int(length[:20]) > max_bytes:
        raise _too_large(max_bytes)
    encoding = headers.get("content-encoding", "").strip().lower() or "identity"
    if encoding != "identity" and encoding not in _WINDOW_BITS:
        raise UnsupportedEncoding(
            f"Content-Encoding {encoding!r:.40} is not supported; allowed: gzip, deflate"
        )
    if at_hand is not None and len(at_hand) > max_bytes:
        raise _too_large(max_bytes)
    try:
        body = await _received(receive, max_bytes) if at_hand is None else at_hand
    except TimeoutError:
        raise SlowRequest(
            f"the body was not whole after {BODY_S:g} seconds and a second for each "
            f"{MIN_BYTES_PER_S} bytes"
        ) from None
    return body if encoding == "identity" else _decompress(body, encoding, max_bytes)


async def _received(receive: Callable[[], Awaitable[Any]], max_bytes: int) -> bytes:
    parts: list[bytes] = []
    size = 0
    end = clock.now() + BODY_S
    async with asyncio.timeout_at(end) as patience:
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise ClientLeft("the client left before its request was whole")
            part = message.get("body", b"")
            size += len(part)
            if size > max_bytes:
                raise _too_large(max_bytes)
            parts.append(part)
            if not message.get("more_body", False):
                return parts[0] if len(parts) == 1 else b"".join(parts)
            patience.reschedule(end + size / MIN_BYTES_PER_S)


def _decompress(body: bytes, encoding: str, max_bytes: int) -> bytes:
    decoder = zlib.decompressobj(_WINDOW_BITS[encoding])
    try:
        plain = decoder.decompress(body, max_bytes + 1)
    except zlib.error:
        raise InvalidInput(f"body is not valid {encoding} data") from None
    if len(plain) > max_bytes:
        raise _too_large(max_bytes)
    if not decoder.eof or decoder.unused_data:
        raise InvalidInput(f"body is not one whole {encoding} stream")
    return plain


def _too_large(max_bytes: int) -> PayloadTooLarge:
    return PayloadTooLarge(f"body is over the limit of {max_bytes} bytes")
