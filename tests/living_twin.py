"""What a real Knative did with a request log, beside what the twin does with it.

Where in the second Knative's loops beat cannot be seen from outside, and a decision on an edge can
hang on it. So the twin is run for a grid of such phases, and the one that the cluster agrees with
best is taken: a few numbers for ten minutes and some fifty decisions, which nobody could fit with a
wrong twin. Times are in seconds after the even second in which the service's decider was made.
"""

import gzip
import json
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from functools import cached_property
from itertools import pairwise, product
from pathlib import Path

import numpy as np
import yaml

from keepwarm.kpa import Phases, Pods, Requests, simulate
from keepwarm.kpa.manifest import config_of, policy_of

APART_S = 4.0
NAME = "config-autoscaler"
# Of a pod's start and its end, in seconds; see e2e/fixed_service.py.
TIMEOUT_S = 60
# The decider is seen by a watch, a little after it was made.
SEEN_LATE_S = (0.0, 0.1, 0.2)
IN_A_SECOND = tuple(each / 10 + 0.05 for each in range(10))


@dataclass
class Steps:
    """A count over time; before the first row it is 0."""

    t_s: list[float] = field(default_factory=list)
    count: list[int] = field(default_factory=list)

    def add(self, t_s: float, count: int) -> None:
        """The count from then on."""
        if count != (self.count[-1] if self.count else 0):
            self.t_s.append(t_s)
            self.count.append(count)

    def after(self, zero: float) -> "Steps":
        """The same, counted from another time."""
        return Steps([t_s - zero for t_s in self.t_s], list(self.count))

    def at(self, t_s: float) -> int:
        """The count at a time."""
        row = bisect_right(self.t_s, t_s) - 1
        return self.count[row] if row >= 0 else 0

    def sampled(self, until_s: int) -> list[int]:
        """Once a second."""
        return [self.at(float(second)) for second in range(until_s)]

    def around(self, t_s: float, apart_s: float) -> set[int]:
        """Every count within some seconds before and after."""
        near = (
            count for t, count in zip(self.t_s, self.count, strict=True) if abs(t - t_s) <= apart_s
        )
        return {self.at(t_s - apart_s), *near}

    def rises(self) -> list[tuple[float, int]]:
        """When it rises, and to what."""
        steps = zip(self.t_s, pairwise([0, *self.count]), strict=True)
        return [(t_s, after) for t_s, (before, after) in steps if after > before]

    def zeros(self) -> list[float]:
        """When it falls to 0."""
        return [t_s for t_s, count in zip(self.t_s, self.count, strict=True) if count == 0]


@dataclass
class Recording:
    """One service on a cluster: what it was told, what it was sent, and what became of it."""

    name: str
    manifest: str
    config_map: str
    seconds: int
    decided_s: float
    requests: list[tuple[float, float]]  # sent, and seconds from the container's door to the end
    starts_s: list[float]  # of each pod, in the order in which they were made
    cluster: Steps
    unanswered: int = 0  # requests that got no 200


def save(recordings: list[Recording], path: Path) -> None:
    """Writes them as gzipped JSON."""
    text = json.dumps([asdict(each) for each in recordings])
    path.write_bytes(gzip.compress(text.encode(), mtime=0))


def load(path: Path) -> list[Recording]:
    """Reads them again."""
    rows = json.loads(gzip.decompress(path.read_bytes()))
    return [Recording(**row | {"cluster": Steps(**row["cluster"])}) for row in rows]


@dataclass(frozen=True)
class Compared:
    """What the cluster did and what the twin does."""

    recording: Recording
    twin: Steps
    phases: tuple[float, float, float]  # how late the decider was seen, scrapes, the activator

    @property
    def name(self) -> str:
        return self.recording.name

    @property
    def means(self) -> tuple[float, float]:
        """Pods on average, the cluster's and the twin's."""
        both = (self.recording.cluster, self.twin)
        cluster, twin = (steps.sampled(self.recording.seconds) for steps in both)
        return float(np.mean(cluster)), float(np.mean(twin))

    @property
    def apart(self) -> float:
        """How far the twin's average is from the cluster's, as a part of it."""
        cluster, twin = self.means
        return abs(twin - cluster) / cluster

    @property
    def events(self) -> int:
        """How many rises and ends there are on both sides."""
        both = (self.recording.cluster, self.twin)
        return sum(len(steps.rises()) + len(steps.zeros()) for steps in both)

    @cached_property
    def unmet(self) -> list[str]:
        """Rises and ends of one that the other does not have within a few seconds.

        A rise to some count is met when the other crosses it, in however many steps; above three
        pods also when it comes within one pod of it: the averages of two or three seconds differ by
        how long each request took on its way.
        """
        unmet = []
        cluster = self.recording.cluster
        for who, mine, other in (
            ("the cluster", cluster, self.twin),
            ("the twin", self.twin, cluster),
        ):
            for t_s, count in mine.rises():
                near = other.around(t_s, APART_S)
                if not min(near) < count <= max(near) + (count > 3):
                    unmet.append(f"{self.name}: {who} alone rises to {count} at {t_s:.1f} s")
            unmet += [
                f"{self.name}: {who} alone goes to zero at {t_s:.1f} s"
                for t_s in mine.zeros()
                if 0 not in other.around(t_s, APART_S)
            ]
        return unmet


def twins(recording: Recording) -> Iterator[Compared]:
    """The comparison for every setting of the phases."""
    config = config_of(recording.config_map)
    policy = policy_of(recording.manifest, config)
    sent, served_s = np.array(recording.requests).T
    requests = Requests(sent, served_s, recording.seconds)
    pods = Pods(
        tuple(recording.starts_s), request_timeout_s=TIMEOUT_S, termination_grace_s=TIMEOUT_S
    )
    for phases in product(SEEN_LATE_S, IN_A_SECOND, IN_A_SECOND):
        late_s, scrape_s, activator_s = phases
        begin = max(0.0, recording.decided_s - late_s)
        result = next(
            simulate(
                [policy],
                requests,
                pods,
                phases=Phases(tick_s=begin, scrape_s=scrape_s, activator_s=activator_s),
            )
        )
        steps = Steps()
        timeline = result.timeline
        for t_s, count in zip(timeline.t_s, timeline.ready + timeline.starting, strict=True):
            steps.add(float(t_s), int(count))
        yield Compared(recording, steps, phases)


def best(recording: Recording) -> Compared:
    """The twin whose phases are most likely the cluster's."""
    return min(twins(recording), key=lambda each: (len(each.unmet), each.apart))


def only_config(config_map: str) -> str:
    """A ConfigMap without what a cluster adds to it."""
    data = yaml.safe_load(config_map).get("data", {})
    return yaml.safe_dump(
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": NAME}, "data": data}
    )
