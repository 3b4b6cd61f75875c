"""The hybrid histogram policy does what its paper says."""

import numpy as np
import pytest

from keepwarm.tuner.hybrid import RANGE_S, IdleTimes, hybrid_histogram
from keepwarm.tuner.prices import Prices


def test_until_it_has_seen_a_pattern_it_keeps_the_whole_range():
    times = IdleTimes()
    assert times.decide(1e9) == (0.0, RANGE_S)


def test_regular_idle_times_are_waited_out_unloaded():
    times = IdleTimes()
    for _ in range(50):
        times.add(1805.0)
    unloaded, kept = times.decide(1e9)
    # All lie in minute 30: unloaded for 90 % of 30 minutes, kept until 110 % of 31.
    assert unloaded == pytest.approx(0.9 * 1800)
    assert unloaded + kept == pytest.approx(1.1 * 1860)


def test_idle_times_all_over_the_range_have_no_pattern():
    times = IdleTimes()
    for minute in range(240):
        times.add(minute * 60.0)
    assert times.decide(1e9) == (0.0, RANGE_S)


def test_mostly_beyond_the_range_would_be_arimas_and_is_counted():
    times = IdleTimes()
    for _ in range(3):
        times.add(RANGE_S + 1)
    assert times.decide(1e9) == (0.0, RANGE_S)
    assert times.beyond_ruled == 1


def test_a_clock_is_learnt_met_warm_and_not_paid_for_in_between(made):
    arrival = np.arange(1000.0, 80 * 3600, 1800)
    workload = made(arrival, 10.0, 80 * 3600.0, block_s=40 * 3600.0)
    found = hybrid_histogram(workload, Prices(3600.0, node_linger_s=0))
    requests = len(arrival)
    assert found.cold.sum() <= 2
    assert found.cold[1] == 0
    # Pre-warmed 180 s early (and 40 s of start-up), kept to the request, drained for 30 s.
    each = found.cost[1] / (requests / 2)
    assert 200 < each < 420


def test_shortcuts_change_nothing(made):
    rng = np.random.default_rng(5)
    idle = rng.choice([5.0, 20.0, 400.0, 700.0], 300, p=[0.5, 0.3, 0.1, 0.1])
    times, plain = IdleTimes(), IdleTimes()
    for seconds in idle:
        quick = times.decide(seconds)
        slow = plain.decide(1e9)
        # While under a minute it only has to outlast the idle time.
        assert quick == slow or (seconds < 60 and slow[0] == 0 and slow[1] >= 60)
        times.add(seconds)
        plain.add(seconds)
