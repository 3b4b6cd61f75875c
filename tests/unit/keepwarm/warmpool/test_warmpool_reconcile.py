"""What a WarmPool comes to: on a Revision, over rollouts and splits, beside others, afterwards."""

import contextlib
from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keepwarm.warmpool.kinds import INFERENCE_SERVICE, POOL, REVISION

from .simulation import MIN, Crashed, Simulation

FIRST, SECOND = "chat-predictor-00001", "chat-predictor-00002"
TARGET = "autoscaling.knative.dev/target"


def minimum(world: Simulation, name: str = FIRST) -> str | None:
    return world.value(REVISION, name, MIN)


def settled(**spec) -> Simulation:
    world = Simulation()
    world.pool(**spec)
    world.settle()
    return world


def test_a_floor_is_set_on_the_live_revision_and_put_back_when_the_object_goes():
    world = settled(floor=3)
    assert minimum(world) == "3"
    assert world.mine(REVISION, FIRST) == {MIN}
    status = world.status()
    assert (status["want"], status["have"], status["revision"]) == (3, 3, FIRST)
    assert world.ready()["reason"] == "Kept"
    world.delete()
    world.settle()
    assert minimum(world) == "1"
    assert not world.mine(REVISION, FIRST)
    assert (POOL.name, "chat") not in world.objects


def test_what_was_not_there_before_is_not_there_afterwards():
    world = settled(knobs={"target": 8})
    assert world.value(REVISION, FIRST, TARGET) == "8"
    world.edit(knobs=None)
    world.settle()
    assert world.value(REVISION, FIRST, TARGET) is None
    assert minimum(world) == "0"


def test_what_was_there_before_is_remembered_before_it_is_changed():
    world = Simulation()
    world.pool(floor=3)
    world.step()
    announcing = world.step()
    assert announcing.actions == ()
    assert world.status()["owned"][0]["before"] == {MIN: "1"}
    assert minimum(world) == "1"


def test_a_rollout_has_the_floor_before_traffic_and_the_old_one_until_it_has_gone():
    world = settled(floor=3)
    world.roll_out()
    world.settle()
    assert (minimum(world, FIRST), minimum(world, SECOND)) == ("3", "3")
    world.shift_traffic()
    world.settle()
    assert (minimum(world, FIRST), minimum(world, SECOND)) == ("1", "3")
    assert not world.mine(REVISION, FIRST)
    assert world.status()["revision"] == SECOND


def test_a_split_shares_the_floor_rounded_up():
    world = settled(floor=3)
    world.roll_out()
    world.shift_traffic(r1=90, r2=10)
    world.settle()
    assert (minimum(world, FIRST), minimum(world, SECOND)) == ("3", "1")
    assert [part["want"] for part in world.status()["revisions"]] == [3, 1]


def test_a_revision_that_has_failed_gets_no_floor():
    world = settled(floor=3)
    world.roll_out(failed=True)
    world.settle()
    assert minimum(world, SECOND) == "1"
    assert not world.mine(REVISION, SECOND)


def test_a_deleted_revision_is_forgotten():
    world = settled(floor=3)
    world.roll_out()
    world.shift_traffic()
    del world.objects[REVISION.name, FIRST]
    world.settle()
    assert [record["name"] for record in world.status()["owned"]] == [SECOND]


@pytest.mark.parametrize("bound", ["max-scale", "activation-scale"])
def test_the_minimum_stays_within_the_revisions_own_bounds(bound):
    world = Simulation()
    world.annotate(FIRST, f"autoscaling.knative.dev/{bound}", "2")
    world.pool(floor=3)
    world.settle()
    assert minimum(world) == "2"
    assert "allows at most 2" in world.ready()["message"]


def test_max_replicas_is_never_exceeded_and_said():
    world = settled(windows=[{"name": "w", "start": "00:00", "end": "24:00", "replicas": 50}])
    assert minimum(world) == "9"
    assert "maxReplicas of the InferenceService allows at most 9" in world.ready()["message"]


def test_replicas_that_are_missing_are_told():
    world = Simulation()
    world.starts = False
    world.pool(floor=3)
    world.settle()
    assert world.ready()["status"] == "False"
    assert world.ready()["message"] == f"{FIRST}: 0 of 3 ready"
    world.starts = True
    world.knative()
    world.settle()
    assert world.ready()["status"] == "True"
    assert [event.reason for event in world.events] == ["Wanted", "Warm"]


def test_somebody_elses_value_is_reported_and_left():
    world = settled(floor=3)
    world.annotate(FIRST, MIN, "5")
    world.settle()
    assert minimum(world) == "5"
    assert world.condition("Conflict")["status"] == "True"
    said = f"kubectl-annotate set {MIN} of Revision {FIRST} to 5, wanted is 3"
    assert world.ready()["message"] == said
    world.edit(floor=4)
    world.settle()
    assert minimum(world) == "5"
    world.delete()
    world.settle()
    assert minimum(world) == "5", "theirs is not put back"


def test_a_conflict_ends_when_they_agree_or_let_go():
    world = settled(floor=3)
    world.annotate(FIRST, MIN, "5")
    world.settle()
    world.annotate(FIRST, MIN, None)
    world.settle()
    assert minimum(world) == "3"
    assert world.condition("Conflict")["status"] == "False"
    world.annotate(FIRST, MIN, "5")
    world.settle()
    world.edit(floor=5)
    world.settle()
    assert world.condition("Conflict")["status"] == "False"
    assert [event.reason for event in world.events].count("ConflictOver") == 2


def test_a_conflict_is_taken_back_when_the_spec_says_so():
    world = settled(floor=3)
    world.annotate(FIRST, MIN, "5")
    world.settle()
    world.edit(onConflict="Force")
    world.settle()
    assert minimum(world) == "3"


def test_a_conflict_over_one_value_keeps_the_others():
    world = settled(floor=3, knobs={"target": 8})
    world.annotate(FIRST, TARGET, "2")
    world.edit(floor=4)
    world.settle()
    assert (minimum(world), world.value(REVISION, FIRST, TARGET)) == ("4", "2")


@pytest.mark.parametrize("field", ["suspend", "dryRun"])
def test_suspended_or_dry_everything_is_given_back(field):
    world = settled(floor=3)
    world.edit(**{field: True})
    world.settle()
    assert minimum(world) == "1"
    assert "owned" not in world.status()
    world.edit(**{field: False})
    world.settle()
    assert minimum(world) == "3"


def test_a_dry_run_says_what_it_would_do():
    world = settled(floor=3, dryRun=True)
    assert minimum(world) == "1"
    assert world.ready()["message"] == f"would set {MIN} of {FIRST}: 1 to 3"
    assert world.status()["want"] == 3


def test_the_older_of_two_keeps_the_target_and_the_younger_inherits_it():
    world = settled(floor=3)
    world.pool("late", floor=5)
    world.settle("chat", "late")
    assert minimum(world) == "3"
    assert world.ready("late")["reason"] == "TargetTaken"
    world.delete()
    world.settle("chat", "late")
    assert minimum(world) == "5"
    world.delete("late")
    world.settle("late")
    assert minimum(world) == "1"


def test_a_target_that_moves_in_takes_over_what_was_before():
    world = Simulation()
    world.pool("old", floor=2)
    world.edit("old", target={"inferenceService": "other"})
    world.settle("old")
    world.pool("young", floor=5)
    world.settle("young")
    world.edit("old", target={"inferenceService": "chat"})
    world.settle("old", "young")
    assert minimum(world) == "2"
    world.delete("young")
    world.delete("old")
    world.settle("old", "young")
    assert minimum(world) == "1"


@pytest.mark.parametrize(
    ("spec", "reason", "said"),
    [
        ({"target": {"inferenceService": "none"}}, "TargetNotFound", "none is not there"),
        (
            {"target": {"inferenceService": "chat", "component": "transformer"}},
            "TargetNotFound",
            "has no transformer",
        ),
        (
            {"windows": [{"name": "w", "cron": "0 0 31 2 *", "duration": "1h", "replicas": 1}]},
            "InvalidSpec",
            "spec.windows.0.cron",
        ),
    ],
)
def test_what_cannot_be_kept_is_said(spec, reason, said):
    world = settled(**spec)
    assert world.ready()["reason"] == reason
    assert said in world.ready()["message"]


def test_an_invalid_edit_leaves_what_was_set():
    world = settled(floor=3)
    world.edit(windows=[{"name": "w", "cron": "bad cron line in five", "replicas": 1}])
    world.settle()
    assert world.ready()["reason"] == "InvalidSpec"
    assert minimum(world) == "3"
    world.delete()
    world.settle()
    assert minimum(world) == "1"


def test_a_window_opens_and_closes_without_a_new_revision():
    window = {"name": "noon", "start": "12:10", "end": "12:30", "replicas": 4}
    world = settled(windows=[window], lead={"fixed": "2m"})
    assert minimum(world) == "0"
    assert world.status()["nextChange"] == {
        "at": "2026-11-25T12:08:00Z",
        "replicas": 4,
        "window": "noon (lead)",
    }
    assert world.look().again == world.now + timedelta(minutes=8)
    world.wait(minutes=8)
    assert minimum(world) == "4"
    assert world.status()["activeWindow"] == "noon (lead)"
    world.wait(minutes=2)
    assert world.status()["activeWindow"] == "noon"
    world.wait(minutes=20)
    assert minimum(world) == "0"
    assert world.revisions == 1


def test_a_wake_is_used_up_counts_once_and_ends():
    world = settled(floor=1)
    world.wake("3/30m")
    world.settle()
    assert minimum(world) == "3"
    assert world.get(POOL, "chat")["metadata"]["annotations"] == {}
    assert world.status()["wake"]["until"] == "2026-11-25T12:30:00Z"
    world.wait(minutes=10)
    world.wake("3/30m")
    world.settle()
    assert world.status()["wake"]["until"] == "2026-11-25T12:40:00Z"
    world.wait(minutes=30)
    assert minimum(world) == "1"
    assert "wake" not in world.status()


def test_a_wake_of_ages_is_one_of_hours():
    world = settled()
    world.wake("1/999999999999h")
    world.settle()
    assert [event.reason for event in world.events][-1] == "InvalidWake"
    world.wake("1/99999999h")
    world.settle()
    assert world.status()["wake"]["until"] == "2026-11-25T16:00:00Z"


def test_a_wake_is_bounded_and_taken_back():
    world = settled(prewarm={"maxReplicas": 2, "maxWake": "10m"})
    world.wake("5/2h")
    world.settle()
    assert minimum(world) == "2"
    assert world.status()["wake"]["until"] == "2026-11-25T12:10:00Z"
    world.wake("0/0s")
    world.settle()
    assert minimum(world) == "0"


@pytest.mark.parametrize(
    "text",
    ["many", "2", "2/", "2/soon", "-1/5m", "2/2026-11-25T18:00:00", "2/0001-01-01T00:00+09:00"],
)
def test_a_wake_that_cannot_be_read_is_told_and_the_last_one_stays(text):
    world = settled()
    world.wake("1/30m")
    world.settle()
    world.wake(text)
    world.settle()
    assert minimum(world) == "1"
    assert "is no wake" in world.status()["wake"]["error"]
    assert world.status()["wake"]["until"] == "2026-11-25T12:30:00Z"
    assert [event.reason for event in world.events if "Wake" in event.reason] == ["InvalidWake"]


def test_knative_before_1_21_is_found_out_and_reported():
    world = Simulation(propagates=False)
    world.pool(floor=3)
    world.settle()
    assert world.condition("Live")["status"] == "True"
    assert world.look().again == world.now + timedelta(seconds=60)
    world.wait(seconds=60)
    assert world.ready()["reason"] == "NotLive"
    assert "since 1.21" in world.ready()["message"]
    assert "twice the GPUs" in world.ready()["message"]
    assert world.value(INFERENCE_SERVICE, "chat", "predictor.minReplicas") == 1


def test_where_it_is_allowed_min_replicas_is_edited_and_put_back():
    world = Simulation(propagates=False)
    world.pool(floor=3, whenNotLive="MinReplicas")
    world.settle()
    world.wait(seconds=60)
    field = "predictor.minReplicas"
    assert world.value(INFERENCE_SERVICE, "chat", field) == 3
    assert world.condition("Live")["reason"] == "NotPropagated"
    # KServe rolls out; the new Revision has the minimum from its template.
    world.roll_out(template={MIN: "3"})
    world.shift_traffic()
    world.settle()
    world.edit(floor=2)
    world.settle()
    assert world.value(INFERENCE_SERVICE, "chat", field) == 2, "at once: it is known by now"
    world.delete()
    world.settle()
    assert world.value(INFERENCE_SERVICE, "chat", field) == 1


def test_standard_mode_is_reported_or_edited():
    world = Simulation(standard=True)
    world.pool(floor=3)
    world.settle()
    assert world.ready()["reason"] == "NotLive"
    assert "Standard mode" in world.ready()["message"]
    world.edit(whenNotLive="MinReplicas")
    world.settle()
    assert world.value(INFERENCE_SERVICE, "chat", "predictor.minReplicas") == 3
    assert world.status()["have"] == 1
    world.delete()
    world.settle()
    assert world.value(INFERENCE_SERVICE, "chat", "predictor.minReplicas") == 1


def test_scale_down_delay_says_that_it_acts_later():
    world = settled(knobs={"scaleDownDelay": "10m"})
    assert world.value(REVISION, FIRST, "autoscaling.knative.dev/scale-down-delay") == "10m"
    assert "when its autoscaler starts" in world.ready()["message"]


def test_a_lost_status_is_made_up_from_the_template():
    world = settled(floor=3)
    del world.get(POOL, "chat")["status"]
    world.settle()
    assert world.status()["owned"][0]["before"] == {MIN: "1"}


def test_at_rest_nothing_is_written():
    world = settled(floor=3)
    step = world.look()
    assert (step.status, step.actions, step.events) == (None, (), ())


numbers = st.integers(0, 4)
happenings = st.lists(
    st.one_of(
        st.tuples(st.just("crash"), numbers),
        st.tuples(st.just("step"), st.just(0)),
        st.tuples(st.just("roll out"), st.booleans()),
        st.tuples(st.just("shift"), st.integers(0, 100)),
        st.tuples(st.just("annotate"), st.none() | numbers.map(str)),
        st.tuples(st.just("floor"), numbers),
        st.tuples(st.just("knobs"), st.none() | st.integers(1, 9)),
        st.tuples(st.just("suspend"), st.booleans()),
        st.tuples(st.just("wake"), numbers),
        st.tuples(st.just("wait"), st.integers(0, 3600)),
        st.tuples(st.just("knative"), st.just(0)),
    ),
    max_size=25,
)


def crash(world: Simulation, after: int) -> None:
    with contextlib.suppress(Crashed):
        world.step(crash_after=after)


def shift(world: Simulation, percent: int) -> None:
    if world.revisions > 1:
        newest, last = f"r{world.revisions}", f"r{world.revisions - 1}"
        world.shift_traffic(**{newest: percent, last: 100 - percent})


def wait(world: Simulation, seconds: int) -> None:
    world.now += timedelta(seconds=seconds)


HAPPENINGS = {
    "crash": crash,
    "step": lambda world, _: world.step(),
    "roll out": lambda world, failed: world.roll_out(failed=failed),
    "shift": shift,
    "annotate": lambda world, value: world.annotate(
        f"chat-predictor-{world.revisions:05}", MIN, value
    ),
    "floor": lambda world, value: world.edit(floor=value),
    "knobs": lambda world, value: world.edit(knobs=value and {"target": value}),
    "suspend": lambda world, value: world.edit(suspend=value),
    "wake": lambda world, value: world.wake(f"{value}/10m"),
    "wait": wait,
    "knative": lambda world, _: world.knative(),
}


@given(happenings)
@settings(max_examples=300)
def test_whatever_happened_it_comes_to_what_is_declared_and_leaves_nothing_behind(events):
    world = Simulation()
    world.pool(floor=2, onConflict="Force")
    for what, value in events:
        HAPPENINGS[what](world, value)
    world.edit(suspend=False, floor=3, knobs={"target": 7})
    world.wake("0/0s")
    world.shift_traffic()
    world.settle()
    newest = f"chat-predictor-{world.revisions:05}"
    for (kind, name), _ in list(world.objects.items()):
        if kind == REVISION.name:
            held = {MIN, TARGET} if name == newest else set()
            assert world.mine(REVISION, name) == held, name
    assert (minimum(world, newest), world.value(REVISION, newest, TARGET)) == ("3", "7")
    owned = [record["name"] for record in world.status()["owned"]]
    assert owned == [newest]
    world.delete()
    world.settle()
    assert not any(
        world.mine(REVISION, name) for kind, name in world.objects if kind == REVISION.name
    )
    assert world.value(REVISION, newest, TARGET) is None


@given(st.lists(st.tuples(numbers, st.booleans()), max_size=8), numbers)
def test_somebody_elses_last_word_stands_whatever_crashes(edits, mine):
    world = settled(floor=mine)
    for value, crashed in edits:
        world.annotate(FIRST, MIN, str(value))
        if crashed:
            crash(world, 1)
        world.settle()
        assert minimum(world) == str(value)
