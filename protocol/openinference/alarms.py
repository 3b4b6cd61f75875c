"""Timers that are nearly always cancelled long before they are due: deadlines, looks for stalls.

To make and cancel a timer of the loop costs several times as much as the rest of such a watch. An
alarm that is far off waits in a bucket with those of the same second, and becomes a timer of the
loop when that second draws near.
"""

import asyncio
import threading
from collections.abc import Callable
from contextvars import Context
from functools import partial
from typing import Final, Protocol

from openinference import clock, running

# Alarms that are due later than this go to a bucket, which is opened AHEAD_S before its second
# begins; the difference is more than a second, so that no bucket is opened before it is made.
FAR_S: Final = 2.5
AHEAD_S: Final = 1


class Alarm(Protocol):
    """What `call_at` returns."""

    def cancel(self) -> None:
        """There will be no call; after it, nothing."""


def call_at(due: float, callback: Callable[[], object]) -> Alarm:
    """Calls `callback` in the running loop at `due`, on its clock, as the loop's own timer would.

    Context variables are not its maker's.
    """
    loop = running.loop()
    if due - clock.now() < FAR_S:
        return loop.call_at(due, callback, context=Context())
    if _here.loop is not loop:
        # The alarms of another loop stay with its timers.
        _here.loop, _here.buckets = loop, {}
    buckets = _here.buckets
    second = int(due)
    bucket = buckets.get(second)
    if bucket is None:
        bucket = buckets[second] = set()
        loop.call_at(second - AHEAD_S, partial(_open, loop, buckets, second), context=Context())
    alarm = _FarAlarm(bucket, due, callback)
    bucket.add(alarm)
    return alarm


class _FarAlarm:
    """An alarm in a bucket, and then a timer of the loop."""

    __slots__ = ("_bucket", "_callback", "_due", "_timer")

    def __init__(
        self, bucket: "set[_FarAlarm]", due: float, callback: Callable[[], object]
    ) -> None:
        self._bucket = bucket
        self._due = due
        self._callback: Callable[[], object] | None = callback
        self._timer: asyncio.TimerHandle | None = None

    def cancel(self) -> None:
        if self._timer is None:
            self._bucket.discard(self)
            # Who is called holds this alarm, mostly: a circle, which would be garbage.
            self._callback = None
        else:
            self._timer.cancel()

    def draw_near(self, loop: asyncio.AbstractEventLoop) -> None:
        """Its second is about to begin."""
        callback, self._callback = self._callback, None
        if callback is not None:
            self._timer = loop.call_at(self._due, callback)


class _Here(threading.local):
    """The alarms of the loop that this thread runs."""

    def __init__(self) -> None:
        self.loop: asyncio.AbstractEventLoop | None = None
        self.buckets: dict[int, set[_FarAlarm]] = {}


_here: Final = _Here()


def _open(loop: asyncio.AbstractEventLoop, buckets: dict[int, set[_FarAlarm]], second: int) -> None:
    for alarm in buckets.pop(second):
        alarm.draw_near(loop)
