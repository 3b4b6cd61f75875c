"""What OpenAI's API promises beyond text, kept by the real engine through the gRPC hop."""

import json
import math
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from .conftest import MODEL, Stack
from .test_answers import NO_STORE, SHORT

COLOUR = {
    "type": "object",
    "properties": {"colour": {"enum": ["red", "green"]}, "sure": {"type": "boolean"}},
    "required": ["colour", "sure"],
    "additionalProperties": False,
}


@pytest.fixture
def ask(stack: Stack) -> Callable[..., httpx.Response]:
    def post(route: str, **members: Any) -> httpx.Response:
        body: dict[str, Any] = {"model": MODEL, "temperature": 0, "max_tokens": 24}
        if route == "completions":
            body["prompt"] = SHORT
        else:
            body["messages"] = [{"role": "user", "content": "Name a colour as JSON."}]
        url = f"{stack.url}/openai/v1/{route}"
        return httpx.post(url, json=body | members, headers=NO_STORE, timeout=120)

    return post


def events(answer: httpx.Response) -> list[dict[str, Any]]:
    assert answer.status_code == 200, answer.text
    lines = [line for line in answer.text.splitlines() if line]
    assert lines[-1] == "data: [DONE]"
    return [json.loads(line[6:]) for line in lines[:-1]]


def test_chat_tokens_make_up_the_text_and_the_chosen_one_is_the_likeliest(
    ask: Callable[..., httpx.Response],
) -> None:
    answer = ask("chat/completions", logprobs=True, top_logprobs=3, max_tokens=8).json()
    (choice,) = answer["choices"]
    tokens = choice["logprobs"]["content"]
    assert len(tokens) == answer["usage"]["completion_tokens"]
    text = choice["message"]["content"]
    assert b"".join(bytes(token["bytes"]) for token in tokens).decode().startswith(text)
    for token in tokens:
        top = token["top_logprobs"]
        assert len(top) == 3
        assert top[0] == {key: token[key] for key in ("token", "logprob", "bytes")}
        assert top[0]["logprob"] >= top[1]["logprob"] >= top[2]["logprob"]
        assert sum(math.exp(rival["logprob"]) for rival in top) <= 1.0001


def test_a_stream_tells_the_same_probabilities_and_usage(
    ask: Callable[..., httpx.Response],
) -> None:
    whole = ask("chat/completions", logprobs=True, top_logprobs=1).json()
    streamed = events(
        ask(
            "chat/completions",
            logprobs=True,
            top_logprobs=1,
            stream=True,
            stream_options={"include_usage": True},
        )
    )
    pieces = [event["choices"][0] for event in streamed[:-1]]
    tokens = [t for piece in pieces if piece["logprobs"] for t in piece["logprobs"]["content"]]
    expected = whole["choices"][0]["logprobs"]["content"]
    assert [token["token"] for token in tokens] == [token["token"] for token in expected]
    for token, other in zip(tokens, expected, strict=True):
        assert token["logprob"] == pytest.approx(other["logprob"], abs=1e-3)
    assert streamed[-1]["usage"] == whole["usage"]


def test_a_completions_tokens_lie_where_their_offsets_say(
    ask: Callable[..., httpx.Response],
) -> None:
    (choice,) = ask("completions", logprobs=2).json()["choices"]
    told = choice["logprobs"]
    for token, logprob, top, offset in zip(
        *(told[key] for key in ("tokens", "token_logprobs", "top_logprobs", "text_offset")),
        strict=True,
    ):
        assert choice["text"][offset : offset + len(token)] == token
        assert top[token] == logprob == max(top.values())


def test_v2_and_generate_tell_the_same_tokens(
    stack: Stack, ask: Callable[..., httpx.Response]
) -> None:
    expected = ask("completions", logprobs=1).json()["choices"][0]["logprobs"]["tokens"]
    parameters = {"max_tokens": 24, "temperature": 0}
    details = httpx.post(
        f"{stack.url}/v2/models/{MODEL}/generate",
        json={"text_input": SHORT, "parameters": {**parameters, "details": True}},
        headers=NO_STORE,
        timeout=60,
    ).json()["details"]
    assert [token["text"] for token in details["logprobs"]] == expected
    (output,) = httpx.post(
        f"{stack.url}/v2/models/{MODEL}/infer",
        json={
            "inputs": [{"name": "text_input", "shape": [1], "datatype": "BYTES", "data": [SHORT]}],
            "parameters": {**parameters, "logprobs": 2},
            "outputs": [{"name": "logprobs"}],
        },
        headers=NO_STORE,
        timeout=60,
    ).json()["outputs"]
    tokens = json.loads(output["data"][0])
    assert [token["text"] for token in tokens] == expected
    assert {len(token["top"]) for token in tokens} == {2}


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
def test_a_json_schema_bounds_the_answer(
    ask: Callable[..., httpx.Response], *, stream: bool
) -> None:
    form = {"type": "json_schema", "json_schema": {"name": "c", "schema": COLOUR, "strict": True}}
    answer = ask("chat/completions", response_format=form, max_tokens=60, stream=stream)
    text = (
        "".join(event["choices"][0]["delta"].get("content", "") for event in events(answer))
        if stream
        else answer.json()["choices"][0]["message"]["content"]
    )
    value = json.loads(text)
    assert value["colour"] in ("red", "green")
    assert type(value["sure"]) is bool


def test_a_json_object_is_one(ask: Callable[..., httpx.Response]) -> None:
    bound = ask("completions", response_format={"type": "json_object"}, max_tokens=12).json()
    assert bound["choices"][0]["text"].lstrip().startswith("{")


@pytest.mark.parametrize(
    ("bound", "allowed"),
    [
        ({"choice": ["Bonn", "Wien"]}, ("Bonn", "Wien")),
        ({"regex": "(Bonn|Wien)"}, ("Bonn", "Wien")),
        ({"grammar": 'root ::= "Bonn" | "Wien"'}, ("Bonn", "Wien")),
        ({"json": {"const": 7}}, ("7",)),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_structured_outputs_bound_the_answer_as_in_vllm(
    ask: Callable[..., httpx.Response], bound: dict[str, Any], allowed: tuple[str, ...]
) -> None:
    answer = ask("completions", structured_outputs=bound).json()
    assert answer["choices"][0]["text"].strip() in allowed


def test_a_biased_token_is_chosen_or_never(ask: Callable[..., httpx.Response]) -> None:
    def tokens(**members: Any) -> list[str]:
        answer = ask("completions", max_tokens=3, logprobs=0, **members).json()
        return answer["choices"][0]["logprobs"]["tokens"]

    free = tokens()
    assert free[0] == " Paris"
    assert set(tokens(logit_bias={"50": 100})) == {tokens(logit_bias={"50": 100})[0]}
    assert tokens(logit_bias={"50": 100}) != free


@pytest.mark.parametrize(
    "members",
    [
        {"logit_bias": {"2000000000": 1}},
        {"structured_outputs": {"regex": "(unclosed"}},
        {"structured_outputs": {"regex": "(a+)+(b+)+(c|d|e)*{1,9999}"}},
        {"structured_outputs": {"regex": "(?=a)b"}},
        {"structured_outputs": {"grammar": "root := nonsense ::"}},
        {"structured_outputs": {"json": {"type": "no-such-type"}}},
        {"structured_outputs": {"json": {"$ref": "#/nowhere"}}},
        {"stop_token_ids": [2_000_000_000]},
    ],
    ids=json.dumps,
)
def test_what_the_model_cannot_do_is_the_callers_fault_and_harms_nobody(
    ask: Callable[..., httpx.Response], members: dict[str, Any]
) -> None:
    answer = ask("completions", **members)
    assert answer.status_code == 400, answer.text
    error = answer.json()["error"]
    assert error["type"] == "invalid_request_error"
    assert ".cc:" not in error["message"]
    assert ask("completions", max_tokens=1).status_code == 200
