"""What no controller can go below: the clairvoyant lower bound on billed node time.

It holds for everyone who, like Knative with whatever knobs, schedule or forecast,
  1. starts a pod at the latest one tick (2 s) after a request that finds none,
  2. does not take away all pods while a request waits or is worked on,
  3. turns no request away,
and it knows all requests in advance. Only "at least one node is billed" is counted. Let node time
fall into maximal stretches. By 2 and 3 the stretch that request j arrives in goes on to at least
a_j + tail_j, tail_j = max(min(service, timeout), quiet time of a drain) + linger of the node: it is
served at a_j or later, and its pod drains, then the node lingers. So every plan covers the blocks
B = union of [a_j, a_j + tail_j], and between two blocks at distance g it either pays g or begins a
new stretch. A stretch whose first request is warm began a start-up (sigma, the shortest measured)
before it, so the cheapest plan with no cold request costs

    C(0) = |B| + sum of min(g, sigma).

Take any plan with k stretches that begin cold, each exposing at least one request. Begin each of
them sigma earlier: now it has no cold request and is one of the plans above. What a stretch over
[a_i, e] thereby gains in length is at most sigma, plus the tick of 1; and as a cold stretch lasts
sigma + tail_i anyhow, at most e - a_i - tail_i. Bridging a distance of 2 sigma or more never pays
inside a cold stretch (ending it and beginning warm costs no more), so e is at most where the run of
blocks with distances below 2 sigma ends. With the gains d_i so bounded and sorted,

    C(K) >= C(0) - (sum of the K largest d_i).

Work is counted too: pods that take at most c requests at once need sum(service) / c pod-seconds.
The bound is the larger of the two, and of what reserved nodes cost. Asleep pods still cost their
price, so with a sleep tier all of it is priced at the lower of the two.
"""

from dataclasses import dataclass

import numpy as np

from keepwarm.traces.trace import Floats
from keepwarm.tuner.intervals import Intervals
from keepwarm.tuner.prices import Prices
from keepwarm.tuner.workload import Workload

TICK_S = 2.0


@dataclass(frozen=True, eq=False)
class Bound:
    """Money over the stretch it was made for; `gains` are d_i in node-seconds, largest first."""

    warm_node_s: float
    gains: Floats
    work_s: Floats  # node-seconds that each request needs, largest first; empty: any number fits
    reserved_node_s: float
    price: float  # of a node-second

    def cost(self, cold: float, failed: float = 0.0) -> float:
        """No one with so many cold requests pays less. Failed ones may have had no work done."""
        stretches = self.warm_node_s - float(self.gains[: int(cold)].sum())
        work = float(self.work_s[int(failed) :].sum())
        return max(stretches, work, self.reserved_node_s, 0.0) * self.price


def lower_bound(
    workload: Workload, prices: Prices, *, from_s: float = 0.0, concurrency: int = 0
) -> Bound:
    """The bound from `from_s` to the end. `concurrency`: most requests in a pod at once, 0: any.

    Requests before the workload has settled, which scores do not count either, are left out. A
    stretch that is looked at alone may find a pod there already, so what comes before costs it
    nothing: the first block's start-up is not counted then.
    """
    from_s = max(from_s, workload.settled_s)
    end = workload.requests.duration_s
    pods = workload.pods
    rows = workload.requests.arrival_s >= from_s
    arrival = workload.requests.arrival_s[rows]
    service = np.minimum(workload.requests.service_s[rows], pods.request_timeout_s)
    quiet = min(pods.drain_quiet_s, pods.termination_grace_s)
    tail = np.maximum(service, quiet) + prices.node_linger_s
    sigma = min(pods.start_s)
    block = Intervals.union(arrival, np.minimum(arrival + tail, end))
    before = np.concatenate(([from_s], block.end_s[:-1]))
    gap = block.begin_s - before
    warm = np.minimum(gap, sigma)
    if warm.size:
        warm[0] = 0.0
    gains = _gains(block, gap, tail[np.searchsorted(arrival, block.begin_s)], sigma, end)
    if gains.size:
        gains[0] = 0.0
    work = np.zeros(0)
    if concurrency:
        # What may still be waiting or worked on at the end was not paid for in full.
        done = service[arrival + pods.request_timeout_s <= end]
        work = np.sort(done)[::-1] / concurrency / prices.pods_per_node
    price = prices.per_node_second
    if prices.asleep_per_pod_hour is not None:
        price -= prices.saved_per_asleep_second * prices.pods_per_node
    return Bound(
        warm_node_s=block.total_s + float(warm.sum()),
        gains=np.sort(gains)[::-1],
        work_s=work,
        reserved_node_s=prices.reserved_nodes * (end - from_s),
        price=price,
    )


def _gains(block: Intervals, gap: Floats, tail: Floats, sigma: float, end_s: float) -> Floats:
    """d_i of each block."""
    if not gap.size:
        return np.zeros(0)
    # Where the run of blocks that are closer than 2 sigma ends, for each block.
    breaks = np.append(gap[1:] >= 2 * sigma, True)
    run_end = block.end_s[breaks][np.cumsum(np.append(0, breaks[:-1]))]
    gain = np.clip(run_end - block.begin_s - tail, 0.0, sigma)
    # Near the end a cold stretch is cut off, before it has lasted sigma + tail.
    gain[block.begin_s + sigma + tail > end_s] = sigma
    return np.asarray(gain + TICK_S)
