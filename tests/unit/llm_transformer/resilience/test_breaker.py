"""The circuit breaker, against a clock that the test holds."""

import pytest

from llm_transformer.resilience.breaker import BreakerPolicy, CircuitBreaker, Outcome, State

POLICY = BreakerPolicy(window_s=10, min_calls=4, failure_ratio=0.5, open_s=1, max_open_s=4)
GOOD, BAD, NEITHER = Outcome.SUCCESS, Outcome.FAILURE, Outcome.NEITHER


@pytest.fixture
def breaker():
    return CircuitBreaker(POLICY)


def _opened(breaker, now=0.0):
    for _ in range(4):
        breaker.record(BAD, now, breaker.era)
    return breaker


@pytest.mark.parametrize(
    ("outcomes", "state"),
    [
        ([BAD] * 3, State.CLOSED),  # too few to tell
        ([BAD] * 4, State.OPEN),
        ([GOOD, GOOD, GOOD, BAD, BAD], State.CLOSED),
        ([GOOD, GOOD, GOOD, BAD, BAD, BAD], State.OPEN),
        ([NEITHER] * 9 + [BAD] * 3, State.CLOSED),  # callers who left say nothing
    ],
)
def test_it_opens_when_half_of_enough_calls_failed(breaker, outcomes, state):
    for outcome in outcomes:
        breaker.record(outcome, 0.0, breaker.era)
    assert breaker.state(0.0) is state


def test_failures_older_than_the_window_are_forgotten(breaker):
    for now in (0.0, 0.0, 0.0, 10.5):
        breaker.record(BAD, now, breaker.era)
    assert breaker.state(10.5) is State.CLOSED


def test_while_open_it_says_when_to_come_back(breaker):
    _opened(breaker)
    assert breaker.refusal_s(0.25) == 0.75


def test_half_open_lets_one_call_through(breaker):
    _opened(breaker)
    assert breaker.state(1.0) is State.HALF_OPEN
    assert breaker.refusal_s(1.0) is None
    assert breaker.refusal_s(1.0) == POLICY.open_s


def test_a_good_trial_closes_it(breaker):
    _opened(breaker)
    assert breaker.refusal_s(1.0) is None
    breaker.record(GOOD, 1.1, breaker.era)
    assert breaker.state(1.1) is State.CLOSED
    assert breaker.refusal_s(1.1) is None


def test_each_bad_trial_doubles_the_time_up_to_a_bound(breaker):
    _opened(breaker)
    now, waits = 1.0, []
    for _ in range(4):
        assert breaker.refusal_s(now) is None
        breaker.record(BAD, now, breaker.era)
        waits.append(breaker.refusal_s(now))
        now += waits[-1]
    assert waits == [2, 4, 4, 4]


def test_a_trial_whose_caller_left_frees_its_place(breaker):
    _opened(breaker)
    assert breaker.refusal_s(1.0) is None
    breaker.record(NEITHER, 1.1, breaker.era)
    assert breaker.refusal_s(1.1) is None


@pytest.mark.parametrize("outcome", Outcome)
@pytest.mark.parametrize("now", [0.5, 1.5])
def test_what_began_before_it_opened_neither_closes_it_nor_ends_a_trial(breaker, outcome, now):
    before = breaker.era
    _opened(breaker)
    trial = now > 1 and breaker.refusal_s(now) is None
    breaker.record(outcome, now, before)
    assert breaker.state(now) is (State.HALF_OPEN if trial else State.OPEN)
    assert breaker.refusal_s(now) == (POLICY.open_s if trial else 0.5)
    assert breaker._open_s == POLICY.open_s
