"""An engine sleeps only while nobody holds it, and one wake serves all who wait."""

import asyncio
import contextlib

import pytest
from starlette.testclient import TestClient

from openinference.errors import Unavailable
from vllm_predictor import admin
from vllm_predictor.sleep import Busy, Sleeper


class Engine:
    """Counts what it is asked; waking waits for `may_wake`."""

    def __init__(self):
        self.calls = []
        self.may_wake = asyncio.Event()
        self.may_wake.set()
        self.may_sleep = asyncio.Event()
        self.may_sleep.set()
        self.slept = asyncio.Event()
        self.error = None

    async def sleep(self, level):
        self.calls.append(("sleep", level))
        self.slept.set()
        await self.may_sleep.wait()
        return 5 * 2**30

    async def wake_up(self, level):
        self.calls.append(("wake", level))
        await self.may_wake.wait()
        if self.error:
            raise self.error


@pytest.fixture
def engine():
    return Engine()


@pytest.fixture
def sleeper(engine):
    return Sleeper(engine)


async def hold(sleeper):
    async with sleeper.held():
        assert sleeper.level is None


async def test_one_wake_serves_all_who_wait(engine, sleeper):
    assert await sleeper.sleep(1, "admin") == 5 * 2**30
    engine.may_wake.clear()
    waiting = [asyncio.create_task(hold(sleeper)) for _ in range(20)]
    await asyncio.sleep(0)
    engine.may_wake.set()
    await asyncio.gather(*waiting)
    assert engine.calls == [("sleep", 1), ("wake", 1)]
    assert sleeper.level is None


async def test_it_does_not_sleep_while_somebody_holds_it(engine, sleeper):
    async with sleeper.held():
        with pytest.raises(Busy, match="1 requests"):
            await sleeper.sleep(1, "admin")
    assert engine.calls == []
    await sleeper.sleep(2, "admin")
    assert sleeper.level == 2


async def test_it_wakes_from_the_level_it_sleeps_at(engine, sleeper):
    await sleeper.sleep(2, "admin")
    await sleeper.wake()
    assert engine.calls[-1] == ("wake", 2)


async def test_a_request_during_the_fall_wakes_it_when_it_has_fallen(engine, sleeper):
    engine.may_sleep.clear()
    falling = asyncio.create_task(sleeper.sleep(1, "idle"))
    await asyncio.sleep(0)
    holding = asyncio.create_task(hold(sleeper))
    await asyncio.sleep(0)
    assert engine.calls == [("sleep", 1)]
    engine.may_sleep.set()
    await asyncio.gather(falling, holding)
    assert engine.calls == [("sleep", 1), ("wake", 1)]


async def test_a_caller_who_leaves_does_not_stop_the_wake_that_others_wait_for(engine, sleeper):
    await sleeper.sleep(1, "admin")
    engine.may_wake.clear()
    leaver, waiter = (asyncio.create_task(hold(sleeper)) for _ in range(2))
    await asyncio.sleep(0)
    leaver.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await leaver
    engine.may_wake.set()
    await waiter
    assert engine.calls == [("sleep", 1), ("wake", 1)]


async def test_a_second_sleep_leaves_it_as_it_is(engine, sleeper):
    await sleeper.sleep(1, "admin")
    assert await sleeper.sleep(2, "admin") == 0
    assert (sleeper.level, engine.calls) == (1, [("sleep", 1)])


async def test_a_wake_that_fails_is_raised_and_remembered(engine, sleeper):
    await sleeper.sleep(1, "admin")
    engine.error = RuntimeError("no memory")
    with pytest.raises(Unavailable, match="could not be woken"):
        await sleeper.wake()
    assert sleeper.failed is engine.error


async def test_it_sleeps_when_it_has_been_idle(engine):
    now = 0.0
    sleeper = Sleeper(engine, now=lambda: now)
    idling = asyncio.create_task(sleeper.sleep_when_idle(1, 0.05))
    try:
        await asyncio.sleep(0.1)
        assert engine.calls == []
        now = 1.0
        async with asyncio.timeout(5):
            await engine.slept.wait()
        assert engine.calls == [("sleep", 1)]
    finally:
        idling.cancel()


def test_the_admins_calls_answer_and_refuse(engine):
    sleepers = []
    client = TestClient(admin.app(lambda: sleepers[0] if sleepers else None))
    assert client.post("/sleep").status_code == 503
    sleepers.append(Sleeper(engine))
    assert client.post("/sleep?level=3").status_code == 400
    assert client.post("/sleep?level=2").json() == {"level": 2, "freed_bytes": 5 * 2**30}
    assert client.get("/state").json()["level"] == 2
    assert client.post("/wake").json() == {"level": 0}
    sleepers[0]._holders = 1
    assert client.post("/sleep").status_code == 409
