"""What a trace is like, in the numbers the literature uses, so that traces can be compared.

CV and dispersion as in ServeGen (arXiv 2505.09999): CV of the times between arrivals, index of
dispersion (variance over mean) of the counts per bin. Poisson traffic has 1 everywhere.
"""

from dataclasses import asdict, dataclass
from datetime import UTC, timedelta, tzinfo
from typing import Any

import numpy as np

from keepwarm.traces.trace import Floats, Ints, Trace

BINS_S = (1, 10, 60, 600, 3600)
GAPS_S = (60, 600, 3600)
# Where this many requests are the least that other days bring, silence is rather a log that was not
# written.
EXPECTED_IN_SILENCE = 100.0
# So many other days must have brought requests at these hours before a silence is called odd.
OTHER_DAYS = 3
HOUR_S = 3600


@dataclass(frozen=True)
class Bin:
    """Counts per bin of `width_s`: variance over mean, and the share of empty bins."""

    width_s: int
    dispersion: float
    empty: float


@dataclass(frozen=True)
class Lengths:
    """Tokens of a request."""

    p50: float
    p90: float
    p99: float
    mean: float


@dataclass(frozen=True, eq=False)
class Statistics:
    """A trace in figures. `week_rps` is [7, 24], Monday first, NaN for hours never observed."""

    requests: int
    duration_s: float
    mean_rps: float
    peak_minute_rps: float
    peak_hour_over_mean: float
    interarrival_cv: float
    bins: tuple[Bin, ...]
    gaps_over: dict[int, int]
    idle_over: dict[int, float]
    longest_gap_s: float
    input_tokens: Lengths
    output_tokens: Lengths
    service_p50_s: float | None
    week_rps: Floats

    def as_json(self) -> dict[str, Any]:
        """Plain values; hours never observed are null."""
        week = [[None if np.isnan(v) else round(float(v), 6) for v in day] for day in self.week_rps]
        return asdict(self) | {"week_rps": week}


def describe(trace: Trace, zone: tzinfo = UTC) -> Statistics:
    """The statistics; hours and weekdays are those of `zone`."""
    gaps = np.diff(trace.arrival_s)
    mean_gap = float(gaps.mean()) if gaps.size else 0.0
    silent = gaps_of(trace)
    per_hour = counts(trace, HOUR_S)
    per_minute = counts(trace, 60)
    return Statistics(
        requests=len(trace),
        duration_s=trace.duration_s,
        mean_rps=len(trace) / trace.duration_s,
        peak_minute_rps=float(per_minute.max()) / 60,
        peak_hour_over_mean=float(per_hour.max()) / HOUR_S / (len(trace) / trace.duration_s),
        interarrival_cv=float(gaps.std() / mean_gap) if mean_gap else 0.0,
        bins=tuple(_bin(trace, width) for width in BINS_S if 2 * width <= trace.duration_s),
        gaps_over={over: int((silent > over).sum()) for over in GAPS_S},
        idle_over={over: float(silent[silent > over].sum()) / trace.duration_s for over in GAPS_S},
        longest_gap_s=float(silent.max()),
        input_tokens=_lengths(trace.input_tokens.astype(np.float64)),
        output_tokens=_lengths(trace.output_tokens.astype(np.float64)),
        service_p50_s=None if trace.service_s is None else float(np.nanmedian(trace.service_s)),
        week_rps=week_rps(trace, zone),
    )


def gaps_of(trace: Trace) -> Floats:
    """Every silence: between requests, and before the first and after the last. [n + 1]."""
    return np.diff(trace.arrival_s, prepend=0.0, append=trace.duration_s)


def counts(trace: Trace, width_s: float) -> Floats:
    """Requests per bin; what is left over at the end is no bin of its own if under half of one."""
    bins = max(1, round(trace.duration_s / width_s))
    index = np.minimum((trace.arrival_s / width_s).astype(np.int64), bins - 1)
    return np.bincount(index, minlength=bins).astype(np.float64)


def hour_of_week(trace: Trace, zone: tzinfo) -> Ints:
    """For each hour of the trace, 0 (Monday 0 h) to 167 in `zone`'s wall clock."""
    begins = trace.begins
    hours = int(np.ceil(trace.duration_s / HOUR_S))
    found = []
    for hour in range(hours):
        local = (begins + timedelta(hours=hour)).astimezone(zone)
        found.append(local.weekday() * 24 + local.hour)
    return np.asarray(found, dtype=np.int64)


def week_rps(trace: Trace, zone: tzinfo) -> Floats:
    """Mean rate by weekday and hour, [7, 24]."""
    index = hour_of_week(trace, zone)
    hour = np.minimum((trace.arrival_s / HOUR_S).astype(np.int64), len(index) - 1)
    requests = np.bincount(index[hour], minlength=168).astype(np.float64)
    seconds = np.full(len(index), float(HOUR_S))
    seconds[-1] = trace.duration_s - (len(index) - 1) * HOUR_S
    observed = np.bincount(index, weights=seconds, minlength=168)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(requests / observed).reshape(7, 24)


def suspicious_silences(trace: Trace, zone: tzinfo = UTC) -> list[str]:
    """Silences that look like a log that was not written, as sentences; longest first.

    One is named when every other day of its kind (weekdays, weekend) brought requests at those
    hours, many in sum. Nothing can be told from fewer than four such days.
    """
    index = hour_of_week(trace, zone)
    per_hour = np.bincount(
        np.minimum((trace.arrival_s / HOUR_S).astype(np.int64), len(index) - 1),
        minlength=len(index),
    )
    kind = index % 24 + 24 * (index >= 5 * 24)
    edges: Floats = np.concatenate(([0.0], trace.arrival_s, [trace.duration_s]))
    gaps = np.diff(edges)
    found: list[str] = []
    for row in (-gaps).argsort()[:20]:
        begin, end = float(edges[row]), float(edges[row + 1])
        if end - begin < HOUR_S:
            break
        inside = np.arange(int(begin // HOUR_S), min(len(index), int(np.ceil(end / HOUR_S))))
        expected = 0.0
        for at in inside:
            others = np.setdiff1d(np.flatnonzero(kind == kind[at]), inside)
            if others.size < OTHER_DAYS:
                continue
            hour_s = float(at) * HOUR_S
            overlap = min(end, hour_s + HOUR_S) - max(begin, hour_s)
            expected += float(per_hour[others].min()) * overlap / HOUR_S
        if expected >= EXPECTED_IN_SILENCE:
            moment = (trace.begins + timedelta(seconds=begin)).astimezone(zone)
            found.append(
                f"no request for {(end - begin) / HOUR_S:.1f} h from {moment:%a %Y-%m-%d %H:%M},"
                f" where every other such day brings at least {expected:,.0f}. If nothing was"
                " recorded then, cut it off (--from, --to): a silence that was none makes scaling"
                " to zero look cheap."
            )
    return found


def _bin(trace: Trace, width: int) -> Bin:
    n = counts(trace, width)
    return Bin(width, float(n.var() / n.mean()), float((n == 0).mean()))


def _lengths(tokens: Floats) -> Lengths:
    p50, p90, p99 = np.percentile(tokens, (50, 90, 99))
    return Lengths(float(p50), float(p90), float(p99), float(tokens.mean()))
