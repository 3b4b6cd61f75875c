import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from openinference import tensors_raw, v2_json
from openinference.datatypes import BYTES, UINT32
from openinference.errors import InvalidInput
from openinference.messages import (
    InferRequest,
    InferResponse,
    ModelMetadata,
    RequestedOutput,
    ServerMetadata,
    TensorMetadata,
    bytes_tensor,
    number_tensor,
)

TENSOR = {"name": "x", "shape": [1], "datatype": "BYTES", "data": ["Hi"]}


def _parse(body, header_length=None, version=None):
    raw = body if isinstance(body, bytes) else orjson.dumps(body)
    return v2_json.infer_request("m", version, raw, header_length)


def _with(**changes):
    return {"inputs": [{**TENSOR, **changes}]}


def _without(name):
    return {"inputs": [{key: value for key, value in TENSOR.items() if key != name}]}


def _deep(depth):
    return orjson.Fragment(b"[" * depth + b"]" * depth)


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (b"", "body is not JSON"),
        (b"{", "body is not JSON"),
        (b"\xff", "body is not JSON"),
        (b'{"a": NaN}', "body is not JSON"),
        (b"[" * 10**5, "body is not JSON"),
        (b"[]", "body must be a JSON object"),
        (b"null", "body must be a JSON object"),
        ({}, "inputs must be a non-empty list of tensors"),
        ({"inputs": []}, "inputs must be a non-empty list of tensors"),
        ({"inputs": TENSOR}, "inputs must be a non-empty list of tensors"),
        ({"inputs": ["x"]}, "inputs[0] must be an object"),
        ({"inputs": [TENSOR], "id": 7}, "id must be a string"),
        (_without("name"), "inputs[0]: name must be a non-empty string"),
        (_with(name=""), "inputs[0]: name must be a non-empty string"),
        (_with(name=7), "inputs[0]: name must be a non-empty string"),
        (_without("shape"), "input 'x': shape is missing"),
        (_without("datatype"), "input 'x': datatype is missing"),
        (_without("data"), "input 'x': data is missing"),
        (_with(shape=1), "input 'x': shape must be a list of at most 32 integers"),
        (_with(shape=[-1]), "input 'x': shape must be a list"),
        (_with(shape=[1.0]), "input 'x': shape must be a list"),
        (_with(shape=[True]), "input 'x': shape must be a list"),
        (_with(shape=["1"]), "input 'x': shape must be a list"),
        (_with(shape=[2**63]), "input 'x': shape must be a list"),
        (_with(shape=[1] * 33), "input 'x': shape must be a list of at most 32"),
        (_with(shape=[2**63 - 1] * 300), "input 'x': shape must be a list of at most 32"),
        (_with(shape=[2**63 - 1] * 32), "input 'x': shape [9223372036854775807, "),
        (_with(shape=_deep(1010)), "input 'x': shape must be a list"),
        (_with(shape=[2]), "input 'x': shape [2] holds 2 elements, data has 1"),
        (_with(datatype="STRING"), "input 'x': datatype 'STRING' is unknown"),
        (_with(datatype=7), "input 'x': datatype 7 is unknown"),
        (_with(data="Hi"), "input 'x': data must be a list"),
        (_with(data=[1]), "input 'x': BYTES elements must be strings"),
        (_with(parameters=[]), "input 'x': parameters must be an object"),
        (_with(parameters={"a": None}), "input 'x': parameters: 'a' must be a string, number"),
        (_with(parameters={"binary_data_size": 0}), "has both data and binary_data_size"),
        ({"inputs": [TENSOR], "parameters": "a"}, "parameters must be an object"),
        ({"inputs": [TENSOR], "parameters": {"a": []}}, "parameters: 'a' must be a string, number"),
        ({"inputs": [TENSOR], "parameters": {"a": _deep(1010)}}, "parameters: 'a' must be"),
        ({"inputs": [TENSOR], "outputs": {}}, "outputs must be a list"),
        ({"inputs": [TENSOR], "outputs": ["y"]}, "outputs[0] must be an object with a name"),
        ({"inputs": [TENSOR], "outputs": [{}]}, "outputs[0] must be an object with a name"),
        (
            {"inputs": [TENSOR], "outputs": [{"name": "y", "parameters": {"a": {}}}]},
            "output 'y': parameters: 'a' must be a string, number",
        ),
    ],
)
def test_a_malformed_request_is_refused_naming_the_field(body, told):
    with pytest.raises(InvalidInput) as error:
        _parse(body)
    assert told in error.value.message
    assert len(error.value.message) < 2000


@pytest.mark.parametrize(
    ("length", "told"),
    [
        ("0", "must be from 1 to"),
        ("-1", "must be from 1 to"),
        ("1e2", "must be from 1 to"),
        ("", "must be from 1 to"),
        ("\u0661", "must be from 1 to"),
        ("9" * 5000, "must be from 1 to"),
        ("999", "must be from 1 to"),
        ("3", "body is not JSON"),
    ],
)
def test_a_wrong_header_length_is_refused(length, told):
    with pytest.raises(InvalidInput, match=told):
        _parse({"inputs": [TENSOR]}, length)


def _binary(sizes, blobs):
    inputs = [
        {
            "name": f"x{number}",
            "shape": [1],
            "datatype": "UINT8",
            "parameters": {"binary_data_size": size},
        }
        for number, size in enumerate(sizes)
    ]
    body = orjson.dumps({"inputs": inputs})
    return body + blobs, str(len(body))


@pytest.mark.parametrize(
    ("sizes", "blobs", "told"),
    [
        ([2], b"a", "input 'x0': binary_data_size must be from 0 to the 1 bytes that are left"),
        ([1, 1], b"a", "input 'x1': binary_data_size must be from 0 to the 0 bytes that are left"),
        ([1], b"ab", "1 bytes of binary data belong to no input"),
        ([-1], b"", "binary_data_size must be from 0"),
        (["1"], b"a", "binary_data_size must be from 0"),
        ([True], b"a", "binary_data_size must be from 0"),
        ([1.0], b"a", "binary_data_size must be from 0"),
        ([0], b"", "UINT8 of shape [1] takes 1 bytes, raw data has 0"),
    ],
)
def test_binary_data_that_does_not_fit_is_refused(sizes, blobs, told):
    body, length = _binary(sizes, blobs)
    with pytest.raises(InvalidInput) as error:
        _parse(body, length)
    assert told in error.value.message


@given(body=st.binary(max_size=60), length=st.none() | st.text(max_size=3))
def test_any_bytes_parse_or_are_invalid_input(body, length):
    with pytest.raises(InvalidInput):
        _parse(body, length)


@given(data=st.data())
def test_any_json_parses_or_is_invalid_input(data, json_values):
    tensor = st.fixed_dictionaries(
        {
            "name": st.just("x") | json_values,
            "datatype": st.sampled_from(["BYTES", "BOOL", "FP32", "INT8", "FP16"]) | json_values,
            "shape": st.lists(st.integers(0, 2), max_size=2) | json_values,
            "data": st.lists(json_values, max_size=2) | json_values,
        },
        optional={"parameters": json_values},
    )
    body = data.draw(
        st.fixed_dictionaries(
            {"inputs": st.lists(tensor, max_size=2) | json_values},
            optional={"id": json_values, "parameters": json_values, "outputs": json_values},
        )
    )
    try:
        request = _parse(body)
    except InvalidInput:
        return
    assert request.inputs


@given(data=st.data())
def test_binary_tensors_travel_unchanged_there_and_back(data, tensors):
    sent = data.draw(st.lists(tensors, min_size=1, max_size=3))
    request = InferRequest("m", [], parameters={"binary_data_output": True})
    body, length = v2_json.infer_response(request, InferResponse("m", sent))
    answer = orjson.loads(body[:length])
    got = _parse(
        orjson.dumps({"inputs": answer["outputs"]}) + body[length:],
        str(len(orjson.dumps({"inputs": answer["outputs"]}))),
    ).inputs
    assert [tensors_raw.encode(tensor) for tensor in got] == [
        tensors_raw.encode(tensor) for tensor in sent
    ]
    assert [(each.name, each.datatype, each.shape) for each in got] == [
        (each.name, each.datatype, each.shape) for each in sent
    ]


def test_a_whole_request_is_read():
    request = _parse(
        {
            "id": "a1",
            "inputs": [{**TENSOR, "parameters": {"b": False}}],
            "parameters": {"max_tokens": 3, "temperature": 0.5, "stop": "x", "echo": True},
            "outputs": [{"name": "y", "parameters": {"binary_data": True}}],
        },
        version="2",
    )
    assert (request.model, request.version, request.id) == ("m", "2", "a1")
    assert request.parameters == {"max_tokens": 3, "temperature": 0.5, "stop": "x", "echo": True}
    assert request.outputs == [RequestedOutput("y", {"binary_data": True})]
    (tensor,) = request.inputs
    assert (tensor.name, tensor.datatype, tensor.shape, tensor.data, tensor.parameters) == (
        ("x", BYTES, (1,), (b"Hi",), {"b": False})
    )


@pytest.mark.parametrize("outputs", [{}, {"outputs": None}, {"outputs": []}])
def test_no_outputs_means_all_of_them(outputs):
    assert _parse({"inputs": [TENSOR], **outputs}).outputs is None


Y = bytes_tensor("y", ["Hello!"])
Z = number_tensor("z", UINT32, [7])


def test_an_answer_in_json_has_no_member_that_it_does_not_need():
    body, length = v2_json.infer_response(InferRequest("m", []), InferResponse("m", [Y, Z]))
    assert length is None
    assert orjson.loads(body) == {
        "model_name": "m",
        "outputs": [
            {"name": "y", "shape": [1], "datatype": "BYTES", "data": ["Hello!"]},
            {"name": "z", "shape": [1], "datatype": "UINT32", "data": [7]},
        ],
    }


def test_id_version_and_parameters_are_in_the_answer_when_they_are_set():
    response = InferResponse("m", [], "1", "a1", {"triton_final_response": True})
    body, _ = v2_json.infer_response(InferRequest("m", []), response)
    assert orjson.loads(body) == {
        "model_name": "m",
        "model_version": "1",
        "id": "a1",
        "parameters": {"triton_final_response": True},
        "outputs": [],
    }


@pytest.mark.parametrize(
    ("default", "asked", "binary"),
    [
        (None, None, []),
        (True, None, ["y", "z"]),
        (False, None, []),
        (None, {"y": True, "z": None}, ["y"]),
        (True, {"y": None, "z": False}, ["y"]),
        (True, {"y": False, "z": False}, []),
    ],
)
def test_binary_is_what_the_output_says_else_the_request_else_json(default, asked, binary):
    outputs = asked and [
        RequestedOutput(name, {} if flag is None else {"binary_data": flag})
        for name, flag in asked.items()
    ]
    parameters = {} if default is None else {"binary_data_output": default}
    request = InferRequest("m", [], parameters=parameters, outputs=outputs)
    body, length = v2_json.infer_response(request, InferResponse("m", [Y, Z]))
    answer = orjson.loads(body[:length])
    sent = {output["name"]: output for output in answer["outputs"]}
    assert [name for name, output in sent.items() if "data" not in output] == binary
    blobs = {"y": b"\6\0\0\0Hello!", "z": b"\7\0\0\0"}
    assert (b"" if length is None else body[length:]) == b"".join(blobs[name] for name in binary)
    for name in binary:
        assert sent[name]["parameters"] == {"binary_data_size": len(blobs[name])}


def test_metadata_has_the_members_of_the_specification():
    assert v2_json.server_metadata(ServerMetadata("s", "1", ("generate",))) == {
        "name": "s",
        "version": "1",
        "extensions": ["generate"],
    }
    x, y = TensorMetadata("x", BYTES, (-1,)), TensorMetadata("y", UINT32, (-1, 2))
    assert v2_json.model_metadata(ModelMetadata("m", "p", [x], [y])) == {
        "name": "m",
        "platform": "p",
        "inputs": [{"name": "x", "datatype": "BYTES", "shape": [-1]}],
        "outputs": [{"name": "y", "datatype": "UINT32", "shape": [-1, 2]}],
    }
    with_properties = v2_json.model_metadata(ModelMetadata("m", "p", [], [], {"a": "b"}))
    assert with_properties["properties"] == {"a": "b"}
