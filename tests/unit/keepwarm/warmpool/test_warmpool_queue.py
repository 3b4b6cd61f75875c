"""The work queue: once a key, one worker a key, later when asked, further apart after failures."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from keepwarm.warmpool.observed import Key
from keepwarm.warmpool.queue import LAST_RETRY, WorkQueue

A, B = Key("llm", "a"), Key("llm", "b")


class Clock:
    def __init__(self):
        self.now = datetime(2026, 11, 25, tzinfo=UTC)

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def queue(clock):
    return WorkQueue(clock)


async def taken(queue) -> Key | None:
    """What is due at once, or None."""
    try:
        async with asyncio.timeout(0.05):
            return await queue.take()
    except TimeoutError:
        return None


async def test_a_key_that_was_added_twice_is_taken_once(queue):
    queue.add(A)
    queue.add(A)
    queue.add(B)
    assert [await taken(queue), await taken(queue), await taken(queue)] == [A, B, None]


async def test_a_key_that_is_worked_on_waits_until_it_is_done(queue):
    queue.add(A)
    await queue.take()
    queue.add(A)
    assert await taken(queue) is None
    queue.done(A)
    assert await taken(queue) == A


async def test_an_earlier_time_wins_over_a_later_one(queue, clock):
    queue.add(A, clock.now + timedelta(hours=1))
    queue.add(A, clock.now + timedelta(minutes=1))
    queue.add(A, clock.now + timedelta(hours=2))
    assert await taken(queue) is None
    clock.now += timedelta(minutes=1)
    assert await taken(queue) == A
    queue.done(A)
    clock.now += timedelta(hours=3)
    assert await taken(queue) is None, "the later times are no work of their own"


async def test_retries_get_further_apart_until_one_succeeds(queue):
    delays = [queue.retry(A) for _ in range(12)]
    assert delays[0] < timedelta(seconds=0.3)
    assert delays[5] > delays[0] * 10
    assert all(delay <= LAST_RETRY * 1.2 for delay in delays)
    queue.succeeded(A)
    assert queue.retry(A) < timedelta(seconds=0.3)


async def test_waiting_ends_when_something_is_added(queue):
    waiting = asyncio.create_task(queue.take())
    await asyncio.sleep(0)
    queue.add(B)
    async with asyncio.timeout(5):
        assert await waiting == B


async def test_cleared_nothing_is_left(queue):
    queue.add(A)
    queue.clear()
    assert len(queue) == 0
    assert await taken(queue) is None
