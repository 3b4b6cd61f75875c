"""From a saturation sweep and an SLO to three numbers: max-num-seqs, containerConcurrency, target.

Only loads that were measured are proposed. The engine gets as many places as the SLO bears, and no
more than give throughput; Knative gets the same number, so that what is over it waits where another
pod can take it.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from keepwarm.engine.sweep import FIGURES, Point, Sweep
from keepwarm.traces.errors import TraceError
from keepwarm.traces.histogram import duration_s

# More places than reach this share of the best throughput buy little of it, and only latency.
ENOUGH: Final = 0.95
# Knative's config-defaults: container-concurrency-max-limit.
MOST_CONTAINER_CONCURRENCY: Final = 1000
# Knative's config-autoscaler: container-concurrency-target-percentage.
TARGET_SHARE: Final = 0.7
ALLOWED: Final = f"FIGURE<=TIME, such as ttft_p99<=2s; figures: {', '.join(FIGURES)}"
_TERM = re.compile(r"^([a-z0-9_]+)\s*<=?\s*(\S+)$")


class AdviceError(ValueError):
    """Terms or a sweep that nothing can be made of; the message says why."""


class NothingKeepsItError(AdviceError):
    """No measured load keeps the SLO."""


@dataclass(frozen=True, slots=True)
class Term:
    """`figure` of a point may be at most `most_s` seconds."""

    figure: str
    most_s: float

    def broken_by(self, point: Point) -> str | None:
        """How the point breaks it, None when it does not; raises AdviceError if not measured."""
        value = getattr(point, f"{self.figure}_s")
        if value is None:
            raise AdviceError(f"the sweep has no {self.figure} at {point.concurrency} requests")
        return f"{self.figure} is {value:.3g} s" if value > self.most_s else None


@dataclass(frozen=True, slots=True)
class Advice:
    """The numbers, why, and what makes them doubtful."""

    max_num_seqs: int
    container_concurrency: int
    scale_target: int
    tokens_per_s: float
    reasons: tuple[str, ...]
    doubts: tuple[str, ...]


def terms(text: str) -> tuple[Term, ...]:
    """`ttft_p99<=2s,tpot_p50<=50ms`; raises AdviceError."""
    found = []
    for part in (part.strip() for part in text.split(",")):
        match = _TERM.match(part)
        if match is None or match[1] not in FIGURES:
            raise AdviceError(f"{part!r:.60} is no term; a term is {ALLOWED}")
        try:
            found.append(Term(match[1], duration_s(match[2])))
        except TraceError as error:
            raise AdviceError(f"in {part!r:.60}, {error}") from None
    return tuple(found)


def advise(sweep: Sweep, slo: Sequence[Term]) -> Advice:
    """What to set; raises AdviceError, NothingKeepsItError when no load keeps `slo`."""
    inside = [point for point in sweep.points if point.concurrency <= sweep.max_num_seqs]
    if not inside:
        raise AdviceError(
            f"every point is over the engine's max_num_seqs {sweep.max_num_seqs}: its queue was"
            " measured, not the engine"
        )
    kept: list[Point] = []
    broken = ""
    for point in inside:
        broken = "; ".join(filter(None, (term.broken_by(point) for term in slo)))
        if broken:
            # A load above it that seems to keep it is luck.
            broken = f"at {point.concurrency} requests {broken}"
            break
        kept.append(point)
    if not kept:
        raise NothingKeepsItError(f"no load keeps the SLO: {broken}")
    best = max(point.tokens_per_s for point in kept)
    chosen = next(point for point in kept if point.tokens_per_s >= ENOUGH * best)
    places = chosen.concurrency
    return Advice(
        max_num_seqs=places,
        container_concurrency=min(places, MOST_CONTAINER_CONCURRENCY),
        scale_target=min(places, MOST_CONTAINER_CONCURRENCY),
        tokens_per_s=chosen.tokens_per_s,
        reasons=_reasons(chosen, kept[-1], best, broken),
        doubts=_doubts(sweep, chosen, kept, broken),
    )


def _reasons(chosen: Point, last: Point, best: float, broken: str) -> tuple[str, ...]:
    places = chosen.concurrency
    seqs = f"{places} sequences gave {_rate(chosen.tokens_per_s)} tokens/s"
    if chosen is not last:
        seqs += (
            f", {chosen.tokens_per_s / best:.0%} of the best ({_rate(best)}); more up to"
            f" {last.concurrency} only made each slower"
        )
    elif broken:
        seqs += f", the most that keep the SLO: {broken}"
    capped = min(places, MOST_CONTAINER_CONCURRENCY)
    concurrency = (
        "one request over it waits in front of the pod, where the next pod takes it, not in this"
        " engine's queue"
    )
    if capped < places:
        concurrency += f" (Knative's own bound is {MOST_CONTAINER_CONCURRENCY})"
    aimed = round(TARGET_SHARE * capped)
    target = (
        f"Knative aims at {TARGET_SHARE:.0%} of it, {aimed} in flight a pod: the other"
        f" {capped - aimed} places are for those who come while the next pod starts"
    )
    return (seqs, concurrency, target)


def _rate(tokens_per_s: float) -> str:
    """As people write it: no more than is known, and no exponent."""
    return f"{tokens_per_s:,.0f}" if tokens_per_s >= 100 else f"{tokens_per_s:.3g}"


def _doubts(sweep: Sweep, chosen: Point, kept: Sequence[Point], broken: str) -> tuple[str, ...]:
    doubts = []
    over = [point.concurrency for point in sweep.points if point.concurrency > sweep.max_num_seqs]
    if over:
        doubts.append(
            f"points over the engine's max_num_seqs {sweep.max_num_seqs} were left out"
            f" ({', '.join(map(str, over))}): they measured its queue"
        )
    if chosen is kept[-1] and not broken:
        doubts.append(
            f"the sweep ends at {chosen.concurrency} requests while the SLO holds and throughput"
            " grows: measure higher ones"
        )
    later = next((p for p in sweep.points if p.concurrency > chosen.concurrency), None)
    if broken and chosen is kept[-1] and later and later.concurrency > 2 * chosen.concurrency:
        doubts.append(
            f"nothing was measured between {chosen.concurrency} and {later.concurrency} requests"
        )
    return tuple(doubts)
