"""From what single requests met to the figures of one load: rates, percentiles, hit ratio, doubts.

Rates are of what ended within the measured window, so that nobody who still waits in a queue
counts as served. A figure that the driver or the machine bounded carries a sentence that says so.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import report

PROMISED_MS = 500.0
# Good for a reader: begins within half a second and then keeps 25 ms a token, 40 tokens a second.
GOOD_FIRST_S, GOOD_TOKEN_S = 0.5, 0.025
# A driver that is later than this with one request in a hundred measures itself too.
LATE_MS = 20.0
BUSY = 0.95
# What is added to a process's name for the cores that its children use: none of them answers.
CHILDREN = "'s children"
# Cores that others may use before it is told.
OTHERS = 0.3


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one request met; times in seconds since the start of the run.

    `status` is 0 when nothing came, `whole` whether the answer came to its end and was no error,
    `first_s` the seconds from when it was due to its first event (streams only), `late_s` how much
    after its time the driver sent it, `cache` the answer's X-Cache.
    """

    due_s: float
    ended_s: float
    status: int
    whole: bool
    tokens: int
    first_s: float | None = None
    late_s: float = 0.0
    cache: str = ""

    @property
    def total_s(self) -> float:
        return self.ended_s - self.due_s

    @property
    def good(self) -> bool:
        """Whole, and no slower than somebody reads."""
        in_time = self.first_s is None or self.first_s <= GOOD_FIRST_S
        return self.whole and in_time and self.total_s <= GOOD_FIRST_S + GOOD_TOKEN_S * self.tokens


@dataclass(frozen=True, slots=True)
class Usage:
    """Cores in use over the window: of each of our processes, and of the whole machine."""

    cores: Mapping[str, float]
    machine: float
    machine_cores: int


@dataclass(frozen=True, slots=True)
class Figures:
    """One load on one stack. Rates a second; `None` where nothing was there to measure.

    `hit_target` is the share of requests that a warm cache could answer; None where there is no
    warm cache. `hit_ratio` is hits of those served, `engine_share` the share of them that the
    engine worked for: 1 - h, less those that shared another one's answer.
    """

    stack: str
    hit_target: float | None
    offered_rps: float
    seconds: float
    served_rps: float
    good_rps: float
    promised_rps: float
    refused_rps: float
    limited_rps: float
    failed_rps: float
    p50_ms: float | None
    p99_ms: float | None
    ttft_p50_ms: float | None
    ttft_p99_ms: float | None
    streams: int
    hit_ratio: float
    engine_share: float
    engine_rps: float
    tokens_per_s: float
    late_p99_ms: float
    usage: Usage
    doubts: tuple[str, ...] = ()

    @property
    def keeps_promise(self) -> bool:
        """99 of 100 answers within PROMISED_MS, and 99 of 100 requests answered."""
        fast = self.p99_ms is not None and self.p99_ms <= PROMISED_MS
        ended = self.served_rps + self.refused_rps + self.limited_rps + self.failed_rps
        return fast and self.served_rps >= 0.99 * ended


def quantile(values: Sequence[float], share: float) -> float | None:
    """The benchmarks' own, but None of none, as JSON has no nan."""
    return report.quantile(values, share) if values else None


def figures(
    stack: str,
    outcomes: Sequence[Outcome],
    *,
    window: tuple[float, float],
    hit_target: float | None,
    usage: Usage,
) -> Figures:
    """The figures of what was due and of what ended within `window` (seconds since the start)."""
    begin, end = window
    seconds = end - begin
    due = [each for each in outcomes if begin <= each.due_s < end]
    ended = [each for each in outcomes if begin <= each.ended_s < end]
    served = [each for each in ended if each.whole]
    refused = [each for each in ended if each.status == 503]
    limited = [each for each in ended if each.status == 429]
    hits = [each for each in served if each.cache == "hit"]
    engine = [each for each in served if each.cache not in {"hit", "coalesced"}]
    totals = [each.total_s * 1e3 for each in served]
    firsts = [each.first_s * 1e3 for each in served if each.first_s is not None]
    late_ms = (quantile([each.late_s for each in due], 0.99) or 0.0) * 1e3
    return Figures(
        stack=stack,
        hit_target=hit_target,
        offered_rps=len(due) / seconds,
        seconds=seconds,
        served_rps=len(served) / seconds,
        good_rps=sum(each.good for each in served) / seconds,
        promised_rps=sum(total <= PROMISED_MS for total in totals) / seconds,
        refused_rps=len(refused) / seconds,
        limited_rps=len(limited) / seconds,
        failed_rps=(len(ended) - len(served) - len(refused) - len(limited)) / seconds,
        p50_ms=quantile(totals, 0.5),
        p99_ms=quantile(totals, 0.99),
        ttft_p50_ms=quantile(firsts, 0.5),
        ttft_p99_ms=quantile(firsts, 0.99),
        streams=len(firsts),
        hit_ratio=len(hits) / len(served) if served else 0.0,
        engine_share=len(engine) / len(served) if served else 0.0,
        engine_rps=len(engine) / seconds,
        tokens_per_s=sum(each.tokens for each in engine) / seconds,
        late_p99_ms=late_ms,
        usage=usage,
        doubts=tuple(doubts(late_ms, usage)),
    )


def doubts(late_p99_ms: float, usage: Usage) -> list[str]:
    """Sentences on what else than the engine and the stack may have bounded a figure."""
    found = []
    if late_p99_ms > LATE_MS:
        found.append(
            f"the driver sent one request in a hundred {late_p99_ms:.0f} ms late or later:"
            " latencies hold its own delay"
        )
    found += [
        f"{name} used {cores:.2f} of the one core that its event loop can use"
        for name, cores in usage.cores.items()
        if cores >= BUSY and not name.endswith(CHILDREN)
    ]
    others = usage.machine - sum(usage.cores.values())
    # On a cluster only the driver is ours to see.
    if others > OTHERS and len(usage.cores) > 1:
        found.append(f"other work on the machine used {others:.2f} cores")
    if usage.machine >= BUSY * usage.machine_cores:
        found.append(
            f"the machine was full: {usage.machine:.2f} of {usage.machine_cores} cores in use"
        )
    return found
