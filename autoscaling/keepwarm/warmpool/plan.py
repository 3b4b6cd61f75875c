"""The coming days of a WarmPool as a table: replicas by hour of its own clock, and what they cost.

An hour shows the most that is kept in it; sums are exact, leads and ramps included. What traffic
adds above the minimum is the autoscaler's, and not in here.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from typing import Any
from zoneinfo import ZoneInfo

from keepwarm.warmpool import durations
from keepwarm.warmpool.api import Price, Spec
from keepwarm.warmpool.schedule import Change, Schedule

# Offsets of time zones are whole quarters of an hour.
_QUARTER = timedelta(minutes=15)


@dataclass(frozen=True)
class Plan:
    """What a schedule keeps from `start` until `end`."""

    schedule: Schedule
    start: datetime
    end: datetime
    changes: tuple[Change, ...]

    @classmethod
    def of(cls, spec: Spec, lead: timedelta, start: datetime, days: int = 7) -> "Plan":
        """The `days` from `start`; maxReplicas of the InferenceService is not known here."""
        end = start + timedelta(days=days)
        schedule = Schedule(spec, lead)
        return cls(schedule, start, end, tuple(schedule.levels(start, end)))

    @property
    def zone(self) -> ZoneInfo:
        return ZoneInfo(self.schedule.spec.time_zone)

    @property
    def replica_hours(self) -> float:
        return sum((end - start).total_seconds() * n for start, end, n in self._pieces()) / 3600

    @property
    def most(self) -> int:
        return max(change.level.replicas for change in self.changes)

    @property
    def hours(self) -> float:
        return (self.end - self.start).total_seconds() / 3600

    def by_hour(self) -> dict[date, dict[int, int]]:
        """The most replicas in each hour of each day, by the clock of the object's time zone."""
        table: dict[date, dict[int, int]] = {}
        for start, end, replicas in self._pieces():
            moment = start
            while moment < end:
                local = moment.astimezone(self.zone)
                hours = table.setdefault(local.date(), {})
                hours[local.hour] = max(hours.get(local.hour, 0), replicas)
                moment = _floor(moment) + _QUARTER
        return table

    def _pieces(self) -> Iterator[tuple[datetime, datetime, int]]:
        edges = [change.at for change in self.changes] + [self.end]
        for (start, end), change in zip(pairwise(edges), self.changes, strict=True):
            yield start, end, change.level.replicas


def _floor(moment: datetime) -> datetime:
    return moment - (moment - datetime(2000, 1, 1, tzinfo=UTC)) % _QUARTER


def text(plan: Plan, name: str) -> str:
    """The table, its sum, and the changes, for a terminal."""
    spec, zone = plan.schedule.spec, plan.zone
    about = f"{name}: {spec.target.component} of {spec.target.inference_service}"
    lines = [
        f"{about}, {spec.time_zone}, asked for {durations.show(plan.schedule.lead)} ahead",
        "",
        f"{'':11}" + "".join(f"{hour:>4}" for hour in range(24)),
    ]
    for day, hours in sorted(plan.by_hour().items()):
        cells = (str(hours[hour]) if hour in hours else "" for hour in range(24))
        lines.append(f"{day:%a %d %b} " + "".join(f"{_dot(cell):>4}" for cell in cells))
    lines += ["", *_sums(plan), ""]
    for change in plan.changes:
        at = change.at.astimezone(zone)
        lines.append(f"{at:%a %d %b %H:%M}  {change.level.replicas:>4}  {change.level.label}")
    return "\n".join(lines)


def _dot(cell: str) -> str:
    return "." if cell == "0" else cell


def _sums(plan: Plan) -> list[str]:
    kept, always = plan.replica_hours, plan.hours * plan.most
    lines = [f"kept: {kept:.1f} replica-hours{_money(plan.schedule.spec.price, kept)}"]
    if always:
        less = f"{1 - kept / always:.0%} less than always {plan.most}"
        lines.append(f"{less}: {always:.1f}{_money(plan.schedule.spec.price, always)}")
    return lines


def _money(price: Price | None, hours: float) -> str:
    return "" if price is None else f", {hours * price.per_replica_hour:.2f} {price.currency}"


def document(plan: Plan, name: str) -> dict[str, Any]:
    """The same as data."""
    price = plan.schedule.spec.price
    found: dict[str, Any] = {
        "name": name,
        "start": plan.start.isoformat(),
        "end": plan.end.isoformat(),
        "leadSeconds": plan.schedule.lead.total_seconds(),
        "replicaHours": plan.replica_hours,
        "changes": [
            {
                "at": change.at.isoformat(),
                "replicas": change.level.replicas,
                "sources": list(change.level.sources),
            }
            for change in plan.changes
        ],
    }
    if price is not None:
        found["cost"] = plan.replica_hours * price.per_replica_hour
        found["currency"] = price.currency
    return found
