"""Answers straight onto the connection are those that ASGI would give."""

import asyncio

import httpx
import orjson
import pytest
import uvicorn

from openinference.errors import Unavailable
from openinference.generation import Chunk
from openinference.server import cors
from openinference.server.http_protocol import StrictHttpProtocol

INFER = {"inputs": [{"name": "text_input", "shape": [1], "datatype": "BYTES", "data": ["Hi"]}]}
CHAT = {"model": "m", "messages": [{"role": "user", "content": "Hi"}]}
ASKED = {
    "infer": ("POST", "/v2/models/m/infer", INFER),
    "generate": ("POST", "/v2/models/m/generate", {"text_input": "Hi"}),
    "stream": ("POST", "/v2/models/m/generate_stream", {"text_input": "Hi"}),
    "chat stream": ("POST", "/v1/chat/completions", CHAT | {"stream": True}),
    "bad input": ("POST", "/v2/models/m/infer", {"inputs": []}),
    "bad generate": ("POST", "/v2/models/m/generate", {}),
    "bad chat": ("POST", "/v1/chat/completions", {"model": "m"}),
    "no such model": ("POST", "/v2/models/x/infer", INFER),
    "no such path": ("POST", "/v2/nothing", {}),
    "another method": ("DELETE", "/v2/models/m/infer", None),
    "a version": ("GET", "/v2/models/m/versions/1", None),
    "percent": ("GET", "/v2/models/%6D", None),
    "head": ("HEAD", "/v2/health/ready", None),
    "ready": ("GET", "/v2/health/ready", None),
}
# What differs from answer to answer, or is uvicorn's own.
_ELSE = {"date", "server", "x-request-id", "transfer-encoding"}


@pytest.fixture
async def wired(rest_address):
    host, port = rest_address[:2]
    async with httpx.AsyncClient(base_url=f"http://{host}:{port}", trust_env=False) as client:
        yield client


async def _asked(client, method, path, body):
    answer = await client.request(method, path, json=body)
    headers = {name: value for name, value in answer.headers.items() if name not in _ELSE}
    body = answer.content
    if b'"created"' in body:
        body = b"chat" + str(body.count(b"data: ")).encode()
    return answer.status_code, headers, body


@pytest.mark.parametrize("what", ASKED)
async def test_both_ways_give_the_same_answer(rest, wired, what):
    assert await _asked(wired, *ASKED[what]) == await _asked(rest, *ASKED[what])


@pytest.mark.parametrize("path", ["infer", "generate_stream"])
async def test_an_error_has_its_headers_both_ways(rest, wired, service, path):
    body = INFER if path == "infer" else {"text_input": "Hi"}
    service.reply_headers = {"www-authenticate": "Bearer"}
    for client in (rest, wired):
        service.script = [Unavailable("full", retry_after_s=1.5)]
        answer = await client.post(f"/v2/models/m/{path}", json=body)
        assert answer.status_code == 503
        assert (answer.headers["retry-after"], answer.headers["www-authenticate"]) == (
            "2",
            "Bearer",
        )


def _post(path, body, version="1.1"):
    content = orjson.dumps(body)
    head = f"POST {path} HTTP/{version}\r\nHost: test\r\nContent-Length: {len(content)}\r\n\r\n"
    return head.encode() + content


async def test_a_caller_of_http_1_0_gets_the_events_and_then_the_end(rest_address):
    reader, writer = await asyncio.open_connection(*rest_address[:2])
    writer.write(_post("/v2/models/m/generate_stream", {"text_input": "Hi"}, "1.0"))
    head, _, body = (await reader.read()).partition(b"\r\n\r\n")
    assert b"transfer-encoding" not in head
    assert b"connection: close" in head
    assert body.startswith(b"data: {")
    assert body.endswith(b"}\n\n")
    writer.close()


async def test_requests_sent_ahead_are_answered_in_order(rest_address):
    reader, writer = await asyncio.open_connection(*rest_address[:2])
    writer.write(_post("/v2/models/m/infer", INFER | {"id": "1"}))
    writer.write(_post("/v2/models/m/infer", INFER | {"id": "2"}))
    answers = await reader.readuntil(b'"id":"2"')
    assert answers.index(b'"id":"1"') < answers.index(b'"id":"2"')
    writer.close()


async def test_a_body_that_comes_later_is_waited_for(rest_address):
    reader, writer = await asyncio.open_connection(*rest_address[:2])
    request = _post("/v2/models/m/infer", INFER)
    for piece in (request[:-60], request[-60:-20], request[-20:]):
        writer.write(piece)
        await writer.drain()
        await asyncio.sleep(0.02)  # so that they are not one piece
    assert (await reader.readline()).startswith(b"HTTP/1.1 200")
    writer.close()


async def test_a_page_of_another_origin_gets_its_headers(app, free_ports):
    (port,) = free_ports(1)
    allowed = cors.allowing(app, ["https://page.example"])
    server = uvicorn.Server(
        uvicorn.Config(
            allowed, port=port, http=StrictHttpProtocol, ws="none", log_config=None, lifespan="off"
        )
    )
    task = asyncio.create_task(server.serve())
    async with httpx.AsyncClient(trust_env=False) as client, asyncio.timeout(20):
        while not server.started:  # noqa: ASYNC110 (uvicorn has no event)
            await asyncio.sleep(0.01)
        answer = await client.post(
            f"http://127.0.0.1:{port}/v2/models/m/infer",
            json=INFER,
            headers={"origin": "https://page.example"},
        )
    server.should_exit = True
    await task
    assert answer.status_code == 200
    assert answer.headers["access-control-allow-origin"] == "https://page.example"


async def test_a_stream_to_a_caller_who_does_not_read_waits(rest_address, service):
    """Nothing piles up: the work is not asked for more than the connection takes."""
    told = 0

    class Endless:
        def __aiter__(self):
            return self

        async def __anext__(self):
            nonlocal told
            told += 1
            return Chunk(0, "x" * 65536, 3, told)

        async def aclose(self):
            service.ended.set()

    service.generate = lambda *_: Endless()
    _, writer = await asyncio.open_connection(*rest_address[:2])
    writer.write(_post("/v2/models/m/generate_stream", {"text_input": "Hi"}))
    before = -1
    while told != before or not told:
        before = told
        await asyncio.sleep(0.2)  # as long as it grows
    assert told < 1000
    writer.transport.abort()
    await service.until_ended()
