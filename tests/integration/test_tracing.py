"""One trace through both servers, sent to a collector; and what JSON logs say of the same requests.

Real processes over the engine of fixed capacity. The collector is OTLP's gRPC service in this
process.
"""

import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import grpc
import httpx
import pytest
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as otlp
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2_grpc as otlp_grpc
from opentelemetry.proto.trace.v1 import trace_pb2

from .faults import servers
from .faults.servers import MODEL, Server

TRACE = "0af7651916cd43dd8448eb211c80319c"
CALLER = "b7ad6b7169203331"
SECRET = "the prompt that nobody may read"
POISON = "poison"


@dataclass
class Span:
    """A span as it came in."""

    server: str
    name: str
    trace: str
    id: str
    parent: str
    failed: bool
    attributes: dict[str, object]
    text: str


@dataclass
class Collector(otlp_grpc.TraceServiceServicer):  # type: ignore[misc]  # generated
    """Keeps the spans that are exported to it."""

    port: int = 0
    spans: list[Span] = field(default_factory=list)

    def Export(self, request: otlp.ExportTraceServiceRequest, context: object) -> object:  # noqa: N802
        for resource in request.resource_spans:
            server = next(
                each.value.string_value
                for each in resource.resource.attributes
                if each.key == "service.name"
            )
            self.spans += [
                Span(
                    server.removeprefix("keepwarm-"),
                    span.name,
                    span.trace_id.hex(),
                    span.span_id.hex(),
                    span.parent_span_id.hex(),
                    span.status.code == trace_pb2.Status.STATUS_CODE_ERROR,
                    {
                        each.key: getattr(each.value, each.value.WhichOneof("value"))
                        for each in span.attributes
                    },
                    str(span),
                )
                for scope in resource.scope_spans
                for span in scope.spans
            ]
        return otlp.ExportTraceServiceResponse()

    def of(self, request_id: str) -> dict[str, Span]:
        """The spans of a request's trace, by stage, once its root is there."""
        key = "keepwarm.request_id"
        traces = {span.trace for span in self.spans if span.attributes.get(key) == request_id}
        return {span.name: span for span in self.spans if span.trace in traces}


@pytest.fixture
def collector() -> Iterator[Collector]:
    made = Collector()
    server = grpc.server(ThreadPoolExecutor(2))
    otlp_grpc.add_TraceServiceServicer_to_server(made, server)
    made.port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield made
    server.stop(None)


@pytest.fixture
def plans(tmp_path) -> str:
    (tmp_path / "plans.yaml").write_text("plans: {anonymous: {requests: {limit: 6000}}}")
    return f"--plans_file={tmp_path / 'plans.yaml'}"


def _ask(server: Server, request_id: str, prompt: str = SECRET, **headers: str) -> int:
    return httpx.post(
        f"{server.url}/openai/v1/completions",
        json={"model": MODEL, "prompt": prompt, "max_tokens": 3, "temperature": 0},
        headers={"x-request-id": request_id, **headers},
        timeout=60,
    ).status_code


def test_a_trace_has_a_span_for_each_stage_in_both_servers(
    collector: Collector, plans: str, eventually: Callable[..., None]
) -> None:
    endpoint = f"--otlp_endpoint=http://127.0.0.1:{collector.port}"
    with (
        servers.predictor(endpoint) as predictor,
        servers.transformer(predictor.target, plans, endpoint) as transformer,
    ):
        continued = {"traceparent": f"00-{TRACE}-{CALLER}-01"}
        assert _ask(transformer, "worked", **continued) == 200
        assert _ask(transformer, "kept") == 200
        assert _ask(transformer, "broken", POISON) == 500
        # Not sampled by who has begun it: nothing of it is exported.
        assert _ask(transformer, "unwanted", "b", traceparent=f"00-{'1' * 32}-{CALLER}-00") == 200
        eventually(
            lambda: {"request", "engine"} <= set(collector.of("broken")),
            "the spans have come",
            timeout_s=30,
        )
    worked, kept, broken = (collector.of(name) for name in ("worked", "kept", "broken"))

    chain = ["request", "limits", "cache", "forward", "engine"]
    assert {span.trace for span in worked.values()} == {TRACE}
    assert [worked[name].parent for name in chain] == [
        CALLER,
        *(worked[name].id for name in chain[:-1]),
    ]
    assert worked["auth"].parent == worked["request"].id
    assert {name: span.server for name, span in worked.items()} == {
        **dict.fromkeys(("auth", *chain[:-1]), "transformer"),
        "engine": "predictor",
    }
    assert worked["request"].attributes["gen_ai.request.model"] == MODEL
    assert worked["engine"].attributes["keepwarm.outcome"] == "ok"

    # A kept answer reaches neither the forward stage nor the engine.
    assert set(kept) == {"request", "auth", "limits", "cache"}
    assert kept["cache"].attributes["keepwarm.cache"] == "hit"

    failed = {name for name, span in broken.items() if span.failed}
    assert failed == {"request", "limits", "cache", "forward", "engine"}
    assert broken["request"].attributes["http.response.status_code"] == 500

    assert not any(span.trace == "1" * 32 for span in collector.spans)
    assert not any(SECRET in span.text or POISON in span.text for span in collector.spans)


def test_a_collector_that_is_away_costs_neither_answers_nor_the_drain(plans: str) -> None:
    nobody = "--otlp_endpoint=http://127.0.0.1:1"
    with (
        servers.predictor(nobody) as predictor,
        servers.transformer(predictor.target, plans, nobody) as transformer,
    ):
        assert _ask(transformer, "a") == 200
        for server in (transformer, predictor):
            server.process.send_signal(signal.SIGTERM)
            assert server.drained() == 0


def test_without_an_endpoint_tracing_is_not_even_imported() -> None:
    program = (
        "import sys, llm_transformer.server, vllm_predictor.server\n"
        "sys.exit(any(name in sys.modules for name in"
        " ('openinference.tracing', 'llm_transformer.traced')))"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_json_logs_name_the_request_and_not_what_it_said(
    plans: str, capfd: pytest.CaptureFixture[str], eventually: Callable[..., None]
) -> None:
    lines: list[dict[str, str]] = []

    def has_come() -> bool:
        lines.extend(json.loads(line) for line in capfd.readouterr().err.splitlines() if line)
        return any(line.get("request_id") == "broken" for line in lines)

    with (
        servers.predictor("--log_format=json") as predictor,
        servers.transformer(predictor.target, plans, "--log_format=json") as transformer,
    ):
        assert _ask(transformer, "broken", POISON) == 500
        eventually(has_come, "the failure is logged")
    (line,) = (line for line in lines if line.get("request_id") == "broken")
    assert (line["level"], line["exception"]) == ("error", "RuntimeError")
    assert "fixed_predictor.py" in line["stack"]
    assert "the prompt is" not in json.dumps({**line, "stack": ""})
