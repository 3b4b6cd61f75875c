"""The twin beside the living autoscaler: the same requests, the same pods at the same times.

Several Knative Services get bursts and silences at the same time; the twin gets each one's
manifest, the cluster's ConfigMap, the requests as they were sent and how long pods took to start.
"""

import asyncio
import json
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass

import numpy as np
import pytest
from matplotlib.figure import Figure

from keepwarm.kpa import Phases, Pods, Requests, simulate
from keepwarm.kpa.manifest import config_of, policy_of

from .autoscaled import TIMEOUT_S, Seen, Steps, Watcher, bursts, load, manifest
from .conftest import REPOSITORY, fresh_namespace, kubectl

NAMESPACE = "keepwarm-e2e-twin"
PLOT = REPOSITORY / "build/kpa_twin.png"
APART_S = 4.0
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


@dataclass(frozen=True)
class Compared:
    """What the cluster did and what the twin does, in seconds after the service's zero."""

    case: Case
    seen: Seen
    seconds: int
    cluster: Steps
    twin: Steps

    @property
    def means(self) -> tuple[float, float]:
        cluster, twin = (steps.sampled(self.seconds) for steps in (self.cluster, self.twin))
        return float(np.mean(cluster)), float(np.mean(twin))

    def unmet(self) -> list[str]:
        """Rises and ends of one that the other does not have within a few seconds.

        A rise to some count is met when the other crosses it, in however many steps; above three
        pods also when it comes within one pod of it: the averages of two or three seconds differ by
        where in the second the loops beat.
        """
        unmet = []
        for who, mine, other in (
            ("the cluster", self.cluster, self.twin),
            ("the twin", self.twin, self.cluster),
        ):
            for t_s, count in mine.rises():
                near = other.around(t_s, APART_S)
                if not min(near) < count <= max(near) + (count > 3):
                    unmet.append(f"{self.case.name}: {who} alone rises to {count} at {t_s:.1f} s")
            unmet += [
                f"{self.case.name}: {who} alone goes to zero at {t_s:.1f} s"
                for t_s in mine.zeros()
                if 0 not in other.around(t_s, APART_S)
            ]
        return unmet


def compare(case: Case, seen: Seen, seconds: int) -> Compared:
    """The twin fed with what the service was fed."""
    config = config_of(
        kubectl("-n", "knative-serving", "get", "cm/config-autoscaler", "-o", "yaml")
    )
    sent, served_s, _ = np.array(sorted(r for r in seen.requests if r[2] == 200)).T
    requests = Requests(sent - seen.zero, served_s, seconds)
    pods = Pods(seen.starts_s, request_timeout_s=TIMEOUT_S, termination_grace_s=TIMEOUT_S)
    begin = seen.decided_from - seen.zero
    result = next(
        simulate(
            [policy_of(case.manifest, config)],
            requests,
            pods,
            phases=Phases(tick_s=begin, scrape_s=begin % 1),
            engine="reference",  # the fast one is the same and would be compiled first
        )
    )
    steps = Steps()
    timeline = result.timeline
    for t_s, count in zip(timeline.t_s, timeline.ready + timeline.starting, strict=True):
        steps.add(float(t_s), int(count))
    return Compared(case, seen, seconds, seen.replicas.after(seen.zero), steps)


def plot(compared: list[Compared]) -> None:
    """Both lines for every service, and everything seen, to look at it without a cluster."""
    figure = Figure(figsize=(14, 3.2 * len(compared)))
    axes = figure.subplots(len(compared), 1, squeeze=False)
    for axis, each in zip(axes[:, 0], compared, strict=True):
        seconds = np.arange(each.seconds)
        sent = [sent - each.seen.zero for sent, *_ in each.seen.requests]
        rate = np.histogram(sent, np.arange(each.seconds + 1))[0]
        axis.bar(seconds, rate, width=1, align="edge", color="0.85", label="requests/s")
        axis.step(seconds, each.cluster.sampled(each.seconds), where="post", label="cluster")
        axis.step(seconds, each.twin.sampled(each.seconds), where="post", ls="--", label="twin")
        settings = ", ".join(f"{key} {value}" for key, value in each.case.annotations.items())
        means = "{:.2f} and {:.2f} pods on average".format(*each.means)
        axis.set_title(f"{each.case.name}: {settings}; {means}", fontsize=9)
        axis.legend(loc="upper right")
    axes[-1, 0].set_xlabel("seconds")
    figure.tight_layout()
    PLOT.parent.mkdir(exist_ok=True)
    figure.savefig(PLOT)
    PLOT.with_suffix(".json").write_text(
        json.dumps({each.case.name: asdict(each) for each in compared}, default=list)
    )


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
        rows = [compare(case, watcher.seen[case.name], seconds) for case in cases]
        plot(rows)
        for each in rows:
            for who, mean in zip(("cluster", "twin"), each.means, strict=True):
                measured(f"{each.case.name}: pods on average, {who}", mean, "pods")
            measured(f"{each.case.name}: longest pod start", max(each.seen.starts_s))
            measured(f"{each.case.name}: rises and zeros of one alone", len(each.unmet()), "times")
        yield rows


def test_every_request_was_answered(compared: list[Compared]) -> None:
    for each in compared:
        assert {status for *_, status in each.seen.requests} == {200}


def test_both_start_from_zero_follow_the_load_and_go_to_zero_again(
    compared: list[Compared],
) -> None:
    for each in compared:
        for steps in (each.cluster, each.twin):
            assert steps.rises(), each.case.name
            assert steps.zeros(), each.case.name
        cluster, twin = each.means
        assert twin == pytest.approx(cluster, abs=1), each.case.name


@pytest.fixture
def punctual(request: pytest.FixtureRequest, compared: list[Compared]) -> list[Compared]:
    """The full comparison: it is of a machine that gives the cluster its processors in time."""
    if request.config.getoption("--twin-seconds") < FULL_S:
        pytest.skip("tolerances are for --twin-seconds 600 on a quiet machine; see the report")
    return compared


def test_the_twin_has_as_many_pods_on_average(punctual: list[Compared]) -> None:
    for each in punctual:
        cluster, twin = each.means
        assert twin == pytest.approx(cluster, rel=MEAN_WITHIN), each.case.name


def test_the_twin_scales_up_and_goes_to_zero_when_the_cluster_does(
    punctual: list[Compared],
) -> None:
    assert [line for each in punctual for line in each.unmet()] == []
