"""Which settings there are: each knob's values, the first grid, and a setting's neighbours."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from keepwarm.traces.trace import Ints
from keepwarm.tuner.setting import Setting
from keepwarm.tuner.week import Week, closed

WINDOWS_S = (
    6,
    10,
    15,
    20,
    30,
    45,
    60,
    90,
    120,
    180,
    240,
    300,
    420,
    600,
    900,
    1200,
    1800,
    2400,
    3000,
    3600,
)
KEEPS_S = (0, 15, 30, 60, 120, 180, 300, 420, 600, 900, 1200, 1800, 2400, 3000, 3600)
DELAYS_S = (0, 10, 30, 60, 120, 300, 600, 1200)
BURSTS = (-1.0, 0.0, 10.0, 50.0, 211.0)
ACTIVATIONS = (0, 2, 3)
INITIALS = (1, 2)
TARGETS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256)
SLEEPS_S = (None, 30.0, 60.0, 120.0, 300.0, 600.0)
FIXED_WINDOWS_S = (
    6,
    15,
    30,
    60,
    120,
    180,
    300,
    450,
    600,
    900,
    1200,
    1500,
    1800,
    2100,
    2400,
    2700,
    3000,
    3300,
    3600,
)

COARSE_WINDOWS_S = (6, 15, 30, 60, 120, 300, 600, 1200, 2400, 3600)
COARSE_KEEPS_S = (0, 120, 300, 600, 1200, 1800, 3600)


WORKING = np.arange(168) // 24 < 5


@dataclass(frozen=True)
class Space:
    """What may be searched. `concurrency`: the most requests in a pod whose times were measured.

    Without a measured slow-down nobody knows what more requests in a pod do to each other, so
    targets above the manifest's own are left alone then.
    """

    current: Setting
    concurrency: int
    sleeps: bool = False
    acceptable: Callable[[int], bool] = lambda _limit: True  # of containerConcurrency

    @property
    def knobs(self) -> dict[str, tuple[object, ...]]:
        """Every knob's values, by the name of the policy's field."""
        policy = self.current.policy
        most = policy.max_scale or 10**6
        return {
            "stable_window_s": WINDOWS_S,
            "pod_retention_s": tuple(float(k) for k in KEEPS_S),
            "scale_down_delay_s": DELAYS_S,
            "target": self.targets,
            "container_concurrency": self.limits,
            "target_burst_capacity": BURSTS,
            "activation_scale": tuple(a for a in ACTIVATIONS if a <= most),
            "initial_scale": tuple(i for i in INITIALS if i <= most),
        }

    @property
    def targets(self) -> tuple[float, ...]:
        if self.current.policy.metric != "concurrency":
            return (self.current.policy.target,)
        found = {float(t) for t in TARGETS if t <= self.concurrency}
        return tuple(sorted(found | {self.current.policy.target}))

    @cached_property
    def limits(self) -> tuple[int, ...]:
        own = self.current.policy.container_concurrency
        found = {t for t in TARGETS if 4 <= t <= self.concurrency and self.acceptable(t)} | {own}
        if not self.current.policy.container_concurrency:
            found.add(0)
        return tuple(sorted(found))

    def coarse(self) -> list[Setting]:
        """Today's setting, then windows against retentions, the rest as today."""
        return list(dict.fromkeys([self.current, self.base, *self.grid(self.base)]))

    def grid(self, setting: Setting) -> list[Setting]:
        """Windows against retentions on a setting's loads, without a schedule."""
        base = replace(setting, week=None, folds=())
        # A long window makes the same of a retention as a short one, for more pods.
        return [
            base.with_knobs(stable_window_s=window, pod_retention_s=float(keep))
            for window in COARSE_WINDOWS_S
            for keep in COARSE_KEEPS_S
            if window <= 60 or not keep or window + keep > 3600
        ]

    @property
    def base(self) -> Setting:
        """Today's setting, free to go to zero."""
        return self.current.with_knobs(min_scale=0)

    def loads(self, setting: Setting) -> Iterator[Setting]:
        """Other targets, limits and burst capacities for a setting."""
        own = self.current.policy.container_concurrency
        for target in self.targets:
            for limit in dict.fromkeys((own, max(self.limits))):
                if limit and target > limit:
                    continue
                for burst in (-1.0, setting.policy.target_burst_capacity):
                    yield setting.with_knobs(
                        target=target, container_concurrency=limit, target_burst_capacity=burst
                    )

    def neighbours(self, setting: Setting) -> Iterator[Setting]:
        """One knob one step up or down; hours of the week added or taken at the ends of a run."""
        for name, values in self.knobs.items():
            at = getattr(setting.policy, name)
            ranks = [v for v in values if isinstance(v, int | float)]
            below = [v for v in ranks if v < at]
            above = [v for v in ranks if v > at]
            for value in (below[-1:], above[:1]):
                if value and self._sound(setting, name, value[0]):
                    yield setting.with_knobs(**{name: value[0]})
        yield from _other_weeks(setting)
        if self.sleeps:
            for after in SLEEPS_S:
                if after != setting.sleep_after_s:
                    yield replace(setting, sleep_after_s=after)

    def _sound(self, setting: Setting, name: str, value: float) -> bool:
        policy = setting.with_knobs(**{name: value}).policy
        limit = policy.container_concurrency
        most = policy.max_scale
        return not (
            (limit and policy.metric == "concurrency" and policy.target > limit)
            or (most and policy.activation_scale > most)
        )


def _other_weeks(setting: Setting) -> Iterator[Setting]:
    """The same change for the week and for its folds."""
    week = setting.week
    if week is None:
        return
    yield replace(setting, week=None, folds=())
    for change in (_earlier, _longer, _later, _shorter, closed, _working_days, _weekends):
        changed = change(week)
        if changed.hours and changed != week:
            yield replace(setting, week=changed, folds=tuple(map(change, setting.folds)))


def _earlier(week: Week) -> Week:
    """Every run begins an hour earlier."""
    on = np.asarray(week.replicas)
    return _week(np.maximum(on, np.roll(on, -1)))


def _longer(week: Week) -> Week:
    on = np.asarray(week.replicas)
    return _week(np.maximum(on, np.roll(on, 1)))


def _later(week: Week) -> Week:
    on = np.asarray(week.replicas)
    return _week(np.minimum(on, np.roll(on, 1)))


def _shorter(week: Week) -> Week:
    on = np.asarray(week.replicas)
    return _week(np.minimum(on, np.roll(on, -1)))


def _working_days(week: Week) -> Week:
    return _week(np.where(WORKING, np.asarray(week.replicas), 0))


def _weekends(week: Week) -> Week:
    return _week(np.where(WORKING, 0, np.asarray(week.replicas)))


def _week(replicas: Ints) -> Week:
    return Week(tuple(int(n) for n in replicas))
