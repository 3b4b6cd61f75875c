"""An engine that gives its GPU memory back while nobody calls, and is woken once for all who do.

Level 1 keeps the weights in the host's memory, level 2 forgets them and reads them from disk again.
Whoever needs the engine holds it with `held`; it sleeps only while nobody does.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Callable
from typing import Final, Literal, Protocol

from prometheus_client import Counter, Gauge, Histogram

from openinference.errors import Unavailable

logger = logging.getLogger("vllm_predictor.sleep")

Level = Literal[1, 2]
IDLE_POLLS: Final = 10
RESTART_RETRY_S: Final = 30.0

ASLEEP = Gauge("keepwarm_engine_asleep", "Sleep level of the engine; 0 is awake.")
FREED = Gauge("keepwarm_engine_sleep_freed_bytes", "GPU memory that the last sleep gave back.")
SLEEPS = Counter("keepwarm_engine_sleeps", "Times that the engine went to sleep.", ["cause"])
WAKE_SECONDS = Histogram(
    "keepwarm_engine_wake_seconds",
    "Seconds from the first request for a sleeping engine to an engine that can answer.",
    buckets=(0.1, 0.25, 0.5, 1, 2, 4, 8, 16, 32, 64),
)


class Busy(Exception):
    """The engine has work and does not go to sleep."""


class SleepyEngine(Protocol):
    """What an engine must be able to do."""

    async def sleep(self, level: Level) -> int:
        """Gives GPU memory back; how many bytes of it."""

    async def wake_up(self, level: Level) -> None:
        """Takes the memory again, after a sleep of this level."""


class Sleeper:
    """Puts one engine to sleep and wakes it."""

    def __init__(self, engine: SleepyEngine, now: Callable[[], float] = time.monotonic) -> None:
        """`now` is in seconds on a steady clock."""
        self._engine = engine
        self._now = now
        self._level: Level | None = None
        self._holders = 0
        self._idle_since = now()
        self._changing = asyncio.Lock()
        self.waking = False
        # An engine between asleep and awake is of no use: its process is to be started anew.
        self.failed: Exception | None = None
        ASLEEP.set(0)

    @property
    def level(self) -> Level | None:
        """How deep the engine sleeps; None is awake."""
        return self._level

    @property
    def idle_s(self) -> float:
        """For how many seconds nobody has held the engine."""
        return 0.0 if self._holders else self._now() - self._idle_since

    @contextlib.asynccontextmanager
    async def held(self) -> AsyncIterator[None]:
        """The engine, awake for as long as this lasts; one wake serves all who wait for it.

        Raises Unavailable when it cannot be woken.
        """
        self._holders += 1
        try:
            if self._level is not None or self._changing.locked():
                await self._wake()
            yield
        finally:
            self._holders -= 1
            self._idle_since = self._now()

    async def sleep(self, level: Level, cause: str) -> int:
        """Puts the engine to sleep; how many bytes of GPU memory that gave back.

        One that sleeps already stays as it is (0). Raises Busy while somebody holds it. `cause` is
        one of few words, for the metric.
        """
        async with self._changing:
            if self._holders:
                raise Busy(f"{self._holders} requests are in the engine")
            if self._level is not None:
                return 0
            # Before the engine is told: a request that comes now waits for the lock, then wakes it.
            self._level = level
            began = self._now()
            try:
                freed = await self._engine.sleep(level)
            except Exception as error:
                self.failed = error
                raise
            ASLEEP.set(level)
            FREED.set(freed)
            SLEEPS.labels(cause).inc()
            logger.info(
                "asleep (level %d) in %.2f s: %.1f GiB of GPU memory given back",
                level,
                self._now() - began,
                freed / 2**30,
            )
            return freed

    async def wake(self) -> None:
        """Wakes the engine, if it sleeps."""
        async with self.held():
            pass

    async def sleep_when_idle(self, level: Level, after_s: float) -> None:
        """Puts the engine to sleep whenever nobody has held it for `after_s` seconds; for ever."""
        while True:
            await asyncio.sleep(max(after_s - self.idle_s, after_s / IDLE_POLLS))
            if self._level is None and self.idle_s >= after_s:
                with contextlib.suppress(Busy):
                    await self.sleep(level, "idle")

    async def _wake(self) -> None:
        # A task of its own: a caller who leaves does not stop what others wait for.
        await asyncio.shield(asyncio.create_task(self._awaken()))

    async def _awaken(self) -> None:
        asked = self._now()
        async with self._changing:
            if self._level is None:
                return
            self.waking = True
            try:
                await self._engine.wake_up(self._level)
            except Exception as error:
                self.failed = error
                raise Unavailable(
                    "the engine could not be woken and is started anew",
                    retry_after_s=RESTART_RETRY_S,
                ) from error
            finally:
                self.waking = False
            self._level = None
            ASLEEP.set(0)
            WAKE_SECONDS.observe(self._now() - asked)
            logger.info("awake after %.2f s", self._now() - asked)
