"""Servers that break rules, leave, or are none: each call ends, with gRPC's status for it."""

import asyncio
from contextlib import asynccontextmanager
from struct import pack

import pytest
from grpc import StatusCode

from llm_transformer.h2 import CallError, Channel, frames, headers
from llm_transformer.h2.frames import frame, prefixed, settings

HELLO = settings({})
METHOD = "/test.Service/Method"
_OK = headers.literal(":status", "200") + headers.literal("content-type", "application/grpc")
_ENDED = headers.literal("grpc-status", "0")
# The client's first stream.
BEGIN = frame(frames.HEADERS, frames.END_HEADERS, 1, _OK)
MESSAGE = frame(frames.DATA, 0, 1, prefixed(b"hello"))
END = frame(frames.HEADERS, frames.END_HEADERS | frames.END_STREAM, 1, _ENDED)


def _only(*fields):
    block = b"".join(headers.literal(name, value) for name, value in fields)
    return frame(frames.HEADERS, frames.END_HEADERS | frames.END_STREAM, 1, block)


@asynccontextmanager
async def saying(answer, *, hello=HELLO, closes=False):
    """A server that sends `answer` once a call has come; yields its HOST:PORT and what it got."""
    got = bytearray()
    seen = {"connections": 0}

    async def accept(reader, writer):
        seen["connections"] += 1
        writer.write(hello)
        said = False
        while data := await reader.read(65536):
            got.extend(data)
            if not said and METHOD.encode() in got:
                said = True
                writer.write(answer)
                if closes:
                    writer.close()
                    return

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    async with server, asyncio.timeout(20):
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}", got, seen


async def _ask(target):
    channel = Channel(target, tls=False)
    try:
        return await channel.unary(METHOD, b"")
    finally:
        await channel.close()


async def _arrived(what, got):
    while what not in got:  # noqa: ASYNC110 (the server only collects)
        await asyncio.sleep(0.01)


def test_the_frames_of_this_file_are_a_good_answer():
    async def ask():
        async with saying(BEGIN + MESSAGE + END) as (target, _, _):
            assert await _ask(target) == (b"hello", [])

    asyncio.run(ask())


async def test_what_is_not_for_us_is_passed_over():
    noise = b"".join(
        (
            frame(0x42, 0, 7, b"an extension"),
            frame(0x2, 0, 1, bytes(5)),  # PRIORITY
            frame(frames.PING, frames.ACK, 0, bytes(8)),
            frame(frames.HEADERS, frames.END_HEADERS | frames.PRIORITY, 1, bytes(5) + _OK),
            frame(frames.DATA, 0, 1),
            frame(frames.DATA, frames.PADDED, 1, b"\x02" + prefixed(b"hello")[:3] + b"\0\0"),
            frame(frames.DATA, 0, 1, prefixed(b"hello")[3:]),
        )
    )
    async with saying(noise + END) as (target, _, _):
        assert await _ask(target) == (b"hello", [])


async def test_headers_may_come_in_pieces():
    pieces = b"".join(
        (
            frame(frames.HEADERS, 0, 1, _OK[:3]),
            frame(frames.CONTINUATION, 0, 1, _OK[3:9]),
            frame(frames.CONTINUATION, frames.END_HEADERS, 1, _OK[9:]),
        )
    )
    async with saying(pieces + MESSAGE + END) as (target, _, _):
        assert await _ask(target) == (b"hello", [])


async def test_a_ping_is_answered():
    async with saying(frame(frames.PING, 0, 0, b"12345678") + BEGIN + MESSAGE + END) as (
        target,
        got,
        _,
    ):
        channel = Channel(target, tls=False)
        await channel.unary(METHOD, b"")
        await _arrived(frame(frames.PING, frames.ACK, 0, b"12345678"), got)
        await channel.close()


STATUSES = {
    "nothing": (b"", StatusCode.UNAVAILABLE),
    "half a frame": (BEGIN[:5], StatusCode.UNAVAILABLE),
    "half an answer": (BEGIN + MESSAGE, StatusCode.UNAVAILABLE),
    "no messages": (BEGIN + END, StatusCode.INTERNAL),
    "two messages": (BEGIN + MESSAGE + MESSAGE + END, StatusCode.INTERNAL),
    "an end within a message": (BEGIN + MESSAGE[:-2], StatusCode.UNAVAILABLE),
    "an end without a status": (
        BEGIN + frame(frames.DATA, frames.END_STREAM, 1, prefixed(b"hello")),
        StatusCode.INTERNAL,
    ),
    "trailers without a status": (BEGIN + MESSAGE + _only(("a", "b")), StatusCode.UNKNOWN),
    "a status that is none": (BEGIN + _only(("grpc-status", "99")), StatusCode.UNKNOWN),
    "only a status": (
        _only((":status", "200"), ("content-type", "application/grpc"), ("grpc-status", "5")),
        StatusCode.NOT_FOUND,
    ),
    "a proxy's 502": (_only((":status", "502")), StatusCode.UNAVAILABLE),
    "a proxy's 404": (_only((":status", "404")), StatusCode.UNIMPLEMENTED),
    "a page": (
        frame(
            frames.HEADERS,
            frames.END_HEADERS,
            1,
            headers.literal(":status", "200") + headers.literal("content-type", "text/html"),
        )
        + frame(frames.DATA, 0, 1, b"<html>"),
        StatusCode.UNKNOWN,
    ),
    "data before headers": (MESSAGE, StatusCode.UNAVAILABLE),
    "a compressed message": (
        BEGIN + frame(frames.DATA, 0, 1, b"\x01\0\0\0\x01a"),
        StatusCode.UNAVAILABLE,
    ),
    "a pushed stream": (frame(frames.PUSH_PROMISE, 4, 1, bytes(4)), StatusCode.UNAVAILABLE),
    "a stream that nobody began": (
        frame(frames.HEADERS, frames.END_HEADERS, 5, _OK),
        StatusCode.UNAVAILABLE,
    ),
    "a window over its bound": (
        frames.window_update(0, 2**31 - 1),
        StatusCode.UNAVAILABLE,
    ),
    "an endless header block": (
        frame(frames.HEADERS, 0, 1, _OK) + frame(frames.CONTINUATION, 0, 1, bytes(9000)) * 10,
        StatusCode.UNAVAILABLE,
    ),
    "a header block that is not continued": (
        frame(frames.HEADERS, 0, 1, _OK) + MESSAGE,
        StatusCode.UNAVAILABLE,
    ),
    "a dynamic table": (frame(frames.HEADERS, 4, 1, b"\xbe"), StatusCode.UNAVAILABLE),
    "HTTP/1.1": (b"HTTP/1.1 400 Bad Request\r\n\r\n", StatusCode.UNAVAILABLE),
}


@pytest.mark.parametrize("what", STATUSES)
async def test_every_strange_answer_has_its_status(what):
    answer, code = STATUSES[what]
    async with saying(answer, closes=code is StatusCode.UNAVAILABLE) as (target, _, _):
        with pytest.raises(CallError) as raised:
            await _ask(target)
        assert raised.value.code is code


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (0x0, StatusCode.INTERNAL),
        (0x2, StatusCode.INTERNAL),
        (0x7, StatusCode.UNAVAILABLE),
        (0x8, StatusCode.CANCELLED),
        (0xB, StatusCode.RESOURCE_EXHAUSTED),
        (0xC, StatusCode.PERMISSION_DENIED),
    ],
)
async def test_a_reset_has_the_status_of_its_code(error, code, monkeypatch):
    # A refused call would be sent again, of which this server takes no notice.
    monkeypatch.setattr("llm_transformer.h2.channel.MOST_RESENT", 0)
    async with saying(BEGIN + frames.reset(1, error)) as (target, _, _):
        with pytest.raises(CallError) as raised:
            await _ask(target)
        assert raised.value.code is code


async def test_a_server_that_always_leaves_is_out_of_reach_and_not_stormed():
    async with saying(frame(frames.GOAWAY, 0, 0, pack(">LL", 0, 0))) as (target, _, seen):
        with pytest.raises(CallError) as raised:
            await _ask(target)
        assert raised.value.code is StatusCode.UNAVAILABLE
        assert seen["connections"] < 10


@pytest.mark.parametrize("hello", [b"", b"SSH-2.0-OpenSSH_9.2\r\n"])
async def test_a_server_that_does_not_say_hello_is_out_of_reach(hello, monkeypatch):
    monkeypatch.setattr("llm_transformer.h2.link.CONNECT_S", 0.2)
    async with saying(b"", hello=hello) as (target, _, seen):
        channel = Channel(target, tls=False)
        with pytest.raises(CallError) as raised:
            await channel.unary(METHOD, b"")
        assert raised.value.code is StatusCode.UNAVAILABLE
        # Tried again, but not at once.
        for _ in range(20):
            with pytest.raises(CallError):
                await channel.unary(METHOD, b"")
        assert seen["connections"] == 1
        await channel.close()


async def test_a_request_waits_for_the_windows_that_the_server_gives():
    """The server's first window is 10 bytes, then it gives more."""
    body = bytes(range(100))
    async with saying(
        frames.window_update(1, 50), hello=settings({frames.INITIAL_WINDOW_SIZE: 10})
    ) as (target, got, _):
        channel = Channel(target, tls=False)
        call = await channel.open(METHOD, body)
        await _arrived(prefixed(body)[10:60], got)
        assert prefixed(body)[:10] in got
        assert body[60:] not in got
        call.close()
        await channel.close()
