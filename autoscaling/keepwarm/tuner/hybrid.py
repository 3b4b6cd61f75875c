"""The keep-alive policy of "Serverless in the Wild" (Shahrad et al., USENIX ATC'20), as a baseline.

It keeps a histogram of the idle times seen so far, 1-minute bins up to 4 h. While that is
representative (the bins' counts have a CV above 2), a pod is unloaded when it falls idle, loaded
again after the 5th percentile less 10 %, and kept up to the 99th plus 10 %; a 5th percentile in the
first minute means it is never unloaded before. Otherwise it is kept for the whole 4 h. The paper's
third branch, ARIMA where most idle times exceed 4 h, is not here: the 4 h are kept then too, and
how often that happened is counted.

One pod, as the paper has one container, with no limit on what runs in it: cheaper than it would be.
"""

from dataclasses import dataclass

import numpy as np

from keepwarm.traces.trace import Floats, Ints
from keepwarm.tuner.intervals import Intervals
from keepwarm.tuner.prices import Prices
from keepwarm.tuner.workload import Workload

BIN_S = 60.0
BINS = 240
HEAD, TAIL, MARGIN, REPRESENTATIVE_CV = 0.05, 0.99, 0.10, 2.0
RANGE_S = BINS * BIN_S


class IdleTimes:
    """The histogram; `decide` gives (seconds unloaded, seconds kept after that)."""

    def __init__(self) -> None:
        self.bins: Ints = np.zeros(BINS, np.int64)
        self.seen = 0
        self.beyond = 0
        self.beyond_ruled = 0

    def add(self, idle_s: float) -> None:
        """An idle time that has ended."""
        if idle_s >= RANGE_S:
            self.beyond += 1
        else:
            self.bins[int(idle_s // BIN_S)] += 1
            self.seen += 1

    def decide(self, idle_s: float) -> tuple[float, float]:
        """For the idle time that begins now.

        That it will last `idle_s` is used only to save work: an idle time under a minute outlasts
        no keep-alive while over 5 % of all end in their first minute.
        """
        seen = self.seen
        if idle_s < BIN_S and self.bins[0] > HEAD * seen:
            return 0.0, RANGE_S
        if self.beyond > seen:
            self.beyond_ruled += 1
            return 0.0, RANGE_S
        mean = seen / BINS
        if not seen or float(self.bins.std()) <= REPRESENTATIVE_CV * mean:
            return 0.0, RANGE_S
        cumulative = np.cumsum(self.bins)
        # The head is rounded down to a whole minute, the tail up.
        head = int(np.searchsorted(cumulative, HEAD * seen, side="right")) * BIN_S
        tail = (int(np.searchsorted(cumulative, TAIL * seen)) + 1) * BIN_S
        unloaded = head * (1 - MARGIN)
        return unloaded, tail * (1 + MARGIN) - unloaded


@dataclass(frozen=True, eq=False)
class Hybrid:
    """`cost` and `cold` by block; `beyond_ruled`: decisions that ARIMA would have made."""

    cost: Floats
    cold: Floats
    decisions: int
    beyond_ruled: int


def hybrid_histogram(workload: Workload, prices: Prices) -> Hybrid:
    """The policy over the workload, learning as it goes."""
    end = workload.requests.duration_s
    starts = workload.pods.start_s
    quiet = min(workload.pods.drain_quiet_s, workload.pods.termination_grace_s)
    times = IdleTimes()
    cold = np.zeros(len(workload.requests), bool)
    on: list[tuple[float, float]] = []  # node time, drains included
    loaded_s, ready_s, kept_s = 0.0, 0.0, -1.0  # the pod at hand: begun, ready, kept until
    later_s, keep_s = np.inf, 0.0  # a load that is due, and how long it is kept then
    idle_from_s = -1.0
    begun = decisions = 0
    unloaded = 0.0
    for row, (arrival, service) in enumerate(
        zip(workload.requests.arrival_s.tolist(), workload.requests.service_s.tolist(), strict=True)
    ):
        idle_s = arrival - idle_from_s
        if idle_from_s >= 0 and idle_s > 0:
            decisions += 1
            unloaded, keep_s = times.decide(idle_s)
            kept_s = idle_from_s + (0.0 if unloaded else keep_s)
            later_s = idle_from_s + unloaded if unloaded else np.inf
            times.add(idle_s)
        elif idle_from_s >= 0:
            kept_s, later_s = arrival, np.inf  # it is still at work
        start = starts[begun % len(starts)]
        if arrival > kept_s and later_s - start <= arrival:
            # The load that was due had begun, so that the pod is ready when it said.
            begun += 1
            on.append((loaded_s, kept_s + quiet))
            loaded_s, ready_s = later_s - start, later_s
            kept_s = later_s + keep_s
        if arrival > kept_s:
            if kept_s >= 0:
                on.append((loaded_s, kept_s + quiet))
            loaded_s, ready_s = arrival, arrival + starts[begun % len(starts)]
            begun += 1
        cold[row] = arrival < ready_s
        idle_from_s = max(idle_from_s, max(arrival, ready_s) + service)
    unloaded, keep_s = times.decide(RANGE_S)
    if unloaded:
        on.append((loaded_s, idle_from_s + quiet))
        load_s = idle_from_s + unloaded
        on.append((load_s - starts[begun % len(starts)], load_s + keep_s + quiet))
    else:
        on.append((loaded_s, idle_from_s + keep_s + quiet))
    begin, until = np.asarray(on).T
    node = Intervals.union(np.maximum(begin, 0.0), np.minimum(until, end))
    node_s = node.extended(prices.node_linger_s, end).within(workload.edges_s)
    node_s = np.maximum(node_s, prices.reserved_nodes * np.diff(workload.edges_s))
    return Hybrid(
        cost=node_s * prices.per_node_second,
        cold=np.bincount(
            workload.block_of[cold & workload.counted], minlength=workload.blocks
        ).astype(np.float64),
        decisions=decisions,
        beyond_ruled=times.beyond_ruled,
    )
