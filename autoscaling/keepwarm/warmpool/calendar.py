"""When a window is open, in UTC, whatever its time zone's clocks do.

A weekly window covers every moment whose wall-clock time lies in it: both passes of an hour that
comes twice, and from the end of the gap when its start is skipped. A cron window starts as Debian's
cron would start a job and lasts its duration in real time.
"""

from collections.abc import Iterator
from datetime import UTC, datetime, time, timedelta
from itertools import chain, islice, takewhile
from typing import NamedTuple
from zoneinfo import ZoneInfo

from cronsim import CronSim

from keepwarm.warmpool.api import DAYS, Window

_DAY = timedelta(days=1)
_MINUTE = timedelta(minutes=1)
_SECOND = timedelta(seconds=1)


class Interval(NamedTuple):
    """From `start` until before `end`, both in UTC."""

    start: datetime
    end: datetime


def instant(wall: datetime, zone: ZoneInfo, *, second_pass: bool = False) -> datetime:
    """The moment, in UTC, at which clocks in `zone` read `wall` (without a zone).

    Of a time that comes twice, the first or the `second_pass`; of one that is skipped, the end of
    the gap, at which clocks first read something later.
    """
    while True:
        moment = wall.replace(tzinfo=zone, fold=second_pass).astimezone(UTC)
        if moment.astimezone(zone).replace(tzinfo=None, fold=0) == wall:
            return moment
        # Gaps end on whole minutes, and are an hour long almost everywhere.
        wall += _MINUTE


def occurrences(
    window: Window, zone: ZoneInfo, after: datetime, before: datetime
) -> Iterator[Interval]:
    """The intervals of `window` that end after `after` and start before `before`, in order.

    Those that touch are one; `zone` is the object's, a window may have its own.
    """
    if window.time_zone is not None:
        zone = ZoneInfo(window.time_zone)
    found = _cron(window, zone, after) if window.cron else _weekly(window, zone, after)
    near = takewhile(lambda interval: interval.start < before, found)
    return _merged(interval for interval in near if interval.end > after)


def _weekly(window: Window, zone: ZoneInfo, after: datetime) -> Iterator[Interval]:
    assert window.start is not None
    assert window.end is not None
    start = time.fromisoformat(window.start)
    # 24:00 is the next day's midnight; an end that is not after the start is the next day's, too.
    midnight = window.end == "24:00"
    end = time() if midnight else time.fromisoformat(window.end)
    overnight = timedelta(days=midnight or end <= start)
    days = {DAYS.index(day) for day in window.days or DAYS}
    day = after.astimezone(zone).date() - 2 * _DAY
    while True:
        if day.weekday() in days:
            interval = Interval(
                instant(datetime.combine(day, start), zone),
                instant(datetime.combine(day + overnight, end), zone, second_pass=True),
            )
            # Both in one gap: no clock reads a time in the window on this day.
            if interval.start < interval.end:
                yield interval
        day += _DAY


def _cron(window: Window, zone: ZoneInfo, after: datetime) -> Iterator[Interval]:
    assert window.cron is not None
    assert window.duration is not None
    local = after.astimezone(zone)
    # Of all that started until now, the latest is open for longest.
    started = islice(CronSim(window.cron, local + _SECOND, reverse=True), 1)
    for start in chain(started, CronSim(window.cron, local)):
        began = start.astimezone(UTC)
        yield Interval(began, began + window.duration)


def _merged(intervals: Iterator[Interval]) -> Iterator[Interval]:
    held = next(intervals, None)
    while held is not None:
        following = next(intervals, None)
        if following is None or following.start > held.end:
            yield held
            held = following
        else:
            held = Interval(held.start, max(held.end, following.end))


def without(interval: Interval, holes: list[Interval]) -> Iterator[Interval]:
    """What is left of `interval` outside of `holes`, which may overlap."""
    start = interval.start
    for hole in sorted(holes):
        if hole.end <= start:
            continue
        if hole.start >= interval.end:
            break
        if hole.start > start:
            yield Interval(start, hole.start)
        start = hole.end
    if start < interval.end:
        yield Interval(start, interval.end)
