"""Under streaming load: scale-out, scale-down, rollouts and a killed pod; who loses what.

Knative's whole path is real, and so are our servers; the engine is one of fixed speed, because
several of vLLM's need more than a small machine. test_cpu_demo.py kills one of vLLM's.
"""

import json
import statistics
import time
from collections.abc import Callable, Iterator

import pytest

from . import fixed_engine
from .conftest import SERVICE, Chat, is_ready, served
from .streams import Stream, Streams

NAMESPACE = "keepwarm-e2e-load"
# A stream takes SECONDS while its pod has a slot; 20 of them are 3.6 pods at 70 % of TARGET.
SLOTS = TARGET = 8
MOST = 4
TOKEN_MS, TOKENS = 150, 40
SECONDS = TOKENS * TOKEN_MS / 1000
BURST = 20

Measured = Callable[..., None]


@pytest.fixture(scope="module")
def fixed() -> Iterator[Chat]:
    manifest = fixed_engine.manifest(
        slots=SLOTS, token_ms=TOKEN_MS, target=TARGET, most=MOST, window="8s"
    )
    with served(manifest, NAMESPACE) as chat:
        yield chat


@pytest.fixture(scope="module")
def answer() -> Callable[[str, int], str]:
    return fixed_engine.answer()


def ready(chat: Chat) -> set[str]:
    return {pod["metadata"]["name"] for pod in chat.pods("predictor") if is_ready(pod)}


def samples(chat: Chat, pod: str) -> dict[str, float]:
    """What a predictor's pod tells Prometheus; nothing when it has just gone."""
    path = f"/api/v1/namespaces/{chat.namespace}/pods/http:{pod}:8080/proxy/metrics"
    lines = chat.kubectl("get", "--raw", path, check=False).splitlines()
    pairs = (line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
    return {name: float(value) for name, value in pairs}


def in_flight(chat: Chat, pod: str) -> int:
    told = samples(chat, pod)
    return int(told.get('keepwarm_requests_in_flight{endpoint="grpc_ModelStreamInfer"}', 0))


def told(streams: list[Stream]) -> str:
    return "\n".join(f"{stream.prompt}: {stream.problem}" for stream in streams)


def test_a_burst_of_20_callers_scales_the_predictor_out_and_all_are_answered(
    fixed: Chat, answer: Callable, eventually: Callable, measured: Measured
) -> None:
    eventually(lambda: len(ready(fixed)) <= 1, "one predictor at most", timeout_s=60)
    began = time.monotonic()
    with Streams(fixed, callers=BURST, tokens=TOKENS, answer=answer) as streams:
        for pods in range(2, MOST + 1):
            eventually(
                lambda pods=pods: len(ready(fixed)) >= pods, f"{pods} predictors", timeout_s=120
            )
            measured(f"burst of {BURST}: to {pods} predictors", time.monotonic() - began)
        scaled = time.monotonic()
        eventually(
            lambda: sum(stream.began > scaled for stream in streams.told) >= BURST,
            "everybody has asked and was answered again",
            timeout_s=120,
        )
    assert not streams.broken, told(streams.broken)
    waits = [stream.first_event - stream.began for stream in streams.told]
    later = [w for w, stream in zip(waits, streams.told, strict=True) if stream.began > scaled]
    measured(f"burst of {BURST}: streams, all whole", len(streams.told), "streams")
    measured(f"burst of {BURST}: longest wait for a first event", max(waits))
    measured("... median once scaled out", statistics.median(later))


def test_scale_down_under_load_loses_nothing(
    fixed: Chat, answer: Callable, eventually: Callable, measured: Measured
) -> None:
    # Long ones, so that they are still running on the pods that are taken away.
    busy: dict[str, int] = {}

    def shrunk() -> bool:
        pods = fixed.pods("predictor")
        for pod in pods:
            name = pod["metadata"]["name"]
            if "deletionTimestamp" in pod["metadata"]:
                busy[name] = max(busy.get(name, 0), in_flight(fixed, name))
        return len(pods) == 1 and is_ready(pods[0])

    with Streams(fixed, callers=BURST, tokens=TOKENS, answer=answer) as burst:
        eventually(lambda: len(ready(fixed)) >= 3, "the burst has scaled it out", timeout_s=120)
        with Streams(fixed, callers=4, tokens=3 * TOKENS, answer=answer) as streams:
            eventually(lambda: len(streams.flowing) == 4, "four long streams flow", timeout_s=60)
            burst.stop()
            began = time.monotonic()
            eventually(shrunk, "back to one predictor", timeout_s=240)
            measured("scale-down to one predictor, drained", time.monotonic() - began)
    assert not burst.broken, told(burst.broken)
    assert not streams.broken, told(streams.broken)
    assert max(busy.values()) > 0, f"no stream ran on a pod that was taken away: {busy}"
    measured("scale-down: pods taken away", len(busy), "pods")
    measured("scale-down: streams on them at that time, all whole", sum(busy.values()), "streams")


def test_a_rollout_of_both_components_under_load_loses_nothing(
    fixed: Chat, answer: Callable, eventually: Callable, measured: Measured
) -> None:
    revisions = {part: latest(fixed, part) for part in ("predictor", "transformer")}
    patch = [
        {"op": "add", "path": f"/spec/{part}/containers/0/args/-", "value": "--log_level=warning"}
        for part in revisions
    ]

    def rolled_out() -> bool:
        """Both components have a new Revision, and no pod of the old one is left."""
        return all(
            (new := latest(fixed, part)) != old
            and {revision(pod) for pod in fixed.pods(part)} == {new}
            for part, old in revisions.items()
        )

    with Streams(fixed, callers=8, tokens=TOKENS, answer=answer) as streams:
        eventually(lambda: len(streams.flowing) == 8, "eight streams flow", timeout_s=120)
        began = time.monotonic()
        fixed.kubectl("patch", "inferenceservice", SERVICE, "--type=json", "-p", json.dumps(patch))
        eventually(rolled_out, "only pods of the new Revisions", timeout_s=240)
        rolled = time.monotonic()
        measured("rollout of both components under load, old pods drained", rolled - began)
        eventually(
            lambda: sum(stream.began > rolled for stream in streams.told) >= 8,
            "the new Revisions have answered",
            timeout_s=120,
        )
    assert not streams.broken, told(streams.broken)
    measured("rollout: streams, all whole", len(streams.told), "streams")


def latest(chat: Chat, component: str) -> str:
    return chat.kubectl(
        *("get", f"ksvc/{SERVICE}-{component}", "-o"), "jsonpath={.status.latestReadyRevisionName}"
    )


def revision(pod: dict) -> str:
    return pod["metadata"]["labels"]["serving.knative.dev/revision"]


def test_a_killed_predictor_loses_what_was_on_it_and_nothing_else(
    fixed: Chat, answer: Callable, eventually: Callable, measured: Measured
) -> None:
    with Streams(fixed, callers=10, tokens=TOKENS, answer=answer) as streams:
        eventually(lambda: len(ready(fixed)) >= 2, "two predictors", timeout_s=120)
        eventually(
            lambda: all(in_flight(fixed, pod) for pod in ready(fixed)),
            "streams on every predictor",
            timeout_s=60,
        )
        victim = min(ready(fixed))
        on_it = in_flight(fixed, victim)
        killed = time.monotonic()
        # SIGKILL after a second: what a lost node looks like, and an engine that was out of memory.
        fixed.kubectl("delete", "pod", victim, "--grace-period=1", "--timeout=60s")
        gone = time.monotonic()
        eventually(
            lambda: sum(stream.began > gone for stream in streams.told) >= 20,
            "everybody has asked and was answered again",
            timeout_s=120,
        )
        survivors = {pod: samples(fixed, pod) for pod in ready(fixed)}
    measured("killed predictor: streams on it", on_it, "streams")
    measured("killed predictor: streams lost", len(streams.broken), "streams")
    measured("killed predictor: streams in all", len(streams.told), "streams")
    if streams.broken:
        last = max(stream.ended for stream in streams.broken)
        measured("killed predictor: to the last caller who was told", last - killed)
    # Each who lost a stream was told so, none before the kill, and none who came after it.
    for stream in streams.broken:
        assert stream.problem.startswith("error event: "), told(streams.broken)
        assert stream.began < gone, told(streams.broken)
        assert stream.ended > killed, told(streams.broken)
    # What another pod had begun, it has brought to its end and to its caller.
    for pod, metrics in survivors.items():
        assert metrics.get('fixed_engine_sequences_total{end="aborted"}', 0) == 0, pod
