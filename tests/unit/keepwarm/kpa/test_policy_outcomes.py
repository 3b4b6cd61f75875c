"""Sums per day of many policies are the sums of their results."""

import numpy as np
import pytest

from keepwarm.kpa import InputError, Outcome, Pods, Policy, Requests, Verdict, simulate
from keepwarm.kpa.policy_outcomes import simulate_policies

PODS = Pods((20.0, 35.0))
POLICIES = [Policy(), Policy(stable_window_s=6, target=2), Policy(min_scale=1)]


@pytest.fixture
def requests():
    rng = np.random.default_rng(3)
    arrival = np.sort(rng.uniform(0, 3500, 120))
    return Requests(arrival, rng.exponential(6, 120), 3600.0)


def test_stretches_add_up_to_the_whole(requests):
    parts = simulate_policies(POLICIES, requests, PODS, segment_s=1000.0)
    assert (
        parts.requests.tolist()
        == np.histogram(requests.arrival_s, [0, 1000, 2000, 3000, 3600])[0].tolist()
    )
    for number, result in enumerate(simulate(POLICIES, requests, PODS)):
        verdicts = np.bincount(result.verdict, minlength=3)
        assert parts.verdicts[number].sum(axis=0).tolist() == verdicts.tolist()
        assert parts.outcomes[number, :, Outcome.SERVED].sum() == np.sum(result.outcome == 0)
        assert parts.pod_seconds[number].sum() == pytest.approx(result.pod_seconds)
        assert parts.ready_pod_seconds[number].sum() == pytest.approx(result.ready_pod_seconds)
        assert parts.wait_s[number].sum() == pytest.approx(result.wait_s.sum())
        assert parts.pods_started[number] == result.pods_started


def test_a_stretch_has_the_pod_seconds_of_its_own_time(requests):
    parts = simulate_policies(POLICIES, requests, PODS, segment_s=1000.0, timelines=True)
    for number, timeline in enumerate(parts.timelines):
        times = np.arange(2000.0, 3000.0, 0.01)
        held = timeline.ready[np.searchsorted(timeline.t_s, times, side="right") - 1]
        assert parts.ready_pod_seconds[number, 2] == pytest.approx(held.mean() * 1000, rel=1e-3)


def test_time_at_each_pod_count_fills_the_stretch_and_weighs_to_pod_seconds(requests):
    parts = simulate_policies(POLICIES, requests, PODS, segment_s=1000.0)
    for number, seconds in enumerate(parts.seconds_at_pods):
        assert seconds.sum(axis=1).tolist() == pytest.approx([1000, 1000, 1000, 600])
        weighed = seconds @ np.arange(seconds.shape[1])
        assert weighed.tolist() == pytest.approx(parts.pod_seconds[number].tolist())


def test_the_quantile_is_within_a_bin_of_the_exact_one(requests):
    first = np.full(len(requests), 0.2)
    parts = simulate_policies(POLICIES, requests, PODS, first_token_s=first, segment_s=1000.0)
    for number, result in enumerate(simulate(POLICIES, requests, PODS)):
        exact = np.quantile(result.wait_s + first, 0.9, method="inverted_cdf")
        assert exact <= parts.ttft_quantile(0.9)[number] <= exact * 2 ** (1 / 16)


def test_who_was_not_served_waits_for_ever_in_the_quantile():
    requests = Requests([200.0, 210.0], [1.0, 1.0], 400.0)
    parts = simulate_policies([Policy(max_scale=1)], requests, Pods((60.0,), request_timeout_s=30))
    assert parts.ttft_quantile(0.5).tolist() == [np.inf]
    assert parts.cold.tolist() == [[2]]
    assert int(parts.verdicts[0, 0, Verdict.WARM]) == 0


def test_a_log_without_requests_costs_pods_and_has_quantile_zero():
    parts = simulate_policies([Policy(min_scale=1)], Requests([], [], 100.0), PODS)
    assert parts.ttft_quantile(0.99).tolist() == [0.0]
    assert parts.pod_seconds.tolist() == [[pytest.approx(99.4)]]


@pytest.mark.parametrize("change", [{"segment_s": 0.0}, {"edges_s": [0.0, 1.0]}])
def test_stretches_and_bins_that_cannot_be_are_refused(requests, change):
    with pytest.raises(InputError):
        simulate_policies(POLICIES, requests, PODS, **change)
