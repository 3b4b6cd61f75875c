"""What the strict HTTP protocol refuses, over real sockets; tests/conformance asks much more."""

import asyncio

import pytest

from openinference.generation import Chunk, FinishReason
from openinference.server import http_protocol

LIVE = b"GET /v2/health/live HTTP/1.1\r\n"


async def _answer(address, *parts):
    """What the server sends until it closes, after each of `parts` went out."""
    reader, writer = await asyncio.open_connection(*address[:2])
    try:
        for part in parts:
            writer.write(part)
            await writer.drain()
        async with asyncio.timeout(20):
            return await reader.read()
    finally:
        writer.close()


@pytest.mark.parametrize(
    ("request_head", "status", "told"),
    [
        (LIVE + b"\r\n", 400, b"Host is missing"),
        (LIVE + b"Host: a\r\nHost: b\r\n\r\n", 400, b"one host and port"),
        (LIVE + b"Host: a b\r\n\r\n", 400, b"one host and port"),
        (LIVE + b"Host: a\r\nX : y\r\n\r\n", 400, b"not valid HTTP/1.1"),
        (b"nonsense\r\n\r\n", 400, b"not valid HTTP/1.1"),
        (LIVE + b"Host: a\r\n" + b"X: %s\r\n" % (b"y" * 1000) * 80 + b"\r\n", 431, b"over the"),
        (LIVE + b"Host: a\r\nX: " + b"y" * 80_000, 431, b"over the limit of 65536 bytes"),
    ],
    ids=["no Host", "two Hosts", "no host", "space", "nonsense", "many headers", "endless header"],
)
async def test_what_is_no_request_is_refused_in_json_and_closed(
    rest_address, request_head, status, told
):
    answer = await _answer(rest_address, request_head)
    assert answer.startswith(b"HTTP/1.1 %d " % status)
    assert b"application/json" in answer
    assert told in answer.partition(b"\r\n\r\n")[2]


@pytest.mark.parametrize("host", [b"a", b"a:80", b"[::1]:80", b"", b"a_b.example:"])
async def test_a_proper_host_is_taken(rest_address, host):
    head = LIVE + b"Connection: close\r\nHost: " + host + b"\r\n\r\n"
    assert (await _answer(rest_address, head)).startswith(b"HTTP/1.1 200")


async def test_a_head_that_stalls_is_given_up(rest_address, monkeypatch):
    monkeypatch.setattr(http_protocol, "HEAD_S", 0.05)
    answer = await _answer(rest_address, LIVE, b"Host: ")
    assert answer.startswith(b"HTTP/1.1 408")


async def test_a_body_that_goes_on_after_the_answer_is_cut_off(rest_address, monkeypatch):
    monkeypatch.setattr(http_protocol, "LINGER_S", 0.05)
    head = b"POST /v2/models/m/infer HTTP/1.1\r\nHost: a\r\nContent-Length: 9999999999\r\n\r\n"
    assert (await _answer(rest_address, head)).startswith(b"HTTP/1.1 413")


async def test_an_answer_that_is_owed_goes_out_before_the_end(rest_address, service):
    release = asyncio.Event()
    service.script = [release, Chunk(0, "Hello", 3, 2, FinishReason.LENGTH)]
    body = b'{"text_input": "Hi"}'
    head = b"POST /v2/models/m/generate HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n"
    reader, writer = await asyncio.open_connection(*rest_address[:2])
    writer.write(head % len(body) + body + b"nonsense\r\n\r\n")
    async with asyncio.timeout(20):
        await service.began.wait()
        release.set()
        answer = await reader.read()
    writer.close()
    assert answer.startswith(b"HTTP/1.1 200")
    assert answer.count(b"HTTP/1.1") == 1


async def test_an_offer_to_upgrade_is_ignored_and_the_connection_goes_on(rest_address):
    upgrade = b"Host: a\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n"
    closing = LIVE + b"Host: a\r\nConnection: close\r\n\r\n"
    reader, writer = await asyncio.open_connection(*rest_address[:2])
    writer.write(LIVE + upgrade)
    async with asyncio.timeout(20):
        await reader.readuntil(b'{"live":true}')
        writer.write(closing)
        assert (await reader.read()).startswith(b"HTTP/1.1 200")
    writer.close()
