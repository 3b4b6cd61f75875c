"""What a WarmPool asks for at every moment: the largest of its claims, within its ceilings.

Every source (floor, windows, one-off windows, forecast, wake) becomes claims: intervals that ask
for replicas. Lead and ramp are claims of their own around a window. Overlaps take the maximum.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import IntEnum
from itertools import pairwise
from zoneinfo import ZoneInfo

from keepwarm.warmpool.api import Forecast, Knobs, Once, Spec, Window
from keepwarm.warmpool.calendar import Interval, occurrences, without

# How far ahead a change is looked for, nearest first: most schedules change within a day. What
# comes every week is seen within one; cron lines and one-off windows may be far away.
WEEK = (timedelta(hours=2), timedelta(hours=26), timedelta(days=8))
YEAR = timedelta(days=400)
FEW = 50
FOREVER = datetime.max.replace(tzinfo=UTC)
_LONG_AGO = datetime.min.replace(tzinfo=UTC)
_DAY = timedelta(days=1)
FLOOR = "floor"
FORECAST = "forecast"
WAKE = "wake"


class Phase(IntEnum):
    """Why a window's claim is there before, in or after the window."""

    RAMP = 0
    LEAD = 1
    OPEN = 2


@dataclass(frozen=True, slots=True)
class Claim:
    """`replicas` from `start` until before `end`, for `source`."""

    start: datetime
    end: datetime
    replicas: int
    source: str
    phase: Phase = Phase.OPEN
    knobs: Knobs | None = None

    @property
    def label(self) -> str:
        """The source and, outside of the window itself, what for."""
        return (
            self.source
            if self.phase is Phase.OPEN
            else f"{self.source} ({self.phase.name.lower()})"
        )


@dataclass(frozen=True, slots=True)
class Wake:
    """Replicas that somebody asked for, until a moment."""

    replicas: int
    until: datetime


@dataclass(frozen=True, slots=True)
class Level:
    """What is asked for at one moment: replicas, the sources that decide, live knobs."""

    replicas: int
    sources: tuple[str, ...]
    knobs: Knobs | None = None

    @property
    def label(self) -> str:
        return ", ".join(self.sources)


@dataclass(frozen=True, slots=True)
class Change:
    """The moment at which another level begins."""

    at: datetime
    level: Level


@dataclass(frozen=True)
class Schedule:
    """A spec with what is known only at run time: the lead, a wake, the service's own maximum."""

    spec: Spec
    lead: timedelta
    wake: Wake | None = None
    most: int | None = None

    def at(self, moment: datetime) -> Level:
        """The level at `moment`."""
        return self._level(
            claim for claim in self._claims(moment, moment) if claim.start <= moment < claim.end
        )

    def levels(self, start: datetime, end: datetime) -> Iterator[Change]:
        """The level at `start` and every change of it before `end`, in order."""
        claims = self._claims(start, end)
        edges = {start, *(edge for claim in claims for edge in (claim.start, claim.end))}
        waiting = sorted(claims, key=lambda claim: claim.start, reverse=True)
        open_now: list[Claim] = []
        last: Level | None = None
        for moment in sorted(edge for edge in edges if start <= edge < end):
            open_now = [claim for claim in open_now if claim.end > moment]
            while waiting and waiting[-1].start <= moment:
                if (claim := waiting.pop()).end > moment:
                    open_now.append(claim)
            level = self._level(open_now)
            if level != last:
                yield Change(moment, level)
                last = level

    def next_changes(self, moment: datetime) -> tuple[Change | None, Change | None]:
        """After `moment`: the next change of anything, and the next change of the replicas.

        None where nothing changes within 8 days; within 400 where a cron line or a one-off window
        might, and the windows are few enough to look so far.
        """
        might = self.spec.once or any(window.cron for window in self.spec.windows)
        far = might and self.spec.changes_a_day <= FEW
        anything: Change | None = None
        for horizon in (*WEEK, YEAR) if far else WEEK:
            for before, change in pairwise(self.levels(moment, moment + horizon)):
                anything = anything or change
                if change.level.replicas != before.level.replicas:
                    return anything, change
        return anything, None

    def _claims(self, start: datetime, end: datetime) -> list[Claim]:
        """All claims that matter between `start` and `end` (inclusive)."""
        spec, zone = self.spec, ZoneInfo(self.spec.time_zone)
        # A claim's lead and ramp reach out of its interval.
        ramp = _ramp_length(spec)
        after = start - (ramp if spec.ramp and spec.ramp.down else timedelta())
        before = end + self.lead + ramp + timedelta(seconds=1)
        holes = [Interval(once.start, once.end) for once in spec.once if once.exclusive]
        claims: list[Claim] = []
        for piece in without(Interval(_LONG_AGO, FOREVER), holes):
            claims += self._with_lead(piece, spec.floor, FLOOR, None)
        for window in spec.windows:
            for interval in occurrences(window, zone, after, before):
                for piece in without(interval, holes):
                    claims += self._with_ramp(piece, window)
        for once in spec.once:
            for near in _near(once, after, before):
                claims += self._with_ramp(near, once)
        for forecast in spec.prewarm.forecast:
            asked = _at_most(forecast.replicas, spec.prewarm.max_replicas)
            for near in _near(forecast, after, before):
                for piece in without(near, holes):
                    claims += self._with_lead(piece, asked, FORECAST, None)
        return [*claims, *self._woken()]

    def _woken(self) -> list[Claim]:
        if self.wake is None:
            return []
        asked = _at_most(self.wake.replicas, self.spec.prewarm.max_replicas)
        return [Claim(_LONG_AGO, self.wake.until, asked, WAKE)]

    def _with_lead(
        self, piece: Interval, replicas: int, source: str, knobs: Knobs | None
    ) -> list[Claim]:
        claims = [Claim(*piece, replicas, source, Phase.OPEN, knobs)]
        if self.lead and replicas and piece.start > _LONG_AGO:
            claims.append(Claim(piece.start - self.lead, piece.start, replicas, source, Phase.LEAD))
        return claims

    def _with_ramp(self, piece: Interval, window: Window | Once) -> list[Claim]:
        claims = self._with_lead(piece, window.replicas, window.name, window.knobs)
        ramp = self.spec.ramp
        if ramp is None:
            return claims
        full = piece.start - self.lead
        for step in range(1, ramp.steps(window.replicas, self.spec.floor) + 1):
            replicas, off = window.replicas - step * ramp.step, step * ramp.interval
            claims.append(Claim(full - off, full, replicas, window.name, Phase.RAMP))
            if ramp.down:
                claims.append(Claim(piece.end, piece.end + off, replicas, window.name, Phase.RAMP))
        return claims

    def _level(self, claims: Iterable[Claim]) -> Level:
        """The largest of `claims` within the ceilings; ties name all, the floor only alone."""
        listed = list(claims)
        capped = {
            claim: _at_most(_at_most(claim.replicas, self.spec.ceiling), self.most)
            for claim in listed
        }
        replicas = max(capped.values(), default=0)
        deciding = [claim for claim in listed if capped[claim] == replicas]
        named = [claim for claim in deciding if claim.source != FLOOR]
        labels = tuple(sorted({claim.label for claim in (named or deciding)}))
        return Level(replicas, labels, self._knobs(listed))

    def _knobs(self, claims: list[Claim]) -> Knobs | None:
        """The object's knobs under those of the open window with most replicas that has some."""
        having = [claim for claim in claims if claim.knobs is not None]
        chosen = max(having, key=lambda claim: claim.replicas, default=None)
        base = self.spec.knobs
        if chosen is None or chosen.knobs is None:
            return base
        if base is None:
            return chosen.knobs
        named = {name: getattr(chosen.knobs, name) for name in chosen.knobs.model_fields_set}
        return base.model_copy(
            update={n: set_to for n, set_to in named.items() if set_to is not None}
        )


def _near(once: Once | Forecast, after: datetime, before: datetime) -> list[Interval]:
    """Its interval as far as it matters, so that no lead or ramp leaves the calendar."""
    if once.end <= after or once.start >= before:
        return []
    start, end = max(once.start, after - 2 * _DAY), min(once.end, before + 2 * _DAY)
    return [Interval(start.astimezone(UTC), end.astimezone(UTC))]


def _at_most(replicas: int, most: int | None) -> int:
    return replicas if most is None else min(replicas, most)


def _ramp_length(spec: Spec) -> timedelta:
    if spec.ramp is None:
        return timedelta()
    asked = [window.replicas for window in spec.windows] + [once.replicas for once in spec.once]
    most = max(asked, default=0)
    return spec.ramp.interval * spec.ramp.steps(most, spec.floor)
