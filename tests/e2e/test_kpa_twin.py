"""The twin beside the living autoscaler: the same requests, the same pods at the same times.

Several Knative Services get bursts and silences at the same time; the twin gets each one's
manifest, the cluster's ConfigMap, the requests as they were sent and how long pods took to start.
"""

import asyncio
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import pytest
from matplotlib.figure import Figure

from tests.living_twin import Compared, Recording, best, only_config, save

from .autoscaled import Seen, Watcher, bursts, load, manifest
from .conftest import REPOSITORY, fresh_namespace, kubectl

NAMESPACE = "keepwarm-e2e-twin"
PLOT = REPOSITORY / "build/kpa_twin.png"
MEAN_WITHIN = 0.05
FULL_S = 300.0


@dataclass(frozen=True)
class Case:
    """A service: what makes it scale, and how long without requests its last pod needs to go."""

    name: str
    concurrency: int
    annotations: dict[str, str]
    rates: tuple[float, ...]  # of requests a second, 2 s each
    empties_s: float
    seed: int
    always: bool = True  # in the short run too

    @property
    def manifest(self) -> str:
        return manifest(self.name, self.concurrency, {"max-scale": "6"} | self.annotations)


CASES = [
    Case("proxied", 0, {"target": "1", "window": "20s"}, (0.5, 0.85, 1.55), 35, 1),
    Case(
        "direct",
        0,
        {"target": "2", "window": "30s", "target-burst-capacity": "0"},
        *((1.0, 1.7, 2.4, 3.1), 75, 2),
    ),
    Case(
        "limited",
        2,
        {"window": "20s", "target-burst-capacity": "-1"},
        *((1.0, 1.7, 2.4), 35, 3),
        always=False,
    ),
    Case(
        "delayed",
        0,
        {
            "target": "2",
            "target-utilization-percentage": "100",
            "window": "60s",
            "scale-down-delay": "14s",
            "scale-to-zero-pod-retention-period": "20s",
        },
        *((1.45, 2.45, 3.45), 110, 4),
        always=False,
    ),
]


def record(case: Case, seen: Seen, seconds: int) -> Recording:
    """What the service was told and sent, and what became of it."""
    config_map = kubectl("-n", "knative-serving", "get", "cm/config-autoscaler", "-o", "yaml")
    answered = sorted(r for r in seen.requests if r[2] == 200)
    return Recording(
        case.name,
        case.manifest,
        only_config(config_map),
        seconds,
        seen.decided_from - seen.zero,
        [(round(sent - seen.zero, 4), round(served_s, 4)) for sent, served_s, _ in answered],
        [round(each, 3) for each in seen.starts_s],
        seen.replicas.after(seen.zero),
        len(seen.requests) - len(answered),
    )


def plot(compared: list[Compared]) -> None:
    """Both lines for every service, to look at."""
    figure = Figure(figsize=(14, 3.2 * len(compared)))
    axes = figure.subplots(len(compared), 1, squeeze=False)
    for axis, each in zip(axes[:, 0], compared, strict=True):
        recording = each.recording
        seconds = np.arange(recording.seconds)
        sent = [sent for sent, _ in recording.requests]
        rate = np.histogram(sent, np.arange(recording.seconds + 1))[0]
        axis.bar(seconds, rate, width=1, align="edge", color="0.85", label="requests/s")
        axis.step(seconds, recording.cluster.sampled(len(seconds)), where="post", label="cluster")
        axis.step(seconds, each.twin.sampled(len(seconds)), where="post", ls="--", label="twin")
        case = next(case for case in CASES if case.name == each.name)
        settings = ", ".join(f"{key} {value}" for key, value in case.annotations.items())
        means = "{:.2f} and {:.2f} pods on average".format(*each.means)
        axis.set_title(f"{each.name}: {settings}; {means}", fontsize=9)
        axis.legend(loc="upper right")
    axes[-1, 0].set_xlabel("seconds")
    figure.tight_layout()
    PLOT.parent.mkdir(exist_ok=True)
    figure.savefig(PLOT)


@pytest.fixture(scope="module")
def compared(
    request: pytest.FixtureRequest, measured: Callable[..., None]
) -> Iterator[list[Compared]]:
    seconds = request.config.getoption("--twin-seconds")
    cases = [case for case in CASES if case.always or seconds >= 300]
    with fresh_namespace(NAMESPACE):
        watcher = Watcher(NAMESPACE)
        manifests = "---\n".join(case.manifest for case in cases)
        kubectl("-n", NAMESPACE, "apply", "-f", "-", stdin=manifests)
        kubectl("-n", NAMESPACE, "wait", "ksvc", "--all", "--for=condition=Ready", "--timeout=120s")
        begin, end = time.time(), max(s.zero for s in watcher.seen.values()) + seconds

        async def replay() -> None:
            loads = []
            for case in cases:
                at_s = bursts(case.seed, end - begin - 4, case.rates, case.empties_s)
                host = f"{case.name}.{NAMESPACE}.keepwarm.test"
                at = [begin + each for each in at_s]
                loads.append(
                    load(os.environ["KEEPWARM_GATEWAY"], host, at, watcher.seen[case.name])
                )
            await asyncio.gather(*loads)
            await asyncio.sleep(max(0.0, end - time.time()))

        asyncio.run(replay())
        recordings = [record(case, watcher.seen[case.name], seconds) for case in cases]
        PLOT.parent.mkdir(exist_ok=True)
        save(recordings, PLOT.with_suffix(".json.gz"))
        rows = [best(each) for each in recordings]
        plot(rows)
        for each in rows:
            for who, mean in zip(("cluster", "twin"), each.means, strict=True):
                measured(f"{each.name}: pods on average, {who}", mean, "pods")
            measured(f"{each.name}: longest pod start", max(each.recording.starts_s))
            measured(f"{each.name}: rises and zeros, both sides", each.events, "times")
            measured(f"{each.name}: of one alone", len(each.unmet), "times")
        yield rows


def test_every_request_was_answered(compared: list[Compared]) -> None:
    for each in compared:
        assert each.recording.requests
        assert each.recording.unanswered == 0, each.name


def test_both_start_from_zero_follow_the_load_and_go_to_zero_again(
    compared: list[Compared],
) -> None:
    for each in compared:
        for steps in (each.recording.cluster, each.twin):
            assert steps.rises(), each.name
            assert steps.zeros(), each.name
        cluster, twin = each.means
        assert twin == pytest.approx(cluster, abs=1), each.name


@pytest.fixture
def punctual(request: pytest.FixtureRequest, compared: list[Compared]) -> list[Compared]:
    """The full comparison: it is of a machine that gives the cluster its processors in time."""
    if request.config.getoption("--twin-seconds") < FULL_S:
        pytest.skip("tolerances are for --twin-seconds 600 on a quiet machine; see the report")
    return compared


def test_the_twin_has_as_many_pods_on_average(punctual: list[Compared]) -> None:
    for each in punctual:
        cluster, twin = each.means
        assert twin == pytest.approx(cluster, rel=MEAN_WITHIN), each.name


def test_the_twin_scales_up_and_goes_to_zero_when_the_cluster_does(
    punctual: list[Compared],
) -> None:
    assert [line for each in punctual for line in each.unmet] == []
