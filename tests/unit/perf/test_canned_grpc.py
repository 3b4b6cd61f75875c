"""The canned predictor says what a predictor of grpcio's says, to real gRPC clients."""

import asyncio
from contextlib import asynccontextmanager

import grpc
import pytest
from canned import ANSWER, pieces
from canned_grpc import CannedPredictor, frame
from dummy_predictor import DummyService

from llm_transformer.predictor_client import PredictorClient
from openinference.context import RequestContext
from openinference.generation import GenerationRequest
from openinference.grpc_servicer import InferenceServicer, register
from openinference.proto import inference_pb2 as pb
from openinference.proto.inference_pb2_grpc import GRPCInferenceServiceStub
from openinference.sampling import SamplingParams

MODEL = "model"
PACE = "1 ms between tokens"


@asynccontextmanager
async def canned():
    """The address of a canned predictor."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(CannedPredictor().connection, "127.0.0.1", 0)
    async with server:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"


@asynccontextmanager
async def grpcio():
    """The address of the dummy predictor behind grpcio's server."""
    server = grpc.aio.server()
    register(InferenceServicer(DummyService(MODEL)), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        await server.stop(0)


@asynccontextmanager
async def stub_of(serving):
    """A stub of grpcio's client in front of what `serving` serves."""
    async with serving() as address, grpc.aio.insecure_channel(address) as channel:
        yield GRPCInferenceServiceStub(channel)


def infer(prompt="What is the capital of France?", *, raw, outputs=(), tokens=16, name="7"):
    """A request as a bare client (typed) or as our transformer (raw) sends it."""
    message = pb.ModelInferRequest(model_name=MODEL, id=name)
    tensor = message.inputs.add(name="text_input", datatype="BYTES", shape=[1])
    data = prompt.encode()
    if raw:
        message.raw_input_contents.append(len(data).to_bytes(4, "little") + data)
    else:
        tensor.contents.bytes_contents.append(data)
    message.parameters["max_tokens"].int64_param = tokens
    for output in outputs:
        message.outputs.add(name=output)
    return message


async def once(message):
    yield message


REQUESTS = {
    "typed, as it comes": {"raw": False},
    "raw, as it comes": {"raw": True},
    "raw, every output": {"raw": True, "outputs": ("text_output", "finish_reason")},
    "without an id": {"raw": False, "name": ""},
    "a prompt of 100 kB": {"raw": True, "prompt": "word " * 20_000},
}


@pytest.mark.parametrize("request_of", REQUESTS.values(), ids=REQUESTS)
async def test_an_answer_is_what_grpcios_predictor_answers(request_of):
    answers = []
    for serving in (canned, grpcio):
        async with stub_of(serving) as stub:
            answers.append(await stub.ModelInfer(infer(**request_of)))
    assert answers[0] == answers[1]


@pytest.mark.parametrize("pace", [PACE, f"{PACE}, in step", "0 ms between tokens"])
@pytest.mark.parametrize("raw", [True, False])
async def test_a_stream_is_what_grpcios_predictor_streams(pace, raw):
    streams = []
    for serving in (canned, grpcio):
        async with stub_of(serving) as stub:
            call = stub.ModelStreamInfer(once(infer(pace, raw=raw, tokens=20)))
            streams.append([message async for message in call])
    assert len(streams[0]) == 20
    assert streams[0] == streams[1]


async def test_many_streams_of_one_connection_stay_apart():
    async with stub_of(canned) as stub:

        async def texts(number):
            message = infer(f"{PACE}, in step", raw=False, tokens=number + 1, name=str(number))
            call = stub.ModelStreamInfer(once(message))
            answers = [answer.infer_response async for answer in call]
            assert {answer.id for answer in answers} == {str(number)}
            return [answer.outputs[0].contents.bytes_contents[0].decode() for answer in answers]

        found = await asyncio.gather(*map(texts, range(100)))
    assert found == [pieces(number + 1) for number in range(100)]


async def test_more_answers_than_the_connections_first_window_all_come():
    async with stub_of(canned) as stub:
        streams = [stub.ModelStreamInfer(once(infer(PACE, raw=True, tokens=200))) for _ in range(8)]
        for stream in streams:
            assert len([message async for message in stream]) == 200
        whole = await asyncio.gather(
            *(stub.ModelInfer(infer(raw=False, name=str(n))) for n in range(1000))
        )
    assert [answer.id for answer in whole] == [str(n) for n in range(1000)]


async def test_our_own_client_takes_its_answers_and_what_it_tells_of_them():
    request = GenerationRequest(MODEL, ("hello",), SamplingParams(16), stream=False)
    async with canned() as address:
        client = PredictorClient(address, tls=False)
        try:
            assert await client.is_ready(MODEL)
            context = RequestContext("1")
            (chunk,) = [chunk async for chunk in client.generate(request, context)]
        finally:
            await client.close()
    assert chunk.text == ANSWER
    assert (context.reply.weights_id, context.reply.queued_s) == ("canned", 0.0)


async def test_a_stream_that_is_cancelled_ends_and_its_connection_goes_on():
    async with stub_of(canned) as stub:
        call = stub.ModelStreamInfer(once(infer("1000 ms between tokens", raw=False)))
        assert await call.read() is not grpc.aio.EOF
        call.cancel()
        answer = await stub.ModelInfer(infer(raw=False))
    assert answer.outputs[0].contents.bytes_contents[0].decode() == ANSWER


def test_a_frame_has_its_length_kind_flags_and_stream():
    assert frame(8, 0, 5, b"\x00\x00\x10\x00") == bytes.fromhex("000004 08 00 00000005 00001000")
