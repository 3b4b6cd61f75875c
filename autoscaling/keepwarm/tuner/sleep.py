"""The third price level: a pod asleep between on and zero, laid over a simulated policy.

vLLM's sleep mode takes the weights off the GPU and keeps the process; waking takes a second or so.
Knative does not see it: the pod stays ready. So the pods' comings and goings stay as they were, and
only what the requests meet and what the pods cost changes.
"""

from dataclasses import dataclass

import numpy as np

from keepwarm.kpa.model import Requests, Result, Verdict
from keepwarm.traces.trace import Bools, Floats
from keepwarm.tuner.intervals import Intervals, integral


@dataclass(frozen=True, eq=False)
class Asleep:
    """`wait_s` [n] with the waking added, `woken` [n] who waited for it, `pod_s` by block."""

    wait_s: Floats
    woken: Bools
    pod_s: Floats


def overlay(
    result: Result,
    requests: Requests,
    *,
    after_s: float,
    wake_s: tuple[float, ...],
    slowdown: float,
    edges_s: Floats,
) -> Asleep:
    """All pods sleep once the revision has been idle for `after_s`; the next request wakes them.

    How long a request works is taken as if everyone that came in the same minute were in its pod:
    too long rather than too short, so sleep is not made to look longer than it is.
    """
    timeline, end_s = result.timeline, result.duration_s
    busy = Intervals.union(requests.arrival_s, np.minimum(_ends(result, requests, slowdown), end_s))
    ready = Intervals.where(timeline.t_s, timeline.ready > 0, end_s)
    # A silence begins when the last request ends or a pod becomes ready, whichever is later.
    begin = np.concatenate(([0.0], busy.end_s))
    end = np.append(busy.begin_s, end_s)
    low = np.searchsorted(ready.end_s, begin, side="right")
    asleep_begin, asleep_end, waker = [], [], []
    for silence, (from_s, to_s) in enumerate(zip(begin.tolist(), end.tolist(), strict=True)):
        at = int(low[silence])
        while at < len(ready.begin_s) and ready.begin_s[at] < to_s:
            falls = max(from_s, float(ready.begin_s[at])) + after_s
            until = min(to_s, float(ready.end_s[at]))
            if falls < until:
                asleep_begin.append(falls)
                asleep_end.append(until)
                waker.append(until == to_s and to_s < end_s)
            at += 1
    asleep = Intervals(np.asarray(asleep_begin), np.asarray(asleep_end))
    wait, woken = result.wait_s.copy(), np.zeros(len(requests), bool)
    for number, at_s in enumerate(asleep.end_s[np.asarray(waker, bool)].tolist()):
        awake_s = at_s + wake_s[number % len(wake_s)]
        first, last = np.searchsorted(requests.arrival_s, (at_s, awake_s))
        rows = np.arange(first, last)
        rows = rows[result.verdict[rows] != Verdict.COLD]
        wait[rows] = np.maximum(wait[rows], awake_s - requests.arrival_s[rows])
        woken[rows] = True
    pods = timeline.ready.astype(np.float64)
    ready_until = integral(timeline.t_s, pods, end_s, asleep.end_s)
    ready_from = integral(timeline.t_s, pods, end_s, asleep.begin_s)
    block = np.clip(np.searchsorted(edges_s, asleep.begin_s, side="right") - 1, 0, len(edges_s) - 2)
    pod_s = np.bincount(block, weights=ready_until - ready_from, minlength=len(edges_s) - 1)
    return Asleep(wait, woken, pod_s.astype(np.float64))


def _ends(result: Result, requests: Requests, slowdown: float) -> Floats:
    begin = requests.arrival_s + result.wait_s
    if not slowdown:
        return begin + requests.service_s
    minute = np.searchsorted(requests.arrival_s, requests.arrival_s - 60.0)
    others = np.arange(len(requests)) - minute
    return np.asarray(begin + requests.service_s * (1 + slowdown * others))
