"""The promise this project began with, term by term, beside what was measured: true, or not.

"1000+ requests/s, P99 under 500 ms, 50-1000 rps elastic, under $0.001 per RPS."
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from cost import PROMISED
from figures import PROMISED_MS
from results import Burst, Result, Row

PROMISED_RPS = 1000.0


@dataclass(frozen=True)
class Verdict:
    """A term of the promise; `holds` is None where nothing measured can tell, or `remark` does."""

    promise: str
    measured: str
    holds: bool | None
    remark: str = ""


def least_hit_ratio(rows: Sequence[Row], rate: float) -> Row | None:
    """The row of the least hit ratio from which on every measured one keeps the promise."""
    own = sorted((row for row in rows if row.rate == rate), key=hit_target, reverse=True)
    least = None
    for row in own:
        if not row.figures.keeps_promise:
            break
        least = row
    return least


def hit_target(row: Row) -> float:
    """The hit ratio asked for; 0 where there is no cache."""
    return row.figures.hit_target or 0.0


def verdicts(results: Sequence[Result]) -> list[Verdict]:
    """Every term, judged by whichever experiments were run."""
    by_name = {result.name: result for result in results}
    found = []
    if "hit-ratio" in by_name:
        found += _latency(by_name["hit-ratio"])
    rows = [row for result in results for row in result.rows]
    if rows:
        found.append(_without_cache(rows))
    bursts = [burst for result in results for burst in result.bursts]
    found += [_elastic(burst) for burst in bursts]
    if "hit-ratio" in by_name:
        found += _price(by_name["hit-ratio"])
    return found


def _latency(result: Result) -> list[Verdict]:
    found = []
    for part in dict.fromkeys(row.part for row in result.rows):
        rows = [row for row in result.rows if row.part == part]
        least = least_hit_ratio(rows, PROMISED_RPS)
        most = max(map(hit_target, rows))
        where = part or result.engine
        promise = f"{PROMISED_RPS:.0f} requests/s, P99 under {PROMISED_MS:.0f} ms, on {where}"
        if least is None:
            said = f"at no measured hit ratio, up to {most:.0%}"
        else:
            seen = least.figures
            said = (
                f"from a hit ratio of {hit_target(least):.1%} on: P99 {seen.p99_ms:.0f} ms,"
                f" {seen.served_rps:.0f} served/s of {seen.offered_rps:.0f}; the engine answers"
                f" {seen.engine_share:.1%} of them, {seen.engine_rps:.0f}/s"
            )
        found.append(Verdict(promise, said, least is not None))
    return found


def _without_cache(rows: Sequence[Row]) -> Verdict:
    best = max(rows, key=lambda row: row.figures.engine_rps)
    seen = best.figures
    return Verdict(
        f"{PROMISED_RPS:.0f} requests/s from one engine, no cache",
        f"{seen.engine_rps:.0f} answers/s ({seen.tokens_per_s:.0f} tokens/s) at most, on"
        f" {best.part or 'one engine'}",
        seen.engine_rps >= PROMISED_RPS,
    )


def _elastic(burst: Burst) -> Verdict:
    seen = burst.figures
    most = max(second.ready for second in burst.seconds)
    lost = seen.refused_rps + seen.limited_rps + seen.failed_rps
    ended = seen.served_rps + lost
    whole = f"{seen.served_rps / ended:.1%} served" if ended else "nothing ended"
    scale = burst.facts.get("scale", "")
    said = f"{whole}, {most} predictors at most{f', {scale}' if scale else ''}"
    return Verdict(f"elastic from 50 to 1000 requests/s, {burst.part}", said, _kept(burst))


def _kept(burst: Burst) -> bool | None:
    """Whether all were served; not known of a burst that was scaled down to this machine."""
    seen = burst.figures
    if seen.served_rps < 0.99 * (seen.served_rps + seen.refused_rps + seen.failed_rps):
        return False
    return None if burst.facts.get("scale") else True


def _price(result: Result) -> list[Verdict]:
    least = least_hit_ratio(result.rows, PROMISED_RPS)
    dearest = min(result.rows, key=hit_target)
    return [
        Verdict(
            f"under ${PROMISED} per RPS, which names no time; hit ratio {hit_target(row):.1%}, on"
            f" {row.part or result.engine}",
            ", ".join(f"${price:.2g} {time}" for time, price in row.cost.readings.items()),
            None,
            "; ".join(_sides(row.cost.readings)),
        )
        for row in [dearest, *([least] if least is not None else [])]
    ]


def _sides(readings: Mapping[str, float]) -> Iterator[str]:
    """For which times a price is under the promised one, and for which it is not."""
    for answer, under in (("yes", True), ("no", False)):
        times = [time for time, price in readings.items() if (price < PROMISED) is under]
        if times:
            yield f"{answer} {', '.join(times)}"
