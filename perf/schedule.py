"""When requests are due and how long they are: constant, Poisson, ramps, steps, or a trace again.

A rate is told as stages, `50x30` for 50 a second over 30 s, `50..200x20` for a straight ramp;
`50x30,50..1000x10,1000x30` is one after the other. All is drawn beforehand, from a seed.
"""

import itertools
import math
import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Stage:
    """A rate a second that goes from `begin` to `end` in `seconds`."""

    begin: float
    end: float
    seconds: float

    @property
    def requests(self) -> float:
        """How many are due in it, on average."""
        return (self.begin + self.end) / 2 * self.seconds

    def reached_s(self, requests: float) -> float:
        """After how many seconds of it so many are due."""
        slope = (self.end - self.begin) / self.seconds
        # The root of slope/2 t^2 + begin t = requests, in the form that bears a slope of 0.
        root = math.sqrt(max(0.0, self.begin**2 + 2 * slope * requests))
        return 2 * requests / (self.begin + root)

    def __str__(self) -> str:
        rate = f"{self.begin:g}" if self.begin == self.end else f"{self.begin:g}..{self.end:g}"
        return f"{rate}/s for {self.seconds:g} s"


@dataclass(frozen=True, slots=True)
class Shape:
    """A kind of request: how often it comes, and its lengths in tokens."""

    weight: float
    prompt_tokens: int
    output_tokens: int


# The mix that all of keepwarm's load figures are told for: short, medium and long at 3:2:1.
MIX = (Shape(3, 30, 50), Shape(2, 50, 100), Shape(1, 200, 200))
# Requests a second, one step after the other.
SCENARIOS = {
    "baseline": (50, 100, 150, 200),
    "peak": (500, 750, 1000),
    "limit": (1000, 1500, 2000),
}


@dataclass(frozen=True, slots=True)
class Planned:
    """A request; `due_s` after the beginning. `prompt` names it: one name, one prompt."""

    due_s: float
    prompt: str
    prompt_tokens: int
    output_tokens: int


def parse_stages(text: str, seconds: float) -> tuple[Stage, ...]:
    """`RATE[..RATE][xSECONDS]`, several with commas. Raises ValueError naming what is wrong."""
    stages = []
    for part in text.split(","):
        rates, _, lasts = part.strip().partition("x")
        first, ramps, last = rates.partition("..")
        try:
            end = float(last) if ramps else float(first)
            stage = Stage(float(first), end, float(lasts or seconds))
        except ValueError:
            raise ValueError(
                f"{part!r} is no stage: RATE, RATE..RATE, each with xSECONDS"
            ) from None
        if min(stage.begin, stage.end) < 0 or stage.requests <= 0 or stage.seconds <= 0:
            raise ValueError(f"{part!r}: rates must be 0 or more, and not both 0; seconds above 0")
        stages.append(stage)
    return tuple(stages)


def parse_mix(text: str) -> tuple[Shape, ...]:
    """`WEIGHT:PROMPT:OUTPUT`, several with commas. Raises ValueError naming what is wrong."""
    shapes = []
    for part in text.split(","):
        try:
            weight, prompt, output = part.split(":")
            shape = Shape(float(weight), int(prompt), int(output))
        except ValueError:
            raise ValueError(f"{part!r} is no kind of request: WEIGHT:PROMPT:OUTPUT") from None
        if shape.weight <= 0 or min(shape.prompt_tokens, shape.output_tokens) < 1:
            raise ValueError(f"{part!r}: weight and tokens must be above 0")
        shapes.append(shape)
    return tuple(shapes)


def rate_at(scenario: str, seconds: float, stage_s: float) -> float | None:
    """A scenario's rate so long after its beginning; None when it is over."""
    rates = SCENARIOS[scenario]
    step = int(seconds / stage_s)
    return rates[step] if step < len(rates) else None


def times(stages: Sequence[Stage], *, seed: int | None) -> Iterator[float]:
    """When requests are due: a Poisson process by seed, evenly spaced without one."""
    rng = random.Random(seed)  # noqa: S311 (a workload, not a secret)
    # At rate 1 a process has unit gaps; the stages stretch its time.
    steps = itertools.repeat(1.0) if seed is None else iter(lambda: rng.expovariate(1.0), None)
    passed, began, mark = 0.0, 0.0, next(steps)
    for stage in stages:
        while mark <= passed + stage.requests:
            yield began + stage.reached_s(mark - passed)
            mark += next(steps)
        passed += stage.requests
        began += stage.seconds


def plan(
    due: Iterable[float],
    mix: Sequence[Shape],
    *,
    seed: int,
    name: str,
    repeat: float = 0.0,
    pool: int = 100,
) -> Iterator[Planned]:
    """Requests of the mix at `due`; a share `repeat` asks one of `pool` prompts, the rest new ones.

    All prompts begin with `name`, so that runs of other names have none in common. A popular one
    always has the same lengths, so that a cache can know its answer.
    """
    rng = random.Random(seed)  # noqa: S311
    weights = [shape.weight for shape in mix]
    popular = rng.choices(mix, weights, k=pool)
    for number, at in enumerate(due):
        if rng.random() < repeat:
            rank = rng.randrange(pool)
            prompt, shape = f"{name}-popular{rank}", popular[rank]
        else:
            prompt, shape = f"{name}-{number}", rng.choices(mix, weights)[0]
        yield Planned(at, prompt, shape.prompt_tokens, shape.output_tokens)


def replay(path: Path, *, name: str, speed: float = 1.0, most: int | None = None) -> list[Planned]:
    """A Mooncake trace's requests, as `keepwarm trace` writes them, `speed` times as fast.

    Raises keepwarm's TraceError for what is none. A request without an answer asks for a token.
    """
    from keepwarm.traces import mooncake

    with path.open("rb") as lines:
        trace = mooncake.read(lines, str(path))
    rows = zip(trace.arrival_s, trace.input_tokens, trace.output_tokens, strict=True)
    return [
        Planned(
            (float(at) - float(trace.arrival_s[0])) / speed,
            f"{name}-{number}",
            max(1, int(inputs)),
            max(1, int(outputs)),
        )
        for number, (at, inputs, outputs) in enumerate(itertools.islice(rows, most))
    ]
