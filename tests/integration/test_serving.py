"""Readiness, start-up phases, context, deadlines, cancellation, size: with real processes."""

import subprocess
import sys
import time
from collections.abc import Callable

import grpc
import httpx
import psutil
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from keepwarm.local.model_folder import demo_folder
from openinference.proto import inference_pb2 as pb
from openinference.proto.inference_pb2_grpc import GRPCInferenceServiceStub

from .conftest import MODEL, Stack

TRACEPARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
ENDLESS = {"max_tokens": 4000, "temperature": 0, "ignore_eos": True}


def running(stack: Stack) -> float:
    """How many requests the engine's own scheduler runs."""
    return stack.metric("vllm:num_requests_running")


def generate(stack: Stack, parameters: dict[str, object], **options: object) -> httpx.Response:
    return httpx.post(
        f"{stack.url}/v2/models/{MODEL}/generate",
        json={"text_input": "Once upon a time", "parameters": parameters},
        timeout=60,
        **options,
    )


def test_every_start_up_phase_was_timed_and_none_runs_any_more(stack: Stack) -> None:
    text = httpx.get(f"{stack.predictor_url}/metrics").text
    seconds = {
        phase: float(
            text.split(f'keepwarm_startup_phase_seconds{{phase="{phase}"}} ')[1].split("\n")[0]
        )
        for phase in ("import", "config", "weights", "engine", "warmup")
    }
    # None is left of the configuration where the engine's process, which is ahead, loads already.
    assert seconds["config"] >= 0
    assert all(value > 0 for phase, value in seconds.items() if phase != "config"), seconds
    assert stack.metric("keepwarm_startup_phase_active") == 0
    total = stack.metric("keepwarm_startup_seconds")
    assert total == pytest.approx(sum(seconds.values()), abs=0.01)
    assert any("vllm_predictor.startup: ready after" in line for line in stack.lines)


def test_the_predictor_speaks_grpc_health_and_reflection(
    stack: Stack, eventually: Callable[..., None]
) -> None:
    from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

    with grpc.insecure_channel(f"127.0.0.1:{stack.predictor_grpc}") as channel:
        check = health_pb2_grpc.HealthStub(channel).Check
        asked = health_pb2.HealthCheckRequest(service="inference.GRPCInferenceService")
        # Health follows readiness within a second, and this may be the first test after the start.
        eventually(
            lambda: check(asked).status == health_pb2.HealthCheckResponse.SERVING,
            "gRPC health says that it serves",
        )
        answers = list(
            reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo(
                iter(
                    [
                        reflection_pb2.ServerReflectionRequest(list_services=""),
                        reflection_pb2.ServerReflectionRequest(
                            file_containing_symbol="inference.GRPCInferenceService"
                        ),
                    ]
                )
            )
        )
    assert {service.name for service in answers[0].list_services_response.service} == {
        "grpc.health.v1.Health",
        "grpc.reflection.v1alpha.ServerReflection",
        "inference.GRPCInferenceService",
    }
    (file,) = answers[1].file_descriptor_response.file_descriptor_proto
    assert file == pb.DESCRIPTOR.serialized_pb


def test_request_id_and_traceparent_come_back_from_both_protocols(stack: Stack) -> None:
    sent = {"x-request-id": "abc-1", "traceparent": TRACEPARENT}
    answer = generate(stack, {"max_tokens": 1}, headers=sent)
    assert {name: answer.headers[name] for name in sent} == sent
    with grpc.insecure_channel(f"127.0.0.1:{stack.grpc}") as channel:
        call = GRPCInferenceServiceStub(channel).ServerMetadata.with_call(
            pb.ServerMetadataRequest(), metadata=tuple(sent.items())
        )[1]
    trailing = dict(call.trailing_metadata())
    assert {name: trailing[name] for name in sent} == sent


def test_a_prompt_over_the_models_context_is_a_clear_400_through_both_hops(stack: Stack) -> None:
    answer = httpx.post(
        f"{stack.url}/openai/v1/completions",
        json={"model": MODEL, "prompt": "word " * 9000, "max_tokens": 1},
        timeout=60,
    )
    assert answer.status_code == 400
    assert answer.json()["error"]["type"] == "invalid_request_error"
    assert "8192" in answer.json()["error"]["message"]


def test_a_callers_deadline_gives_504_at_once_and_frees_the_engine(
    stack: Stack, eventually: Callable[..., None]
) -> None:
    began = time.monotonic()
    answer = generate(stack, ENDLESS, headers={"x-request-timeout": "1.5"})
    assert answer.status_code == 504
    assert answer.json() == {"error": "the request's deadline has passed"}
    # The whole text takes minutes here; this bound only tells "at the deadline" from "at the end".
    assert time.monotonic() - began < 30
    eventually(lambda: running(stack) == 0, "the engine is free")


def test_tritons_timeout_parameter_is_microseconds(stack: Stack) -> None:
    answer = httpx.post(
        f"{stack.url}/v2/models/{MODEL}/infer",
        json={
            "inputs": [{"name": "text_input", "shape": [1], "datatype": "BYTES", "data": ["Hi"]}],
            "parameters": {**ENDLESS, "timeout": 800_000},
        },
        timeout=60,
    )
    assert answer.status_code == 504


def test_a_grpc_deadline_reaches_the_engine(stack: Stack, eventually: Callable[..., None]) -> None:
    request = pb.ModelInferRequest(model_name=MODEL)
    tensor = request.inputs.add(name="text_input", datatype="BYTES", shape=[1])
    tensor.contents.bytes_contents.append(b"Once upon a time")
    request.parameters["max_tokens"].int64_param = 4000
    request.parameters["ignore_eos"].bool_param = True
    with (
        grpc.insecure_channel(f"127.0.0.1:{stack.grpc}") as channel,
        pytest.raises(grpc.RpcError) as failure,
    ):
        GRPCInferenceServiceStub(channel).ModelInfer(request, timeout=1.5)
    assert failure.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    eventually(lambda: running(stack) == 0, "the engine is free")


@pytest.mark.parametrize("path", ["generate_stream", "generate"])
def test_a_client_that_leaves_frees_the_engine(
    stack: Stack, eventually: Callable[..., None], path: str
) -> None:
    body = {"text_input": "Once upon a time", "parameters": ENDLESS}
    url = f"{stack.url}/v2/models/{MODEL}/{path}"
    if path == "generate_stream":
        with httpx.stream("POST", url, json=body, timeout=60) as answer:
            lines = answer.iter_lines()
            assert next(lines).startswith("data: ")
            assert running(stack) == 1
    else:
        with pytest.raises(httpx.ReadTimeout):
            httpx.post(url, json=body, timeout=2)
    eventually(lambda: running(stack) == 0, "the engine is free")
    endpoint = f'keepwarm_requests_total{{endpoint="{path}",status="cancelled"}}'
    eventually(
        lambda: endpoint in httpx.get(f"{stack.url}/metrics").text, "the request is counted out"
    )


def test_sigterm_during_a_stream_lets_it_finish(
    stack: Stack, start_transformer: Callable[..., tuple[subprocess.Popen[bytes], str]]
) -> None:
    process, url = start_transformer(stack.predictor_grpc)
    body = {"text_input": "Once upon a time", "parameters": {**ENDLESS, "max_tokens": 100}}
    with httpx.stream(
        "POST", f"{url}/v2/models/{MODEL}/generate_stream", json=body, timeout=60
    ) as answer:
        lines = answer.iter_lines()
        first = next(lines)
        process.terminate()
        events = [first, *(line for line in lines if line)]
    assert '"finish_reason":"length"' in events[-1]
    assert process.wait(20) == 0


def test_sigterm_while_the_engine_starts_ends_the_predictor_and_its_children(
    stack: Stack, free_ports: Callable[[int], list[int]], eventually: Callable[..., None]
) -> None:
    http, grpc_port = free_ports(2)
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "vllm_predictor", f"--model_dir={demo_folder()}"),
            *("--host=127.0.0.1", f"--http_port={http}", f"--grpc_port={grpc_port}"),
        ]
    )
    try:
        predictor = psutil.Process(process.pid)
        url = f"http://127.0.0.1:{http}/v2/models/model"
        eventually(
            lambda: _answer(url, "status").get("phase") == "engine",
            "the engine's process has its work",
            timeout_s=120,
        )
        starting = httpx.post(f"{url}/generate", json={"text_input": "Hi"})
        assert starting.status_code == 503
        # The weights are loaded in the middle of it.
        assert starting.json()["error"] in {
            f"model 'model' is starting (phase {phase})" for phase in ("engine", "weights")
        }
        assert starting.headers["retry-after"] == "10"
        children = predictor.children(recursive=True)
        assert any("spawn_main" in " ".join(child.cmdline()) for child in children)
        process.terminate()
        assert process.wait(30) == 0
        eventually(lambda: not any(child.is_running() for child in children), "no child is left")
    finally:
        process.kill()


def _answer(url: str, path: str) -> dict:
    """What a server says; nothing while its port is not open yet."""
    try:
        return httpx.get(f"{url}/{path}").json()
    except httpx.TransportError:
        return {}


def test_a_predictor_out_of_reach_is_a_clear_503_on_every_protocol(
    stack: Stack,
    start_transformer: Callable[..., tuple[subprocess.Popen[bytes], str]],
    free_ports: Callable[[int], list[int]],
) -> None:
    (nobody,) = free_ports(1)
    _, url = start_transformer(nobody, "--unreachable_hold_s=0")
    expected = f"the predictor of model '{MODEL}' cannot be reached"
    tensor = {"name": "text_input", "shape": [1], "datatype": "BYTES", "data": ["Hi"]}
    answers = [
        httpx.post(f"{url}/v2/models/{MODEL}/infer", json={"inputs": [tensor]}),
        httpx.post(f"{url}/v2/models/{MODEL}/generate_stream", json={"text_input": "Hi"}),
    ]
    for answer in answers:
        assert (answer.status_code, answer.json()) == (503, {"error": expected})
        assert answer.headers["retry-after"] == "1"
    openai = httpx.post(
        f"{url}/openai/v1/chat/completions",
        json={"model": MODEL, "messages": [{"role": "user", "content": "Hi"}], "stream": True},
    )
    assert openai.status_code == 503
    assert openai.json()["error"]["message"] == expected
    assert httpx.get(f"{url}/v2/health/ready").status_code == 200


def test_the_transformer_is_small_and_imports_neither_torch_nor_vllm(stack: Stack) -> None:
    transformer = stack.server("llm_transformer")
    assert transformer.memory_info().rss < 180 * 2**20
    script = (
        "import sys, llm_transformer.server\n"
        "print({'torch', 'vllm', 'transformers'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "set()\n"
    mapped = {entry.path for entry in transformer.memory_maps()}
    assert not [path for path in mapped if "/torch/" in path or "/vllm/" in path]


@pytest.mark.last
def test_a_predictor_that_gets_sigterm_finishes_its_stream_and_then_only_what_is_kept_is_given(
    stack: Stack, start_transformer: Callable[..., tuple[subprocess.Popen[bytes], str]]
) -> None:
    _, url = start_transformer(stack.predictor_grpc, "--unreachable_hold_s=0")
    predictor = stack.server("vllm_predictor")
    body = {"text_input": "Once upon a time", "parameters": {**ENDLESS, "max_tokens": 100}}
    stream_url = f"{url}/v2/models/{MODEL}/generate_stream"
    with httpx.stream("POST", stream_url, json=body, timeout=60) as answer:
        lines = answer.iter_lines()
        first = next(lines)
        predictor.terminate()
        events = [first, *(line for line in lines if line)]
    assert '"finish_reason":"length"' in events[-1]
    # The supervisor notices, ends the transformer too, and says which of the two it was.
    assert stack.process.wait(60) == 1
    assert any("the predictor has ended (exit status 0)" in line for line in stack.lines)
    assert httpx.post(stream_url, json=body, timeout=60).headers["x-cache"] == "hit"
    answer = httpx.post(stream_url, json={**body, "text_input": "Once"}, timeout=60)
    assert answer.status_code == 503
    assert answer.json() == {"error": f"the predictor of model '{MODEL}' cannot be reached"}
