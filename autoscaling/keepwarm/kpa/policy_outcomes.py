"""`simulate_policies`: many policies over one request log, each reduced to sums per stretch.

What a search needs of a policy fits in a few kilobytes: counts, a histogram of times to the first
token and pod-seconds, for every day (or other stretch), so that days can be held out or drawn anew.
Shapes: P policies, S stretches, B bins, K pod counts.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from keepwarm.kpa.errors import InputError
from keepwarm.kpa.model import (
    Floats,
    Ints,
    Outcome,
    Phases,
    Pods,
    Policy,
    Requests,
    Result,
    Timeline,
    Verdict,
)
from keepwarm.kpa.simulate import DEFAULT_ENGINE, Engine, simulate

DAY_S = 86_400.0
# From a millisecond to an hour, 16 bins in each factor of two above 16 ms: within 4.5 %.
TTFT_EDGES_S = np.concatenate(([0.0], 0.001 * 2 ** np.arange(0, 22, 1 / 16), [np.inf]))


@dataclass(frozen=True, slots=True, eq=False)
class PolicyOutcomes:
    """What each policy does to the requests of each stretch, and what it costs there.

    A request counts in the stretch in which it came. `ttft_histogram` bins its wait plus its
    `first_token_s`; the last bin also has all that were not served to the end (503, 504, cut).
    """

    policies: tuple[Policy, ...]
    segment_s: float  # a stretch's length; the last one ends with the log
    edges_s: Floats  # [B+1] rising, the first 0, the last infinite
    requests: Ints  # [S]
    verdicts: Ints  # [P, S, 3] by Verdict
    outcomes: Ints  # [P, S, 5] by Outcome
    wait_s: Floats  # [P, S] sum of the waits
    ttft_histogram: Ints  # [P, S, B]
    ready_pod_seconds: Floats  # [P, S]
    starting_pod_seconds: Floats  # [P, S]
    draining_pod_seconds: Floats  # [P, S]
    pods_started: Ints  # [P]
    seconds_at_pods: tuple[Floats, ...]  # P x [S, K]: how long k pods were there, in any state
    timelines: tuple[Timeline, ...]  # P, or none

    @property
    def cold(self) -> Ints:
        """[P, S] requests that found no ready pod."""
        counts: Ints = self.verdicts[:, :, Verdict.COLD]
        return counts

    @property
    def pod_seconds(self) -> Floats:
        """[P, S] everything that held a GPU."""
        total: Floats = (
            self.ready_pod_seconds + self.starting_pod_seconds + self.draining_pod_seconds
        )
        return total

    def ttft_quantile(self, q: float, segments: ArrayLike | None = None) -> Floats:
        """[P] upper edge of the bin in which the quantile over some stretches (all) lies.

        Infinite when so many were not served; 0 without requests.
        """
        chosen = slice(None) if segments is None else np.asarray(segments)
        counts = self.ttft_histogram[:, chosen].sum(axis=1)
        total = counts.sum(axis=1)
        rank = np.ceil(q * total).astype(np.int64)
        found = (counts.cumsum(axis=1) >= rank[:, None]).argmax(axis=1)
        result: Floats = np.where(total > 0, self.edges_s[found + 1], 0.0)
        return result


def simulate_policies(
    policies: Sequence[Policy],
    requests: Requests,
    pods: Pods,
    *,
    first_token_s: ArrayLike | None = None,
    segment_s: float = DAY_S,
    edges_s: ArrayLike = TTFT_EDGES_S,
    phases: Phases | None = None,
    engine: Engine = DEFAULT_ENGINE,
    timelines: bool = False,
    progress: Callable[[int], None] | None = None,
) -> PolicyOutcomes:
    """All policies over the log. `progress` is told how many are done.

    `first_token_s` [n] is the time from being let into a pod to the first token. Raises InputError.
    """
    reduce = _Reduction(requests, first_token_s, segment_s, edges_s)
    kept: list[Timeline] = []
    rows: list[_Row] = []
    for result in simulate(policies, requests, pods, phases=phases, engine=engine):
        rows.append(reduce.row(result))
        if timelines:
            kept.append(result.timeline)
        if progress:
            progress(len(rows))
    shape = (len(rows), reduce.segments)

    def stack(name: str, *more: int, kind: type = np.int64) -> np.ndarray:
        return np.array([getattr(row, name) for row in rows], kind).reshape(*shape, *more)

    return PolicyOutcomes(
        policies=tuple(policies),
        segment_s=segment_s,
        edges_s=reduce.edges_s,
        requests=np.bincount(reduce.segment, minlength=reduce.segments),
        verdicts=stack("verdicts", len(Verdict)),
        outcomes=stack("outcomes", len(Outcome)),
        wait_s=stack("wait_s", kind=np.float64),
        ttft_histogram=stack("ttft_histogram", len(reduce.edges_s) - 1),
        ready_pod_seconds=stack("ready_pod_seconds", kind=np.float64),
        starting_pod_seconds=stack("starting_pod_seconds", kind=np.float64),
        draining_pod_seconds=stack("draining_pod_seconds", kind=np.float64),
        pods_started=np.array([row.pods_started for row in rows], np.int64),
        seconds_at_pods=tuple(row.seconds_at_pods for row in rows),
        timelines=tuple(kept),
    )


@dataclass(frozen=True, slots=True, eq=False)
class _Row:
    """One policy's part of the outcomes."""

    verdicts: Ints
    outcomes: Ints
    wait_s: Floats
    ttft_histogram: Ints
    ready_pod_seconds: Floats
    starting_pod_seconds: Floats
    draining_pod_seconds: Floats
    pods_started: int
    seconds_at_pods: Floats


class _Reduction:
    """What is the same for every policy: which stretch each request is in, and the bins."""

    def __init__(
        self,
        requests: Requests,
        first_token_s: ArrayLike | None,
        segment_s: float,
        edges_s: ArrayLike,
    ) -> None:
        if not segment_s > 0:
            raise InputError(f"segment_s is {segment_s}; it must be above 0.")
        self.edges_s: Floats = np.asarray(edges_s, np.float64)
        edges = self.edges_s
        if (
            len(edges) < 2
            or edges[0] != 0
            or not np.isinf(edges[-1])
            or (np.diff(edges) <= 0).any()
        ):
            raise InputError("edges_s must rise from 0 to infinity.")
        self.first_token_s: Floats = np.broadcast_to(
            np.asarray(0.0 if first_token_s is None else first_token_s, np.float64),
            requests.arrival_s.shape,
        )
        self.segments = max(1, int(np.ceil(requests.duration_s / segment_s - 1e-9)))
        # The log's last instant belongs to its last stretch.
        self.segment: Ints = np.minimum(
            (requests.arrival_s / segment_s).astype(np.int64), self.segments - 1
        )
        self._bounds_s: Floats = np.minimum(
            np.arange(self.segments + 1) * segment_s, requests.duration_s
        )
        self._bounds_s[-1] = requests.duration_s

    def row(self, result: Result) -> _Row:
        """One policy's sums."""
        bins = len(self.edges_s) - 1
        ttft = result.wait_s + self.first_token_s
        lost = (result.outcome != Outcome.SERVED) & (result.outcome != Outcome.UNFINISHED)
        found = np.searchsorted(self.edges_s, ttft, side="left") - 1
        found = np.where(lost, bins - 1, np.maximum(found, 0))
        lasted, segment, piece = self._pieces(result.timeline)
        ready, starting, draining = (
            self._sums(segment, lasted * getattr(result.timeline, name)[piece])
            for name in ("ready", "starting", "draining")
        )
        total = result.timeline.ready + result.timeline.starting + result.timeline.draining
        return _Row(
            verdicts=self._counts(result.verdict, len(Verdict)),
            outcomes=self._counts(result.outcome, len(Outcome)),
            wait_s=self._sums(self.segment, result.wait_s),
            ttft_histogram=self._counts(found, bins),
            ready_pod_seconds=ready,
            starting_pod_seconds=starting,
            draining_pod_seconds=draining,
            pods_started=result.pods_started,
            seconds_at_pods=self._by_segment(segment, total[piece], int(total.max()) + 1, lasted),
        )

    def _counts(self, values: np.ndarray, kinds: int) -> Ints:
        counts: Ints = np.bincount(
            self.segment * kinds + values, minlength=self.segments * kinds
        ).reshape(self.segments, kinds)
        return counts

    def _sums(self, segment: Ints, weights: Floats) -> Floats:
        return np.bincount(segment, weights, self.segments).astype(np.float64)

    def _by_segment(self, segment: Ints, values: Ints, kinds: int, weights: Floats) -> Floats:
        sums = np.bincount(segment * kinds + values, weights, self.segments * kinds)
        return sums.reshape(self.segments, kinds).astype(np.float64)

    def _pieces(self, timeline: Timeline) -> tuple[Floats, Ints, Ints]:
        """The timeline cut at the stretches' bounds: each piece's length, stretch and row."""
        cuts = np.union1d(timeline.t_s, self._bounds_s)
        begins = cuts[:-1]
        segment = np.searchsorted(self._bounds_s, begins, side="right") - 1
        piece = np.searchsorted(timeline.t_s, begins, side="right") - 1
        return np.diff(cuts), np.minimum(segment, self.segments - 1), piece
