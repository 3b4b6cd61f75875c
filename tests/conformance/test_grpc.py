"""G1-G6: OIP inference_grpc.md; ModelStreamInfer and RepositoryIndex as Triton has them."""

import grpc as grpcio
import pytest
from v2probe import protobuf
from v2probe.grpc_client import SERVICE
from v2probe.target import DATATYPES, elements_of, parameter, raw_bytes, split_raw

UNKNOWN = "no-such-model-f3a9"


def refused(grpc, method, message, *codes):
    code = grpc.code(method, message)
    allowed = codes or ("INVALID_ARGUMENT",)
    assert code in allowed, f"wanted {' or '.join(allowed)}, got {code}"


def outputs_of(response):
    """Name -> elements of a typed or raw answer; checks its form (G3-G5)."""
    assert response.get("model_name"), response
    outputs = response.get("outputs", [])
    assert outputs, f"no outputs in {response}"
    raw = response.get("raw_output_contents", [])
    if raw:
        assert len(raw) == len(outputs), "one raw entry for each output"
    found = {}
    for number, output in enumerate(outputs):
        assert output.get("datatype") in DATATYPES, output
        assert all(size >= 0 for size in output.get("shape", [])), output
        if raw:
            assert "contents" not in output, "both raw and typed contents"
            if output["datatype"] == "BYTES":
                found[output["name"]] = split_raw(raw[number])
        else:
            (values,) = output["contents"].values()
            found[output["name"]] = values
        if output["name"] in found:
            assert len(found[output["name"]]) == elements_of(output.get("shape", [])), output
    return found


def test_g1_must_live(grpc):
    assert grpc.call("ServerLive", {}) == {"live": True}


def test_g1_must_ready(grpc):
    assert grpc.call("ServerReady", {}) == {"ready": True}


def test_g1_must_model_ready(grpc, target):
    assert grpc.call("ModelReady", {"name": target.model}) == {"ready": True}


def test_g1_must_server_metadata_is_as_in_rest(grpc, http):
    body = http.get("/v2").json()
    answer = grpc.call("ServerMetadata", {})
    assert answer.get("name") == body["name"]
    assert answer.get("version") == body["version"]
    assert answer.get("extensions", []) == body["extensions"]


def test_g1_must_model_metadata_is_as_in_rest(grpc, target):
    answer = grpc.call("ModelMetadata", {"name": target.model})
    assert answer["name"] == target.model
    assert answer.get("platform", "") == target.metadata["platform"]
    for kind in ("inputs", "outputs"):
        listed = [(t["name"], t["datatype"], t["shape"]) for t in target.metadata[kind]]
        assert [(t["name"], t["datatype"], t["shape"]) for t in answer[kind]] == listed


def test_g1_must_infer(grpc, target):
    assert target.output in outputs_of(grpc.call("ModelInfer", target.message()))


@pytest.mark.parametrize("method", ["ModelReady", "ModelMetadata"])
def test_g2_must_an_unknown_model_is_not_found(grpc, method):
    refused(grpc, method, {"name": UNKNOWN}, "NOT_FOUND")


def test_g2_must_infer_on_an_unknown_model_is_not_found(grpc, target):
    refused(grpc, "ModelInfer", target.message(model_name=UNKNOWN), "NOT_FOUND")


def test_g2_must_an_unknown_version_is_not_found(grpc, target):
    message = target.message(model_version="f3a9")
    refused(grpc, "ModelInfer", message, "NOT_FOUND", "INVALID_ARGUMENT")


def test_g2_must_an_unknown_method_is_unimplemented(grpc):
    with pytest.raises(grpcio.RpcError) as caught:
        grpc.call_raw(f"/{SERVICE}/NoSuchMethod", b"")
    assert caught.value.code().name == "UNIMPLEMENTED"


def test_g3_must_raw_contents_are_answered_raw(grpc, target):
    answer = grpc.call("ModelInfer", target.message(raw=True))
    assert answer.get("raw_output_contents")
    assert target.output in outputs_of(answer)


def test_g3_must_typed_contents_are_answered_in_one_form(grpc, target):
    outputs_of(grpc.call("ModelInfer", target.message()))


def test_g3_peer_typed_contents_are_answered_typed(grpc, target):
    assert "raw_output_contents" not in grpc.call("ModelInfer", target.message())


@pytest.mark.parametrize("count", [2, 3])
def test_g3_must_another_number_of_raw_entries_is_refused(grpc, target, count):
    refused(
        grpc,
        "ModelInfer",
        target.message(raw=True, raw_input_contents=[raw_bytes(b"Hello")] * count),
    )


def test_g3_must_raw_and_typed_contents_together_are_refused(grpc, target):
    refused(grpc, "ModelInfer", target.message(raw_input_contents=[raw_bytes(b"Hello")]))


def test_g3_must_neither_raw_nor_typed_contents_is_refused(grpc, target):
    message = target.message(raw=True)
    del message["raw_input_contents"]
    refused(grpc, "ModelInfer", message)


@pytest.mark.parametrize(
    "raw",
    [b"", b"\x05\x00\x00", b"\x06\x00\x00\x00Hello", b"\xff\xff\xff\xff", b"\x04\x00\x00\x00Hello"],
    ids=repr,
)
def test_g4_must_raw_bytes_that_do_not_fit_are_refused(grpc, target, raw):
    refused(grpc, "ModelInfer", target.message(raw=True, raw_input_contents=[raw]))


@pytest.mark.parametrize("datatype", ["FP16", "BF16", "INT32", "FP64", "BOOL"])
def test_g4_must_raw_numbers_that_do_not_fit_are_refused(grpc, target, datatype):
    tensor = {"name": target.input, "datatype": datatype, "shape": target.shape}
    message = target.message(raw=True, inputs=[tensor], raw_input_contents=[b"\x00\x00\x00"])
    refused(grpc, "ModelInfer", message)


@pytest.mark.parametrize(
    "contents",
    [{"int_contents": [1]}, {"fp32_contents": [1.0]}, {"bool_contents": [True]}],
    ids=lambda c: next(iter(c)),
)
def test_g5_must_contents_in_another_types_field_are_refused(grpc, target, contents):
    tensor = {
        "name": target.input,
        "datatype": "BYTES",
        "shape": target.shape,
        "contents": contents,
    }
    refused(grpc, "ModelInfer", target.message(inputs=[tensor]))


@pytest.mark.parametrize("datatype", ["FP16", "BF16"])
def test_g5_must_typed_half_floats_are_refused(grpc, target, datatype):
    tensor = {
        "name": target.input,
        "datatype": datatype,
        "shape": target.shape,
        "contents": {"fp32_contents": [1.0]},
    }
    refused(grpc, "ModelInfer", target.message(inputs=[tensor]))


@pytest.mark.parametrize("shape", [[2], [0], [-1], [2**62, 4], [1, 3]], ids=str)
def test_g5_must_a_shape_that_does_not_fit_is_refused(grpc, target, shape):
    message = target.message()
    message["inputs"][0]["shape"] = shape
    refused(grpc, "ModelInfer", message)


@pytest.mark.parametrize("datatype", ["TEXT", "bytes", ""])
def test_g5_must_an_unknown_datatype_is_refused(grpc, target, datatype):
    message = target.message()
    message["inputs"][0]["datatype"] = datatype
    refused(grpc, "ModelInfer", message)


def test_g6_must_an_id_comes_back(grpc, target):
    assert grpc.call("ModelInfer", target.message(id="é-1")).get("id") == "é-1"


def test_g6_must_every_kind_of_number_is_understood(grpc, target):
    numbers = {k: v for k, v in target.parameters.items() if type(v) in (int, float)}
    if not numbers:
        pytest.skip("no numbers in --parameters")
    for name, value in numbers.items():
        kinds = [{"double_param": float(value)}]
        if type(value) is int:
            kinds += [{"int64_param": value}, {"uint64_param": value}]
        for kind in kinds:
            parameters = {k: parameter(v) for k, v in target.parameters.items()} | {name: kind}
            grpc.call("ModelInfer", target.message(parameters=parameters))


def test_g6_peer_numbers_may_come_as_strings(grpc, target):
    # KServe's and MLServer's protobuf have no double_param.
    parameters = {
        name: {"string_param": str(value)}
        for name, value in target.parameters.items()
        if type(value) in (int, float)
    }
    if not parameters:
        pytest.skip("no numbers in --parameters")
    grpc.call("ModelInfer", target.message(parameters=parameters))


@pytest.mark.parametrize("name", ["outputs", "inputs"])
def test_g2_must_an_unknown_tensor_is_refused(grpc, target, name):
    if name == "outputs":
        message = target.message(outputs=[{"name": "no_such_output"}])
    else:
        message = target.message()
        message["inputs"][0]["name"] = "no_such_input"
    refused(grpc, "ModelInfer", message)


def test_g2_must_no_inputs_are_refused(grpc, target):
    refused(grpc, "ModelInfer", {"model_name": target.model})


def test_g2_must_the_same_input_twice_is_refused(grpc, target):
    message = target.message()
    message["inputs"] *= 2
    refused(grpc, "ModelInfer", message)


def test_g6_must_a_named_output_comes_alone(grpc, target):
    message = target.message(outputs=[{"name": target.output}])
    assert set(outputs_of(grpc.call("ModelInfer", message))) == {target.output}


BROKEN = {
    "not protobuf": b"\xff\xff\xff\xff",
    "a field that ends early": b"\x0a\xff",
    "invalid UTF-8 in a string": b"\x0a\x02\xff\xfe",
    "a group that never ends": b"\x0b",
}


@pytest.mark.parametrize("case", BROKEN)
def test_v1_robust_what_is_not_protobuf_is_an_invalid_argument(grpc, case):
    refused(grpc, "ModelInfer", BROKEN[case])


def test_v1_robust_unknown_fields_are_ignored(grpc, target):
    message = protobuf.encode("infer_request", target.message()) + b"\xfa\x3e\x03abc"
    assert grpc.code("ModelInfer", message) == "OK"


def test_v1_robust_raw_text_that_is_not_utf8_is_no_server_error(grpc, target):
    code = grpc.code(
        "ModelInfer", target.message(raw=True, raw_input_contents=[raw_bytes(b"\xff\xfe")])
    )
    assert code in ("OK", "INVALID_ARGUMENT"), code


def test_v1_robust_a_parameter_without_a_value_is_no_server_error(grpc, target):
    code = grpc.code("ModelInfer", target.message(parameters={"conformance": {}}))
    assert code in ("OK", "INVALID_ARGUMENT"), code


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1e308])
def test_v1_robust_a_strange_double_is_no_server_error(grpc, target, value):
    parameters = {"temperature": {"double_param": value}}
    code = grpc.code("ModelInfer", target.message(parameters=parameters))
    assert code in ("OK", "INVALID_ARGUMENT"), code


def test_v1_robust_a_shape_of_a_thousand_dimensions_is_refused(grpc, target):
    message = target.message()
    message["inputs"][0]["shape"] = [2**62] * 1000
    refused(grpc, "ModelInfer", message)


def test_g7_must_a_stream_answers(stream, target):
    answers = list(stream([target.message(id="s1")]))
    assert answers
    for answer in answers:
        assert not answer.get("error_message"), answer
        assert answer["infer_response"].get("id") == "s1"


def test_g7_must_an_error_does_not_end_the_stream(stream, target):
    wrong = target.message(id="bad")
    wrong["inputs"][0]["datatype"] = "TEXT"
    answers = list(stream([wrong, target.message(id="good")]))
    errors = [answer for answer in answers if answer.get("error_message")]
    assert len(errors) == 1
    ids = {a["infer_response"].get("id") for a in answers if not a.get("error_message")}
    assert ids == {"good"}


def test_g7_peer_the_last_answer_says_that_it_is(stream, target):
    parameters = {k: parameter(v) for k, v in target.parameters.items()}
    parameters["triton_enable_empty_final_response"] = {"bool_param": True}
    answers = list(stream([target.message(parameters=parameters)]))
    finals = [
        answer["infer_response"]
        .get("parameters", {})
        .get("triton_final_response", {})
        .get("bool_param", False)
        for answer in answers
    ]
    assert finals == [False] * (len(finals) - 1) + [True], finals


def test_g7_peer_an_error_says_which_request_it_belongs_to(stream, target):
    wrong = target.message(id="bad")
    wrong["inputs"][0]["datatype"] = "TEXT"
    (answer,) = stream([wrong])
    assert answer.get("infer_response", {}).get("id") == "bad"


def test_g7_must_raw_contents_are_answered_raw_in_a_stream(stream, target):
    for answer in stream([target.message(raw=True)]):
        outputs_of(answer["infer_response"])


def test_g7_must_several_requests_share_a_stream(stream, target):
    answers = list(stream([target.message(id=str(number)) for number in range(8)]))
    assert {a["infer_response"]["id"] for a in answers} == {str(number) for number in range(8)}


def test_g7_robust_an_empty_stream_ends(stream):
    assert list(stream([])) == []


def test_g8_peer_the_index_lists_the_model_as_ready(repository_index, target):
    models = repository_index.call("RepositoryIndex", {}).get("models", [])
    assert {"READY"} == {m.get("state") for m in models if m["name"] == target.model}


def test_g8_peer_the_index_of_ready_models_lists_it_too(repository_index, target):
    models = repository_index.call("RepositoryIndex", {"ready": True}).get("models", [])
    assert target.model in [model["name"] for model in models]


def test_g9_peer_the_health_service_says_serving(grpc):
    path = "/grpc.health.v1.Health/Check"
    if not grpc.offers(path, b""):
        pytest.skip("grpc.health.v1 is not offered")
    assert protobuf.decode("health_response", grpc.call_raw(path, b"")) == {"status": 1}


def test_g9_peer_typed_and_raw_say_the_same(grpc, target):
    if target.parameters and "temperature" not in target.parameters:
        pytest.skip("the answers may differ by chance")
    typed = outputs_of(grpc.call("ModelInfer", target.message()))
    raw = outputs_of(grpc.call("ModelInfer", target.message(raw=True)))
    assert typed[target.output] == raw[target.output]
