"""From many scores to one choice: the front, its knee, and the cheapest that keeps the SLO.

A setting keeps the SLO when every term holds over the training days, and in enough of the
resamples of those days (drawn with replacement): a policy that is only lucky in its days is not
taken.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from keepwarm.traces.trace import Floats
from keepwarm.tuner.score import Score, share
from keepwarm.tuner.slo import Term

RESAMPLES = 1000
LEVEL = 0.9


def resamples(blocks: int, seed: int) -> Floats:
    """How often each block is in each draw of as many blocks, [RESAMPLES, blocks]."""
    drawn = np.random.default_rng(seed).integers(0, blocks, (RESAMPLES, blocks))
    rows = np.arange(RESAMPLES)[:, None]
    counts = np.zeros((RESAMPLES, blocks))
    np.add.at(counts, (rows, drawn), 1.0)
    return counts


@dataclass(frozen=True)
class Interval:
    """A figure and what LEVEL of the resamples lie between."""

    value: float
    low: float
    high: float

    @classmethod
    def of_mean(cls, values: Floats, weights: Floats) -> "Interval":
        """The mean of a block's values."""
        drawn = weights @ values / len(values)
        return cls(float(values.mean()), *_ends(drawn))

    @classmethod
    def of_share(cls, part: Floats, whole: Floats, weights: Floats) -> "Interval":
        """Part over whole, each summed over blocks."""
        drawn = (weights @ part) / np.maximum(weights @ whole, 1e-9)
        return cls(share(part, whole), *_ends(drawn))

    def as_json(self) -> dict[str, Any]:
        return {"value": self.value, "low": self.low, "high": self.high}


def _ends(drawn: Floats) -> tuple[float, float]:
    low, high = np.quantile(drawn, ((1 - LEVEL) / 2, (1 + LEVEL) / 2))
    return float(low), float(high)


def confidence(score: Score, terms: Sequence[Term], weights: Floats) -> float:
    """In which share of the resamples every term holds."""
    requests = weights @ score.requests
    holds = np.ones(len(weights), bool)
    for term, bad in zip(terms, score.bad, strict=True):
        holds &= weights @ bad <= term.allowed * requests + 1e-9
    return float(holds.mean())


def violation(score: Score, terms: Sequence[Term]) -> float:
    """The worst term's share over what is allowed; at most 1 when all hold."""
    worst = 0.0
    for term, bad in zip(terms, score.bad, strict=True):
        found = share(bad, score.requests)
        worst = max(worst, found / term.allowed if term.allowed else (np.inf if found else 0.0))
    return worst


def front(cost: Floats, exposure: Floats) -> list[int]:
    """Which points no other beats in both, cheapest first."""
    order = np.lexsort((exposure, cost))
    kept: list[int] = []
    best = np.inf
    for row in order.tolist():
        if exposure[row] < best - 1e-12:
            kept.append(row)
            best = float(exposure[row])
    return kept


def knee(cost: Floats, exposure: Floats) -> int:
    """The point of a front farthest below the line between its ends, both axes scaled to 1.

    Satopaa et al., "Finding a Kneedle in a Haystack" (2011), for a falling convex curve.
    """
    if len(cost) < 3 or np.ptp(cost) == 0 or np.ptp(exposure) == 0:
        return 0
    x = (cost - cost.min()) / np.ptp(cost)
    y = (exposure - exposure.min()) / np.ptp(exposure)
    return int(np.argmax(1 - x - y))
