"""One setting's figures by block: what it cost, and how many requests it made bad.

Everything later, choosing, resampling, holding out, is sums over blocks of these.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from keepwarm.kpa.model import Outcome, Result, Verdict
from keepwarm.traces.trace import Bools, Floats, Ints
from keepwarm.tuner import sleep
from keepwarm.tuner.intervals import integral
from keepwarm.tuner.prices import Prices
from keepwarm.tuner.slo import Kind, Term
from keepwarm.tuner.workload import Workload

FAILURES = (Outcome.TIMED_OUT, Outcome.REJECTED, Outcome.CUT)


@dataclass(frozen=True, eq=False)
class Score:
    """b blocks; `bad` is [terms, b]. Money is in the currency of the prices, times in seconds.

    Requests that came before the workload had settled are not counted.
    """

    requests: Floats  # [b]
    cold: Floats
    queued: Floats
    failed: Floats
    rejected: Floats  # of the failed: refused or cut off, so that they used less than they asked
    woken: Floats
    bad: Floats
    node_s: Floats
    pod_s: Floats
    starting_s: Floats
    draining_s: Floats
    asleep_s: Floats
    cost: Floats
    started: float  # pods, over everything
    wait_p99_s: float
    cold_wait_p50_s: float

    def as_json(self) -> dict[str, Any]:
        """Plain numbers, as exact as they are."""
        values = ((f.name, getattr(self, f.name)) for f in fields(self))
        return {k: v.tolist() if isinstance(v, np.ndarray) else v for k, v in values}

    @classmethod
    def of_json(cls, value: dict[str, Any]) -> "Score":
        arrays: dict[str, Any] = {
            k: np.asarray(v) if isinstance(v, list) else v for k, v in value.items()
        }
        return cls(**arrays)

    def part(self, blocks: slice) -> "Score":
        """The same of some of the blocks; what is not kept by block stays that of all."""
        values: dict[str, Any] = {f.name: getattr(self, f.name) for f in fields(self)}
        cut = {k: v[..., blocks] for k, v in values.items() if isinstance(v, np.ndarray)}
        return Score(**(values | cut))

    @property
    def exposure(self) -> float:
        """Share of the requests that found no ready pod."""
        return share(self.cold, self.requests)

    @property
    def cost_per_block(self) -> float:
        return float(self.cost.mean())

    def meets(self, terms: Sequence[Term]) -> bool:
        """Whether every term holds."""
        return all(
            share(bad, self.requests) <= term.allowed
            for term, bad in zip(terms, self.bad, strict=True)
        )


def share(part: Floats, whole: Floats) -> float:
    """Sum over sum; 0 of nothing."""
    total = float(whole.sum())
    return float(part.sum()) / total if total else 0.0


def score(
    result: Result,
    workload: Workload,
    terms: Sequence[Term],
    prices: Prices,
    *,
    sleep_after_s: float | None = None,
    wake_s: tuple[float, ...] = (),
) -> Score:
    """The figures of a simulated policy."""
    edges, blocks = workload.edges_s, workload.blocks
    of = workload.block_of
    counted = workload.counted
    cold = result.verdict == Verdict.COLD
    failed = np.isin(result.outcome, FAILURES)
    wait, woken, asleep = result.wait_s, np.zeros(len(cold), bool), np.zeros(blocks)
    if sleep_after_s is not None:
        slept = sleep.overlay(
            result,
            workload.requests,
            after_s=sleep_after_s,
            wake_s=wake_s,
            slowdown=workload.pods.slowdown,
            edges_s=edges,
        )
        wait, woken, asleep = slept.wait_s, slept.woken, slept.pod_s
    node_s = prices.node_seconds(result.timeline, result.duration_s, edges)

    def by_block(flag: Bools) -> Floats:
        return np.bincount(of[flag & counted], minlength=blocks).astype(np.float64)

    def pods(count: Ints) -> Floats:
        value = count.astype(np.float64)
        return np.diff(integral(result.timeline.t_s, value, result.duration_s, edges))

    bad = [by_block(_bad(term, cold, failed, wait, workload)) for term in terms]
    timeline = result.timeline
    return Score(
        requests=by_block(np.ones_like(counted)),
        cold=by_block(cold),
        queued=by_block(result.verdict == Verdict.QUEUED),
        failed=by_block(failed),
        rejected=by_block(np.isin(result.outcome, (Outcome.REJECTED, Outcome.CUT))),
        woken=by_block(woken),
        bad=np.asarray(bad),
        node_s=node_s,
        pod_s=pods(timeline.ready + timeline.starting + timeline.draining),
        starting_s=pods(timeline.starting),
        draining_s=pods(timeline.draining),
        asleep_s=asleep,
        cost=node_s * prices.per_node_second - asleep * prices.saved_per_asleep_second,
        started=float(result.pods_started),
        wait_p99_s=float(np.quantile(wait, 0.99)) if len(wait) else 0.0,
        cold_wait_p50_s=float(np.median(wait[cold])) if cold.any() else 0.0,
    )


def _bad(
    term: Term,
    cold: Bools,
    failed: Bools,
    wait: Floats,
    workload: Workload,
) -> Bools:
    match term.kind:
        case Kind.COLD:
            return cold
        case Kind.FAILED:
            return failed
        case Kind.WAIT:
            return np.asarray(failed | (wait > term.over_s))
        case _:
            assert workload.prefill_s is not None
            return np.asarray(failed | (wait + workload.prefill_s > term.over_s))
