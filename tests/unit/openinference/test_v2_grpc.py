import pytest
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st

from openinference import tensors_raw, v2_grpc
from openinference.datatypes import BYTES, DATATYPES
from openinference.errors import InvalidInput
from openinference.messages import (
    InferRequest,
    InferResponse,
    ModelMetadata,
    RequestedOutput,
    Tensor,
    TensorMetadata,
    bytes_tensor,
)
from openinference.proto import inference_pb2 as pb


def _message(contents=None, raw=(), **tensor):
    message = pb.ModelInferRequest(model_name="m", raw_input_contents=raw)
    message.inputs.add(
        **{"name": "x", "datatype": "INT8", "shape": [1], **tensor}, contents=contents
    )
    return message


def _contents(**fields):
    return pb.InferTensorContents(**fields)


def _same(one, other):
    return [(each.name, each.datatype, each.shape, tensors_raw.encode(each)) for each in one] == [
        (each.name, each.datatype, each.shape, tensors_raw.encode(each)) for each in other
    ]


PARAMETERS = {
    "bool": True,
    "int64": -(2**63),
    "uint64": 2**64 - 1,
    "double": 0.25,
    "string": "7",
}


def test_parameters_of_all_five_kinds_keep_their_kind():
    message = v2_grpc.encode_request(InferRequest("m", [], parameters=PARAMETERS))
    for name, parameter in message.parameters.items():
        assert parameter.WhichOneof("parameter_choice") == f"{name}_param"
    decoded = v2_grpc.decode_request(message).parameters
    assert decoded == PARAMETERS
    assert [type(value) for value in decoded.values()] == [
        type(PARAMETERS[name]) for name in decoded
    ]


@pytest.mark.parametrize("number", [2**64, -(2**63) - 1])
def test_a_number_over_64_bits_is_refused(number):
    with pytest.raises(InvalidInput, match="parameter 'a' does not fit 64 bits"):
        v2_grpc.encode_request(InferRequest("m", [], parameters={"a": number}))


@given(data=st.data())
def test_a_request_survives_the_wire(data, tensors):
    request = InferRequest(
        "m",
        data.draw(st.lists(tensors, max_size=3)),
        "1",
        "a1",
        {"max_tokens": 3},
        [RequestedOutput("y"), RequestedOutput("z")],
    )
    wire = v2_grpc.encode_request(request).SerializeToString()
    again = v2_grpc.decode_request(pb.ModelInferRequest.FromString(wire))
    assert _same(again.inputs, request.inputs)
    assert (again.model, again.version, again.id) == ("m", "1", "a1")
    assert again.parameters == request.parameters
    assert again.outputs == request.outputs


@pytest.mark.parametrize("raw", [True, False])
@given(data=st.data())
def test_an_answer_survives_the_wire_raw_and_typed(raw, data, tensors, json_tensors):
    outputs = data.draw(st.lists(tensors if raw else json_tensors, max_size=3))
    message = v2_grpc.encode_response(InferResponse("m", outputs, None, "a1"), raw=raw)
    assert len(message.raw_output_contents) == (len(outputs) if raw else 0)
    again = v2_grpc.decode_response(pb.ModelInferResponse.FromString(message.SerializeToString()))
    assert _same(again.outputs, outputs)
    assert (again.model, again.version, again.id) == ("m", None, "a1")


@given(wire=st.binary(max_size=80))
def test_any_message_decodes_or_is_invalid_input(wire):
    for kind, decode in (
        (pb.ModelInferRequest, v2_grpc.decode_request),
        (pb.ModelInferResponse, v2_grpc.decode_response),
    ):
        try:
            message = kind.FromString(wire)
        except DecodeError:
            continue
        try:
            decode(message)
        except InvalidInput:
            continue


@given(
    datatype=st.sampled_from([*DATATYPES, "", "STRING"]),
    shape=st.lists(st.integers(-1, 3) | st.just(2**63 - 1), max_size=3),
    contents=st.none() | st.builds(_contents, int_contents=st.lists(st.just(7), max_size=3)),
    raw=st.lists(st.binary(max_size=9), max_size=2),
)
def test_any_tensor_decodes_or_is_invalid_input(datatype, shape, contents, raw):
    message = _message(contents, raw, datatype=datatype, shape=shape)
    try:
        (tensor,) = v2_grpc.decode_request(message).inputs
    except InvalidInput:
        return
    assert tensor.shape == tuple(shape)


@pytest.mark.parametrize(
    ("message", "told"),
    [
        (_message(datatype="STRING"), "input 'x': datatype 'STRING' is unknown"),
        (_message(shape=[-1]), "input 'x': shape must be a list"),
        (_message(shape=[1] * 33), "input 'x': shape must be a list of at most 32"),
        (_message(), "input 'x': shape [1] holds 1 element, data has 0"),
        (_message(raw=[b"a", b"b"]), "raw_input_contents must have one entry for each of the 1"),
        (_message(raw=[b"ab"]), "input 'x': INT8 of shape [1] takes 1 bytes, raw data has 2"),
        (
            _message(_contents(int_contents=[1]), raw=[b"a"]),
            "input 'x': has both contents and raw contents",
        ),
        (
            _message(_contents(uint_contents=[1])),
            "input 'x': INT8 elements belong in int_contents, not in uint_contents",
        ),
        (
            _message(_contents(int_contents=[128])),
            "input 'x': INT8 elements must be from -128 to 127",
        ),
        (
            _message(_contents(uint_contents=[256]), datatype="UINT8"),
            "input 'x': UINT8 elements must be from 0 to 255",
        ),
        (_message(datatype="FP16"), "input 'x': FP16 travels only in raw contents"),
        (_message(datatype="BF16"), "input 'x': BF16 travels only in raw contents"),
        (
            pb.ModelInferRequest(parameters={"a": pb.InferParameter()}),
            "parameter 'a' has no value",
        ),
    ],
)
def test_a_malformed_message_is_refused_naming_the_field(message, told):
    with pytest.raises(InvalidInput) as error:
        v2_grpc.decode_request(message)
    assert told in error.value.message


def test_an_answer_with_too_few_raw_contents_is_refused():
    message = pb.ModelInferResponse(raw_output_contents=[b"a"])
    for name in "yz":
        message.outputs.add(name=name, datatype="INT8", shape=[1])
    with pytest.raises(InvalidInput, match="raw_output_contents must have one entry for each"):
        v2_grpc.decode_response(message)


def test_fp16_is_not_answered_typed():
    tensor = Tensor("y", DATATYPES["FP16"], (0,), DATATYPES["FP16"].numpy.type([]))
    with pytest.raises(InvalidInput, match="output 'y': FP16 travels only in raw contents"):
        v2_grpc.encode_response(InferResponse("m", [tensor]), raw=False)


def test_empty_strings_of_protobuf_are_absent_values():
    request = v2_grpc.decode_request(pb.ModelInferRequest(model_name="m"))
    assert (request.version, request.id, request.outputs) == (None, None, None)


def test_a_bytes_tensor_is_typed_contents_and_raw_contents_of_the_same_elements():
    response = InferResponse("m", [bytes_tensor("y", ["Hi", ""])])
    typed = v2_grpc.encode_response(response, raw=False)
    raw = v2_grpc.encode_response(response, raw=True)
    assert list(typed.outputs[0].contents.bytes_contents) == [b"Hi", b""]
    assert list(raw.raw_output_contents) == [b"\2\0\0\0Hi\0\0\0\0"]
    assert not raw.outputs[0].HasField("contents")


def test_model_metadata_tells_every_tensor():
    metadata = ModelMetadata(
        "m",
        "p",
        [TensorMetadata("x", BYTES, (-1,))],
        [TensorMetadata("y", BYTES, (2,))],
        {"a": "b"},
    )
    message = v2_grpc.encode_model_metadata(metadata)
    assert (message.name, message.platform, list(message.versions)) == ("m", "p", [])
    assert [(each.name, each.datatype, list(each.shape)) for each in message.inputs] == [
        ("x", "BYTES", [-1])
    ]
    assert [each.name for each in message.outputs] == ["y"]
    assert dict(message.properties) == {"a": "b"}
