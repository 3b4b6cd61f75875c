"""P1-P6: what tritonclient, KServe's client and OpenAI's client rely on."""

import gzip
import json
import zlib

import pytest
from v2probe.http import events
from v2probe.target import HEADER_LENGTH, is_ok


def test_p1_peer_no_content_type_is_needed(target, http):
    # tritonclient's JSON requests have none.
    is_ok(http.post(f"{target.path}/infer", json.dumps(target.body()).encode()))


@pytest.mark.parametrize(
    "content_type", ["text/plain", "application/octet-stream", "application/json; charset=utf-8"]
)
def test_p1_peer_any_content_type_will_do(target, http, content_type):
    headers = [("Content-Type", content_type)]
    is_ok(http.post(f"{target.path}/infer", json.dumps(target.body()).encode(), headers))


@pytest.mark.parametrize(("coding", "pack"), [("gzip", gzip.compress), ("deflate", zlib.compress)])
def test_p2_peer_compressed_requests_are_understood(target, coding, pack):
    body = pack(json.dumps(target.body()).encode())
    is_ok(target.infer(body, [("Content-Encoding", coding)]))


@pytest.mark.parametrize(("coding", "pack"), [("gzip", gzip.compress), ("deflate", zlib.compress)])
def test_p2_peer_the_header_length_is_that_before_compression(binary, coding, pack):
    body, length = binary.binary_body()
    headers = [("Content-Encoding", coding)]
    is_ok(binary.infer_binary(pack(body), length, headers))


@pytest.mark.parametrize("parameters", [{"timeout": 60_000_000}, {"priority": 1}], ids=json.dumps)
def test_p3_peer_tritons_request_parameters_are_understood(target, parameters):
    is_ok(target.infer(target.body(parameters={**target.parameters, **parameters})))


def test_p4_peer_nulls_of_optional_members_are_as_if_absent(target):
    # KServe's client writes them.
    request = {**target.body(), "id": None, "outputs": None}
    request["inputs"][0]["parameters"] = None
    is_ok(target.infer(request))


def test_p4_peer_a_model_name_in_the_body_does_no_harm(target):
    is_ok(target.infer({**target.body(), "model_name": target.model}))


def test_p5_peer_all_binary_as_tritonclient_asks(binary):
    # Its default: no outputs, binary_data_output true, binary input, no Content-Type.
    request = binary.with_input(data=..., parameters={"binary_data_size": 9})
    request["parameters"] = {**binary.parameters, "binary_data_output": True}
    body, length = binary.binary_body(request)
    answer = binary.http.post(f"{binary.path}/infer", body, [(HEADER_LENGTH, str(length))])
    assert answer.status == 200, answer
    assert answer.header(HEADER_LENGTH)


def test_p6_peer_openai_lists_the_model(openai, http, target):
    body = http.get(f"{openai}/models").json()
    assert body["object"] == "list"
    assert target.model in [model["id"] for model in body["data"]]
    assert http.get(f"{openai}/models/{target.model}").json()["id"] == target.model


def chat(target, **members):
    messages = [{"role": "user", "content": "Say hello."}]
    return {"model": target.model, "messages": messages, "max_tokens": 4, **members}


def test_p6_peer_openai_chats(openai, http, target):
    body = http.post_json(f"{openai}/chat/completions", chat(target)).json()
    assert body["object"] == "chat.completion"
    (choice,) = body["choices"]
    assert isinstance(choice["message"]["content"], str)
    assert choice["finish_reason"] in ("stop", "length")
    usage = body["usage"]
    assert usage["prompt_tokens"] + usage["completion_tokens"] == usage["total_tokens"]


def test_p6_peer_openai_completes(openai, http, target):
    request = {"model": target.model, "prompt": ["One", "Two"], "max_tokens": 2, "n": 2}
    body = http.post_json(f"{openai}/completions", request).json()
    assert [choice["index"] for choice in body["choices"]] == [0, 1, 2, 3]


def test_p6_peer_openai_streams_to_done(openai, http, target):
    request = chat(target, stream=True, stream_options={"include_usage": True})
    answer = http.post_json(f"{openai}/chat/completions", request)
    found = events(answer.body)
    assert found[-1] == "[DONE]"
    last = json.loads(found[-2])
    assert last["choices"] == []
    assert last["usage"]["total_tokens"] > 0


def test_p6_peer_openai_gives_log_probabilities(openai, http, target):
    request = chat(target, logprobs=True, top_logprobs=2)
    (choice,) = http.post_json(f"{openai}/chat/completions", request).json()["choices"]
    content = choice["logprobs"]["content"]
    assert content
    for token in content:
        assert token["logprob"] <= 0
        assert bytes(token["bytes"]).decode(errors="replace")
        assert len(token["top_logprobs"]) == 2


def test_p6_peer_openai_gives_json_by_schema(openai, http, target):
    schema = {
        "type": "object",
        "properties": {"ok": {"type": "boolean"}},
        "required": ["ok"],
        "additionalProperties": False,
    }
    request = chat(
        target,
        max_tokens=40,
        temperature=0,
        response_format={
            "type": "json_schema",
            "json_schema": {"name": "answer", "schema": schema, "strict": True},
        },
    )
    answer = http.post_json(f"{openai}/chat/completions", request)
    if answer.status == 400 and "structured_outputs" in answer.json()["error"]["message"]:
        pytest.skip("the model cannot be bounded, and says so")
    body = answer.json()
    assert set(json.loads(body["choices"][0]["message"]["content"])) == {"ok"}


OPENAI_ERRORS = {
    "unknown model": (404, {"model": "no-such-model"}),
    "no messages": (400, {"messages": []}),
    "temperature": (400, {"temperature": 9}),
    "unknown member": (400, {"temprature": 1}),
    "n": (400, {"n": 0}),
    "top_logprobs without logprobs": (400, {"top_logprobs": 2}),
    "stream_options without stream": (400, {"stream_options": {"include_usage": True}}),
    "bad response_format": (400, {"response_format": {"type": "yaml"}}),
}


@pytest.mark.parametrize("case", OPENAI_ERRORS)
def test_p6_peer_openai_errors_have_openais_shape(openai, http, target, case):
    status, members = OPENAI_ERRORS[case]
    answer = http.post_json(f"{openai}/chat/completions", {**chat(target), **members})
    assert answer.status == status, answer
    error = answer.json()["error"]
    assert isinstance(error["message"], str)
    assert isinstance(error["type"], str)
