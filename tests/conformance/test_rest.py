"""R1-R14: OIP inference_rest.md and open_inference_rest.yaml."""

import json

import pytest
from v2probe.target import DATATYPES, check_response, flatten, has_error, is_ok, is_refused

UNKNOWN = "no-such-model-f3a9"


def test_r1_must_live_is_200(http):
    assert http.get("/v2/health/live").status == 200


def test_r1_must_ready_is_200(http):
    assert http.get("/v2/health/ready").status == 200


def test_r1_must_a_ready_model_is_200(http, target):
    assert http.get(f"{target.path}/ready").status == 200


def test_r1_must_an_unknown_model_is_not_ready(http):
    answer = http.get(f"/v2/models/{UNKNOWN}/ready")
    assert answer.status >= 400, answer


def test_r2_must_live_says_live(http):
    assert http.get("/v2/health/live").json()["live"] is True


def test_r2_must_ready_says_ready_or_live(http):
    body = http.get("/v2/health/ready").json()
    assert True in (body.get("live"), body.get("ready")), body
    assert False not in (body.get("live"), body.get("ready")), body


@pytest.mark.parametrize("member", ["live", "ready"])
def test_r2_peer_ready_says_both(http, member):
    # The text of OIP gives `live` for both, KServe's client reads `ready`.
    assert http.get("/v2/health/ready").json().get(member) is True


def test_r2_must_model_ready_names_the_model(http, target):
    body = http.get(f"{target.path}/ready").json()
    assert body.get("name") == target.model
    assert body.get("ready") is True


def test_r3_must_server_metadata_is_complete(http):
    answer = http.get("/v2")
    assert answer.status == 200
    body = answer.json()
    assert isinstance(body.get("name"), str)
    assert isinstance(body.get("version"), str)
    assert isinstance(body.get("extensions"), list)
    assert all(isinstance(extension, str) for extension in body["extensions"])


def test_r4_must_model_metadata_is_complete(target):
    body = target.metadata
    assert body.get("name") == target.model
    assert isinstance(body.get("platform"), str)
    for kind in ("inputs", "outputs"):
        assert isinstance(body.get(kind), list) and body[kind], f"no {kind}"
        for tensor in body[kind]:
            assert isinstance(tensor.get("name"), str), tensor
            assert tensor.get("datatype") in DATATYPES, tensor
            assert isinstance(tensor.get("shape"), list), tensor
            assert all(type(size) is int and size >= -1 for size in tensor["shape"]), tensor


def test_r4_must_optional_metadata_has_the_right_type(target):
    if "versions" in target.metadata:
        versions = target.metadata["versions"]
        assert isinstance(versions, list) and all(isinstance(v, str) for v in versions), versions
    properties = target.metadata.get("properties", {})
    assert isinstance(properties, dict)
    assert all(isinstance(v, str) for v in properties.values())


def test_r4_must_an_unknown_model_has_no_metadata(http):
    is_refused(http.get(f"/v2/models/{UNKNOWN}"))


def test_r4_peer_an_unknown_model_is_404(http):
    assert http.get(f"/v2/models/{UNKNOWN}").status == 404


def test_r5_must_infer_answers(target):
    body = is_ok(target.infer(target.body()))
    assert body["model_name"] == target.model


def test_r5_must_listed_versions_answer(target, http):
    versions = target.metadata.get("versions") or []
    if not versions:
        pytest.skip("the model has no versions")
    for version in versions:
        path = f"{target.path}/versions/{version}"
        assert http.get(path).status == 200
        assert http.get(f"{path}/ready").status == 200
        is_ok(http.post_json(f"{path}/infer", target.body()))


@pytest.mark.parametrize("what", ["metadata", "ready", "infer"])
def test_r5_must_an_unknown_version_is_an_error(target, http, what):
    path = f"{target.path}/versions/f3a9"
    if what == "infer":
        answer = http.post_json(f"{path}/infer", target.body())
    else:
        answer = http.get(path if what == "metadata" else f"{path}/ready")
    assert answer.status >= 400, answer
    has_error(answer)


def test_r5_peer_an_unknown_version_is_404(target, http):
    assert http.post_json(f"{target.path}/versions/f3a9/infer", target.body()).status == 404


def test_r5_must_an_unknown_model_is_an_error(target, http):
    is_refused(http.post_json(f"/v2/models/{UNKNOWN}/infer", target.body()))


def test_r5_peer_an_unknown_model_is_404_for_infer(target, http):
    assert http.post_json(f"/v2/models/{UNKNOWN}/infer", target.body()).status == 404


@pytest.mark.parametrize("member", ["name", "shape", "datatype", "data"])
def test_r6_must_an_input_without_a_required_member_is_refused(target, member):
    is_refused(target.infer(target.with_input(**{member: ...})))


@pytest.mark.parametrize(
    "body",
    [{}, {"inputs": None}, {"inputs": []}, {"inputs": {}}, {"inputs": "x"}, {"inputs": [None]}],
    ids=json.dumps,
)
def test_r6_must_a_request_without_inputs_is_refused(target, body):
    is_refused(target.infer(body))


def test_r6_must_id_parameters_and_outputs_are_optional(target):
    is_ok(target.infer(target.body(parameters=None, outputs=None, id=None)))


@pytest.mark.parametrize(
    "outputs",
    [[{}], [{"name": None}], [{"name": 5}], ["x"], [None], {"name": "x"}, "x"],
    ids=json.dumps,
)
def test_r6_must_a_requested_output_without_a_name_is_refused(target, outputs):
    is_refused(target.infer(target.body(outputs=outputs)))


@pytest.mark.parametrize("given", ["a1", "0", "é-✓", "x" * 256, 'quo"te\\n'])
def test_r7_must_an_id_comes_back(target, given):
    assert is_ok(target.infer(target.body(id=given))).get("id") == given


@pytest.mark.parametrize("given", [5, True, ["a"], {"a": 1}], ids=json.dumps)
def test_r7_must_an_id_that_is_no_string_is_refused(target, given):
    is_refused(target.infer(target.body(id=given)))


def test_r8_must_all_outputs_come_when_none_is_named(target):
    body = is_ok(target.infer(target.body()))
    listed = {tensor["name"] for tensor in target.metadata["outputs"]}
    assert {output["name"] for output in body["outputs"]} == listed


def test_r8_must_each_output_comes_when_named(target):
    for tensor in target.metadata["outputs"]:
        body = is_ok(target.infer(target.body(outputs=[{"name": tensor["name"]}])))
        assert [output["name"] for output in body["outputs"]] == [tensor["name"]]
        assert body["outputs"][0]["datatype"] == tensor["datatype"]


def test_r8_must_an_unknown_output_is_refused(target):
    is_refused(target.infer(target.body(outputs=[{"name": "no_such_output"}])))


def test_r8_peer_an_empty_list_of_outputs_means_all(target):
    # tritonclient's gRPC side sends no outputs, its HTTP side may send an empty list.
    assert is_ok(target.infer(target.body(outputs=[])))["outputs"]


@pytest.mark.parametrize(
    "shape",
    [
        *([2], [0], [3, 1], [1, 2], [-1], [-1, -1], [1.5], ["1"], [True], [None], [[1]]),
        *("1", 1, {}, None, [2**32, 2**32], [2**64], [2**63, 2], [1e30]),
        [10**30],
    ],
    ids=lambda shape: json.dumps(shape)[:30],
)
def test_r9_must_a_shape_that_does_not_fit_is_refused(target, shape):
    is_refused(target.infer(target.with_input(shape=shape)))


def test_r9_must_an_answer_gives_its_full_shape(target):
    for output in is_ok(target.infer(target.body()))["outputs"]:
        assert -1 not in output["shape"]


def test_r10_must_flat_data_is_accepted(target):
    is_ok(target.infer(target.with_input(data=["Hello"])))


def test_r10_must_nested_data_is_accepted(target):
    if not target.variable:
        pytest.skip("the model's shape is fixed")
    answer = target.infer(target.with_input(shape=[1, 1], data=[["Hello"]]))
    if target.metadata["inputs"][0]["shape"] == [-1]:
        # Another rank than the model's may be refused.
        assert answer.status == 200 or 400 <= answer.status < 500, answer
        if answer.status != 200:
            return
    is_ok(answer)


def test_r10_must_several_elements_are_answered(target):
    if not target.variable:
        pytest.skip("the model's shape is fixed")
    request = target.with_input(shape=[2, *target.shape[1:]], data=["Hello", "Bye"])
    (output,) = [o for o in is_ok(target.infer(request))["outputs"] if o["name"] == target.output]
    assert len(list(flatten(output["data"]))) == 2


@pytest.mark.parametrize(
    "data",
    ["Hello", 5, {"0": "Hello"}, None, [["Hello"], "x"], [[[]]], [[], []], [["a", "b"]]],
    ids=json.dumps,
)
def test_r10_must_data_that_is_not_as_the_shape_is_refused(target, data):
    is_refused(target.infer(target.with_input(data=data)))


@pytest.mark.parametrize("datatype", ["TEXT", "bytes", "STRING", "", None, 5, ["BYTES"]])
def test_r11_must_an_unknown_datatype_is_refused(target, datatype):
    is_refused(target.infer(target.with_input(datatype=datatype)))


@pytest.mark.parametrize("datatype", ["FP16", "BF16"])
def test_r11_must_a_half_float_in_json_is_refused(target, datatype):
    is_refused(target.infer(target.with_input(datatype=datatype, data=[1.0])))


@pytest.mark.parametrize("datatype", ["INT32", "FP32", "BOOL", "UINT8"])
def test_r11_must_another_datatype_than_the_models_is_refused(target, datatype):
    data = [True] if datatype == "BOOL" else [1]
    is_refused(target.infer(target.with_input(datatype=datatype, data=data)))


def test_r11_must_bytes_are_strings_in_json(target):
    (output,) = [
        output
        for output in is_ok(target.infer(target.body("héllo ✓")))["outputs"]
        if output["name"] == target.output
    ]
    assert output["datatype"] == "BYTES"
    assert all(isinstance(element, str) for element in flatten(output["data"]))


@pytest.mark.parametrize("parameters", [[], "x", 5, True], ids=json.dumps)
def test_r12_must_parameters_that_are_no_object_are_refused(target, parameters):
    is_refused(target.infer(target.body(parameters=parameters)))


@pytest.mark.parametrize("value", [{"a": 1}, ["a"], [[1]]], ids=json.dumps)
def test_r12_must_a_parameter_that_is_no_scalar_is_refused(target, value):
    is_refused(target.infer(target.body(parameters={"conformance": value})))


def test_r12_must_empty_parameters_are_accepted(target):
    request = target.with_input(parameters={})
    request["outputs"] = [{"name": target.output, "parameters": {}}]
    is_ok(target.infer({**request, "parameters": {}}))


def test_r13_must_an_answer_is_whole_and_typed(target):
    answer = target.infer(target.body())
    is_ok(answer)
    check_response(answer.json())


def test_r13_must_model_version_is_absent_or_a_string(target):
    body = target.infer(target.body()).json()
    assert isinstance(body.get("model_version", ""), str), body["model_version"]
    if not target.metadata.get("versions"):
        assert "model_version" not in body


@pytest.mark.parametrize("member", ["parameters", "id", "model_version"])
def test_r13_must_no_member_is_null(target, member):
    body = target.infer(target.body()).json()
    assert body.get(member, "") is not None
    for output in body["outputs"]:
        assert output.get("parameters", {}) is not None


ERRORS = {
    "unknown path": ("GET", "/v2/nothing-here", None),
    "unknown model": ("GET", f"/v2/models/{UNKNOWN}", None),
    "unknown model infer": ("POST", f"/v2/models/{UNKNOWN}/infer", b"{}"),
    "unknown model ready": ("GET", f"/v2/models/{UNKNOWN}/ready", None),
    "not JSON": ("POST", "{model}/infer", b"{"),
    "empty body": ("POST", "{model}/infer", b""),
    "wrong method": ("DELETE", "{model}/infer", None),
    "wrong method on metadata": ("POST", "{model}", b"{}"),
    "no inputs": ("POST", "{model}/infer", b"{}"),
    "wrong type": ("POST", "{model}/infer", b'{"inputs": 5}'),
}


@pytest.mark.parametrize("case", ERRORS)
def test_r14_must_every_failure_has_an_error_string(target, http, case):
    method, path, body = ERRORS[case]
    answer = http.request(method, path.replace("{model}", target.path), body)
    is_refused(answer)
    assert (answer.header("content-type") or "").startswith("application/json")
