"""The load driver and the simulated engine, with our two servers between them, for some seconds."""

import asyncio
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from keepwarm.traces import latency

from .commands import PERF, run

sys.path.append(str(PERF))

from open_loop import Callers
from pinned import PinnedServer, free_port
from simulated_predictor import answer

MODEL = "model"
LOCUST = PERF.parent / "build" / "locust" / "bin" / "locust"
# Of profiles/h200-bf16.json: no step is shorter.
STEP_S = 0.005


@dataclass(frozen=True)
class Servers:
    transformer: int
    predictor: int

    def metric(self, name: str) -> float:
        text = httpx.get(f"http://127.0.0.1:{self.predictor}/metrics").text
        (sample,) = re.findall(rf"^{name} (\S+)$", text, re.MULTILINE)
        return float(sample)


@contextmanager
def started(name: str, *arguments: str) -> Iterator[tuple[int, int]]:
    http, grpc = free_port(), free_port()
    common = (f"--model_name={MODEL}", "--host=127.0.0.1", "--log_level=warning", "--drain_s=1")
    ports = (f"--http_port={http}", f"--grpc_port={grpc}")
    server = PinnedServer(name, [*arguments, *common, *ports], port=http)
    try:
        server.wait_until_listening()
        yield http, grpc
    finally:
        server.end()


@pytest.fixture(scope="module")
def servers(eventually) -> Iterator[Servers]:
    with (
        started("predictor", str(PERF / "simulated_predictor.py")) as (predictor, grpc),
        started(
            *("transformer", "-m", "llm_transformer", "--allow_anonymous"),
            f"--predictor_host=127.0.0.1:{grpc}",
        ) as (transformer, _),
    ):
        url = f"http://127.0.0.1:{predictor}/v2/health/ready"
        eventually(lambda: httpx.get(url).status_code == 200, "it is ready", timeout_s=60)
        yield Servers(transformer, predictor)


def load(port: int, tmp_path: Path, *flags: str) -> tuple[dict, list[dict]]:
    """The figures of a run and its requests."""
    figures, outcomes = tmp_path / "figures.json", tmp_path / "outcomes.jsonl"
    printed = run(
        *("load.py", f"--url=http://127.0.0.1:{port}"),
        *(f"--json={figures}", f"--outcomes={outcomes}", *flags),
        timeout_s=120,
    )
    assert "| all |" in printed
    lines = outcomes.read_text().splitlines()
    return json.loads(figures.read_text()), [json.loads(line) for line in lines]


@pytest.mark.parametrize("protocol", ["chat", "completions", "generate_stream", "infer"])
def test_every_request_is_answered_with_the_tokens_it_asked_for(servers, tmp_path, protocol):
    before = servers.metric("simulated_engine_tokens_total")
    figures, outcomes = load(
        servers.transformer,
        tmp_path,
        *(f"--protocol={protocol}", "--rate=15..30", "--seconds=2", "--slo=e2e=60"),
    )
    row = figures["rows"]["all"]
    assert row["ends"] == {"ok": len(outcomes)}
    assert row["requests"] == len(outcomes) > 25
    assert row["good_share"] == 1
    tokens = sum(each["output_tokens"] for each in outcomes)
    assert servers.metric("simulated_engine_tokens_total") - before == tokens
    for each in outcomes:
        assert each["total_s"] >= each["output_tokens"] * STEP_S
        assert (each["first_s"] is None) is (protocol == "infer")
        assert each["first_s"] is None or 0 < each["first_s"] < each["total_s"]


def test_a_trace_is_replayed_and_its_outcomes_give_a_latency_model(servers, tmp_path):
    trace = tmp_path / "trace.jsonl"
    rows = [
        {"timestamp": 200 * n, "input_length": 20 + n, "output_length": 5 + n % 30}
        for n in range(60)
    ]
    trace.write_text("\n".join(map(json.dumps, rows)))
    _, outcomes = load(
        servers.transformer,
        tmp_path,
        *("--protocol=generate_stream", f"--trace={trace}", "--speed=4"),
    )
    by_due = sorted(outcomes, key=lambda each: each["due_s"])
    assert [each["due_s"] for each in by_due] == pytest.approx([n / 20 for n in range(60)])
    lengths = [(each["input_length"], each["output_length"]) for each in by_due]
    assert lengths == [(row["input_length"], row["output_length"]) for row in rows]
    fitted = latency.fit(latency.read((tmp_path / "outcomes.jsonl").open("rb"), "run"))
    assert fitted.step_s >= STEP_S


def test_thousands_of_streams_at_once_end_with_all_their_tokens(tmp_path):
    port = free_port()
    program = [str(PERF / "token_source.py"), f"--port={port}", "--tokens=20", "--pause_ms=100"]
    source = PinnedServer("source", program, port=port)
    try:
        source.wait_until_listening()
        flags = ("--protocol=chat", "--rate=1000x2", "--mix=1:30:20")
        figures, outcomes = load(port, tmp_path, *flags)
    finally:
        source.end()
    assert len(outcomes) > 1900
    assert figures["rows"]["all"]["ends"] == {"ok": len(outcomes)}
    assert {each["output_tokens"] for each in outcomes} == {20}
    assert figures["most_in_flight"] > 500


@pytest.mark.skipif(
    not LOCUST.exists(),
    reason="Locust has an environment of its own, which is not there: make build/locust/.ready",
)
def test_locust_sends_the_same_requests_and_tells_first_tokens(servers):
    done = subprocess.run(
        [
            *(LOCUST, "-f", PERF / "locustfile.py", "--headless", "--json"),
            *("--stage-seconds", "1", "--scale", "0.2", "--user-rate", "1"),
            *("--host", f"http://127.0.0.1:{servers.transformer}"),
        ],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    entries = {(each["method"], each["name"]): each for each in json.loads(done.stdout)}
    assert sum(each["num_failures"] for each in entries.values()) == 0
    for name in ("short", "medium", "long"):
        requests = entries["POST", name]["num_requests"]
        assert requests == entries["TTFT", name]["num_requests"] > 0
        assert requests == entries["ITL", name]["num_requests"]


async def test_streams_of_many_callers_at_once_are_right_to_the_last_token(servers):
    callers = Callers(f"http://127.0.0.1:{servers.transformer}", keep=True)

    async def call(number: int) -> None:
        prompt = f"right {number}"
        body = {"text_input": prompt, "parameters": {"max_tokens": 20 + number}}
        content = json.dumps(body).encode()
        reply = await callers.post(f"/v2/models/{MODEL}/generate_stream", content)
        text = "".join(event["text_output"] for event in reply.events)
        assert text == answer(prompt, 20 + number)

    async with asyncio.TaskGroup() as group:
        for number in range(60):
            group.create_task(call(number))
    callers.close()


async def test_a_caller_that_gives_up_leaves_its_place_in_the_engine(servers, eventually):
    callers = Callers(f"http://127.0.0.1:{servers.transformer}")
    body = {"text_input": "gives up", "parameters": {"max_tokens": 4000}}
    content = json.dumps(body).encode()
    reply = await callers.post(f"/v2/models/{MODEL}/generate_stream", content, patience_s=0.5)
    assert reply.hung
    callers.close()
    await asyncio.to_thread(
        eventually,
        lambda: servers.metric("simulated_engine_running") == 0,
        "nobody is left in the engine",
    )
