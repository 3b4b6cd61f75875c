import asyncio
import gzip
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openinference.errors import (
    ClientLeft,
    InvalidInput,
    PayloadTooLarge,
    SlowRequest,
    UnsupportedEncoding,
)
from openinference.rest import _body

MAX = 1000


class Sender:
    """ASGI's receive for these parts; None is a disconnect. Counts what was asked for."""

    def __init__(self, *parts):
        self.left = list(parts)
        self.taken = 0

    async def __call__(self):
        part = self.left.pop(0)
        self.taken += 1
        if part is None:
            return {"type": "http.disconnect"}
        return {"type": "http.request", "body": part, "more_body": bool(self.left)}


async def _read(*parts, **headers):
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return await _body.read(named, Sender(*parts), MAX)


async def test_parts_are_joined():
    assert await _read(b"Hel", b"", b"lo") == b"Hello"
    assert await _read(b"") == b""
    assert await _read(b"x" * MAX, content_encoding="identity") == b"x" * MAX
    assert await _read(b"x", content_encoding="") == b"x"


async def test_a_declared_length_over_the_limit_is_refused_before_reading():
    sender = Sender(b"x")
    with pytest.raises(PayloadTooLarge, match="over the limit of 1000 bytes"):
        await _body.read({"content-length": "1001"}, sender, MAX)
    assert sender.taken == 0


async def test_a_body_over_the_limit_is_refused_before_it_is_whole():
    sender = Sender(b"x" * 600, b"x" * 600, b"x" * 600)
    with pytest.raises(PayloadTooLarge):
        await _body.read({}, sender, MAX)
    assert sender.taken == 2


async def test_a_client_that_leaves_in_the_middle_is_told_apart():
    with pytest.raises(ClientLeft):
        await _read(b"Hel", None)


async def test_a_body_that_stalls_is_given_up(monkeypatch):
    monkeypatch.setattr(_body, "BODY_S", 0.01)
    sender = Sender(b"Hel", b"lo")

    async def receive():
        if sender.taken == 1:
            await asyncio.Event().wait()
        return await sender()

    with pytest.raises(SlowRequest, match="the body was not whole"):
        await _body.read({}, receive, MAX)


async def test_a_long_body_may_take_longer_than_a_short_one(monkeypatch):
    monkeypatch.setattr(_body, "BODY_S", 0.0)
    monkeypatch.setattr(_body, "MIN_BYTES_PER_S", 0.001)
    sender = Sender(b"Hel", b"lo")

    async def receive():
        if sender.taken == 1:
            await asyncio.sleep(0.01)
        return await sender()

    assert await _body.read({}, receive, MAX) == b"Hello"


@pytest.mark.parametrize(
    ("encoding", "compress"),
    [
        ("gzip", gzip.compress),
        ("GZIP ", gzip.compress),
        ("x-gzip", gzip.compress),
        ("deflate", zlib.compress),
    ],
)
async def test_compressed_bodies_are_undone(encoding, compress):
    body = compress(b"Hello" * 200)
    assert await _read(body[:9], body[9:], content_encoding=encoding) == b"Hello" * 200


@pytest.mark.parametrize("encoding", ["br", "zstd", "gzip, gzip", "x" * 999])
async def test_other_encodings_are_refused_with_the_allowed_ones(encoding):
    with pytest.raises(UnsupportedEncoding, match="allowed: gzip, deflate"):
        await _read(b"x", content_encoding=encoding)


@pytest.mark.parametrize(
    ("encoding", "bomb"),
    [("gzip", gzip.compress(bytes(400_000))), ("deflate", zlib.compress(bytes(400_000)))],
)
async def test_a_decompression_bomb_is_refused(encoding, bomb):
    assert len(bomb) < MAX
    with pytest.raises(PayloadTooLarge):
        await _read(bomb, content_encoding=encoding)


WHOLE = gzip.compress(b"Hello")


@pytest.mark.parametrize(
    "body",
    [b"", b"Hello", WHOLE[:-1], WHOLE[:5], WHOLE + b"x", WHOLE + WHOLE, WHOLE[:-8] + bytes(8)],
)
async def test_broken_gzip_is_invalid_input(body):
    with pytest.raises(InvalidInput, match="body is not"):
        await _read(body, content_encoding="gzip")


@given(
    body=st.binary(max_size=2000),
    encoding=st.sampled_from(["gzip", "deflate"]),
    cut=st.integers(0, 2000),
)
async def test_a_compressed_body_is_read_whole_or_refused(body, encoding, cut):
    compressed = (gzip if encoding == "gzip" else zlib).compress(body)[:cut]
    try:
        assert await _read(compressed, content_encoding=encoding) == body
        assert len(body) <= MAX
    except (PayloadTooLarge, InvalidInput):
        assert len(body) > MAX or len(compressed) == cut
