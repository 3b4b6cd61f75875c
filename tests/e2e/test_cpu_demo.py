"""SmolLM2 behind KServe, Knative and its ingress: answers, streams, goes to zero and comes back."""

import json
import time
from collections.abc import Callable

import grpc
import httpx
import pytest

from .conftest import NAMESPACE, SERVICE, Chat, is_ready
from .streams import Streams

CHAT = {
    "model": SERVICE,
    "messages": [{"role": "user", "content": "What is the capital of France?"}],
    "temperature": 0,
}
PARIS = "The capital of France is Paris."


def ask(chat: Chat) -> str:
    with chat.client() as client:
        answer = client.post("/openai/v1/chat/completions", json=CHAT)
    assert answer.status_code == 200, answer.text
    return answer.json()["choices"][0]["message"]["content"]


def test_kserves_controller_named_model_predictor_and_port_to_the_transformer(chat: Chat) -> None:
    (pod,) = chat.pods("transformer")
    container = next(c for c in pod["spec"]["containers"] if c["name"] == "kserve-container")
    args = container["args"]
    assert "--predictor_host" in args
    assert args[args.index("--predictor_host") + 1].startswith(f"{SERVICE}-predictor.")
    assert args[args.index("--http_port") + 1] == "8080"
    assert args.count("--workers=1") == 1


def test_v2_and_openai_answer_through_the_ingress(chat: Chat) -> None:
    assert ask(chat) == PARIS
    tensor = {
        "name": "messages",
        "shape": [1],
        "datatype": "BYTES",
        "data": [json.dumps(CHAT["messages"])],
    }
    with chat.client() as client:
        answer = client.post(
            f"/v2/models/{SERVICE}/infer",
            json={"inputs": [tensor], "parameters": {"max_tokens": 16, "temperature": 0}},
        )
        missing = client.post("/v2/models/nobody/infer", json={"inputs": [tensor]})
    assert answer.json()["outputs"][0]["data"] == [PARIS]
    assert (missing.status_code, missing.json()) == (404, {"error": "model 'nobody' not found"})


def test_the_predictor_has_no_route_on_the_public_gateway(chat: Chat) -> None:
    gateway = httpx.Client(base_url=chat.gateway, timeout=30, trust_env=False)
    public = chat.host.replace("-transformer.", "-predictor.", 1)
    internal = f"{SERVICE}-predictor.{NAMESPACE}.svc.cluster.local"
    with gateway:
        for host in (public, internal):
            answer = gateway.get("/v2/health/live", headers={"host": host})
            assert answer.status_code == 404, host
    url = httpx.URL(chat.gateway)
    with grpc.insecure_channel(
        f"{url.host}:{url.port or 80}", options=[("grpc.default_authority", public)]
    ) as channel:
        check = channel.unary_unary("/grpc.health.v1.Health/Check")
        with pytest.raises(grpc.RpcError) as refused:
            check(b"", timeout=30)
    # How Envoy says 404 to a gRPC client.
    assert refused.value.code() == grpc.StatusCode.UNIMPLEMENTED
    assert ask(chat) == PARIS


def test_a_stream_arrives_piece_by_piece(chat: Chat, measured: Callable[..., None]) -> None:
    body = {
        "text_input": "Once upon a time",
        "parameters": {"max_tokens": 80, "temperature": 0, "ignore_eos": True},
    }
    began = time.monotonic()
    arrived = []
    with (
        chat.client() as client,
        client.stream("POST", f"/v2/models/{SERVICE}/generate_stream", json=body) as answer,
    ):
        for part in answer.iter_raw():
            arrived.append((time.monotonic() - began, part))  # noqa: PERF401 (times as they come)
    events = b"".join(part for _, part in arrived).split(b"\n\n")
    assert b'"finish_reason":"length"' in events[-2]
    # A buffering proxy would hand all 6 kB over in a part or two; on a busy machine several tokens
    # share one.
    assert len(arrived) >= 5
    measured("first event of a stream, warm", arrived[0][0])
    measured("last event of 80 tokens, warm", arrived[-1][0])
    measured("parts in which 80 tokens arrived", len(arrived), "parts")


def test_the_predictor_goes_to_zero_and_the_next_request_is_held_and_answered(
    chat: Chat, eventually: Callable[..., None], measured: Callable[..., None]
) -> None:
    assert ask(chat) == PARIS
    idle = time.monotonic()
    eventually(lambda: not chat.pods("predictor"), "the predictor is at zero", timeout_s=300)
    measured("last answer to no predictor pod", time.monotonic() - idle)
    (transformer,) = chat.pods("transformer")
    assert all(status["ready"] for status in transformer["status"]["containerStatuses"])
    began = time.monotonic()
    assert ask(chat) == PARIS
    measured("a request from zero, held and answered", time.monotonic() - began)
    began = time.monotonic()
    assert ask(chat) == PARIS
    measured("the same request, warm", time.monotonic() - began)


def test_a_killed_engine_loses_the_streams_on_it_and_the_next_request_is_held(
    chat: Chat, eventually: Callable[..., None], measured: Callable[..., None]
) -> None:
    assert ask(chat) == PARIS
    (pod,) = (each for each in chat.pods("predictor") if is_ready(each))
    # Long enough that they are still running when it is killed.
    with Streams(chat, callers=4, tokens=1500) as streams:
        eventually(lambda: len(streams.flowing) == 4, "four streams flow", timeout_s=60)
        streams.stop()
        killed = time.monotonic()
        # SIGKILL after a second; asked with the pod's own grace it would drain.
        chat.kubectl("delete", "pod", pod["metadata"]["name"], "--grace-period=1", "--timeout=60s")
        gone = time.monotonic()
        assert ask(chat) == PARIS
        answered = time.monotonic()
    assert [stream.problem.partition(":")[0] for stream in streams.told] == ["error event"] * 4
    assert all(killed < stream.ended < answered for stream in streams.told)
    (successor,) = (each for each in chat.pods("predictor") if is_ready(each))
    assert successor["metadata"]["name"] != pod["metadata"]["name"]
    measured("killed engine: streams on it, each told", len(streams.told), "streams")
    measured(
        "killed engine: to the last caller who was told",
        max(s.ended for s in streams.told) - killed,
    )
    measured("killed engine: a request right after, held and answered", answered - gone)
