"""What a tuning comes to: the recommendation, what it was held against, and how sure it is.

Plain values, so that the terminal, the page, the patch and next week's back-test read the same.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from keepwarm.kpa.model import Policy
from keepwarm.tuner.figures import Figures
from keepwarm.tuner.setting import Setting
from keepwarm.tuner.week import Week

KNOBS = {
    "stable_window_s": "stable window",
    "pod_retention_s": "pod retention",
    "scale_down_delay_s": "scale-down delay",
    "target": "target",
    "container_concurrency": "containerConcurrency",
    "target_burst_capacity": "target burst capacity",
    "activation_scale": "activation scale",
    "initial_scale": "initial scale",
    "min_scale": "min scale",
    "week": "weekly schedule",
    "sleep_after_s": "sleep after",
}
POLICY_KNOBS = tuple(name for name in KNOBS if name in Policy.__dataclass_fields__)


@dataclass(frozen=True)
class Row:
    """One policy among those compared; `train` and `held` are of the training and held-out days."""

    name: str
    note: str
    setting: Setting | None  # None: no setting of Knative does this
    train: Figures | None
    held: Figures | None


@dataclass(frozen=True)
class Point:
    """A setting on the front: cost a day and exposure, on the held-out days."""

    setting: Setting
    train_cost: float
    train_exposure: float
    cost: float
    exposure: float


@dataclass(frozen=True)
class Scenario:
    """What the recommendation does when the world is another."""

    name: str
    recommended: Figures
    current: Figures


@dataclass(frozen=True)
class KnobEffect:
    """One knob moved over its whole range, the rest as recommended; on the training days."""

    knob: str
    tried: tuple[str, ...]
    cost_low: float  # a day
    cost_high: float
    exposure_low: float
    exposure_high: float
    matters: bool


@dataclass(frozen=True)
class Plan:
    """All of it. `recommended` is None when no setting keeps the SLO."""

    facts: dict[str, Any]  # the trace, prices and measurements, as told
    terms: tuple[str, ...]
    rows: tuple[Row, ...]
    recommended: Setting | None
    reason: str
    front: tuple[Point, ...]
    fixed: tuple[Point, ...]  # single fixed windows
    bound_curve: tuple[tuple[float, float], ...]  # (exposure, cost a day)
    scenarios: tuple[Scenario, ...]
    knobs: tuple[KnobEffect, ...]
    warnings: tuple[str, ...]
    searched: int
    replicas: Mapping[str, Any] = field(default_factory=dict)  # by hour of the held-out week

    def row(self, name: str) -> Row | None:
        return next((row for row in self.rows if row.name == name), None)


def setting_json(setting: Setting) -> dict[str, Any]:
    """The knobs by name; the week as 168 numbers."""
    policy = {name: getattr(setting.policy, name) for name in Policy.__dataclass_fields__}
    del policy["schedule"]
    week = None if setting.week is None else list(setting.week.replicas)
    return {"policy": policy, "week": week, "sleep_after_s": setting.sleep_after_s}


def setting_of(value: Mapping[str, Any]) -> Setting:
    """The setting that `setting_json` wrote."""
    week = value.get("week")
    return Setting(
        Policy(**value["policy"]),
        None if week is None else Week(tuple(week)),
        value.get("sleep_after_s"),
    )


def as_json(plan: Plan) -> dict[str, Any]:
    """Everything, as JSON takes it."""

    def figures(found: Figures | None) -> dict[str, Any] | None:
        return None if found is None else found.as_json()

    def point(p: Point) -> dict[str, Any]:
        return {
            "setting": setting_json(p.setting),
            "train": {"cost_per_day": p.train_cost, "exposure": p.train_exposure},
            "held_out": {"cost_per_day": p.cost, "exposure": p.exposure},
        }

    return {
        "version": 1,
        "facts": plan.facts,
        "slo": list(plan.terms),
        "recommended": plan.recommended and setting_json(plan.recommended),
        "reason": plan.reason,
        "compared": [
            {
                "name": row.name,
                "note": row.note,
                "setting": row.setting and setting_json(row.setting),
                "train": figures(row.train),
                "held_out": figures(row.held),
            }
            for row in plan.rows
        ],
        "front": [point(p) for p in plan.front],
        "fixed_windows": [point(p) for p in plan.fixed],
        "bound": [{"exposure": e, "cost_per_day": c} for e, c in plan.bound_curve],
        "sensitivity": [
            {
                "scenario": s.name,
                "recommended": s.recommended.as_json(),
                "current": s.current.as_json(),
            }
            for s in plan.scenarios
        ],
        "knobs": [vars(k) for k in plan.knobs],
        "warnings": list(plan.warnings),
        "searched": plan.searched,
        "replicas": dict(plan.replicas),
    }
