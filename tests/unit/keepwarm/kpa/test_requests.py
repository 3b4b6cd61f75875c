"""What requests meet: waiting times, cold starts, limits, time-outs, drain and the bill."""

import numpy as np
import pytest

from keepwarm.kpa import MinScaleSchedule, Outcome, Pods, Policy, Requests, Verdict
from keepwarm.kpa.simulate import simulate


@pytest.fixture(params=["fast", "reference"])
def run(request):
    def run(policy, arrival, service, duration, pods=None):
        requests = Requests(arrival, np.broadcast_to(service, np.shape(arrival)), duration)
        pods = pods or Pods((20.0,))
        return next(simulate([policy], requests, pods, engine=request.param))

    return run


def test_a_request_at_zero_waits_for_a_pod_and_is_cold(run):
    result = run(Policy(), [200.0], 2.0, 400.0)
    # The poke comes with the request, the pod takes 20 s.
    assert result.wait_s.tolist() == [20.0]
    assert result.verdict.tolist() == [Verdict.COLD]
    assert result.outcome.tolist() == [Outcome.SERVED]


def test_a_request_while_the_pod_is_kept_is_warm(run):
    result = run(Policy(), [200.0, 240.0], 2.0, 400.0)
    assert result.verdict.tolist() == [Verdict.COLD, Verdict.WARM]
    assert result.wait_s.tolist() == [20.0, 0.0]


def test_the_pod_goes_when_a_stable_window_after_it_became_active_is_over(run):
    result = run(Policy(), [200.0], 2.0, 400.0)
    timeline = result.timeline
    gone = timeline.t_s[np.flatnonzero(timeline.draining)[-1]]
    # Ready at 220, active for a whole window, inactive on the next wake-up.
    assert 280.0 <= gone <= 284.0
    assert timeline.ready[-1] == timeline.starting[-1] == timeline.draining[-1] == 0


def test_start_up_serving_and_drain_are_all_on_the_bill(run):
    result = run(Policy(min_scale=1), [], 1.0, 100.0)
    assert result.starting_pod_seconds == 20.0
    assert result.ready_pod_seconds == pytest.approx(79.4)
    short = run(Policy(stable_window_s=6), [], 1.0, 100.0)
    assert short.draining_pod_seconds == 30.0
    assert short.pods_started == 1


def test_container_concurrency_makes_the_next_request_queue(run):
    policy = Policy(container_concurrency=1, max_scale=1, min_scale=1)
    result = run(policy, [50.0, 51.0, 52.0], 5.0, 200.0)
    assert result.wait_s.tolist() == [0.0, 4.0, 8.0]
    assert result.verdict.tolist() == [Verdict.WARM, Verdict.QUEUED, Verdict.QUEUED]


def test_a_pod_refuses_the_request_that_its_queue_has_no_place_for(run):
    policy = Policy(container_concurrency=1, max_scale=1, min_scale=1, target_burst_capacity=0)
    result = run(policy, np.full(13, 50.0), 5.0, 200.0)
    # Direct traffic: one runs, ten queue, the rest get 503.
    assert result.outcome.tolist() == [Outcome.SERVED] * 11 + [Outcome.REJECTED] * 2


def test_who_waits_longer_than_the_timeout_gets_none(run):
    policy = Policy(max_scale=1)
    result = run(policy, [200.0], 1.0, 400.0, Pods((60.0,), request_timeout_s=30.0))
    assert result.outcome.tolist() == [Outcome.TIMED_OUT]
    assert result.wait_s.tolist() == [30.0]


def test_a_request_that_runs_into_its_timeout_ends_there(run):
    pods = Pods((20.0,), request_timeout_s=10.0)
    result = run(Policy(min_scale=1), [50.0], 60.0, 200.0, pods)
    assert result.outcome.tolist() == [Outcome.TIMED_OUT]
    assert result.wait_s.tolist() == [0.0]


def test_what_is_under_way_at_the_end_is_unfinished(run):
    result = run(Policy(), [95.0], 60.0, 100.0)
    assert result.outcome.tolist() == [Outcome.UNFINISHED]


def test_company_in_the_pod_slows_a_request_down(run):
    pods = Pods((20.0,), slowdown=0.5)
    policy = Policy(min_scale=1, max_scale=1, container_concurrency=2)
    result = run(policy, [50.0, 50.0, 50.0], 10.0, 200.0, pods)
    # Alone 10 s, beside one other 15 s; the third enters when the first leaves.
    assert result.wait_s.tolist() == [0.0, 0.0, 10.0]


def test_a_terminated_pod_finishes_what_it_has_within_its_grace(run):
    # Two pods by schedule, one of them taken away with a long request in it.
    policy = Policy(
        target_burst_capacity=0,
        schedule=MinScaleSchedule(((0.0, 2), (60.0, 1)), period_s=1000.0),
        initial_scale=2,
        stable_window_s=6,
    )
    pods = Pods((5.0,), termination_grace_s=40.0, drain_quiet_s=3.0)
    result = run(policy, [58.0, 58.5, 59.0], [100.0, 100.0, 1.0], 400.0, pods)
    assert sorted(result.outcome.tolist()) == [Outcome.SERVED, Outcome.SERVED, Outcome.CUT]


def test_a_schedule_keeps_pods_warm_in_its_hours(run):
    schedule = MinScaleSchedule(((100.0, 2), (300.0, 0)), period_s=500.0)
    result = run(Policy(schedule=schedule), [], 1.0, 1000.0)
    ready = [
        int(result.timeline.ready[np.searchsorted(result.timeline.t_s, t, side="right") - 1])
        for t in (95.0, 130.0, 290.0, 450.0, 630.0, 950.0)
    ]
    assert ready == [0, 2, 2, 0, 2, 0]


def test_the_bill_is_the_area_under_the_timeline(run):
    rng = np.random.default_rng(7)
    arrival = np.sort(rng.uniform(0, 900, 400))
    policy = Policy(target=3, stable_window_s=20)
    result = run(policy, arrival, rng.exponential(4, 400), 1200.0)
    timeline = result.timeline
    lasted = np.diff(np.append(timeline.t_s, result.duration_s))
    assert result.ready_pod_seconds == pytest.approx(float(lasted @ timeline.ready))
    assert result.pod_seconds == pytest.approx(
        float(lasted @ (timeline.ready + timeline.starting + timeline.draining))
    )
    assert result.ticks == 599
