"""How long before a window its replicas are asked for, from the cold starts that were measured.

A cold start is what the PodAutoscaler tells: the time from Active=Unknown (pods are missing) to
Active=True (all of the minimum are ready), scheduling, image pull and loading included.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from math import ceil

from keepwarm.warmpool.api import Lead

INITIAL = timedelta(minutes=5)
MOST = timedelta(minutes=30)
MARGIN = timedelta(seconds=15)
KEPT = 16


def lead(spec: Lead, cold_starts_s: Sequence[float]) -> timedelta:
    """`fixed`, or the 90th percentile of what was measured and a margin, at most `max`.

    Being early costs replicas for the difference, being late breaks the promise: so no average.
    """
    if spec.fixed is not None:
        return spec.fixed
    most = MOST if spec.max is None else spec.max
    if not cold_starts_s:
        return min(INITIAL if spec.initial is None else spec.initial, most)
    ranked = sorted(cold_starts_s)
    slow = ranked[ceil(0.9 * len(ranked)) - 1]
    return min(timedelta(seconds=slow) + (MARGIN if spec.margin is None else spec.margin), most)


def remembered(cold_starts_s: Sequence[float], new: Sequence[float]) -> list[float]:
    """The latest of all, the newest last."""
    return [*cold_starts_s, *new][-KEPT:]


@dataclass(frozen=True, slots=True)
class Activity:
    """A PodAutoscaler's condition Active: its status, and since when."""

    status: str
    since: datetime | None


def cold_start(before: Activity | None, after: Activity) -> timedelta | None:
    """The cold start that ended between two looks at the same PodAutoscaler, if one did."""
    if before is None or before.since is None or after.since is None:
        return None
    if before.status != "Unknown" or after.status != "True" or after.since < before.since:
        return None
    return after.since - before.since
