"""The client against a real gRPC server over the fake service."""

import asyncio
import copy
import socket
from contextlib import AsyncExitStack, aclosing, suppress

import grpc
import pytest

from llm_transformer.predictor_client import PredictorClient
from llm_transformer.resilience.wakeup import Probe
from openinference import errors
from openinference.context import RequestContext
from openinference.generation import Chunk, FinishReason, GenerationRequest
from openinference.proto import inference_pb2 as pb
from openinference.proto.inference_pb2_grpc import (
    GRPCInferenceServiceServicer,
    add_GRPCInferenceServiceServicer_to_server,
)
from openinference.sampling import SamplingParams

TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
STREAMED_OR_NOT = pytest.mark.parametrize("stream", [False, True])


def _request(*, stream, **sampling):
    return GenerationRequest("m", ("Hi",), SamplingParams(max_tokens=5, **sampling), stream)


def _in(seconds):
    return RequestContext("abc", asyncio.get_running_loop().time() + seconds)


async def _all(client, request, context=RequestContext("abc")):  # noqa: B008 (it is frozen)
    async with aclosing(client.generate(request, context)) as chunks:
        return [chunk async for chunk in chunks]


@pytest.fixture
async def connect():
    """Makes clients, and closes them."""
    clients = []

    def make(target):
        clients.append(PredictorClient(target, tls=False))
        return clients[-1]

    yield make
    for client in clients:
        await client.close()


@pytest.fixture
def client(connect, grpc_target):
    return connect(grpc_target)


async def test_chunks_are_those_of_the_predictor(client, service):
    assert await _all(client, _request(stream=False)) == [
        Chunk(0, "Hello", 3, 2, FinishReason.LENGTH)
    ]
    assert await _all(client, _request(stream=True)) == [
        Chunk(0, "Hel", 3, 1),
        Chunk(0, "lo", 3, 2, FinishReason.LENGTH),
    ]


@STREAMED_OR_NOT
async def test_the_predictor_gets_the_request_as_it_is(client, service, stream):
    request = _request(stream=stream, temperature=0.5, stop=("a", "b"), seed=7, n=2)
    await _all(client, request)
    assert service.request == request


@STREAMED_OR_NOT
async def test_id_trace_and_tenant_travel(client, service, stream):
    context = RequestContext("abc", None, TRACEPARENT, "s=1", "acme")
    await _all(client, _request(stream=stream), context)
    assert service.context[:5] == context[:5]


@STREAMED_OR_NOT
@pytest.mark.parametrize("script", [None, [errors.InvalidInput("too long")]])
async def test_what_answered_is_known_after_the_answer_and_after_an_error(
    client, service, stream, script
):
    service.script = script
    service.reply_headers = {"x-keepwarm-weights": "0f-a1", "x-keepwarm-queue-ms": "250"}
    context = RequestContext("abc")
    with suppress(errors.InvalidInput):
        await _all(client, _request(stream=stream), context)
    assert (context.reply.weights_id, context.reply.queued_s) == ("0f-a1", 0.25)


@STREAMED_OR_NOT
async def test_every_error_is_the_same_after_the_hop(client, service, every_error, stream):
    for error in every_error:
        if error.http_status in (202, 408, 413, 415):  # gRPC has no status of their own
            continue
        service.script = [error]
        with pytest.raises(type(error)) as raised:
            await _all(client, _request(stream=stream))
        again = raised.value
        assert type(again) is type(error)
        if not isinstance(error, errors.DeadlineExceeded):
            assert (again.message, again.retry_after_s) == (error.message, error.retry_after_s)


@STREAMED_OR_NOT
async def test_a_body_too_large_for_the_predictor_stays_413(client, service, stream):
    service.script = [errors.PayloadTooLarge("too large")]
    with pytest.raises(errors.PayloadTooLarge, match="too large"):
        await _all(client, _request(stream=stream))


async def test_an_error_after_the_first_chunk_comes_after_it(client, service):
    service.script = [Chunk(0, "Hel", 3, 1), errors.Unavailable("the engine has ended")]
    chunks = client.generate(_request(stream=True), RequestContext("abc"))
    assert await anext(chunks) == Chunk(0, "Hel", 3, 1)
    with pytest.raises(errors.Unavailable, match="the engine has ended"):
        await anext(chunks)


@STREAMED_OR_NOT
async def test_a_bug_of_the_predictor_tells_no_internals(client, service, stream):
    service.script = [ValueError("secret")]
    with pytest.raises(errors.InternalError, match=r"^internal error$"):
        await _all(client, _request(stream=stream))


async def test_a_name_with_several_predictors_reaches_all_of_them(connect, grpc_server, service):
    """What a headless Service's name resolves to."""
    first, second = service, copy.deepcopy(service)
    async with grpc_server(first) as one, grpc_server(second) as other:
        client = connect(f"{one},{other}")
        async with asyncio.timeout(20):
            while not (first.calls and second.calls):
                await _all(client, _request(stream=True))


def _unused_port():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


@STREAMED_OR_NOT
@pytest.mark.parametrize("host", ["127.0.0.1", "no-such-host.invalid"])
async def test_out_of_reach_is_503_and_names_no_host(connect, stream, host):
    port = _unused_port()
    client = connect(f"{host}:{port}")
    with pytest.raises(errors.Unavailable) as raised:
        await _all(client, _request(stream=stream))
    assert raised.value.message == "the predictor of model 'm' cannot be reached"
    assert raised.value.retry_after_s
    assert not await client.is_ready("m")


@STREAMED_OR_NOT
async def test_a_connection_that_breaks_is_503(connect, stream):
    """A predictor that dies in the middle: the connection is accepted, then cut."""
    answering = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0)
    async with answering:
        client = connect(f"127.0.0.1:{answering.sockets[0].getsockname()[1]}")
        with pytest.raises(errors.Unavailable, match=r"^the predictor of model 'm' cannot be"):
            await _all(client, _request(stream=stream))


@STREAMED_OR_NOT
async def test_the_deadline_travels_and_ends_the_work(client, service, stream):
    service.script = [asyncio.Event()]
    with pytest.raises(errors.DeadlineExceeded, match=r"^the request's deadline has passed$"):
        await _all(client, _request(stream=stream), _in(0.1))
    await service.until_ended()


@STREAMED_OR_NOT
async def test_the_predictor_knows_the_deadline(client, service, stream):
    context = _in(100)
    await _all(client, _request(stream=stream), context)
    assert service.context.deadline == pytest.approx(context.deadline, abs=5)


@STREAMED_OR_NOT
async def test_a_deadline_that_has_passed_calls_nobody(client, service, stream):
    with pytest.raises(errors.DeadlineExceeded):
        await _all(client, _request(stream=stream), _in(-1))
    assert service.calls == []


@STREAMED_OR_NOT
async def test_cancelling_reaches_the_predictor(client, service, stream):
    service.script = [asyncio.Event()]
    task = asyncio.create_task(_all(client, _request(stream=stream)))
    await service.began.wait()
    assert not service.ended.is_set()
    task.cancel()
    await service.until_ended()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_closing_a_stream_early_reaches_the_predictor(client, service):
    service.script = [Chunk(0, "Hel", 3, 1), asyncio.Event()]
    chunks = client.generate(_request(stream=True), RequestContext("abc"))
    await anext(chunks)
    assert not service.ended.is_set()
    await chunks.aclose()
    await service.until_ended()


async def test_readiness_is_the_predictors(client, service):
    assert await client.is_ready("m")
    service.ready = False
    assert not await client.is_ready("m")
    assert not await client.is_ready("x")


async def test_who_holds_a_probe_is_there(client, service):
    """Knative's activator, which waits for a pod longer than one probe may take."""
    holding = asyncio.Event()

    async def hold(model, version):
        await holding.wait()

    service.is_model_ready = hold
    assert await client.probe("m", 0.2) == Probe(ready=False, reachable=True)
    holding.set()


async def test_an_answer_that_is_whole_stays_whole_when_its_connection_breaks(
    connect, grpc_server, service
):
    end = Chunk(0, "lo", 3, 2, FinishReason.LENGTH)
    service.script = [Chunk(0, "Hel", 3, 1), end, asyncio.Event()]
    async with AsyncExitStack() as stack:
        client = connect(await stack.enter_async_context(grpc_server(service)))
        chunks = client.generate(_request(stream=True), RequestContext("abc"))
        assert [await anext(chunks), await anext(chunks)] == [Chunk(0, "Hel", 3, 1), end]
        await stack.aclose()
        with pytest.raises(StopAsyncIteration):
            await anext(chunks)


class Stranger(GRPCInferenceServiceServicer):
    """A V2 server that answers with `answer`, whatever it is asked."""

    answer = pb.ModelInferResponse()

    async def ModelInfer(self, request, context):  # noqa: N802 (the protocol's name)
        if isinstance(self.answer, grpc.StatusCode):
            await context.abort(self.answer, "10.1.2.3:80 says no", (("retry-after", "soon"),))
        return self.answer


@pytest.fixture
async def stranger():
    """A Stranger and its HOST:PORT."""
    server, servicer = grpc.aio.server(), Stranger()
    add_GRPCInferenceServiceServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    yield servicer, f"127.0.0.1:{port}"
    await server.stop(None)


@pytest.mark.parametrize(
    "answer",
    [
        pb.ModelInferResponse(outputs=[{"name": "y", "datatype": "STRING", "shape": [1]}]),
        pb.ModelInferResponse(
            outputs=[{"name": "text_output", "datatype": "BYTES", "shape": [1]}],
            raw_output_contents=[b"\1\0\0\0a"],
        ),
        pb.ModelInferResponse(
            outputs=[{"name": name, "datatype": "BYTES", "shape": [0]} for name in "ab"],
            raw_output_contents=[b""],
        ),
    ],
)
async def test_an_answer_that_is_not_ours_is_an_internal_error(connect, stranger, answer):
    servicer, target = stranger
    servicer.answer = answer
    with pytest.raises(errors.InternalError):
        await _all(connect(target), _request(stream=False))


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (grpc.StatusCode.UNAVAILABLE, errors.Unavailable),
        (grpc.StatusCode.INTERNAL, errors.Unavailable),
        (grpc.StatusCode.CANCELLED, errors.Unavailable),
        (grpc.StatusCode.UNKNOWN, errors.InternalError),
    ],
)
async def test_what_a_proxy_answers_for_the_predictor_names_no_host(connect, stranger, code, kind):
    servicer, target = stranger
    servicer.answer = code
    with pytest.raises(kind) as raised:
        await _all(connect(target), _request(stream=False))
    assert "10.1.2.3" not in raised.value.message
