"""A setting's scores as what a cost owner asks: a day's bill, exposure, regret, with intervals."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from keepwarm.traces.trace import Floats
from keepwarm.tuner import choose
from keepwarm.tuner.bound import Bound
from keepwarm.tuner.choose import Interval
from keepwarm.tuner.prices import DAY_S, HOUR_S, Prices
from keepwarm.tuner.score import Score, share
from keepwarm.tuner.slo import Term


@dataclass(frozen=True)
class Bill:
    """GPU-hours a day, by what they were spent on, and what an asleep pod saved."""

    working: float  # pods that were ready
    starting: float
    draining: float
    node_idle: float  # paid, and no pod there: the rest of a node, and its lingering
    asleep: float  # of the ready ones
    money: float


@dataclass(frozen=True)
class Figures:
    """Over some blocks. Money is per day; `regret` is cost over bound less 1."""

    requests: int
    cost: Interval
    exposure: Interval
    per_1k_requests: float
    per_rps: float  # a day's money for each request per second of mean traffic
    queued: float
    failed: float
    woken: float
    terms: dict[str, float]
    meets: bool
    confidence: float  # share of the resamples in which every term holds
    bill: Bill | None
    bound: float | None
    regret: float | None

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def figures(
    score: Score,
    blocks: slice,
    *,
    edges_s: Floats,
    terms: Sequence[Term],
    prices: Prices,
    bound: Bound | None,
    seed: int,
) -> Figures:
    """The figures of some of the blocks; `bound` is over the same ones."""
    part = score.part(blocks)
    length = np.diff(edges_s)[blocks]
    days = float(length.sum()) / DAY_S
    weights = choose.resamples(len(length), seed)
    total, count = float(part.cost.sum()), float(part.requests.sum())
    least = None
    if bound is not None and not part.rejected.any():
        least = bound.cost(float(part.cold.sum()), float(part.failed.sum())) / days
    cost = Interval.of_share(part.cost, length, weights)
    return Figures(
        requests=round(count),
        cost=Interval(cost.value * DAY_S, cost.low * DAY_S, cost.high * DAY_S),
        exposure=Interval.of_share(part.cold, part.requests, weights),
        per_1k_requests=total / count * 1e3 if count else 0.0,
        per_rps=total / count * DAY_S if count else 0.0,
        queued=share(part.queued, part.requests),
        failed=share(part.failed, part.requests),
        woken=share(part.woken, part.requests),
        terms={t.text: share(b, part.requests) for t, b in zip(terms, part.bad, strict=True)},
        meets=part.meets(terms),
        confidence=choose.confidence(part, terms, weights),
        bill=_bill(part, days, prices),
        bound=least,
        regret=total / days / least - 1 if least else None,
    )


def _bill(part: Score, days: float, prices: Prices) -> Bill:
    def hours(seconds: Floats) -> float:
        return float(seconds.sum()) * prices.gpus_per_pod / HOUR_S / days

    paid = float(part.node_s.sum()) * prices.gpus_per_node / HOUR_S / days
    return Bill(
        working=hours(part.pod_s - part.starting_s - part.draining_s),
        starting=hours(part.starting_s),
        draining=hours(part.draining_s),
        node_idle=max(0.0, paid - hours(part.pod_s)),
        asleep=hours(part.asleep_s),
        money=float(part.cost.sum()) / days,
    )
