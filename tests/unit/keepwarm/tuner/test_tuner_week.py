"""Weekly schedules: hours become windows and steps, and are made of what training days showed."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from keepwarm.tuner.week import Hours, Pooling, Rule, Week, closed, hours_of_trace, schedule

MONDAY = datetime(2026, 1, 5, tzinfo=UTC)
DAY_S = 86_400.0


def office(replicas=1):
    return Week(tuple(replicas * (d < 5 and 9 <= h < 17) for d in range(7) for h in range(24)))


def steps(week, begins, zone, end_s, *, lead_s=0.0, floor=0):
    return schedule((week,), begins, zone, end_s, block_s=DAY_S, lead_s=lead_s, floor=floor)


def at(found, seconds, floor=0):
    return found.at(round(seconds * 1e6), floor)


def hours_with(label, cold, free_s=3600.0):
    """One elapsed hour for each label, 24 to a block."""
    size = len(label)
    return Hours(
        np.asarray(label),
        np.arange(size) // 24,
        np.asarray(cold, float),
        np.broadcast_to(np.asarray(free_s, float), size),
    )


def test_days_with_the_same_hours_share_a_window():
    (window,) = office().windows()
    assert (window.days, window.start, window.end) == (
        ("Mon", "Tue", "Wed", "Thu", "Fri"),
        "09:00",
        "17:00",
    )
    assert window.name == "mon-fri-09"


def test_a_warm_night_is_cut_at_midnight_but_never_interrupted():
    week = Week(tuple(int(h in {23, 24, 25}) for h in range(168)))
    first, second = week.windows()
    assert (first.days, first.start, first.end) == (("Mon",), "23:00", "24:00")
    assert (second.days, second.start, second.end) == (("Tue",), "00:00", "02:00")
    found = steps(week, MONDAY, UTC, 7 * DAY_S, lead_s=60)
    assert [scale for _, scale in found.steps] == [1, 0]


@given(
    st.lists(st.integers(0, 2), min_size=168, max_size=168),
    st.sampled_from([0.0, 45.0, 1800.0]),
    st.integers(0, 1),
    st.sampled_from(["UTC", "Europe/Berlin", "Asia/Kolkata"]),
)
def test_steps_keep_every_hour_of_the_plan_and_its_lead(replicas, lead_s, floor, zone_name):
    week, zone = Week(tuple(replicas)), ZoneInfo(zone_name)
    # Over the end of summer time.
    begins = datetime(2026, 10, 22, 13, 20, tzinfo=UTC)
    end_s = 6 * DAY_S
    found = steps(week, begins, zone, end_s, lead_s=lead_s, floor=floor)

    def wanted(seconds):
        if seconds >= end_s:
            return floor
        local = (begins + timedelta(seconds=seconds)).astimezone(zone)
        return max(floor, replicas[local.weekday() * 24 + local.hour])

    for seconds in np.arange(30, end_s, 2711):
        most = max(wanted(float(s)) for s in np.linspace(seconds, seconds + lead_s, 8))
        assert at(found, seconds, floor) >= wanted(seconds)
        assert at(found, seconds, floor) <= max(most, wanted(seconds + lead_s))


def test_hours_are_taken_by_what_they_save_for_what_they_cost():
    # Two weeks; nine o'clock on Mondays is cold often, three in the morning seldom and dear.
    label = np.tile(np.arange(168), 2)
    cold = np.where(label == 9, 8, 0) + np.where(label == 27, 1, 0)
    hours = hours_with(label, cold, np.where(label == 9, 600.0, 3600.0))
    few, all_of_them = (hours.week(Rule(Pooling.EACH_DAY, met)) for met in (0.5, 1.0))
    assert [h for h, n in enumerate(few.replicas) if n] == [9]
    assert [h for h, n in enumerate(all_of_them.replicas) if n] == [9, 27]


def test_pooled_hours_learn_from_all_working_days():
    label = np.arange(168)
    hours = hours_with(label, np.where((label == 10) | (label == 58), 3, 0))
    week = hours.week(Rule(Pooling.WORKING_DAYS, 1.0))
    assert week.replicas == tuple(int(h // 24 < 5 and h % 24 == 10) for h in range(168))


def test_a_day_is_judged_by_what_the_other_days_taught():
    label = np.arange(168)
    # Every working day is cold at nine; Wednesday alone also at three in the morning.
    cold = np.where((label % 24 == 9) & (label // 24 < 5), 4, 0) + np.where(label == 51, 9, 0)
    hours = hours_with(label, cold)
    rule = Rule(Pooling.WORKING_DAYS, 1.0)
    assert {h % 24 for h, n in enumerate(hours.week(rule).replicas) if n} == {3, 9}
    folds = hours.folds(rule)
    assert len(folds) == 7
    assert {h % 24 for h, n in enumerate(folds[2].replicas) if n} == {9}
    found = schedule(folds, MONDAY, UTC, 7 * DAY_S, block_s=DAY_S, lead_s=0, floor=0)
    assert at(found, 2 * DAY_S + 9.5 * 3600) == 1
    assert at(found, 2 * DAY_S + 3.5 * 3600) == 0
    assert at(found, 3 * DAY_S + 3.5 * 3600) == 1


def test_where_no_request_was_cold_no_hour_is_kept_warm():
    hours = hours_with(np.arange(168), np.zeros(168))
    assert hours.week(Rule(Pooling.EACH_DAY, 1.0)).hours == 0


def test_hours_are_those_of_the_wall_clock():
    begins = datetime(2026, 1, 5, 22, 20, tzinfo=UTC)
    begin, label = hours_of_trace(begins, ZoneInfo("Asia/Kolkata"), 2.5 * 3600)
    # 22:20 in UTC is ten to four on Tuesday there.
    assert begin.tolist() == [0, 600, 4200, 7800]
    assert label.tolist() == [27, 28, 29, 30]


def test_holes_of_one_hour_are_closed():
    week = Week(tuple(int(h in {9, 11, 14}) for h in range(168)))
    assert [h for h, n in enumerate(closed(week).replicas) if n] == [9, 10, 11, 14]


@pytest.mark.parametrize("floor", [0, 2])
def test_a_schedule_never_goes_below_the_floor(floor):
    found = steps(office(), MONDAY, UTC, 7 * DAY_S, floor=floor)
    assert min([scale for _, scale in found.steps], default=floor) >= floor
