"""Scores: counts and money by block; sleep laid over; requests before the first pod left out."""

import numpy as np
import pytest

from keepwarm.kpa import Pods, Policy, simulate
from keepwarm.tuner import slo
from keepwarm.tuner.choose import Interval, confidence, front, knee, resamples, violation
from keepwarm.tuner.evaluate import Evaluator, Rules, Store, hours_of
from keepwarm.tuner.prices import Prices
from keepwarm.tuner.score import Score, score
from keepwarm.tuner.setting import Setting
from keepwarm.tuner.week import Week

POLICY = Policy(target=8, target_burst_capacity=-1)
TERMS = slo.parse("cold<=1%,wait_p90<=5s,failed<=1%")


def scored(workload, policy=POLICY, prices=None, **sleeping):
    (result,) = simulate([policy], workload.requests, workload.pods)
    return result, score(
        result, workload, TERMS, prices or Prices(3600.0, node_linger_s=0), **sleeping
    )


def test_days_add_up_to_the_simulation(made):
    arrival = [300.0, 310, 1500, 3100, 3105, 3900]
    workload = made(arrival, 4.0, 4000.0, block_s=1000.0)
    result, found = scored(workload)
    assert found.requests.tolist() == [2, 1, 0, 3]
    assert found.cold.tolist() == [2, 1, 0, 3]
    assert found.bad[0].tolist() == found.cold.tolist()
    assert found.pod_s.sum() == pytest.approx(result.pod_seconds)
    assert found.cost.sum() == pytest.approx(result.pod_seconds)
    assert found.starting_s.sum() == pytest.approx(result.starting_pod_seconds)


def test_who_comes_before_the_first_pod_could_be_ready_is_not_counted(made):
    workload = made([1.0, 20.0, 300.0], 1.0, 400.0)
    _, found = scored(workload)
    assert found.requests.sum() == 1


def test_a_failed_request_is_bad_for_every_time(made):
    workload = made([300.0], 200.0, 900.0, pods=Pods((40.0,), request_timeout_s=100.0))
    _, found = scored(workload)
    assert found.failed.sum() == 1
    assert found.bad[1].sum() == found.bad[2].sum() == 1


def test_asleep_costs_less_and_waking_is_waited_for(made):
    workload = made([300.0, 1000.0, 1001.0, 1900.0], 10.0, 2000.0)
    always = Policy(target=8, target_burst_capacity=-1, min_scale=1)
    prices = Prices(3600.0, node_linger_s=0, asleep_per_pod_hour=360.0)
    _, awake = scored(workload, always, prices)
    _, found = scored(workload, always, prices, sleep_after_s=60.0, wake_s=(6.0,))
    # It is ready at 40.6; idle to 300, 310 to 1000, 1011 to 1900, 1910 to 2000.
    asleep = (300 - 40.6 - 60) + (1000 - 310 - 60) + (1900 - 1011 - 60) + (90 - 60)
    assert found.asleep_s.sum() == pytest.approx(asleep, abs=1)
    assert awake.cost.sum() - found.cost.sum() == pytest.approx(0.9 * asleep, abs=1)
    assert found.woken.sum() == 4
    assert found.cold.sum() == 0
    assert found.bad[1].sum() == 3  # three waited 6 s; the one a second later only 5


def test_a_score_survives_its_file(made, tmp_path):
    workload = made([300.0, 1500.0], 4.0, 4000.0, block_s=2000.0)
    rules = Rules(TERMS, Prices(2.0), lead_s=40)
    path = tmp_path / "evaluations.jsonl"
    first = Evaluator(workload, rules, Store(path))
    (fresh,) = first.scores([Setting(POLICY)])
    path.write_bytes(path.read_bytes() + b'{"key": "half a li')
    again = Evaluator(workload, rules, Store(path))
    (kept,) = again.scores([Setting(POLICY)])
    assert again.simulated == 0
    assert kept.as_json() == fresh.as_json()
    other = Evaluator(workload, Rules(TERMS, Prices(3.0), lead_s=40), Store(path))
    other.scores([Setting(POLICY)])
    assert other.simulated == 1, "another price is another score"


def test_hours_show_where_cold_requests_came_and_what_warmth_would_have_cost(made):
    workload = made([3600 * 9 + 100.0, 3600 * 9 + 2000.0], 5.0, 86_400.0)
    (result,) = simulate([POLICY], workload.requests, workload.pods)
    hours = hours_of(result, workload, Prices(1.0, node_linger_s=0))
    assert np.flatnonzero(hours.cold).tolist() == [9]
    assert hours.cold[9] == 2
    assert hours.free_s[8] == 3600
    assert 3000 < hours.free_s[9] < 3600


def test_a_schedule_warms_the_hours_it_names(made):
    workload = made([3600 * 9 + 100.0], 5.0, 86_400.0)
    week = Week(tuple(int(h == 9) for h in range(168)))
    rules = Rules(TERMS, Prices(1.0), lead_s=60)
    evaluator = Evaluator(workload, rules)
    without, with_week = evaluator.scores([Setting(POLICY), Setting(POLICY, week)])
    assert (without.cold.sum(), with_week.cold.sum()) == (1, 0)


def blocks(**values):
    size = len(next(iter(values.values())))
    zeros = dict.fromkeys(Score.__dataclass_fields__, np.zeros(size))
    return Score(**(zeros | {k: np.asarray(v, float) for k, v in values.items()}))


def test_confidence_is_the_share_of_resamples_in_which_all_terms_hold():
    weights = resamples(4, 0)
    terms = slo.parse("cold<=10%")
    safe = blocks(requests=[100] * 4, bad=[[1, 2, 0, 3]])
    lucky = blocks(requests=[100] * 4, bad=[[0, 0, 0, 40]])
    assert confidence(safe, terms, weights) == 1
    # It holds on average, and not when the fourth day comes twice or more.
    assert lucky.meets(terms)
    assert 0.5 < confidence(lucky, terms, weights) < 0.9
    assert violation(lucky, terms) == pytest.approx(1.0)


def test_a_resample_has_as_many_days_and_an_interval_holds_the_mean():
    weights = resamples(7, 3)
    assert set(weights.sum(axis=1)) == {7}
    interval = Interval.of_share(np.asarray([1.0, 2, 3, 1, 2, 3, 2]), np.ones(7), weights)
    assert interval.low < interval.value == 2 < interval.high


def test_the_front_holds_what_nothing_beats_and_its_knee_is_where_it_bends():
    cost = np.asarray([10.0, 11, 12, 30, 11.5, 60])
    exposure = np.asarray([0.2, 0.05, 0.02, 0.01, 0.3, 0.01])
    rows = front(cost, exposure)
    assert rows == [0, 1, 2, 3]
    assert rows[knee(cost[rows], exposure[rows])] == 2
