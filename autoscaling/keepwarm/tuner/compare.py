"""What the recommendation is held against: other policies on the same days, and each knob alone."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from keepwarm.tuner import choose
from keepwarm.tuner.evaluate import Evaluator
from keepwarm.tuner.figures import Figures
from keepwarm.tuner.hybrid import hybrid_histogram
from keepwarm.tuner.plan import KnobEffect, Point, Row
from keepwarm.tuner.prices import DAY_S
from keepwarm.tuner.search import Found
from keepwarm.tuner.setting import Setting
from keepwarm.tuner.space import FIXED_WINDOWS_S, Space

if TYPE_CHECKING:
    from keepwarm.tuner.tune import Stage

KNOB_VALUES = 6
COST_MATTERS = 0.01
EXPOSURE_MATTERS = 0.001
FIXED = "best fixed window"
HINDSIGHT = "best fixed window in hindsight"
LOADED = "same, on the recommended loads"


def rows(
    stage: "Stage", space: Space, found: Found, chosen: Setting | None
) -> tuple[list[Row], list[Point]]:
    """Everything compared, and the fixed windows as points."""
    table: list[Row] = []
    if chosen is not None:
        table.append(stage.row("recommended", "what the patch sets", chosen))
    table.append(stage.row("current", "the manifest as it is", space.current))
    knee = found.settings[found.knee].final
    if knee != chosen:
        table.append(stage.row("knee", "where the front bends: the most for its money", knee))
    fixed = fixed_windows(space.base)
    fixed_points = list(points(stage, fixed))
    table += _best_fixed(stage, fixed, fixed_points, chosen)
    if chosen is not None:
        loaded = fixed_windows(_loads_of(chosen))
        loaded_points = list(points(stage, loaded))
        if loaded != fixed:
            table += _in_hindsight(
                stage,
                loaded,
                loaded_points,
                chosen,
                name=LOADED,
                more="; on the recommended loads",
            )
            fixed_points += loaded_points
    floor = max(1, space.current.policy.min_scale)
    always = space.current.with_knobs(min_scale=floor)
    table.append(stage.row("always-on", f"min-scale {floor}", always))
    hybrid = _hybrid(stage)
    table.append(hybrid)
    return table, fixed_points


def fixed_windows(base: Setting) -> list[Setting]:
    """One stable window all week, everything else as it is."""
    return [base.with_knobs(stable_window_s=w) for w in FIXED_WINDOWS_S]


def _loads_of(chosen: Setting) -> Setting:
    """The recommended targets and limits without what else keeps pods."""
    return replace(chosen, week=None, sleep_after_s=None).with_knobs(
        pod_retention_s=0.0, scale_down_delay_s=0, activation_scale=0, min_scale=0
    )


def points(stage: "Stage", settings: Sequence[Setting]) -> Iterator[Point]:
    """Where settings lie on the training and on the held-out days."""
    length = np.diff(stage.whole.edges_s)
    for setting, score in zip(settings, stage.on_all.scores(settings), strict=True):
        train, held = score.part(stage.train), score.part(stage.held)
        yield Point(
            setting,
            train_cost=float(train.cost.sum() / length[stage.train].sum()) * DAY_S,
            train_exposure=train.exposure,
            cost=float(held.cost.sum() / length[stage.held].sum()) * DAY_S,
            exposure=held.exposure,
        )


def _best_fixed(
    stage: "Stage", fixed: Sequence[Setting], at: Sequence[Point], chosen: Setting | None
) -> list[Row]:
    """The window one would have set on the training days, and the one to wish for afterwards."""
    found: list[Row] = []
    terms, weights = stage.rules.terms, choose.resamples(stage.train.stop, stage.seed)
    scores = [score.part(stage.train) for score in stage.on_all.scores(fixed)]
    kept = [
        row
        for row, score in enumerate(scores)
        if score.meets(terms) and choose.confidence(score, terms, weights) >= stage.need
    ]
    if kept:
        best = min(
            kept,
            key=lambda row: (round(at[row].train_cost, 4), -fixed[row].policy.stable_window_s),
        )
        found.append(
            stage.row(
                FIXED,
                "today's manifest with one other window, chosen on the training days by the"
                " same rule",
                fixed[best],
            )
        )
    if chosen is not None:
        found += _in_hindsight(stage, fixed, at, chosen, name=HINDSIGHT, more="")
    return found


def _in_hindsight(
    stage: "Stage",
    fixed: Sequence[Setting],
    at: Sequence[Point],
    chosen: Setting,
    *,
    name: str,
    more: str,
) -> list[Row]:
    """The cheapest that exposes no more than the chosen one did, picked on the held-out days."""
    (reached,) = points(stage, [chosen])
    as_good = [row for row, p in enumerate(at) if p.exposure <= reached.exposure + 1e-12]
    if not as_good:
        return []
    best = min(as_good, key=lambda row: at[row].cost)
    note = (
        "the cheapest with no more cold requests than the recommended, picked on the held-out"
        f" days themselves{more}"
    )
    return [stage.row(name, note, fixed[best])]


def _hybrid(stage: "Stage") -> Row:
    """Serverless in the Wild's policy, learning over the whole trace."""
    assert stage.bounds
    train, held = stage.bounds
    got = hybrid_histogram(stage.whole, stage.rules.prices)
    counted = stage.whole.block_of[stage.whole.counted]
    requests = np.bincount(counted, minlength=stage.whole.blocks).astype(np.float64)
    length = np.diff(stage.whole.edges_s)

    def part(blocks: slice, least: float) -> Figures:
        weights = choose.resamples(len(length[blocks]), stage.seed)
        cost = choose.Interval.of_share(got.cost[blocks], length[blocks], weights)
        days = float(length[blocks].sum()) / DAY_S
        total, count = float(got.cost[blocks].sum()), float(requests[blocks].sum())
        return Figures(
            requests=round(count),
            cost=choose.Interval(cost.value * DAY_S, cost.low * DAY_S, cost.high * DAY_S),
            exposure=choose.Interval.of_share(got.cold[blocks], requests[blocks], weights),
            per_1k_requests=total / count * 1e3 if count else 0.0,
            per_rps=total / count * DAY_S if count else 0.0,
            queued=0.0,
            failed=0.0,
            woken=0.0,
            terms={},
            meets=False,
            confidence=0.0,
            bill=None,
            bound=least / days,
            regret=total / least - 1 if least else None,
        )

    ruled = (
        f"; {got.beyond_ruled:,} of its {got.decisions:,} decisions were ARIMA's, which is not here"
        if got.beyond_ruled
        else ""
    )
    return Row(
        "hybrid histogram",
        f"Serverless in the Wild (ATC'20), one pod that takes any load{ruled}",
        None,
        part(stage.train, train.cost(float(got.cold[stage.train].sum()))),
        part(stage.held, held.cost(float(got.cold[stage.held].sum()))),
    )


def knob_effects(on_training: Evaluator, space: Space, chosen: Setting) -> list[KnobEffect]:
    """Each knob over its range, the others as chosen."""
    trials: dict[str, list[Setting]] = {}
    for name, values in space.knobs.items():
        numbers = [v for v in values if isinstance(v, int | float)]
        keep = np.linspace(0, len(numbers) - 1, min(KNOB_VALUES, len(numbers))).round().astype(int)
        settings = [chosen.with_knobs(**{name: numbers[i]}) for i in keep]
        limit = chosen.policy.container_concurrency
        trials[name] = [
            s
            for s in settings
            if name not in {"target", "container_concurrency"}
            or not limit
            or s.policy.target <= (s.policy.container_concurrency or 10**9)
        ]
    trials["week"] = [replace(chosen, week=None, folds=())]
    if space.sleeps:
        trials["sleep_after_s"] = [replace(chosen, sleep_after_s=s) for s in (None, 30.0, 300.0)]
    (base,) = on_training.scores([chosen])
    day = DAY_S / on_training.workload.block_s
    found = []
    for name, settings in trials.items():
        scores = [base, *on_training.scores(settings)]
        cost = [s.cost_per_block * day for s in scores]
        exposure = [s.exposure for s in scores]
        if all(s == chosen for s in settings):
            continue
        found.append(
            KnobEffect(
                knob=name,
                tried=tuple(_value(s, name) for s in settings),
                cost_low=min(cost),
                cost_high=max(cost),
                exposure_low=min(exposure),
                exposure_high=max(exposure),
                matters=max(cost) - min(cost) > COST_MATTERS * cost[0]
                or max(exposure) - min(exposure) > EXPOSURE_MATTERS,
            )
        )
    return found


def _value(setting: Setting, name: str) -> str:
    if name == "week":
        return "a schedule" if setting.week else "none"
    value = getattr(setting, name) if name == "sleep_after_s" else getattr(setting.policy, name)
    return "never" if value is None else f"{value:g}"
