"""When windows are open: clocks that change, leap days, ends of months, any zone and any hour."""

from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from keepwarm.warmpool.api import DAYS, Window
from keepwarm.warmpool.calendar import Interval, instant, occurrences, without

ZONES = (
    "UTC",
    "Europe/Berlin",
    "America/New_York",
    "Asia/Kolkata",
    "Australia/Lord_Howe",  # clocks move by half an hour
    "America/Havana",  # clocks move at midnight
    "Pacific/Apia",
    "Africa/Casablanca",
)
FROM, TO = datetime.fromisoformat("2024-01-01"), datetime.fromisoformat("2028-12-31")
moments = st.datetimes(FROM, TO).map(lambda moment: moment.replace(tzinfo=UTC, microsecond=0))
times = st.tuples(st.integers(0, 23), st.integers(0, 59)).map("{0[0]:02}:{0[1]:02}".format)
zones = st.sampled_from(ZONES)
days = st.none() | st.sets(st.sampled_from(DAYS), min_size=1).map(tuple)


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).astimezone(UTC)


def first(window: Window, zone: str, after: str, count: int = 1) -> list[tuple[datetime, datetime]]:
    start = at(after)
    found = occurrences(window, ZoneInfo(zone), start, start + timedelta(days=1500))
    return [tuple(interval) for interval, _ in zip(found, range(count), strict=False)]


def is_open(window: Window, zone: str, moment: datetime) -> bool:
    near = occurrences(window, ZoneInfo(zone), moment, moment + timedelta(seconds=1))
    return any(start <= moment < end for start, end in near)


@pytest.mark.parametrize(
    ("what", "window", "zone", "after", "start", "end"),
    [
        (
            "an ordinary day",
            {"start": "08:00", "end": "18:00"},
            *("Europe/Berlin", "2026-11-25T00:00:00Z"),
            *("2026-11-25T07:00:00Z", "2026-11-25T17:00:00Z"),
        ),
        (
            "across midnight, open since yesterday",
            {"start": "22:00", "end": "06:00"},
            *("UTC", "2026-11-25T01:00:00Z"),
            *("2026-11-24T22:00:00Z", "2026-11-25T06:00:00Z"),
        ),
        (
            "across midnight on a day that is named by its start",
            {"start": "22:00", "end": "06:00", "days": ["Fri"]},
            *("UTC", "2026-11-25T01:00:00Z"),
            *("2026-11-27T22:00:00Z", "2026-11-28T06:00:00Z"),
        ),
        (
            "from an hour that is skipped: from the gap's end",
            {"start": "02:30", "end": "04:00"},
            *("Europe/Berlin", "2026-03-28T12:00:00Z"),
            *("2026-03-29T01:00:00Z", "2026-03-29T02:00:00Z"),
        ),
        (
            "wholly in an hour that is skipped: the next day",
            {"start": "02:10", "end": "02:50"},
            *("Europe/Berlin", "2026-03-28T12:00:00Z"),
            *("2026-03-30T00:10:00Z", "2026-03-30T00:50:00Z"),
        ),
        (
            "in an hour that comes twice: both passes",
            {"start": "02:00", "end": "02:30"},
            *("Europe/Berlin", "2026-10-24T12:00:00Z"),
            *("2026-10-25T00:00:00Z", "2026-10-25T01:30:00Z"),
        ),
        (
            "over a change of clocks: as long as the wall says",
            {"start": "00:00", "end": "06:00", "days": ["Sun"]},
            *("America/New_York", "2026-10-31T12:00:00Z"),
            *("2026-11-01T04:00:00Z", "2026-11-01T11:00:00Z"),
        ),
        (
            "to 24:00",
            {"start": "18:00", "end": "24:00"},
            *("UTC", "2026-12-31T19:00:00Z"),
            *("2026-12-31T18:00:00Z", "2027-01-01T00:00:00Z"),
        ),
        (
            "its own zone before the object's",
            {"start": "08:00", "end": "09:00", "time_zone": "Asia/Tokyo"},
            *("Europe/Berlin", "2026-06-01T12:00:00Z"),
            *("2026-06-01T23:00:00Z", "2026-06-02T00:00:00Z"),
        ),
        (
            "cron: a leap day, years away",
            {"cron": "0 9 29 2 *", "duration": "1h"},
            *("UTC", "2026-11-25T00:00:00Z"),
            *("2028-02-29T09:00:00Z", "2028-02-29T10:00:00Z"),
        ),
        (
            "cron: the last day of February",
            {"cron": "0 8 L * *", "duration": "12h"},
            *("Europe/Berlin", "2027-02-01T00:00:00Z"),
            *("2027-02-28T07:00:00Z", "2027-02-28T19:00:00Z"),
        ),
        (
            "cron: the 31st skips short months",
            {"cron": "0 0 31 * *", "duration": "24h"},
            *("UTC", "2026-04-01T00:00:00Z"),
            *("2026-05-31T00:00:00Z", "2026-06-01T00:00:00Z"),
        ),
        (
            "cron: open since before",
            {"cron": "0 20 * * 5", "duration": "60h"},
            *("Europe/Berlin", "2026-11-29T12:00:00Z"),
            *("2026-11-27T19:00:00Z", "2026-11-30T07:00:00Z"),
        ),
        (
            "cron: an hour that is skipped, from the gap's end, for its duration",
            {"cron": "30 2 * * *", "duration": "1h"},
            *("Europe/Berlin", "2026-03-29T00:00:00Z"),
            *("2026-03-29T01:00:00Z", "2026-03-29T02:00:00Z"),
        ),
        (
            "cron: an hour that comes twice, once",
            {"cron": "30 2 * * *", "duration": "1h"},
            *("Europe/Berlin", "2026-10-24T12:00:00Z"),
            *("2026-10-25T00:30:00Z", "2026-10-25T01:30:00Z"),
        ),
    ],
)
def test_a_window_is_open(what, window, zone, after, start, end):  # noqa: PLR0917 (a row)
    made = Window.model_validate({"name": "w", "replicas": 1, **window})
    assert first(made, zone, after) == [(at(start), at(end))], what


def test_occurrences_that_touch_are_one():
    every_minute = Window(name="w", replicas=1, cron="* * * * *", duration="1m")
    start = at("2026-11-25T00:00:00Z")
    found = list(
        occurrences(every_minute, ZoneInfo("Europe/Berlin"), start, start + timedelta(hours=3))
    )
    assert len(found) == 1
    assert found[0].end >= start + timedelta(hours=3)


def test_a_cron_line_that_matches_in_2044_is_not_open_before():
    fifth_monday_of_february = Window(name="w", replicas=1, cron="0 0 * 2 MON#5", duration="1h")
    assert first(fifth_monday_of_february, "UTC", "2026-01-01T00:00:00Z") == []


@given(times, times, days, zones, moments)
@example("02:30", "03:30", None, "Europe/Berlin", at("2026-03-29T01:15:00Z"))
@example("01:15", "01:45", None, "America/New_York", at("2026-11-01T06:30:00Z"))
@example("23:30", "00:15", None, "America/Havana", at("2026-11-01T04:45:00Z"))
@example("01:40", "02:10", None, "Australia/Lord_Howe", at("2026-04-04T15:05:00Z"))
def test_a_weekly_window_is_open_whenever_the_wall_clock_is_in_it(start, end, named, zone, moment):
    window = Window(name="w", replicas=1, start=start, end=end, days=named)
    wall = moment.astimezone(ZoneInfo(zone))
    begins, ends = time.fromisoformat(start), time.fromisoformat(end)
    allowed = named or DAYS

    def starts_on(day: date) -> bool:
        return DAYS[day.weekday()] in allowed

    today, yesterday = wall.date(), wall.date() - timedelta(days=1)
    now = wall.time()
    if begins < ends:
        in_it = starts_on(today) and begins <= now < ends
    else:
        in_it = (starts_on(today) and now >= begins) or (starts_on(yesterday) and now < ends)
    if in_it:
        assert is_open(window, zone, moment)
    elif is_open(window, zone, moment):
        # Only between the two passes of an hour that comes twice.
        passes = [
            wall.utcoffset()
            != (wall + timedelta(hours=hours))
            .astimezone(UTC)
            .astimezone(ZoneInfo(zone))
            .utcoffset()
            for hours in range(-3, 4)
        ]
        assert any(passes)


@given(st.datetimes(FROM, TO), zones)
def test_an_instant_never_comes_before_its_wall_clock_time(wall, zone):
    wall = wall.replace(second=0, microsecond=0)
    place = ZoneInfo(zone)
    early, late = instant(wall, place), instant(wall, place, second_pass=True)
    assert early <= late <= early + timedelta(hours=1)
    assert early.astimezone(place).replace(tzinfo=None) >= wall
    # The moment before, clocks had not got there: it is the first one.
    before = (early - timedelta(seconds=1)).astimezone(place).replace(tzinfo=None)
    assert before < wall


@given(
    st.sampled_from(["0 8 * * 1-5", "30 2 * * *", "*/7 * * * *", "0 0 L * *", "15 1 1,15 * *"]),
    st.sampled_from(["1m", "90m", "24h", "168h"]),
    zones,
    moments,
)
def test_a_cron_window_is_found_open_from_its_start_until_its_end(cron, duration, zone, moment):
    window = Window(name="w", replicas=1, cron=cron, duration=duration)
    found = list(occurrences(window, ZoneInfo(zone), moment, moment + timedelta(days=40)))
    assert found == sorted(found)
    for interval in found[:3]:
        for probe in (interval.start, interval.end - timedelta(seconds=1)):
            if probe >= moment:
                assert is_open(window, zone, probe)
        assert not is_open(window, zone, interval.end) or interval is found[-1]


intervals = st.tuples(st.integers(0, 100), st.integers(1, 50)).map(
    lambda pair: Interval(
        at("2026-01-01T00:00:00Z") + timedelta(minutes=pair[0]),
        at("2026-01-01T00:00:00Z") + timedelta(minutes=pair[0] + pair[1]),
    )
)


@given(intervals, st.lists(intervals, max_size=5), st.integers(0, 160))
def test_what_is_left_is_in_the_interval_and_in_no_hole(interval, holes, minute):
    moment = at("2026-01-01T00:00:00Z") + timedelta(minutes=minute)
    left = any(start <= moment < end for start, end in without(interval, holes))
    in_hole = any(start <= moment < end for start, end in holes)
    assert left == (interval.start <= moment < interval.end and not in_hole)
