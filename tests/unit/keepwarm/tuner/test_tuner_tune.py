"""A whole tuning of a small fortnight: it proves itself on days that the search never saw."""

from dataclasses import replace

import numpy as np
import pytest

from keepwarm.kpa import Requests
from keepwarm.tuner import slo
from keepwarm.tuner.errors import TuneError
from keepwarm.tuner.evaluate import Rules
from keepwarm.tuner.plan import as_json, setting_json, setting_of
from keepwarm.tuner.prices import Prices
from keepwarm.tuner.tune import Options, tune

DAY_S = 86_400.0
OPTIONS = Options(budget=200, seed=4)


@pytest.fixture(scope="module")
def plan(fortnight, space, rules):
    return tune(fortnight, space, rules, OPTIONS)


def test_it_beats_every_fixed_window_on_days_it_did_not_see(plan):
    recommended = plan.row("recommended")
    assert recommended.held.meets
    exposure, cost = recommended.held.exposure.value, recommended.held.cost.value
    assert len(plan.fixed) >= 19
    assert all(p.cost > cost for p in plan.fixed if p.exposure <= exposure)
    as_few = any(p.exposure <= exposure for p in plan.fixed[:19])
    assert (plan.row("best fixed window in hindsight") is not None) == as_few
    assert ("No single fixed window" in plan.reason) == (not as_few)
    assert recommended.held.cost.value < plan.row("always-on").held.cost.value / 2
    assert plan.recommended.week is not None, "working hours are what this traffic is made of"


def test_regret_is_above_a_bound_that_nobody_undercuts(plan):
    for row in plan.rows:
        assert row.held.bound <= row.held.cost.value + 1e-9
        assert row.held.regret >= -1e-9
    costs = [cost for _, cost in plan.bound_curve]
    assert costs == sorted(costs, reverse=True)
    for point in (*plan.front, *plan.fixed):
        allowed = max(c for e, c in plan.bound_curve if e >= point.exposure or e == 0.1)
        assert point.cost >= allowed - 1e-9 or point.exposure > 0.1


def test_the_search_does_not_see_the_held_out_days(fortnight, space, rules, plan):
    first_week = fortnight.requests.arrival_s < 7 * DAY_S
    rng = np.random.default_rng(1)
    other = np.sort(rng.uniform(7 * DAY_S, 14 * DAY_S, 400))
    arrival = np.concatenate((fortnight.requests.arrival_s[first_week], other))
    changed = replace(fortnight, requests=Requests(arrival, np.full(len(arrival), 5.0), 14 * DAY_S))
    again = tune(changed, space, rules, OPTIONS)
    assert again.recommended == plan.recommended
    assert [p.setting for p in again.front] == [p.setting for p in plan.front]
    assert again.row("recommended").train.cost == plan.row("recommended").train.cost
    assert again.row("recommended").held.cost != plan.row("recommended").held.cost


def test_the_same_seed_gives_the_same_plan_and_a_stopped_search_goes_on(
    fortnight, space, rules, plan, tmp_path
):
    store = tmp_path / "evaluations.jsonl"

    class Stopped(Exception):
        pass

    done = 0

    def stop_at_60(_what, count):
        nonlocal done
        done += count
        if done >= 60:
            raise Stopped

    with pytest.raises(Stopped):
        tune(fortnight, space, rules, OPTIONS, store=store, progress=stop_at_60)
    kept = len(store.read_bytes().splitlines())
    assert kept >= 59
    again = tune(fortnight, space, rules, OPTIONS, store=store)
    assert as_json(again) == as_json(plan)


def test_figures_tell_money_by_day_by_request_and_by_rate(plan):
    held = plan.row("recommended").held
    days = 7
    assert held.per_1k_requests == pytest.approx(held.cost.value * days / held.requests * 1000)
    rps = held.requests / (days * DAY_S)
    assert held.per_rps == pytest.approx(held.cost.value / rps)
    assert held.cost.low <= held.cost.value <= held.cost.high
    bill = held.bill
    hours = bill.working + bill.starting + bill.draining + bill.node_idle
    assert hours * 2.5 == pytest.approx(bill.money)
    assert bill.starting > 0
    assert bill.draining > 0


def test_longer_cold_starts_and_more_traffic_are_told(plan):
    by_name = {s.name: s.recommended for s in plan.scenarios}
    assert set(by_name) == {
        "20% less traffic",
        "20% more traffic",
        "20% shorter cold starts",
        "20% longer cold starts",
    }
    assert by_name["20% more traffic"].requests > by_name["20% less traffic"].requests
    longer, shorter = by_name["20% longer cold starts"], by_name["20% shorter cold starts"]
    assert longer.bill.starting > shorter.bill.starting


def test_knobs_that_change_nothing_are_named(plan):
    effects = {effect.knob: effect for effect in plan.knobs}
    # Two requests at a time at most: no limit from four up does anything.
    assert not effects["container_concurrency"].matters
    assert effects["week"].matters
    for effect in plan.knobs:
        assert effect.cost_low <= effect.cost_high


def test_under_a_week_it_refuses_with_its_reason_unless_forced(fortnight, space, rules):
    short = fortnight.first(5)
    with pytest.raises(TuneError, match=r"holds 5 d; a week is the least.*--force"):
        tune(short, space, rules, OPTIONS)
    plan = tune(short, space, rules, replace(OPTIONS, budget=80, force=True))
    assert any("Forced" in warning for warning in plan.warnings)


def test_an_slo_that_no_scaling_can_keep_is_told_before_the_search(fortnight, space):
    rules = Rules(slo.parse("ttft_p99<=2s"), Prices(2.5), lead_s=40)
    with pytest.raises(TuneError, match="needs the time to the first token"):
        tune(fortnight, space, rules, OPTIONS)
    slow = replace(fortnight, prefill_s=np.full(len(fortnight.requests), 3.0))
    with pytest.raises(TuneError, match=r"100\.0% of the requests take longer than 2 s"):
        tune(slow, space, rules, OPTIONS)


def test_where_nothing_keeps_the_slo_nothing_is_recommended(fortnight, space):
    rules = Rules(slo.parse("cold<=0%"), Prices(2.5, node_linger_s=60), lead_s=40)
    plan = tune(fortnight, space, rules, replace(OPTIONS, budget=80))
    assert plan.recommended is None
    assert "Nothing is recommended" in plan.reason
    assert plan.row("recommended") is None
    assert plan.front


def test_a_setting_survives_json(plan):
    assert setting_of(setting_json(plan.recommended)) == plan.recommended


def test_the_hold_out_must_leave_both_sides_something(fortnight, space, rules):
    with pytest.raises(TuneError, match="--hold-out of 14 of 14 days"):
        tune(fortnight, space, rules, replace(OPTIONS, held_blocks=14))
