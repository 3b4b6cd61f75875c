"""What is learned from answers: the concurrency limit, the retry budget, the start times."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_transformer.resilience.limit import ConcurrencyLimit
from llm_transformer.resilience.retry_budget import RetryBudget
from llm_transformer.resilience.start_times import StartTimes


def _limit(first=64):
    return ConcurrencyLimit(first, most=1000, queue_s=0.2)


def test_the_limit_doubles_with_each_round_of_answers_until_the_first_refusal():
    limit = _limit(8)
    for _ in range(8):
        limit.answered(1, 0.0, 0.0, full=True)
    assert limit.value == 16
    limit.refused(16, 1.0)
    assert limit.value == 14
    for _ in range(14):
        limit.answered(1, 0.0, 1.0, full=True)
    assert limit.value == 15


def test_the_limit_does_not_grow_where_it_is_not_needed():
    limit = _limit()
    for _ in range(1000):
        limit.answered(1, None, 0.0, full=False)
    assert limit.value == 64


def test_a_burst_of_refusals_shrinks_the_limit_once():
    limit = _limit(100)
    for now in (0.0, 0.1, 0.5):
        limit.refused(100, now)
    assert limit.value == 90
    limit.refused(90, 1.0)
    assert limit.value == 81


@pytest.mark.parametrize(("in_flight", "left"), [(100, 90), (60, 54), (17, 45), (120, 90)])
def test_a_refusal_shrinks_the_limit_to_what_is_there_and_at_most_to_half(in_flight, left):
    limit = _limit(100)
    limit.refused(in_flight, 0.0)
    assert limit.value == left


def test_answers_that_all_waited_in_the_engine_shrink_it_too():
    limit = _limit(100)
    for _ in range(4):
        assert limit.value == 100
        limit.answered(1, 0.3, 0.0, full=False)
    assert limit.value == 90


def test_one_late_answer_among_quick_ones_is_no_queue():
    limit = _limit(100)
    for number in range(40):
        limit.answered(1, 9.0 if number % 4 else 0.01, float(number), full=False)
    assert limit.value == 100


@given(st.lists(st.tuples(st.booleans(), st.floats(0, 5))))
def test_the_limit_stays_within_its_bounds(events):
    limit, now = ConcurrencyLimit(2, least=1, most=8, queue_s=0.2), 0.0
    for refused, pause in events:
        now += pause
        if refused:
            limit.refused(limit.value, now)
        else:
            limit.answered(3, None, now, full=True)
        assert 1 <= limit.value <= 8


def test_retries_are_a_share_of_the_requests_once_the_savings_are_gone():
    budget = RetryBudget(ratio=0.2, floor_per_s=0, most=10)
    allowed = 0
    for _ in range(1000):
        budget.request()
        allowed += budget.take(0.0)
    assert allowed == pytest.approx(200 + 5, abs=1)


def test_a_quiet_server_may_retry_once_a_second():
    budget = RetryBudget(ratio=0, floor_per_s=1, most=2)
    taken = [budget.take(now) for now in (0.0, 0.1, 1.0, 1.2, 2.2)]
    assert taken == [True, False, True, False, True]


def test_until_one_start_is_measured_the_prior_is_told():
    starts = StartTimes(60)
    assert starts.expected_s == 60
    assert starts.remaining_s(20) == 40
    starts.add(30)
    assert starts.expected_s == 30


def test_nine_of_ten_starts_took_no_longer_than_expected():
    starts = StartTimes(60)
    starts.add(*range(1, 11))
    assert starts.expected_s == 9


def test_what_is_left_of_a_long_start_is_told_from_longer_ones():
    starts = StartTimes(60)
    starts.add(10, 10, 10, 10, 40, 50)
    assert starts.remaining_s(5) == 45
    assert starts.remaining_s(20) == 30
    assert starts.remaining_s(49.5) == 1  # never sooner than a second
    assert starts.remaining_s(80) == 20  # longer than all: a quarter of it again


def test_old_starts_are_forgotten():
    starts = StartTimes(60)
    starts.add(*[500.0] * 50, *[10.0] * 100)
    assert (len(starts), starts.expected_s) == (100, 10)
