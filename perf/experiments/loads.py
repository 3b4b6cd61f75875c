"""Experiments 1 to 3 and the hit ratio that the promise needs: offered load on stacks side by side.

Every stack starts anew, its cache is given the hot prompts, and then each rate is offered for some
seconds after a warm-up. All stacks are asked the same.
"""

import sys
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial

import driver
import uvloop
from cost import Cost
from figures import LATE_MS, Figures, figures
from machine import Watch
from mix import Prompts
from results import Row
from stacks import ALONE, KEEPWARM, NO_BOUNDS, NO_CACHE, Engine, Served, Stack, serving

SEED = 11
# A load whose driver was late is offered again, and the one where it was less so is kept.
TRIES = 2


@dataclass(frozen=True)
class Window:
    """How long a load is offered, and how many of its answers are streamed."""

    warm_up_s: float = 3.0
    seconds: float = 8.0
    patience_s: float = 10.0
    stream_share: float = 0.1

    @property
    def told(self) -> str:
        """For whoever reads the figures."""
        return (
            f"{self.seconds:g} s measured at each load, after {self.warm_up_s:g} s of warm-up;"
            f" {self.stream_share:.0%} of the answers streamed; callers give up after"
            f" {self.patience_s:g} s. A load whose driver was late is offered once more,"
            " and the run in which it was less late is kept."
        )


PREFIXES = (
    "Who has no cache of answers is asked hot prompts 9 times in 10 too. vLLM keeps what it has"
    " computed of those (prefix caching), so such an engine makes more answers a second than one"
    " behind a cache, which gets new prompts only. The simulated engine keeps nothing."
)


@dataclass(frozen=True)
class Loads:
    """Rates offered to stacks; a run is a stack and the hit ratio of its prompts."""

    name: str
    title: str
    question: str
    short: tuple[float, ...]
    full: tuple[float, ...]
    runs: tuple[tuple[Stack, float], ...]


# What all have in common; who has no cache is asked the same prompts as who has one at 90 %.
USUAL = ((ALONE, 0.9), (NO_CACHE, 0.9), (KEEPWARM, 0.5), (KEEPWARM, 0.9))
BASELINE = Loads(
    "baseline",
    "Baseline: 50 to 200 requests/s",
    "What does one engine take, alone and behind keepwarm, at loads that it may just carry?",
    (50, 200),
    (50, 75, 100, 150, 200),
    USUAL,
)
PEAK = Loads(
    "peak",
    "Peak: 500 to 1000 requests/s",
    "Far over what one engine can do: who is answered, how soon, and what does shedding save?",
    (500, 1000),
    (500, 625, 750, 1000),
    (*USUAL, (NO_BOUNDS, 0.9)),
)
LIMIT = Loads(
    "limit",
    "Limit: 1000 to 2000 requests/s",
    "Where does it end, and does it bend or break there?",
    (1500, 2000),
    (1000, 1250, 1500, 1750, 2000),
    USUAL,
)
HIT_RATIO = Loads(
    "hit-ratio",
    "The hit ratio that 1000 requests/s with P99 under 500 ms needs",
    "From which share of hits on does one engine behind the cache keep the promise?",
    (1000,),
    (1000,),
    tuple((KEEPWARM, ratio) for ratio in (0.5, 0.8, 0.9, 0.95, 0.97, 0.98, 0.99)),
)
ALL = (BASELINE, PEAK, LIMIT, HIT_RATIO)


def run(
    loads: Loads, engines: Sequence[Engine], rates: Sequence[float], window: Window, price: float
) -> Iterator[Row]:
    """Every row, as it is measured; stacks that an engine cannot have are left out."""
    for engine in engines:
        part = engine.label if len(engines) > 1 or loads == HIT_RATIO else ""
        for stack in dict.fromkeys(stack for stack, _ in loads.runs):
            if stack.transformer is not None and not engine.speaks_v2:
                continue
            offers = [
                Offer(rate, hot) for each, hot in loads.runs if each == stack for rate in rates
            ]
            with serving(stack, engine) as served:
                seen = uvloop.run(offer(stack, served, Prompts(SEED), offers, window))
            for each, found in zip(offers, seen, strict=True):
                yield row(part, each.rate, found, price)


@dataclass(frozen=True)
class Offer:
    """A rate a second, and the share of requests whose prompts are hot ones."""

    rate: float
    hot: float


async def offer(
    stack: Stack,
    served: Served,
    prompts: Prompts,
    offers: Sequence[Offer],
    window: Window,
    *,
    tries: int = TRIES,
) -> list[Figures]:
    """The figures of one stack at each offer, in turn."""
    until = window.warm_up_s + window.seconds
    with ExitStack() as ended:
        callers = driver.calling(ended, served)

        async def once(each: Offer) -> Figures:
            watch = Watch(served.pids)
            outcomes, usage = await driver.drive(
                callers,
                prompts.requests(
                    each.rate, until, hit_ratio=each.hot, stream_share=window.stream_share
                ),
                v2=served.v2,
                patience_s=window.patience_s,
                watched=driver.Watched(window.warm_up_s, until, watch.begin, watch.end),
            )
            seen = figures(
                stack.name,
                outcomes,
                window=(window.warm_up_s, until),
                hit_target=each.hot if stack.warm else None,
                usage=usage,
            )
            print(f"{stack.name}, h {each.hot:g}: {told(seen)}", file=sys.stderr, flush=True)
            return seen

        if stack.warm:
            await driver.warm(callers, prompts.hot, v2=served.v2)
        return [await _least_late(partial(once, each), tries) for each in offers]


async def _least_late(measure: Callable[[], Awaitable[Figures]], tries: int) -> Figures:
    found = [await measure()]
    while len(found) < tries and found[-1].late_p99_ms > LATE_MS:
        found.append(await measure())
    return min(found, key=lambda seen: seen.late_p99_ms)


def row(part: str, rate: float, seen: Figures, price: float) -> Row:
    """The figures with what they cost: one engine, for as long as it was measured."""
    served, generated = seen.served_rps * seen.seconds, seen.engine_rps * seen.seconds
    return Row(part, rate, seen, Cost(seen.seconds, price, served, generated))


def told(seen: Figures) -> str:
    """A line for who watches."""
    p99 = "-" if seen.p99_ms is None else f"{seen.p99_ms:.0f}"
    return (
        f"offered {seen.offered_rps:.0f}, served {seen.served_rps:.0f}/s (engine"
        f" {seen.engine_rps:.0f}), 503 {seen.refused_rps:.0f}, failed {seen.failed_rps:.1f}, P99"
        f" {p99} ms, h {seen.hit_ratio:.3f}, machine {seen.usage.machine:.2f}"
        f"{''.join('; ' + doubt for doubt in seen.doubts)}"
    )
