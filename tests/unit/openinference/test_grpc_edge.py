"""Every method, over the fake service, through a real connection."""

import asyncio
from contextlib import suppress

import grpc
import pytest
from google.protobuf.empty_pb2 import Empty

from openinference import errors, grpc_servicer, v2_grpc
from openinference.generation import Chunk, FinishReason
from openinference.messages import InferRequest, bytes_tensor
from openinference.proto import inference_pb2 as pb

TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
INFER = v2_grpc.encode_request(InferRequest("m", [bytes_tensor("text_input", ["Hi"])], id="a1"))


def _infer(**changes):
    message = pb.ModelInferRequest()
    message.CopyFrom(INFER)
    message.MergeFrom(pb.ModelInferRequest(**changes))
    return message


async def _failure(call):
    with pytest.raises(grpc.aio.AioRpcError) as failed:
        await call
    return failed.value


async def _stream(stub, *messages, **options):
    return [answer async for answer in stub.ModelStreamInfer(iter(messages), **options)]


async def _stream_failure(stub, *messages, **options):
    answers = []
    try:
        async for answer in stub.ModelStreamInfer(iter(messages), **options):
            answers.append(answer)  # noqa: PERF401 (the answers before the error are wanted)
    except grpc.aio.AioRpcError as error:
        return answers, error
    raise AssertionError("the stream ended without an error")


def _texts(answers):
    """The raw text of each answer that is none of an error."""
    return [
        each.infer_response.raw_output_contents[0][4:] for each in answers if not each.error_message
    ]


async def test_a_server_tells_about_itself(stub):
    assert (await stub.ServerLive(pb.ServerLiveRequest())).live
    assert (await stub.ServerReady(pb.ServerReadyRequest())).ready
    assert (await stub.ModelReady(pb.ModelReadyRequest(name="m"))).ready
    server = await stub.ServerMetadata(pb.ServerMetadataRequest())
    assert (server.name, server.version) == ("fake", "1.2")
    model = await stub.ModelMetadata(pb.ModelMetadataRequest(name="m"))
    assert (model.name, model.platform) == ("m", "fake")
    assert [tensor.name for tensor in model.inputs] == ["text_input"]


async def test_a_server_that_is_not_ready_says_so_without_an_error(stub, service):
    service.live = service.ready = False
    assert not (await stub.ServerLive(pb.ServerLiveRequest())).live
    assert not (await stub.ServerReady(pb.ServerReadyRequest())).ready
    assert not (await stub.ModelReady(pb.ModelReadyRequest(name="m"))).ready


@pytest.mark.parametrize(
    ("ready", "only_ready", "states"),
    [
        (True, False, ["READY"]),
        (True, True, ["READY"]),
        (False, False, ["UNAVAILABLE"]),
        (False, True, []),
    ],
)
async def test_the_index_tells_the_state_of_models(stub, service, ready, only_ready, states):
    service.ready = ready
    index = await stub.RepositoryIndex(pb.RepositoryIndexRequest(ready=only_ready))
    assert [model.state for model in index.models] == states


async def test_nobody_can_unload_a_model(channel):
    call = channel.unary_unary("/inference.GRPCInferenceService/RepositoryModelUnload")
    assert (await _failure(call(Empty().SerializeToString()))).code() is (
        grpc.StatusCode.UNIMPLEMENTED
    )


@pytest.mark.parametrize("version", ["", "1"])
async def test_an_unknown_model_or_version_is_not_found(stub, version):
    name = "m" if version else "x"
    for call in (
        stub.ModelReady(pb.ModelReadyRequest(name=name, version=version)),
        stub.ModelMetadata(pb.ModelMetadataRequest(name=name, version=version)),
        stub.ModelInfer(_infer(model_name=name, model_version=version)),
    ):
        error = await _failure(call)
        assert error.code() is grpc.StatusCode.NOT_FOUND
        assert "model" in error.details()


async def test_a_raw_request_is_answered_raw(stub):
    answer = await stub.ModelInfer(INFER)
    assert (answer.model_name, answer.model_version, answer.id) == ("m", "", "a1")
    (tensor,) = answer.outputs
    assert (tensor.name, tensor.datatype, list(tensor.shape)) == ("text_output", "BYTES", [1])
    assert list(answer.raw_output_contents) == [b"\5\0\0\0Hello"]
    assert not tensor.HasField("contents")


async def test_a_typed_request_is_answered_typed(stub):
    message = pb.ModelInferRequest(model_name="m")
    contents = pb.InferTensorContents(bytes_contents=[b"Hi"])
    message.inputs.add(name="text_input", datatype="BYTES", shape=[1], contents=contents)
    answer = await stub.ModelInfer(message)
    assert list(answer.outputs[0].contents.bytes_contents) == [b"Hello"]
    assert not answer.raw_output_contents
    (first, last) = await _stream(stub, message)
    assert list(first.infer_response.outputs[0].contents.bytes_contents) == [b"Hel"]
    assert last.infer_response.parameters["triton_final_response"].bool_param


async def test_each_chunk_is_an_answer_of_the_stream_and_the_last_is_marked(stub):
    answers = await _stream(stub, INFER)
    assert _texts(answers) == [b"Hel", b"lo"]
    assert [
        each.infer_response.parameters["triton_final_response"].bool_param for each in answers
    ] == [False, True]
    assert {each.infer_response.id for each in answers} == {"a1"}
    assert {each.error_message for each in answers} == {""}


async def test_only_the_last_chunk_of_all_sequences_is_marked_final(stub, service):
    message = v2_grpc.encode_request(InferRequest("m", [bytes_tensor("text_input", ["Hi", "Ho"])]))
    service.script = [
        Chunk(1, "a", 1, 1, FinishReason.EOS),
        Chunk(0, "b", 1, 1),
        Chunk(0, "c", 1, 2, FinishReason.EOS),
    ]
    answers = await _stream(stub, message)
    assert [
        each.infer_response.parameters["triton_final_response"].bool_param for each in answers
    ] == [False, False, True]


async def test_several_requests_of_one_stream_are_each_answered(stub):
    answers = await _stream(stub, *(INFER for _ in range(200)))
    assert sorted(_texts(answers)) == [b"Hel"] * 200 + [b"lo"] * 200


async def test_an_error_in_a_stream_is_an_answer_and_does_not_end_it(stub, service):
    answers = await _stream(stub, _infer(model_name="x"), INFER, pb.ModelInferRequest(id="z"))
    failed = {each.infer_response.id: each.error_message for each in answers if each.error_message}
    assert failed == {"a1": "model 'x' not found", "z": failed["z"]}
    assert "inputs must be one tensor" in failed["z"]
    assert _texts(answers) == [b"Hel", b"lo"]


async def test_a_strict_caller_gets_a_status_that_ends_the_stream(stub, service, every_error):
    for error in every_error:
        service.script = [Chunk(0, "Hel", 3, 1), error]
        answers, failure = await _stream_failure(
            stub, INFER, metadata=(("triton_grpc_error", "true"),)
        )
        assert _texts(answers) == [b"Hel"]
        assert failure.code() is error.grpc_status
        assert failure.details() == error.message
        assert dict(failure.trailing_metadata()).get("retry-after") == (
            None if error.retry_after_s is None else "2.5"
        )


async def test_every_error_of_the_service_has_its_status(stub, service, every_error):
    for error in every_error:
        service.script = [error]
        failure = await _failure(stub.ModelInfer(INFER, metadata=(("x-request-id", "abc"),)))
        assert (failure.code(), failure.details()) == (error.grpc_status, error.message)
        trailing = dict(failure.trailing_metadata())
        assert trailing["x-request-id"] == "abc"
        assert trailing.get("retry-after") == (None if error.retry_after_s is None else "2.5")


async def test_a_bug_is_internal_and_tells_no_internals(stub, service):
    service.script = [ValueError("secret")]
    failure = await _failure(stub.ModelInfer(INFER))
    assert (failure.code(), failure.details()) == (grpc.StatusCode.INTERNAL, "internal error")
    (answer,) = await _stream(stub, INFER)
    assert answer.error_message == "internal error"


@pytest.mark.parametrize(
    ("message", "told"),
    [
        (pb.ModelInferRequest(model_name="m"), "inputs must be one tensor"),
        (_infer(raw_input_contents=[b""]), "raw_input_contents must have one entry"),
        (_infer(parameters={"beam": pb.InferParameter(int64_param=2)}), "'beam' is unknown"),
        (_infer(parameters={"timeout": pb.InferParameter(string_param="5")}), "'timeout' must be"),
        (_infer(outputs=[{"name": "logits"}]), "outputs: 'logits' is unknown"),
    ],
)
async def test_bad_input_is_invalid_argument_naming_the_field(stub, message, told):
    failure = await _failure(stub.ModelInfer(message))
    assert failure.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert told in failure.details()


async def test_a_very_long_name_does_not_make_a_message_too_long_to_send(stub):
    message = pb.ModelInferRequest(model_name="m")
    message.inputs.add(name="x" * 10**5, datatype="x" * 10**5, shape=[1])
    failure = await _failure(stub.ModelInfer(message))
    assert failure.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_bytes_that_are_no_request_are_an_error_in_the_stream_which_goes_on(channel):
    call = channel.stream_stream("/inference.GRPCInferenceService/ModelStreamInfer")
    messages = iter([b"\xff\xff", INFER.SerializeToString()])
    answers = [pb.ModelStreamInferResponse.FromString(raw) async for raw in call(messages)]
    (told,) = [answer.error_message for answer in answers if answer.error_message]
    assert told == "a message of the stream is not a ModelInferRequest"
    assert len(answers) == 3


@pytest.mark.parametrize("method", ["ModelInfer", "ModelReady", "ModelMetadata"])
async def test_bytes_that_are_no_request_are_an_invalid_argument(channel, method):
    call = channel.unary_unary(f"/inference.GRPCInferenceService/{method}")
    failure = await _failure(call(b"\xff\xff"))
    assert failure.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert failure.details().startswith(f"the request is not a {method}")


async def test_context_comes_from_metadata_and_goes_back_in_the_trailer(stub, service):
    metadata = (
        ("x-request-id", "abc"),
        ("traceparent", TRACEPARENT),
        ("tracestate", "s=1"),
        ("x-keepwarm-tenant", "acme"),
    )
    call = stub.ModelInfer(INFER, metadata=metadata)
    await call
    assert service.context[:5] == ("abc", None, TRACEPARENT, "s=1", "acme")
    trailing = dict(await call.trailing_metadata())
    assert trailing == {"x-request-id": "abc", "traceparent": TRACEPARENT}


@pytest.mark.parametrize("strict", ["true", "false"])
@pytest.mark.parametrize("script", [None, [errors.Unavailable("the engine is full")]])
async def test_what_a_stage_says_goes_back_in_the_trailer(stub, service, script, strict):
    service.script, service.reply_headers = script, {"x-cache": "miss"}
    unary = stub.ModelInfer(INFER)
    stream = stub.ModelStreamInfer(iter([INFER]), metadata=(("triton_grpc_error", strict),))
    with suppress(grpc.aio.AioRpcError):
        await unary
    with suppress(grpc.aio.AioRpcError):
        assert [answer async for answer in stream]
    for call in (unary, stream):
        assert dict(await call.trailing_metadata())["x-cache"] == "miss"


async def test_a_service_knows_the_address_and_the_key(stub, service):
    await stub.ModelInfer(INFER, metadata=(("authorization", "Bearer kw_a_b"),))
    caller = service.context.caller
    assert (caller.address, caller.api_key, caller.route) == ("127.0.0.1", "kw_a_b", "ModelInfer")


@pytest.mark.parametrize(
    ("peer", "address"),
    [
        ("ipv4:10.0.0.1:4711", "10.0.0.1"),
        ("ipv6:%5B::1%5D:4711", "::1"),
        ("ipv6:[fe80::1]:4711", "fe80::1"),
        ("unix:/tmp/s", ""),
    ],
)
def test_the_address_is_read_from_grpcs_name_of_a_peer(peer, address):
    assert grpc_servicer._address(peer) == address


async def test_an_unusable_timeout_is_invalid_argument(stub):
    metadata = (("x-request-timeout", "soon"),)
    failure = await _failure(stub.ModelInfer(INFER, metadata=metadata))
    assert failure.code() is grpc.StatusCode.INVALID_ARGUMENT


@pytest.mark.parametrize(
    ("message", "options"),
    [
        (INFER, {"timeout": 0.05}),
        (INFER, {"metadata": (("x-request-timeout", "0.02"),)}),
        (_infer(parameters={"timeout": pb.InferParameter(int64_param=20_000)}), {}),
    ],
)
async def test_past_the_deadline_the_work_is_closed(stub, service, message, options):
    service.script = [asyncio.Event()]
    failure = await _failure(stub.ModelInfer(message, **options))
    assert failure.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    await service.until_ended()


async def test_the_servers_own_bound_is_a_deadline(stub, service):
    service.script = [asyncio.Event()]
    service.max_timeout_s = 0.02
    assert (await _failure(stub.ModelInfer(INFER, timeout=1000))).code() is (
        grpc.StatusCode.DEADLINE_EXCEEDED
    )
    (answer,) = await _stream(stub, INFER, timeout=1000)
    assert answer.error_message == "the request's deadline has passed"


@pytest.mark.parametrize("method", ["ModelInfer", "ModelStreamInfer"])
async def test_a_client_that_cancels_ends_the_work(stub, service, method):
    service.script = [asyncio.Event()]
    streams = method == "ModelStreamInfer"
    call = getattr(stub, method)(iter([INFER]) if streams else INFER)
    reading = asyncio.ensure_future(anext(aiter(call)) if streams else _awaited(call))
    await service.began.wait()
    assert not service.ended.is_set()
    call.cancel()
    await service.until_ended()
    with pytest.raises(asyncio.CancelledError):
        await reading


async def _awaited(call):
    return await call


async def test_a_client_that_reads_no_more_and_cancels_ends_the_work(stub, service):
    service.script = [Chunk(0, "x" * 10_000, 1, 1)] * 2000
    call = stub.ModelStreamInfer(iter([INFER]))
    await anext(aiter(call))
    assert not service.ended.is_set()
    call.cancel()
    await service.until_ended()
