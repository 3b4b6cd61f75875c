"""The values that go into a simulation refuse what no autoscaler or log can hold."""

import math

import pytest

from keepwarm.kpa import InputError, MinScaleSchedule, Pods, Policy, Requests
from keepwarm.kpa.model import checked


@pytest.mark.parametrize(
    ("arrival", "service", "duration", "message"),
    [
        ([3.0, 2.0], [1.0, 1.0], 10.0, "Request 1 comes at 2.0 s, before request 0 at 3.0 s"),
        ([-1.0], [1.0], 10.0, "Request 0: arrival_s is -1.0"),
        ([1.0], [math.nan], 10.0, "Request 0: service_s is nan"),
        ([1.0], [1.0, 2.0], 10.0, "equally long"),
        ([11.0], [1.0], 10.0, "after duration_s"),
        ([], [], 0.0, "positive number of seconds"),
    ],
)
def test_a_request_log_that_cannot_be_is_refused_with_its_row(arrival, service, duration, message):
    with pytest.raises(InputError, match=message):
        Requests(arrival, service, duration)


def test_an_empty_log_is_a_quiet_stretch():
    assert len(Requests([], [], 60.0)) == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"stable_window_s": 5}, "stable_window_s is 5; it must be from 6 to 3600"),
        ({"target_burst_capacity": -2.0}, "0 or more, or -1"),
        ({"target": math.nan}, "target is nan"),
        ({"metric": "cpu"}, "concurrency or rps"),
        ({"max_scale_down_rate": 1.0}, "above 1"),
        ({"scale_down_delay_s": 1.5}, "whole seconds"),
    ],
)
def test_a_policy_that_knative_would_refuse_is_named(change, message):
    with pytest.raises(InputError, match=f"Policy 1: .*{message}"):
        checked([Policy(), Policy(**change)])


def test_the_panic_window_rounds_half_away_from_zero():
    assert [Policy(stable_window_s=s).panic_window_s for s in (6, 15, 25, 45)] == [1, 2, 3, 5]


def test_container_concurrency_caps_the_target():
    assert Policy(target=10, container_concurrency=2).total_value == 2
    assert Policy(target=10, container_concurrency=2, metric="rps").total_value == 10
    assert Policy(target=3).target_value == 2.0999999999999996


def test_schedules_and_pods_refuse_what_makes_no_sense():
    with pytest.raises(InputError, match="must rise"):
        MinScaleSchedule(((5.0, 1), (5.0, 2)))
    with pytest.raises(InputError, match="must lie in"):
        MinScaleSchedule(((86400.0, 1),), period_s=86400.0)
    with pytest.raises(InputError, match="at least one time"):
        Pods(start_s=())
