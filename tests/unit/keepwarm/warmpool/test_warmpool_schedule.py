"""What a spec asks for: overlaps, ceilings, lead, ramp, holidays, forecasts, wakes, changes."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keepwarm.warmpool.api import Spec
from keepwarm.warmpool.schedule import Schedule, Wake

LEAD = timedelta(minutes=5)
OFFICE = {"name": "office", "start": "08:00", "end": "18:00", "replicas": 3}


def schedule(lead=LEAD, wake=None, most=None, **spec) -> Schedule:
    return Schedule(Spec.of({"target": {"inferenceService": "chat"}, **spec}), lead, wake, most)


def on(text: str) -> datetime:
    """A time of Wednesday, 2026-11-25, or a whole moment, in UTC."""
    return datetime.fromisoformat(text if "T" in text else f"2026-11-25T{text}").replace(tzinfo=UTC)


def seen(made: Schedule, start="00:00", end="2026-11-26T00:00") -> list[tuple[str, int, str]]:
    return [
        (change.at.strftime("%H:%M"), change.level.replicas, change.level.label)
        for change in made.levels(on(start), on(end))
    ]


def test_a_window_is_asked_for_its_lead_before_it_starts():
    assert seen(schedule(windows=[OFFICE])) == [
        ("00:00", 0, "floor"),
        ("07:55", 3, "office (lead)"),
        ("08:00", 3, "office"),
        ("18:00", 0, "floor"),
    ]


def test_overlaps_take_the_maximum_and_name_who_decides():
    lunch = {"name": "lunch", "start": "12:00", "end": "19:00", "replicas": 5}
    tea = {"name": "tea", "start": "16:00", "end": "17:00", "replicas": 5}
    assert seen(schedule(timedelta(), floor=1, windows=[OFFICE, lunch, tea])) == [
        ("00:00", 1, "floor"),
        ("08:00", 3, "office"),
        ("12:00", 5, "lunch"),
        ("16:00", 5, "lunch, tea"),
        ("17:00", 5, "lunch"),
        ("19:00", 1, "floor"),
    ]


@pytest.mark.parametrize(("ceiling", "most"), [(2, None), (None, 2), (2, 9), (9, 2)])
def test_no_source_exceeds_the_ceiling_or_the_services_maximum(ceiling, most):
    wake = Wake(8, on("09:30"))
    made = schedule(wake=wake, most=most, ceiling=ceiling, windows=[OFFICE])
    assert max(change.level.replicas for change in made.levels(on("00:00"), on("23:00"))) == 2


def test_a_ramp_steps_up_to_the_lead_and_down_after_the_window():
    made = schedule(windows=[OFFICE], ramp={"step": 1, "interval": "2m", "down": True})
    assert seen(made) == [
        ("00:00", 0, "floor"),
        ("07:51", 1, "office (ramp)"),
        ("07:53", 2, "office (ramp)"),
        ("07:55", 3, "office (lead)"),
        ("08:00", 3, "office"),
        ("18:00", 2, "office (ramp)"),
        ("18:02", 1, "office (ramp)"),
        ("18:04", 0, "floor"),
    ]


def test_a_ramp_has_no_steps_below_the_floor():
    made = schedule(floor=2, windows=[OFFICE], ramp={"step": 1, "interval": "2m"})
    assert [row[:2] for row in seen(made)][:3] == [("00:00", 2), ("07:55", 3), ("08:00", 3)]


def test_a_holiday_silences_windows_floor_and_forecast_and_what_follows_it_is_warm_in_time():
    holiday = {"name": "off", "start": "2026-11-25T06:00:00Z", "end": "2026-11-25T12:00:00Z"}
    made = schedule(
        floor=1,
        windows=[OFFICE],
        once=[{**holiday, "replicas": 0, "exclusive": True}],
        prewarm={"forecast": [{"start": holiday["start"], "end": holiday["end"], "replicas": 4}]},
    )
    assert seen(made) == [
        ("00:00", 1, "floor"),
        ("06:00", 0, "off"),
        ("11:55", 3, "office (lead)"),
        ("12:00", 3, "office"),
        ("18:00", 1, "floor"),
    ]


def test_a_wake_counts_even_on_a_holiday_until_it_ends():
    off = {"start": "2026-11-25T06:00:00Z", "end": "2026-11-25T12:00:00Z", "replicas": 0}
    made = schedule(
        wake=Wake(2, on("07:30")), floor=1, once=[{"name": "off", "exclusive": True, **off}]
    )
    assert seen(made, "07:00", "08:00") == [("07:00", 2, "wake"), ("07:30", 0, "off")]


def test_forecast_and_wake_share_a_bound_of_their_own():
    forecast = {"start": "2026-11-25T10:00:00Z", "end": "2026-11-25T11:00:00Z", "replicas": 6}
    made = schedule(wake=Wake(7, on("09:00")), prewarm={"maxReplicas": 2, "forecast": [forecast]})
    assert seen(made) == [
        ("00:00", 2, "wake"),
        ("09:00", 0, "floor"),
        ("09:55", 2, "forecast (lead)"),
        ("10:00", 2, "forecast"),
        ("11:00", 0, "floor"),
    ]


def test_the_next_change_is_found_over_a_weekend_and_over_the_year():
    made = schedule(windows=[{**OFFICE, "days": ["Mon"]}])
    anything, replicas = made.next_changes(on("12:00"))
    assert anything == replicas
    assert replicas.at == on("2026-11-30T07:55")
    assert replicas.level.replicas == 3
    christmas = schedule(
        timedelta(),
        windows=[{"name": "x", "cron": "0 8 24 12 *", "duration": "1h", "replicas": 1}],
    )
    assert christmas.next_changes(on("12:00"))[1].at == on("2026-12-24T08:00")
    assert christmas.next_changes(on("2026-12-24T12:00"))[1].at == on("2027-12-24T08:00")


def test_a_schedule_that_never_changes_has_no_next_change():
    always = {"name": "always", "start": "00:00", "end": "24:00", "replicas": 2}
    assert schedule(windows=[always]).next_changes(on("12:00")) == (None, None)
    assert schedule(floor=3).next_changes(on("12:00")) == (None, None)


def test_knobs_are_those_of_the_open_window_with_most_replicas_over_the_objects():
    night = {"name": "night", "start": "00:00", "end": "24:00", "replicas": 1}
    made = schedule(
        knobs={"target": 4, "window": "60s"},
        windows=[{**OFFICE, "knobs": {"target": 8}}, {**night, "knobs": {"target": 2}}],
    )
    assert made.at(on("07:57")).knobs.target == 2, "the lead is not the window yet"
    assert made.at(on("09:00")).knobs.target == 8
    assert made.at(on("09:00")).knobs.window == timedelta(seconds=60)
    anything, replicas = made.next_changes(on("07:57"))
    assert (anything.at, replicas.at) == (on("08:00"), on("18:00"))


def test_intervals_at_the_ends_of_the_calendar_are_harmless():
    once = {"start": "0001-01-01T00:00:00Z", "end": "9999-12-31T23:59:59Z", "replicas": 2}
    made = schedule(
        once=[{"name": "always", **once}],
        prewarm={"forecast": [once]},
        ramp={"step": 1, "interval": "1h", "down": True},
    )
    assert made.at(on("12:00")).replicas == 2


hours = st.integers(0, 23).map("{:02}:00".format)
windows = st.lists(
    st.builds(
        lambda start, end, replicas, days: {
            "start": start,
            "end": end,
            "replicas": replicas,
            "days": days,
        },
        hours,
        hours,
        st.integers(0, 9),
        st.lists(st.sampled_from(["Mon", "Wed", "Thu", "Sun"]), min_size=1, unique=True),
    ),
    max_size=4,
).map(lambda made: [{**window, "name": f"w{n}"} for n, window in enumerate(made)])
onces = st.lists(
    st.builds(
        lambda start, length, replicas, exclusive: {
            "start": (on("00:00") + timedelta(hours=start)).isoformat(),
            "end": (on("00:00") + timedelta(hours=start + length)).isoformat(),
            "replicas": replicas,
            "exclusive": exclusive,
        },
        st.integers(-24, 48),
        st.integers(1, 30),
        st.integers(0, 9),
        st.booleans(),
    ),
    max_size=3,
).map(lambda made: [{**once, "name": f"o{n}"} for n, once in enumerate(made)])
specs = st.fixed_dictionaries(
    {"windows": windows, "once": onces, "floor": st.integers(0, 3)},
    optional={
        "ceiling": st.integers(3, 7),
        "ramp": st.fixed_dictionaries(
            {"step": st.integers(1, 4), "interval": st.just("10m"), "down": st.booleans()}
        ),
        "timeZone": st.sampled_from(["UTC", "Europe/Berlin", "America/New_York"]),
    },
)
minutes = st.integers(0, 3 * 24 * 60)


@given(specs, minutes, st.integers(0, 90))
def test_the_level_of_a_moment_is_that_of_the_last_change_before_it(spec, minute, lead):
    made = schedule(timedelta(minutes=lead), **spec)
    moment = on("2026-11-24T00:00") + timedelta(minutes=minute)
    levels = list(made.levels(on("2026-11-24T00:00"), on("2026-11-27T12:00")))
    last = [change.level for change in levels if change.at <= moment][-1]
    assert last == made.at(moment)


@given(specs, minutes, st.integers(0, 90))
def test_nothing_changes_before_the_next_change(spec, minute, lead):
    made = schedule(timedelta(minutes=lead), **spec)
    now = on("2026-11-24T00:00") + timedelta(minutes=minute)
    anything, replicas = made.next_changes(now)
    end = now + timedelta(days=3) if anything is None else anything.at
    for part in range(1, 8):
        assert made.at(now + (end - now) * part / 8) == made.at(now)
    if anything is not None:
        assert made.at(anything.at) == anything.level != made.at(now)
    if replicas is not None:
        assert replicas.level.replicas != made.at(now).replicas


@given(specs, minutes, st.integers(0, 90), st.none() | st.integers(0, 5))
def test_the_ceilings_hold_and_an_open_window_is_a_lower_bound(spec, minute, lead, most):
    made = schedule(timedelta(minutes=lead), most=most, **spec)
    now = on("2026-11-24T00:00") + timedelta(minutes=minute)
    bounds = [bound for bound in (most, spec.get("ceiling")) if bound is not None]
    level = made.at(now).replicas
    assert all(level <= bound for bound in bounds)
    opened = [
        once["replicas"]
        for once in spec["once"]
        if datetime.fromisoformat(once["start"]) <= now < datetime.fromisoformat(once["end"])
    ]
    assert level >= min([max(opened, default=0), *bounds])


@given(specs, minutes, st.integers(0, 60), st.integers(0, 60))
def test_a_longer_lead_never_asks_for_less(spec, minute, lead, more):
    now = on("2026-11-24T00:00") + timedelta(minutes=minute)
    short = schedule(timedelta(minutes=lead), **spec).at(now)
    long = schedule(timedelta(minutes=lead + more), **{**spec, "ramp": None}).at(now)
    plain = schedule(timedelta(minutes=lead), **{**spec, "ramp": None}).at(now)
    assert long.replicas >= plain.replicas
    assert short.replicas >= plain.replicas
