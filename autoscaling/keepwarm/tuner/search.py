"""Coarse to fine over the training days: windows, loads, schedules, then one step at a time.

Only the training days' requests are handed to it, so it cannot peek. The same seed and the same
budget give the same settings in the same order.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np

from keepwarm.traces.trace import DAY_S, Floats
from keepwarm.tuner import choose
from keepwarm.tuner.evaluate import Evaluator
from keepwarm.tuner.score import Score
from keepwarm.tuner.setting import Setting
from keepwarm.tuner.space import Space
from keepwarm.tuner.week import MOST_WINDOWS, Pooling, Rule

SHARES = np.asarray((0.2, 0.4, 0.6, 0.75, 0.85, 0.95, 1.0))
SCHEDULE_BASES = 6
GENERATION = 24
PARENTS = 8
WEEK_DAYS = 7
LEAST_DAYS = 5  # of training, for a schedule
# A schedule has more to be wrong about, and more to run: for less than this it is not taken.
SCHEDULE_MUST_SAVE = 0.03


@dataclass(frozen=True, eq=False)
class Found:
    """What the search saw, on the training days."""

    settings: tuple[Setting, ...]
    scores: tuple[Score, ...]
    confidence: Floats  # [settings] share of the resamples that keep the SLO
    chosen: int | None  # the cheapest that keeps it; None: none does
    front: tuple[int, ...]
    knee: int  # into settings


class Search:
    """One search; `run` spends at most `budget` settings."""

    def __init__(
        self, evaluator: Evaluator, space: Space, *, budget: int, need: float, seed: int
    ) -> None:
        self._evaluator = evaluator
        self._space = space
        self._budget = budget
        self._need = need
        self._rng = np.random.default_rng(seed)
        self._weights = choose.resamples(evaluator.workload.blocks, seed)

    def run(self) -> Found:
        """All stages."""
        self._score(self._space.coarse())
        for setting in self._best(3):
            self._score(self._space.loads(setting), most=self._left // 4)
        # Which window is best depends on the load that a pod takes: once more with the best one's.
        self._score(self._space.grid(self._best(1)[0]), most=self._left // 3)
        self._score(self._schedules(), most=self._left * 2 // 3)
        while self._left > 0:
            fresh = self._generation()
            if not fresh:
                break
            self._score(fresh)
        return self.found()

    @property
    def _left(self) -> int:
        return self._budget - len(self._evaluator.known)

    def _score(self, settings: Iterable[Setting], most: int | None = None) -> None:
        known = self._evaluator.known
        fresh = [s for s in dict.fromkeys(settings) if s not in known]
        self._evaluator.scores(fresh[: max(0, self._left if most is None else most)])

    def _schedules(self) -> list[Setting]:
        """Weekly schedules over settings along the front, the cheap ones too: they gain most.

        All bases' schedules are taken in turns, so that a small budget still sees each base.
        """
        workload = self._evaluator.workload
        if workload.block_s != DAY_S or workload.blocks < LEAST_DAYS:
            return []
        poolings = [Pooling.WORKING_DAYS, Pooling.ALL_DAYS]
        if workload.blocks >= 2 * WEEK_DAYS:
            # In one week each hour of the week is there once: nothing would tell chance from habit.
            poolings.append(Pooling.EACH_DAY)
        rules = [Rule(p, float(met), c) for met in SHARES for p in poolings for c in (False, True)]
        found = self.found()
        along = [s for i in found.front if (s := found.settings[i]).week is None]
        picked = along[:: max(1, -(-len(along) // SCHEDULE_BASES))]
        turns: list[list[Setting]] = []
        for base in picked:
            hours = self._evaluator.hours(base)
            made = {hours.week(rule): rule for rule in rules}
            turns.append(
                [
                    replace(base, week=week, folds=hours.folds(rule))
                    for week, rule in made.items()
                    if week.hours
                ]
            )
        longest = max(map(len, turns), default=0)
        mixed = [turn[i] for i in range(longest) for turn in turns if i < len(turn)]
        return [setting for setting in mixed if _short(setting)]

    def _generation(self) -> list[Setting]:
        known = self._evaluator.known
        fresh = dict.fromkeys(
            neighbour
            for parent in self._best(PARENTS)
            for neighbour in self._space.neighbours(parent)
            if neighbour not in known and _short(neighbour)
        )
        pool = list(fresh) or self._leaps()
        if len(pool) > GENERATION:
            rows = self._rng.choice(len(pool), GENERATION, replace=False)
            pool = [pool[i] for i in sorted(rows.tolist())]
        return pool

    def _leaps(self) -> list[Setting]:
        """Two steps at once from the best, where no single step is new: out of a dead end."""
        known = self._evaluator.known
        near = [n for parent in self._best(PARENTS) for n in self._space.neighbours(parent)]
        picked = self._rng.permutation(len(near))[:GENERATION].tolist()
        leaps = dict.fromkeys(far for i in picked for far in self._space.neighbours(near[i]))
        return [setting for setting in leaps if setting not in known and _short(setting)]

    def _best(self, count: int) -> list[Setting]:
        """Half the cheapest that keep the SLO, half cheaper ones that nearly do."""
        found = self.found()
        cost = np.asarray([s.cost_per_block for s in found.scores])
        keeps = found.confidence >= self._need
        terms = self._evaluator.rules.terms
        missed = np.asarray([choose.violation(s, terms) for s in found.scores])
        good = [i for i in np.argsort(cost, kind="stable").tolist() if keeps[i]]
        limit = cost[good[0]] if good else np.inf
        near = [
            i
            for i in np.argsort(missed, kind="stable").tolist()
            if not keeps[i] and cost[i] < limit
        ]
        half = count // 2 if good else 0
        rows = good[: count - min(len(near), half or count)] + near[: half or count]
        return [found.settings[i] for i in rows[:count]]

    def found(self) -> Found:
        """Everything so far."""
        settings = tuple(self._evaluator.known)
        scores = tuple(self._evaluator.known.values())
        terms = self._evaluator.rules.terms
        sure = np.asarray([choose.confidence(s, terms, self._weights) for s in scores])
        cost = np.asarray([s.cost_per_block for s in scores])
        exposure = np.asarray([s.exposure for s in scores])
        front = choose.front(cost, exposure)
        holds = np.asarray([s.meets(terms) for s in scores]) & (sure >= self._need)
        kept = np.flatnonzero(holds).tolist()
        plain = [row for row in kept if settings[row].week is None]

        def cheapest(rows: list[int]) -> int | None:
            # Of equals the calmer: fewer pods started, then the longer memory.
            by = {
                row: (
                    round(float(cost[row]), 4),
                    scores[row].started,
                    -settings[row].policy.stable_window_s,
                )
                for row in rows
            }
            return min(by, key=by.__getitem__, default=None)

        chosen = cheapest(kept)
        simple = cheapest(plain)
        if (
            chosen is not None
            and simple is not None
            and cost[chosen] > (1 - SCHEDULE_MUST_SAVE) * cost[simple]
        ):
            chosen = simple
        return Found(
            settings=settings,
            scores=scores,
            confidence=sure,
            chosen=chosen,
            front=tuple(front),
            knee=front[choose.knee(cost[front], exposure[front])],
        )


def _short(setting: Setting) -> bool:
    """Whether a WarmPool can hold its windows."""
    return setting.week is None or len(setting.week.windows()) <= MOST_WINDOWS
