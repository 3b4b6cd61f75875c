"""The report: every experiment that was run as one HTML page that fetches nothing."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import claims
import plots
from cost import Cost
from figures import GOOD_FIRST_S, GOOD_TOKEN_S, PROMISED_MS, Figures
from results import Result

from keepwarm import pages


@dataclass(frozen=True)
class Picture:
    """A plot and what it tells."""

    svg: str
    caption: str


CACHED = "Each line is one stack; h is the share of requests that a warm cache can answer."


def render(results: Sequence[Result]) -> str:
    """The page of these results, in their order."""
    return pages.render(
        "bench.html",
        folder=Path(__file__).parent,
        results=results,
        pictures={result.name: pictures(result) for result in results},
        verdicts=claims.verdicts(results),
        simulated=[result.name for result in results if is_simulated(result)],
        engine=engine,
        prices=sorted({cost.per_gpu_hour for result in results for cost in _costs(result)}),
        dates=sorted({result.environment["date"] for result in results}),
        rate=rate,
        milliseconds=milliseconds,
        money=money,
        share=share,
        cores=cores,
        good=f"begins within {GOOD_FIRST_S:g} s and takes no more than {GOOD_TOKEN_S * 1e3:g} ms"
        " for each token after that",
        promised_ms=PROMISED_MS,
    )


def is_simulated(result: Result) -> bool:
    """Whether no model has answered."""
    return "simulated" in result.engine


def engine(result: Result) -> str:
    """What answered, and the GPU that it ran on."""
    gpu = result.environment.get("GPU", "none")
    return result.engine if is_simulated(result) or gpu == "none" else f"{result.engine}, on {gpu}"


def _costs(result: Result) -> list[Cost]:
    return [each.cost for each in (*result.rows, *result.bursts)]


def pictures(result: Result) -> list[Picture]:
    """Which plots an experiment has."""
    if result.name == "hit-ratio":
        caption = (
            "Misses cannot be faster than the engine: so many hits it takes until they are fewer"
            " than one in a hundred, or fast enough."
        )
        return [Picture(plots.hit_ratios(result.rows, engine(result)), caption)]
    if result.name == "cache":
        caption = (
            "Bars: answers a second. What is dark the engine made; what is pale came from a cache."
        )
        return [Picture(plots.caches(result.rows, engine(result)), caption)]
    if result.batches:
        return [Picture(plots.batches(result.batches), "Closed loop, each engine alone.")]
    if result.bursts:
        return [
            Picture(plots.burst(each, engine(result)), f"{each.part}, sampled each second.")
            for each in result.bursts
        ]
    return [
        Picture(plots.served(result.rows, result.title, engine(result)), CACHED),
        Picture(plots.latency(result.rows, result.title, engine(result)), "Of what was served."),
    ]


def rate(value: float) -> str:
    """Requests a second."""
    return f"{value:.0f}" if value >= 9.95 else f"{value:.1f}"


def milliseconds(value: float | None) -> str:
    """A time, or nothing."""
    return "" if value is None else f"{value:.0f}" if value >= 9.95 else f"{value:.1f}"


def money(value: float | None) -> str:
    """An amount, or nothing."""
    return "" if value is None else f"{value:.2g}" if value < 1 else f"{value:.2f}"


def share(value: float) -> str:
    """A share of 1."""
    return f"{value:.1%}"


def cores(seen: Figures) -> str:
    """Cores in use by process."""
    told = (f"{name} {used:.2f}" for name, used in seen.usage.cores.items())
    return ", ".join(told) + f"; {seen.usage.machine:.1f} of {seen.usage.machine_cores} in all"
