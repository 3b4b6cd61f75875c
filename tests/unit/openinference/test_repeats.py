"""Requests that come again in the same bytes, on real connections: answered alike, or as usual."""

import asyncio
import json
import socket
from contextlib import closing
from functools import partial

import httpx
import pytest
import uvicorn

from openinference import errors
from openinference.context import Cached
from openinference.generation import Chunk, FinishReason
from openinference.repeats import Repeats
from openinference.server.http_protocol import StrictHttpProtocol

HELLO = Chunk(0, "Hello", 3, 2, FinishReason.LENGTH)
INFER = {"inputs": [{"name": "text_input", "shape": [1], "datatype": "BYTES", "data": ["Hi"]}]}
CHAT = {"model": "m", "messages": [{"role": "user", "content": "Hi"}]}


@pytest.fixture
def service(service):
    """The fake service, which has an answer at hand unless told otherwise."""
    service.at_hand = (HELLO,)
    service.kept_contexts = []
    usual = service.generate

    def generate(request, version, context):
        context.reply.cached = Cached.HIT
        return usual(request, version, context)

    def kept(request, version, context):
        if isinstance(service.at_hand, Exception):
            raise service.at_hand
        if service.at_hand is None:
            return None
        service.kept_contexts.append(context)
        context.reply.headers["x-cache"] = "hit"
        return service.at_hand

    service.generate, service.kept, service.keeps = generate, kept, True
    return service


@pytest.fixture
def keep_alive_s():
    return 65


@pytest.fixture
async def address(app, keep_alive_s):
    listener = socket.create_server(("127.0.0.1", 0))
    http = partial(StrictHttpProtocol, repeats=Repeats())
    options = {"ws": "none", "log_config": None, "lifespan": "off"}
    config = uvicorn.Config(app, http=http, timeout_keep_alive=keep_alive_s, **options)
    server = uvicorn.Server(config)
    task = asyncio.create_task(server.serve(sockets=[listener]))
    yield listener.getsockname()
    server.should_exit = True
    await task


def raw(path, body, *headers):
    content = json.dumps(body).encode()
    lines = [f"POST {path} HTTP/1.1", "host: x", f"content-length: {len(content)}", *headers]
    return "\r\n".join([*lines, "", ""]).encode() + content


class Connection:
    """Sends bytes, reads answers."""

    def __init__(self, reader, writer):
        self._reader = reader
        self.writer = writer

    async def answer(self):
        """Status, headers and decoded body of the next answer."""
        async with asyncio.timeout(20):
            head = await self._reader.readuntil(b"\r\n\r\n")
            status, *lines = head.decode().split("\r\n")[:-2]
            headers = dict(line.split(": ", 1) for line in lines)
            body = await self._reader.readexactly(int(headers["content-length"]))
        return int(status.split()[1]), headers, json.loads(body)

    async def ended(self):
        """What comes until the server closes the connection."""
        async with asyncio.timeout(20):
            return await self._reader.read()

    async def ask(self, data):
        self.writer.write(data)
        return await self.answer()


@pytest.fixture
async def connection(address):
    reader, writer = await asyncio.open_connection(*address)
    yield Connection(reader, writer)
    writer.close()


INFER_BYTES = raw("/v2/models/m/infer", INFER)


async def test_the_second_time_the_answer_is_the_same_and_the_service_was_asked(
    connection, service
):
    first = await connection.ask(INFER_BYTES)
    again = [await connection.ask(INFER_BYTES) for _ in range(3)]
    assert len(service.calls) == 1
    assert len(service.kept_contexts) == 3
    for status, headers, body in again:
        assert (status, body) == (200, first[2])
        assert set(headers) == {*first[1], "x-cache"}
    ids = {headers["x-request-id"] for _, headers, _ in (first, *again)}
    assert len(ids) == 4


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v2/models/m/infer", {**INFER, "id": "7"}),
        ("/v2/models/m/generate", {"text_input": "Hi", "parameters": {"details": True}}),
    ],
)
async def test_the_body_is_to_the_byte_what_the_usual_way_gives(connection, service, path, body):
    data = raw(path, body)
    usual = await connection.ask(data)
    assert (await connection.ask(data))[2] == usual[2]
    service.at_hand = (Chunk(0, "Bye", 3, 2, FinishReason.LENGTH),)
    assert "Bye" in json.dumps((await connection.ask(data))[2])


@pytest.mark.parametrize("keep_alive_s", [0.1])
async def test_a_connection_that_had_only_such_answers_is_closed_when_idle(
    connection, address, service, caplog
):
    await connection.ask(INFER_BYTES)
    reader, writer = await asyncio.open_connection(*address)
    with closing(writer):
        again = Connection(reader, writer)
        await again.ask(INFER_BYTES)
        assert await again.ended() == b""
    assert len(service.calls) == len(service.kept_contexts) == 1
    assert await connection.ended() == b""
    assert not caplog.records


async def test_the_service_is_told_who_asks_now(connection, address, service):
    await connection.ask(INFER_BYTES)
    (first,) = [context for _, _, context in service.calls]
    reader, writer = await asyncio.open_connection(*address, local_addr=("127.0.0.2", 0))
    with closing(writer):
        assert (await Connection(reader, writer).ask(INFER_BYTES))[0] == 200
    assert first.caller.address == "127.0.0.1"
    assert service.kept_contexts[-1].caller == first.caller._replace(address="127.0.0.2")


async def test_openai_answers_have_an_id_of_their_own(connection, service):
    data = raw("/v1/chat/completions", CHAT)
    answers = [(await connection.ask(data))[2] for _ in range(3)]
    assert len({answer.pop("id") for answer in answers}) == 3
    assert len({answer.pop("created") for answer in answers}) <= 2
    assert answers[0] == answers[1] == answers[2]
    assert len(service.calls) == 1


async def test_what_is_not_at_hand_goes_the_usual_way(connection, service):
    await connection.ask(INFER_BYTES)
    service.at_hand = None
    assert (await connection.ask(INFER_BYTES))[0] == 200
    service.at_hand = errors.Unauthenticated("no")
    assert (await connection.ask(INFER_BYTES))[0] == 200
    assert len(service.calls) == 3


async def test_each_has_an_address_and_a_reply_of_its_own(connection, service):
    data = raw("/v2/models/m/infer", INFER, "authorization: Bearer k")
    for _ in range(2):
        await connection.ask(data)
    (context,) = service.kept_contexts
    assert (context.caller.address, context.caller.api_key) == ("127.0.0.1", "k")
    assert context.reply is not service.context.reply


@pytest.mark.parametrize(
    "header",
    [
        "x-request-id: abc\r\nX-Request-ID: def",
        "origin: http://a",
        "traceparent: a\r\nTraceparent: b",
        "tracestate: a=b",
        "connection: close",
    ],
)
async def test_what_never_comes_alike_is_not_remembered(address, service, header):
    for _ in range(2):
        connection = Connection(*await asyncio.open_connection(*address))
        assert (await connection.ask(raw("/v2/models/m/infer", INFER, header)))[0] == 200
        connection.writer.close()
    assert service.kept_contexts == []


async def test_bytes_in_pieces_or_together_mean_the_same(connection, service):
    await connection.ask(INFER_BYTES)
    for at in (1, 30, len(INFER_BYTES) - 1):
        connection.writer.write(INFER_BYTES[:at])
        await asyncio.sleep(0.05)
        assert (await connection.ask(INFER_BYTES[at:]))[0] == 200
    assert len(service.calls) == 4
    other = raw("/v2/models/m/infer", {**INFER, "id": "last"})
    connection.writer.write(INFER_BYTES + INFER_BYTES + other)
    bodies = [(await connection.answer())[2] for _ in range(3)]
    assert [body.get("id") for body in bodies] == [None, None, "last"]


async def test_nobody_overtakes_on_a_connection(connection, service):
    await connection.ask(INFER_BYTES)
    gate = asyncio.Event()
    service.script = [gate, HELLO]
    connection.writer.write(raw("/v2/models/m/infer", {**INFER, "id": "slow"}))
    async with asyncio.timeout(20):
        while len(service.calls) < 2:  # noqa: ASYNC110 (it has no events)
            await asyncio.sleep(0.001)
    connection.writer.write(INFER_BYTES)
    await asyncio.sleep(0.05)
    service.script = None
    gate.set()
    assert [(await connection.answer())[2].get("id") for _ in range(2)] == ["slow", None]


async def test_errors_and_streams_and_misses_are_not_remembered(connection, service, address):
    service.generate = type(service).generate.__get__(service)  # a miss
    for data in (INFER_BYTES, raw("/v2/models/x/infer", INFER)):
        for _ in range(2):
            await connection.ask(data)
    async with httpx.AsyncClient(base_url="http://{}:{}".format(*address)) as client:
        for _ in range(2):
            await client.post("/v2/models/m/generate_stream", json={"text_input": "Hi"})
    assert service.kept_contexts == []


async def test_they_count_as_requests(connection):
    async def count():
        connection.writer.write(b"GET /metrics HTTP/1.1\r\nhost: x\r\n\r\n")
        head = await connection._reader.readuntil(b"\r\n\r\n")
        length = int(head.split(b"content-length: ")[1].split(b"\r\n")[0])
        text = (await connection._reader.readexactly(length)).decode()
        name = 'keepwarm_requests_total{endpoint="infer",status="200"} '
        return float(next((x for x in text.splitlines() if x.startswith(name)), "0").split()[-1])

    before = await count()
    for _ in range(5):
        await connection.ask(INFER_BYTES)
    assert await count() - before == 5


async def test_an_id_of_its_own_makes_no_other_request(connection, service):
    def data(request_id, name="x-request-id"):
        return raw("/v2/models/m/infer", INFER, f"{name}: {request_id}", "accept: */*")

    told = [
        (await connection.ask(data(*words)))[1]["x-request-id"]
        for words in (("a",), ("b",), ("c", "X-Request-Id"), ("not usable",), ("",))
    ]
    assert told[:3] == ["a", "b", "c"]
    assert len({*told}) == 5
    assert "not usable" not in told
    assert len(service.calls) == 1
    assert [context.request_id for context in service.kept_contexts] == told[1:]


async def test_a_trace_of_its_own_makes_no_other_request(connection, service):
    def data(*lines):
        return raw("/v2/models/m/infer", INFER, "accept: */*", *lines)

    traces = [f"00-{number:032x}-b7ad6b7169203331-01" for number in (1, 2, 3)]
    told = [
        (await connection.ask(data(*lines)))[1].get("traceparent")
        for lines in (
            [f"traceparent: {traces[0]}"],
            [f"Traceparent: {traces[1]}"],
            ["x-request-id: a", f"traceparent: {traces[2]}"],
            ["traceparent: not one"],
            [],
        )
    ]
    assert told == [*traces, None, None]
    assert len(service.calls) == 1
    assert [context.traceparent for context in service.kept_contexts] == told[1:]


@pytest.mark.parametrize(
    "head",
    [
        "x-request-id : a",
        "x-request-id: a\r\n folded",
        "x-request-id: a\x00b",
        "x-request-id: a\nhost: y",
    ],
)
async def test_what_is_no_header_line_is_the_parsers_to_refuse(connection, service, head):
    for _ in range(2):
        await connection.ask(raw("/v2/models/m/infer", INFER))
    data = raw("/v2/models/m/infer", INFER).replace(
        b"\r\ncontent", b"\r\n" + head.encode() + b"\r\ncontent", 1
    )
    status, _, _ = await connection.ask(data)
    assert status == 400
    assert len(service.kept_contexts) == 1


async def test_a_body_that_looks_like_a_head_is_a_body(connection, service):
    texts = ["\r\nx-request-id: a\r\n", "\r\nx-request-id: b\r\n"]
    for text in texts:
        path = "/v2/models/m/infer"
        head = f"POST {path} HTTP/1.1\r\nhost: x\r\ninference-header-content-length: 0\r\n"
        data = f"{head}content-length: {len(text)}\r\n\r\n{text}".encode()
        connection.writer.write(data)
        await connection._reader.readuntil(b"\r\n\r\n")
        await connection._reader.read(1000)
    assert [call[0].prompts for call in service.calls] == [(text,) for text in texts]


def test_memory_is_bounded():
    repeats = Repeats(all_bytes=100_000)
    for number in range(100):
        repeats.keep(f"{number}".encode() * 100, None)
    assert 2 <= len(repeats._repeats) <= 4


async def test_a_long_answer_is_not_kept_twice(connection, service):
    long = Chunk(0, "word " * 5000, 3, 2, FinishReason.LENGTH)
    service.script = service.at_hand = (long,)
    answers = [(await connection.ask(INFER_BYTES))[2] for _ in range(3)]
    assert answers[0] == answers[1] == answers[2]
    assert answers[0]["outputs"][0]["data"] == [long.text]
    assert len(service.calls) == 1
