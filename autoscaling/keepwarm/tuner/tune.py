"""The whole of a tuning: search on the training days, prove on the held-out ones, compare, doubt.

The search gets the training days' requests and nothing else. What it chose, and everything it is
compared with, is then simulated over all days, and the held-out days' figures are the ones told.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from keepwarm.kpa.model import Result
from keepwarm.traces.report import period
from keepwarm.tuner import bound as bounding
from keepwarm.tuner import choose, compare
from keepwarm.tuner.bound import Bound
from keepwarm.tuner.errors import TuneError
from keepwarm.tuner.evaluate import Evaluator, Rules, Store
from keepwarm.tuner.figures import Figures, figures
from keepwarm.tuner.intervals import integral
from keepwarm.tuner.plan import Plan, Point, Row, Scenario
from keepwarm.tuner.prices import DAY_S
from keepwarm.tuner.search import Found, Search
from keepwarm.tuner.setting import Setting
from keepwarm.tuner.slo import Kind
from keepwarm.tuner.space import FIXED_WINDOWS_S, Space
from keepwarm.tuner.workload import Workload

WEEK_DAYS = 7
FRONT_POINTS = 16
CURVE = (0.0, 0.0005, 0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.03, 0.05, 0.1)
SHIFT = 0.2
REPLICA_STEP_S = 600.0


@dataclass(frozen=True)
class Options:
    """How it is searched."""

    budget: int = 500  # settings simulated on the training days
    need: float = 0.9  # in which share of the resamples the SLO must hold
    seed: int = 0
    force: bool = False  # also with less than a week
    held_blocks: int | None = None


@dataclass(frozen=True, eq=False)
class Stage:
    """The workload in two: the training days and all days, each with its scores."""

    whole: Workload
    training: Workload
    rules: Rules
    on_training: Evaluator
    on_all: Evaluator
    train: slice
    held: slice
    bounds: tuple[Bound, Bound] | None  # training, held-out; None: the world is another one
    seed: int
    need: float

    def figures(self, setting: Setting) -> tuple[Figures, Figures]:
        """Of a setting, on the training and on the held-out days."""
        (score,) = self.on_all.scores([setting])
        train, held = self.bounds or (None, None)

        def part(blocks: slice, bound: Bound | None) -> Figures:
            return figures(
                score,
                blocks,
                edges_s=self.whole.edges_s,
                terms=self.rules.terms,
                prices=self.rules.prices,
                bound=bound,
                seed=self.seed,
            )

        return part(self.train, train), part(self.held, held)

    def row(self, name: str, note: str, setting: Setting) -> Row:
        train, held = self.figures(setting)
        return Row(name, note, setting, train, held)


Progress = Callable[[str, int], None]  # what is being done, how many settings more are done


def tune(
    workload: Workload,
    space: Space,
    rules: Rules,
    options: Options,
    *,
    store: Path | None = None,
    progress: Progress = lambda _what, _count: None,
    facts: dict[str, Any] | None = None,
) -> Plan:
    """The plan. Raises TuneError: too little data, or an SLO that no scaling can keep."""
    warnings = list(_doubts(workload, options))
    _check_slo(workload, rules)
    stage = _stage(workload, space, rules, options, store=store, progress=progress)
    progress("searching", 0)
    found = Search(
        stage.on_training, space, budget=options.budget, need=options.need, seed=options.seed
    ).run()
    progress("proving", 0)
    chosen = None if found.chosen is None else found.settings[found.chosen].final
    reason = _reason(found, stage, options)
    rows, fixed = compare.rows(stage, space, found, chosen)
    if chosen is not None and not any(row.name == compare.HINDSIGHT for row in rows):
        reason += (
            " No single fixed window of today's manifest, up to an hour, met as few cold requests"
            f" on the held-out {workload.blocks_name}."
        )
    judged = found.settings[found.knee if found.chosen is None else found.chosen]
    shown = judged.final
    progress("doubting", 0)
    scenarios = tuple(_scenarios(stage, space.current, shown))
    knobs = compare.knob_effects(stage.on_training, space, judged)
    warnings += _grew(stage)
    return Plan(
        facts=(facts or {})
        | {
            "blocks": stage.whole.blocks,
            "block": stage.whole.blocks_name,
            "training_blocks": stage.train.stop,
            "held_out_blocks": stage.whole.blocks - stage.train.stop,
            "held_out_s": float(stage.whole.edges_s[-1] - stage.whole.edges_s[stage.train.stop]),
            "requests": len(workload.requests),
            "period": period(workload.requests.duration_s),
            "begins": workload.begins.isoformat(),
            "seed": options.seed,
            "confidence": options.need,
            "lead_s": rules.lead_s,
        },
        terms=tuple(term.text for term in rules.terms),
        rows=tuple(rows),
        recommended=chosen,
        reason=reason,
        front=tuple(_front(stage, found)),
        fixed=tuple(fixed),
        bound_curve=tuple(_curve(stage)),
        scenarios=scenarios,
        knobs=tuple(knobs),
        warnings=tuple(warnings),
        searched=len(found.settings),
        replicas=_replicas(stage, space.current, shown),
    )


def _doubts(workload: Workload, options: Options) -> Iterator[str]:
    length = workload.requests.duration_s
    if length >= (WEEK_DAYS - 1e-3) * DAY_S:
        return
    told = (
        f"{workload.name} holds {period(length)}; a week is the least that shows whether the days"
        " of the week are alike, and what is held out would be of another kind than the rest."
    )
    if not options.force:
        raise TuneError(f"{told} Bring a longer trace, or say --force.")
    yield f"{told} Forced: do not expect other days to be like these."


def _check_slo(workload: Workload, rules: Rules) -> None:
    """What no scaling can change is told before an hour is spent on it."""
    for term in rules.terms:
        if term.kind is not Kind.TTFT:
            continue
        if workload.prefill_s is None:
            raise TuneError(
                f"--slo: {term.text} needs the time to the first token in a warm pod: give"
                " --latency-model or --first-token, or ask for wait_p99 instead."
            )
        alone = float(np.mean(workload.prefill_s > term.over_s))
        if alone > term.allowed:
            raise TuneError(
                f"--slo: {term.text} cannot be kept by scaling: {alone:.1%} of the requests take"
                f" longer than {term.over_s:g} s to their first token even alone in a warm pod"
                f" (p99 {np.quantile(workload.prefill_s, 0.99):.3g} s)."
            )


def _stage(
    workload: Workload,
    space: Space,
    rules: Rules,
    options: Options,
    *,
    store: Path | None,
    progress: Progress,
) -> Stage:
    blocks = workload.blocks
    held = options.held_blocks
    if held is None:
        # Half, in whole weeks where there are two: every weekday is then on both sides.
        held = 7 * (blocks // 14) if blocks >= 14 and workload.block_s == DAY_S else blocks // 3
    if not 1 <= held < blocks:
        raise TuneError(
            f"--hold-out of {held} of {blocks} {workload.blocks_name}: both sides need one."
        )
    training = workload.first(blocks - held)
    split_s = float(workload.edges_s[blocks - held])
    kept = Store(store)
    concurrency = _most_at_once(space)
    return Stage(
        whole=workload,
        training=training,
        rules=rules,
        on_training=Evaluator(training, rules, kept, lambda n: progress("", n)),
        on_all=Evaluator(workload, rules, kept, lambda n: progress("", n)),
        train=slice(0, blocks - held),
        held=slice(blocks - held, blocks),
        bounds=(
            bounding.lower_bound(training, rules.prices, concurrency=concurrency),
            bounding.lower_bound(workload, rules.prices, from_s=split_s, concurrency=concurrency),
        ),
        seed=options.seed,
        need=options.need,
    )


def _most_at_once(space: Space) -> int:
    """The most requests that any setting searched lets into a pod; 0: there is no limit."""
    limits = {space.current.policy.container_concurrency, *space.limits}
    return 0 if 0 in limits else max(limits)


def _reason(found: Found, stage: Stage, options: Options) -> str:
    slo = ", ".join(term.text for term in stage.rules.terms)
    if found.chosen is not None:
        return (
            f"The cheapest of {len(found.settings)} settings that keeps {slo} on the"
            f" {stage.train.stop} training {stage.whole.blocks_name} and in"
            f" {found.confidence[found.chosen]:.0%} of their resamples"
            f" ({options.need:.0%} were asked for)."
        )
    missed = [choose.violation(s, stage.rules.terms) for s in found.scores]
    best = int(np.argmin(missed))
    closest = dict(zip(stage.rules.terms, found.scores[best].bad, strict=True))
    told = ", ".join(
        f"{term.text}: {float(bad.sum()) / float(found.scores[best].requests.sum()):.3%} bad of"
        f" {term.allowed:.3%} allowed"
        for term, bad in closest.items()
    )
    return (
        f"None of {len(found.settings)} settings keeps {slo} on the training days in"
        f" {options.need:.0%} of their resamples. The closest: {told}. Nothing is recommended:"
        " allow more, lower --confidence, start pods faster or keep min-scale above 0."
    )


def _front(stage: Stage, found: Found) -> Iterator[Point]:
    """The training days' front, thinned, and where its settings lie on the held-out days."""
    rows = list(found.front)
    if len(rows) > FRONT_POINTS:
        picked = np.linspace(0, len(rows) - 1, FRONT_POINTS).round().astype(int)
        rows = [rows[i] for i in dict.fromkeys(picked.tolist())]
    yield from compare.points(stage, [found.settings[i].final for i in rows])


def _curve(stage: Stage) -> Iterator[tuple[float, float]]:
    edges = stage.whole.edges_s
    days = float(edges[-1] - edges[stage.held.start]) / DAY_S
    inside = (stage.whole.block_of >= stage.held.start) & stage.whole.counted
    requests = int(inside.sum())
    assert stage.bounds
    for exposure in CURVE:
        yield exposure, stage.bounds[1].cost(math.floor(exposure * requests)) / days


def _scenarios(stage: Stage, current: Setting, shown: Setting) -> Iterator[Scenario]:
    whole = stage.whole
    for name, changed in (
        (f"{SHIFT:.0%} less traffic", whole.with_traffic(1 - SHIFT, stage.seed)),
        (f"{SHIFT:.0%} more traffic", whole.with_traffic(1 + SHIFT, stage.seed)),
        (f"{SHIFT:.0%} shorter cold starts", whole.with_cold_start(1 - SHIFT)),
        (f"{SHIFT:.0%} longer cold starts", whole.with_cold_start(1 + SHIFT)),
    ):
        there = replace(
            stage,
            whole=changed,
            on_all=stage.on_all.on(changed),
            bounds=None,
        )
        yield Scenario(name, there.figures(shown)[1], there.figures(current)[1])


def _grew(stage: Stage) -> Iterator[str]:
    """Traffic that the training days did not know of."""
    edges = stage.whole.edges_s
    counts = np.bincount(stage.whole.block_of, minlength=stage.whole.blocks)
    rate = counts / np.diff(edges)
    before, after = float(rate[stage.train].mean()), float(rate[stage.held].mean())
    if before and abs(after / before - 1) > 0.5:
        yield (
            f"The held-out {stage.whole.blocks_name} bring {after / before:.1f} times the requests"
            " of the training ones: traffic is not steady, tune again soon."
        )


def _replicas(stage: Stage, current: Setting, shown: Setting) -> dict[str, Any]:
    """Mean pods every ten minutes of the held-out days' last week, and the traffic beside them."""
    end = stage.whole.requests.duration_s
    begin = max(float(stage.whole.edges_s[stage.held.start]), end - 7 * DAY_S)
    step = REPLICA_STEP_S if end - begin > DAY_S else max(5.0, (end - begin) / 600)
    at = np.arange(begin, end, step)
    edges = np.append(at, end)

    def pods(result: Result) -> list[float]:
        t = result.timeline
        count = (t.ready + t.starting + t.draining).astype(np.float64)
        area = integral(t.t_s, count, end, edges)
        return [round(float(v), 4) for v in np.diff(area) / np.diff(edges)]

    lines = [pods(result) for result in stage.on_all.results([current, shown])]
    rate = np.histogram(stage.whole.requests.arrival_s, bins=edges)[0] / np.diff(edges)
    return {
        "begin_s": begin,
        "step_s": step,
        "current": lines[0],
        "recommended": lines[1],
        "requests_per_s": [round(float(v), 5) for v in rate],
        "fixed_windows_s": list(FIXED_WINDOWS_S),
    }
