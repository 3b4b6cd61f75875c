"""Alarms come when a timer of the loop would, and leave nothing behind."""

import asyncio
import contextvars
import gc
import threading
import weakref

import pytest
import uvloop

from openinference import alarms, clock, running


class _JumpingLoop(asyncio.SelectorEventLoop):
    """A loop that does not wait: when nothing is to be done its clock jumps to the next timer."""

    def __init__(self):
        super().__init__()
        self.now = 1000.25
        select = self._selector.select
        self.timers_made = 0

        def jump(timeout=None):
            if timeout:
                self.now += timeout
            return select(0)

        self._selector.select = jump

    def time(self):
        return self.now

    def call_at(self, *args, **options):
        self.timers_made += 1
        return super().call_at(*args, **options)


@pytest.fixture
def loop(monkeypatch):
    loop = _JumpingLoop()
    monkeypatch.setattr(clock, "now", loop.time)
    yield loop
    loop.close()


@pytest.mark.parametrize("seconds", [-1, 0, 0.3, 1.9, 2.5, 2.7, 3, 9.75, 10, 60.001, 330.999])
def test_an_alarm_comes_when_it_is_due(loop, seconds):
    came = []

    async def main():
        due = loop.time() + seconds
        alarms.call_at(due, lambda: came.append(loop.time() - due))
        await asyncio.sleep(1000)

    loop.run_until_complete(main())
    (late_s,) = came
    assert 0 <= late_s < 1e-6 or (seconds < 0 and late_s == -seconds)


def test_alarms_come_in_the_order_in_which_they_are_due(loop):
    due = [1000.25 + seconds for seconds in (9.1, 2.6, 9.9, 0.5, 9.5, 4.0, 3.0, 330.0, 1.0)]
    came = []

    async def main():
        for each in due:
            alarms.call_at(each, lambda each=each: came.append(each))
        await asyncio.sleep(1000)

    loop.run_until_complete(main())
    assert came == sorted(due)


def test_alarms_of_one_second_share_a_timer_until_it_draws_near(loop):
    async def main():
        made = loop.timers_made
        for number in range(100):
            alarms.call_at(1060 + number / 100, lambda: None).cancel()
        assert loop.timers_made == made + 1

    loop.run_until_complete(main())


@pytest.mark.parametrize("seconds", [0.5, 9.75])
@pytest.mark.parametrize("left_s", [0.25, 1.5, 100])
def test_a_cancelled_alarm_does_not_come(loop, seconds, left_s):
    came = []

    async def main():
        alarm = alarms.call_at(loop.time() + seconds, lambda: came.append(True))
        await asyncio.sleep(max(0, seconds - left_s))
        alarm.cancel()
        alarm.cancel()
        await asyncio.sleep(1000)

    loop.run_until_complete(main())
    assert not came


def test_an_alarm_that_has_come_may_be_cancelled(loop):
    came = []

    async def main():
        alarm = alarms.call_at(loop.time() + 9, lambda: came.append(True))
        await asyncio.sleep(10)
        alarm.cancel()

    loop.run_until_complete(main())
    assert came == [True]


def test_an_alarm_may_make_and_cancel_alarms_of_its_own_second(loop):
    came = []

    async def main():
        other = alarms.call_at(1010.75, lambda: came.append("cancelled"))

        def first():
            other.cancel()
            alarms.call_at(1010.5, lambda: came.append("second"))

        alarms.call_at(1010.25, first)
        await asyncio.sleep(1000)

    loop.run_until_complete(main())
    assert came == ["second"]


def test_who_is_called_is_freed_with_the_cancelled_alarm(loop):
    class Watch:
        def __init__(self):
            self.alarm = alarms.call_at(running.loop().time() + 60, self.look)

        def look(self):
            pass

    async def main():
        watch = Watch()
        gone = weakref.ref(watch)
        watch.alarm.cancel()
        del watch
        assert gone() is None

    gc.disable()
    try:
        loop.run_until_complete(main())
    finally:
        gc.enable()


@pytest.mark.parametrize("seconds", [0.5, 60])
def test_an_alarm_does_not_keep_its_makers_context(loop, seconds):
    class Held:
        pass

    variable = contextvars.ContextVar("variable")

    def make():
        held = Held()
        variable.set(held)
        alarms.call_at(loop.time() + seconds, lambda: None)
        return weakref.ref(held)

    async def main():
        gone = contextvars.copy_context().run(make)
        assert gone() is None

    loop.run_until_complete(main())


def test_loops_one_after_the_other_and_side_by_side_have_alarms_of_their_own():
    """Each waits on the real clock, a little longer than what is far."""
    came = []

    async def main(name):
        loop = asyncio.get_running_loop()
        assert running.loop() is loop
        assert running.task() is asyncio.current_task()
        due = loop.time() + alarms.FAR_S + 0.01
        waiter = loop.create_future()
        alarms.call_at(due, lambda: waiter.set_result(None))
        await waiter
        # uvloop counts in milliseconds.
        came.append((name, running.loop() is loop, loop.time() > due - 0.002))

    def run(name):
        loop = uvloop.new_event_loop()
        loop.run_until_complete(main(name))
        loop.close()

    async def brief():
        alarms.call_at(running.loop().time() + alarms.FAR_S + 0.01, lambda: came.append("closed"))

    for _ in range(2):
        loop = uvloop.new_event_loop()
        loop.run_until_complete(brief())
        loop.close()
    threads = [threading.Thread(target=run, args=(name,)) for name in "ab"]
    for thread in threads:
        thread.start()
    run("c")
    for thread in threads:
        thread.join()
    assert sorted(came) == [(name, True, True) for name in "abc"]


def test_where_no_loop_runs_there_is_none():
    with pytest.raises(RuntimeError):
        running.loop()


async def test_a_callback_runs_in_no_task():
    found = asyncio.get_running_loop().create_future()
    running.loop().call_soon(lambda: found.set_result(running.task()))
    assert await found is None
