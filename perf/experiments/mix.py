"""What is asked: the usual mix, with prompts whose hit ratio is a stated variable.

A request is, with probability `hit_ratio`, one of the hot prompts, the first of them most often
(Zipf), which the cache has been given before; otherwise its prompt has never been asked. So the
share that a cache can answer is chosen, not found; what it did answer is measured beside it.
"""

import itertools
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from schedule import MIX, Planned, Shape, Stage, times

# The mean of the mix: 91.7 tokens an answer.
MEAN_TOKENS = sum(shape.output_tokens * shape.weight for shape in MIX) / sum(
    shape.weight for shape in MIX
)
HOT_PROMPTS = 120
EXPONENT = 1.0


@dataclass(frozen=True, slots=True)
class Request:
    """A planned request, and whether its answer is streamed."""

    planned: Planned
    stream: bool


class Prompts:
    """Draws prompts: those of one seed are always the same, those of two seeds never."""

    def __init__(self, seed: int, *, shapes: Sequence[Shape] = MIX, hot: int = HOT_PROMPTS) -> None:
        """`hot` prompts are shared out over the shapes by their weight, at least one each."""
        self._seed = seed
        self._rng = random.Random(seed)  # noqa: S311 (a workload, not a secret)
        self._shapes = shapes
        self._weights = [shape.weight for shape in shapes]
        self._serial = itertools.count()
        self._hot = {
            shape: max(1, round(hot * shape.weight / sum(self._weights))) for shape in shapes
        }
        self._cumulated = {
            shape: list(itertools.accumulate((rank + 1) ** -EXPONENT for rank in range(count)))
            for shape, count in self._hot.items()
        }

    @property
    def hot(self) -> list[Request]:
        """Every hot prompt once: what a cache is given before a measurement."""
        return [
            Request(self._planned(0.0, self._hot_name(shape, rank), shape), stream=False)
            for shape, count in self._hot.items()
            for rank in range(count)
        ]

    def draw(self, at_s: float, hit_ratio: float) -> Planned:
        """A request that is due then."""
        (shape,) = self._rng.choices(self._shapes, self._weights)
        if self._rng.random() >= hit_ratio:
            return self._planned(at_s, f"{self._seed}n{next(self._serial)}", shape)
        ranks = range(self._hot[shape])
        (rank,) = self._rng.choices(ranks, cum_weights=self._cumulated[shape])
        return self._planned(at_s, self._hot_name(shape, rank), shape)

    def requests(
        self, rate_per_s: float, seconds: float, *, hit_ratio: float, stream_share: float
    ) -> Iterator[Request]:
        """A Poisson process of requests, in order of time."""
        stages = (Stage(rate_per_s, rate_per_s, seconds),)
        for at_s in times(stages, seed=self._rng.randrange(2**32)):
            planned = self.draw(at_s, hit_ratio)
            yield Request(planned, self._rng.random() < stream_share)

    def in_turn(self, count: int) -> list[Planned]:
        """Prompts never drawn before whose shapes take turns, each as often as its weight."""
        turn = [shape for shape in self._shapes for _ in range(round(shape.weight))]
        names = (f"{self._seed}n{next(self._serial)}" for _ in range(count))
        return [
            self._planned(0.0, name, shape)
            for name, shape in zip(names, itertools.cycle(turn), strict=False)
        ]

    def _hot_name(self, shape: Shape, rank: int) -> str:
        return f"{self._seed}hot{shape.prompt_tokens}r{rank}"

    @staticmethod
    def _planned(at_s: float, name: str, shape: Shape) -> Planned:
        return Planned(at_s, name, shape.prompt_tokens, shape.output_tokens)
