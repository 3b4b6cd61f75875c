"""Third-party clients work unchanged against the transformer."""

import json
from collections.abc import Callable

import pytest

from .conftest import MODEL, Stack
from .test_answers import SHORT, infer


def test_the_openai_client_chats_completes_and_streams(
    stack: Stack, run_client: Callable[..., str]
) -> None:
    seen = json.loads(run_client("openai_client.py", f"{stack.url}/openai/v1", MODEL, SHORT))
    assert seen["models"] == [MODEL]
    assert seen["chat"] == seen["chat_streamed"] == "The capital of France is Paris."
    assert seen["finish_reason"] == "stop"
    assert seen["usage"] == seen["usage_streamed"]
    assert seen["completion"] == seen["completion_streamed"] == infer(stack, SHORT)
    assert seen["unknown_model"] == "model_not_found"
    assert type(json.loads(seen["bounded"])["ok"]) is bool
    assert len(seen["bounded_tokens"]) == seen["bounded_count"]
    assert {count for _, count in seen["bounded_tokens"]} == {2}
    assert len(seen["scored"]) == 3
    assert all(logprob <= 0 for logprob in seen["scored_logprobs"])
    assert "'tools' is not supported" in seen["tools"]


def test_tritonclient_infers_over_http_as_json_binary_and_compressed(
    stack: Stack, run_client: Callable[..., str]
) -> None:
    seen = json.loads(run_client("triton_http.py", f"127.0.0.1:{stack.http}", MODEL, SHORT))
    assert seen.pop("server") == "keepwarm-transformer"
    assert seen.pop("inputs") == ["text_input"]
    assert set(seen.values()) == {infer(stack, SHORT)}


def test_tritonclient_infers_and_streams_over_grpc_past_an_error(
    stack: Stack, run_client: Callable[..., str]
) -> None:
    seen = json.loads(run_client("triton_grpc.py", f"127.0.0.1:{stack.grpc}", MODEL, SHORT))
    assert len(seen["pieces"]) > 5
    assert "".join(seen["pieces"]) == seen["whole"] == infer(stack, SHORT)
    assert "'temprature' is unknown" in seen["error"]


@pytest.mark.parametrize("server", ["transformer", "predictor"])
def test_the_kserve_client_infers_over_rest_and_grpc(
    stack: Stack, run_client: Callable[..., str], server: str
) -> None:
    url, grpc_port = {
        "transformer": (stack.url, stack.grpc),
        "predictor": (stack.predictor_url, stack.predictor_grpc),
    }[server]
    seen = json.loads(run_client("kserve_client.py", url, f"127.0.0.1:{grpc_port}", MODEL, SHORT))
    assert seen["rest"] == seen["grpc"] == infer(stack, SHORT)
    assert seen["ids"] == ["a1", "a1"]
