"""Order and age of who waits, against a clock that the test holds."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_transformer.resilience.backlog import Backlog, BacklogPolicy, Waiter

POLICY = BacklogPolicy(target_s=2, interval_s=1, longest_s=30, most=4)


@pytest.fixture
def backlog():
    return Backlog(POLICY)


def _push(backlog, name, since, priority=0):
    waiter = Waiter(name, priority, 1, since)
    return waiter, backlog.push(waiter, since)


def _served(backlog, now):
    waiter = backlog.peek(now)
    backlog.remove(waiter)
    return waiter.ticket


def _standing(backlog):
    """A backlog whose queue stands at 2.0, with "old" and "new" in it."""
    _push(backlog, "old", 0.0)
    backlog.expire(1.0)
    _push(backlog, "new", 1.5)
    return backlog


def test_oldest_first_while_the_queue_moves(backlog):
    for number in range(3):
        _push(backlog, number, number / 10)
    assert [_served(backlog, 0.3) for _ in range(3)] == [0, 1, 2]


def test_newest_first_once_it_stands(backlog):
    _standing(backlog)
    assert _served(backlog, 1.9) == "old"
    backlog = _standing(Backlog(POLICY))
    assert _served(backlog, 2.0) == "new"


def test_interactive_before_batch_whoever_came_first(backlog):
    _push(backlog, "batch", 0.0, -10)
    _push(backlog, "plain", 0.1)
    _push(backlog, "paid", 0.2, 5)
    assert [_served(backlog, 0.3) for _ in range(3)] == ["paid", "plain", "batch"]


def test_who_has_waited_too_long_goes_sooner_when_the_queue_stands(backlog):
    _push(backlog, "old", 0.0)
    assert backlog.expire(29.9) == []  # nobody looked: it was not seen to stand before
    assert [waiter.ticket for waiter in backlog.expire(30.9)] == ["old"]
    backlog = _standing(Backlog(POLICY))
    assert [waiter.ticket for waiter in backlog.expire(2.0)] == ["old"]
    assert len(backlog) == 1


def test_batch_may_wait_its_whole_time_in_a_queue_that_stands(backlog):
    _push(backlog, "batch", 0.0, -1)
    for now in range(1, 30):
        assert backlog.expire(now) == []
    assert [waiter.ticket for waiter in backlog.expire(30)] == ["batch"]


def test_an_empty_queue_forgets_that_it_stood(backlog):
    _standing(backlog)
    for _ in range(2):
        _served(backlog, 2.0)
    _push(backlog, "a", 2.1)
    _push(backlog, "b", 2.2)
    assert _served(backlog, 2.3) == "a"


def test_a_full_backlog_turns_the_newcomer_away(backlog):
    for number in range(4):
        _push(backlog, number, 0.0)
    newcomer, out = _push(backlog, "late", 0.1)
    assert out is newcomer
    assert len(backlog) == 4


def test_a_full_backlog_gives_a_batch_place_to_an_interactive_newcomer(backlog):
    batch, _ = _push(backlog, "batch", 0.0, -1)
    for number in range(3):
        _push(backlog, number, 0.0)
    assert _push(backlog, "late", 0.1)[1] is batch
    assert len(backlog) == 4


def test_a_full_backlog_that_stands_gives_the_oldest_place_to_the_newest():
    backlog = _standing(Backlog(BacklogPolicy(target_s=2, interval_s=1, longest_s=30, most=2)))
    assert _push(backlog, "newer", 2.0)[1].ticket == "old"


def test_removing_who_has_gone_already_does_nothing(backlog):
    waiter, _ = _push(backlog, "a", 0.0)
    other, _ = _push(backlog, "b", 0.0)
    backlog.remove(waiter)
    backlog.remove(waiter)
    assert backlog.peek(0.0) is other
    backlog.remove(other)
    backlog.remove(other)
    assert backlog.peek(0.0) is None


@given(st.data())
def test_nobody_is_lost_and_nobody_is_served_twice(data):
    backlog = Backlog(BacklogPolicy(target_s=2, interval_s=1, longest_s=5, most=6))
    now, waiting, gone = 0.0, set(), []
    for number in range(data.draw(st.integers(0, 40))):
        now += data.draw(st.floats(0, 1.5))
        match data.draw(st.sampled_from(["push", "serve", "expire"])):
            case "push":
                waiter = Waiter(number, data.draw(st.sampled_from([-1, 0, 2])), 1, now)
                waiting.add(number)
                out = backlog.push(waiter, now)
                gone += [out] if out else []
            case "serve":
                waiter = backlog.peek(now)
                if waiter:
                    backlog.remove(waiter)
                    gone.append(waiter)
            case "expire":
                gone += backlog.expire(now)
        for waiter in gone:
            waiting.remove(waiter.ticket)
        gone.clear()
        assert len(backlog) == len(waiting) <= 6
