"""A weekly schedule of min-scale, and how one is made from days that were observed.

A slot is an hour of the week or, pooled, an hour of all working days or of the weekend. Keeping a
slot warm costs the node time that it was without a pod, and saves the cold requests that came then;
slots are taken in the order of what they save for what they cost, so one number, how many, spans
all sensible schedules. A schedule fits the days that it was made of; it is judged on each day as
the other days would have made it.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta, tzinfo
from enum import StrEnum

import numpy as np

from keepwarm.kpa.model import MinScaleSchedule
from keepwarm.traces.trace import Floats, Ints
from keepwarm.tuner.intervals import Intervals
from keepwarm.warmpool.api import DAYS, Day, Window

HOUR_S = 3600.0
HOURS = 168
WEEKEND = (5, 6)
MOST_WINDOWS = 64  # of a WarmPool


class Pooling(StrEnum):
    """Which hours of the week are one slot."""

    EACH_DAY = "each day"
    WORKING_DAYS = "working days and weekend"
    ALL_DAYS = "all days"

    def slots(self) -> Ints:
        """The slot of each hour of the week, [168]."""
        hour = np.arange(HOURS)
        match self:
            case Pooling.EACH_DAY:
                return hour
            case Pooling.WORKING_DAYS:
                return hour % 24 + 24 * np.isin(hour // 24, WEEKEND)
            case _:
                return hour % 24


@dataclass(frozen=True)
class Week:
    """min-scale for each hour of the week, Monday 0 h first, in a time zone's wall clock. [168]."""

    replicas: tuple[int, ...]

    @property
    def hours(self) -> int:
        return sum(n > 0 for n in self.replicas)

    def windows(self) -> list[Window]:
        """The same as a WarmPool's windows; days with the same hours share one."""
        days: dict[tuple[int, int, int], list[Day]] = defaultdict(list)
        for number, day in enumerate(DAYS):
            for run in _runs(self.replicas[number * 24 : number * 24 + 24]):
                days[run].append(day)
        return [
            Window(
                name=f"{'-'.join(_short(named)).lower()}-{begin:02d}",
                replicas=replicas,
                days=tuple(named),
                start=f"{begin:02d}:00",
                end=f"{end:02d}:00",
            )
            for (begin, end, replicas), named in sorted(
                days.items(), key=lambda item: (DAYS.index(item[1][0]), item[0])
            )
        ]


def schedule(
    weeks: Sequence[Week],
    begins: datetime,
    zone: tzinfo,
    end_s: float,
    *,
    block_s: float,
    lead_s: float,
    floor: int,
) -> MinScaleSchedule:
    """Every step up to `end_s` as the warm pool makes it, `lead_s` before each rise.

    One week rules all blocks; several rule a block each. Steps are listed one by one rather than
    by period, so a change of the clock falls where it fell.
    """
    t, label = hours_of_trace(begins, zone, end_s)
    plans = np.asarray([week.replicas for week in weeks])
    block = np.minimum((t / block_s).astype(np.int64), len(weeks) - 1)
    replicas = plans[block, label]
    changes: dict[float, int] = defaultdict(int)
    for level in range(floor + 1, int(replicas.max(initial=0)) + 1):
        warm = Intervals.where(t, replicas >= level, end_s)
        early = Intervals.union(np.maximum(warm.begin_s - lead_s, 0.0), warm.end_s)
        for at in early.begin_s.tolist():
            changes[at] += 1
        for at in early.end_s.tolist():
            changes[at] -= 1
    scale, steps = floor, []
    for at in sorted(changes):
        scale += changes[at]
        if at < end_s:
            steps.append((at, scale))
    return MinScaleSchedule(tuple(steps), period_s=end_s + HOUR_S)


def hours_of_trace(begins: datetime, zone: tzinfo, end_s: float) -> tuple[Floats, Ints]:
    """When each hour of the wall clock begins (the first at 0), and which of the week's it is."""
    local = begins.astimezone(zone)
    into = local.minute * 60 + local.second + local.microsecond / 1e6
    begin = np.arange(-into, end_s, HOUR_S)
    label = np.empty(len(begin), np.int64)
    for number, at in enumerate(begin.tolist()):
        moment = (begins + timedelta(seconds=at)).astimezone(zone)
        label[number] = moment.weekday() * 24 + moment.hour
    return np.maximum(begin, 0.0), label


def _runs(day: tuple[int, ...]) -> Iterator[tuple[int, int, int]]:
    """(first hour, hour after the last, replicas) of each stretch above 0."""
    begin = 0
    for hour in range(1, 25):
        if hour == 24 or day[hour] != day[begin]:
            if day[begin]:
                yield begin, hour, day[begin]
            begin = hour


def _short(days: list[Day]) -> list[str]:
    """`Mon` to `Fri` when they follow each other, else each."""
    numbers = [DAYS.index(day) for day in days]
    if len(days) > 2 and numbers == list(range(numbers[0], numbers[-1] + 1)):
        return [days[0], days[-1]]
    return list(days)


@dataclass(frozen=True)
class Rule:
    """How a week is made of what was observed: the same rule, given fewer days, makes another."""

    pooling: Pooling
    met: float  # share of the cold requests that the hours taken would have met
    closed: bool = False


@dataclass(frozen=True, eq=False)
class Hours:
    """What a policy without a schedule left to be won, by hour of the trace, h of them."""

    label: Ints  # [h] hour of the week
    block: Ints  # [h] the block (day) that it lies in
    cold: Floats  # [h] requests that found no pod
    free_s: Floats  # [h] node time that was not paid for

    def week(self, rule: Rule) -> Week:
        """The week of a rule; no hour at all where no request was cold."""
        slot = rule.pooling.slots()
        size = int(slot.max()) + 1
        cold = np.bincount(slot[self.label], weights=self.cold, minlength=size)
        free = np.bincount(slot[self.label], weights=self.free_s, minlength=size)
        order = np.argsort(-cold / np.maximum(free, 1.0), kind="stable")
        order = order[cold[order] > 0]
        met = np.cumsum(cold[order]) / max(1.0, float(cold.sum()))
        taken = order[: int(np.searchsorted(met, rule.met - 1e-9)) + 1]
        week = Week(tuple(int(n) for n in np.isin(slot, taken)))
        return closed(week) if rule.closed else week

    def folds(self, rule: Rule) -> tuple[Week, ...]:
        """For each block, the week that the rule makes of all the other blocks."""
        blocks = int(self.block.max()) + 1
        return tuple(self._without(block).week(rule) for block in range(blocks))

    def _without(self, block: int) -> "Hours":
        other = self.block != block
        return replace(self, cold=self.cold * other, free_s=self.free_s * other)


def closed(week: Week) -> Week:
    """The same with holes of one hour between warm ones filled: fewer starts, a calmer schedule."""
    on = np.asarray(week.replicas)
    filled = np.maximum(on, np.minimum(np.roll(on, 1), np.roll(on, -1)))
    return Week(tuple(int(n) for n in filled))
