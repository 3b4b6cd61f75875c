"""S1-S5: the generate extension (OIP generate_rest.yaml, Triton extension_generate.md)."""

import json

import pytest
from v2probe.http import events
from v2probe.target import has_error

FINISH_REASONS = ("length", "eos_token", "stop_sequence")


def body(target, **parameters):
    return {"text_input": "Hello", "parameters": {**target.parameters, **parameters}}


def ok(answer, target):
    assert answer.status == 200, answer
    value = answer.json()
    assert isinstance(value.get("text_output"), str), value
    assert value.get("model_name") == target.model, value
    assert isinstance(value.get("model_version", ""), str), value
    return value


def test_s1_must_text_is_answered(http, generate, target):
    ok(http.post_json(generate, body(target)), target)


def test_s1_must_parameters_are_optional(http, generate, target):
    ok(http.post_json(generate, {"text_input": "Hello"}), target)


def test_s1_peer_an_id_comes_back(http, generate, target):
    request = {**body(target), "id": "g1"}
    assert ok(http.post_json(generate, request), target).get("id") == "g1"


def test_s1_must_an_unknown_version_is_an_error(http, generate, target):
    answer = http.post_json(f"{target.path}/versions/f3a9/generate", body(target))
    assert answer.status >= 400, answer
    has_error(answer)


@pytest.mark.parametrize("route", ["generate", "generate_stream"])
def test_s1_must_an_unknown_model_is_404(http, generate, target, route):
    answer = http.post_json(f"/v2/models/no-such-model/{route}", body(target))
    assert answer.status == 404, answer
    has_error(answer)


@pytest.mark.parametrize(
    "parameters",
    [
        *({"temperature": 0}, {"temperature": 1.5}, {"top_p": 0.5}, {"top_p": 1}),
        *({"max_tokens": 1}, {"stop": ["x"]}, {"details": True}, {"details": False}),
    ],
    ids=json.dumps,
)
def test_s2_must_a_parameter_of_the_protocol_is_understood(http, generate, target, parameters):
    ok(http.post_json(generate, body(target, **parameters)), target)


@pytest.mark.parametrize(
    "parameters",
    [
        *({"temperature": -1}, {"temperature": "hot"}, {"top_p": 1.5}, {"top_p": -0.1}),
        *({"max_tokens": 0}, {"max_tokens": -5}, {"max_tokens": 1.5}, {"max_tokens": []}),
        *({"stop": 5}, {"stop": [5]}, {"details": "yes"}),
    ],
    ids=json.dumps,
)
@pytest.mark.parametrize("route", ["generate", "generate_stream"])
def test_s2_must_a_parameter_out_of_bounds_is_422(http, generate, target, parameters, route):
    answer = http.post_json(f"{target.path}/{route}", body(target, **parameters))
    assert answer.status == 422, answer
    has_error(answer)


def test_s3_must_details_give_the_finish_reason(http, generate, target):
    details = ok(http.post_json(generate, body(target, details=True)), target)["details"]
    assert details["finish_reason"] in FINISH_REASONS


def test_s1_must_details_give_the_tokens(http, generate, target):
    value = ok(http.post_json(generate, body(target, details=True, max_tokens=3)), target)
    tokens = value["details"]["logprobs"]
    assert tokens
    for token in tokens:
        is_token(token)


def is_token(token):
    assert isinstance(token["id"], int) and token["id"] >= 0, token
    assert isinstance(token["text"], str), token
    assert isinstance(token["logprob"], int | float) and token["logprob"] <= 0, token
    assert isinstance(token["special"], bool), token


def streamed(http, target, request):
    answer = http.post_json(f"{target.path}/generate_stream", request)
    assert answer.status == 200, answer
    assert (answer.header("content-type") or "").startswith("text/event-stream"), answer.headers
    return [json.loads(event) for event in events(answer.body)]


def test_s4_must_a_stream_is_events(http, generate, target):
    found = streamed(http, target, body(target))
    assert found
    for event in found:
        assert event["model_name"] == target.model
        assert isinstance(event["text_output"], str)


def test_s4_must_the_details_of_an_event_are_whole(http, generate, target):
    for event in streamed(http, target, body(target)):
        if "details" in event:
            is_token(event["details"]["token"])


def test_s4_must_details_give_token_and_finish_reason(http, generate, target):
    found = streamed(http, target, body(target, details=True, max_tokens=3))
    for event in found:
        is_token(event["details"]["token"])
    assert found[-1]["details"]["finish_reason"] in FINISH_REASONS


def test_s4_peer_the_pieces_are_the_whole(http, generate, target):
    if "temperature" not in target.parameters and target.parameters:
        pytest.skip("the answers may differ by chance")
    whole = ok(http.post_json(generate, body(target)), target)["text_output"]
    pieces = streamed(http, target, body(target))
    assert "".join(piece["text_output"] for piece in pieces) == whole


BAD = {
    "no text_input": b"{}",
    "text_input is a number": b'{"text_input": 5}',
    "text_input is a list": b'{"text_input": ["Hello"]}',
    "parameters is a list": b'{"text_input": "Hello", "parameters": []}',
    "not JSON": b"{",
    "empty": b"",
    "a list": b"[]",
    "NaN": b'{"text_input": "Hello", "parameters": {"temperature": NaN}}',
    "a lone surrogate": b'{"text_input": "\\ud800"}',
    "invalid UTF-8": b'{"text_input": "\xff"}',
}


@pytest.mark.parametrize("case", BAD)
@pytest.mark.parametrize("route", ["generate", "generate_stream"])
def test_s5_must_bad_input_is_422(http, generate, target, case, route):
    answer = http.post(f"{target.path}/{route}", BAD[case], [("Content-Type", "application/json")])
    assert answer.status == 422, answer
    has_error(answer)
    assert (answer.header("content-type") or "").startswith("application/json")


def test_s1_peer_tritons_stream_member_is_understood(http, generate, target):
    # Triton's vLLM examples say parameters.stream on both routes.
    ok(http.post_json(generate, body(target, stream=False)), target)
    assert streamed(http, target, body(target, stream=True))
