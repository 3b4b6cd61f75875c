"""The work queue: every key at most once, one worker a key, retries further and further apart.

Times are wall-clock moments that are handed in, so a schedule's next change is a time like others.
"""

import asyncio
import heapq
import random
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from itertools import count

from keepwarm.warmpool.observed import Key

FIRST_RETRY = timedelta(milliseconds=200)
LAST_RETRY = timedelta(minutes=1)
# Wall clocks jump and machines sleep: no single wait is longer.
LONGEST_WAIT_S = 15.0


def _now() -> datetime:
    return datetime.now(UTC)


class WorkQueue:
    """Keys to work on, now or later."""

    def __init__(self, now: Callable[[], datetime] = _now) -> None:
        self._now = now
        self._due: dict[Key, datetime] = {}
        self._heap: list[tuple[datetime, int, Key]] = []
        self._order = count()
        self._working: set[Key] = set()
        self._failures: dict[Key, int] = {}
        self._changed = asyncio.Event()

    def __len__(self) -> int:
        """Keys that are due now."""
        now = self._now()
        return sum(due <= now for due in self._due.values())

    def add(self, key: Key, at: datetime | None = None) -> None:
        """Asks for `key` at a time (at once); an earlier time that was asked for stays."""
        due = self._now() if at is None else at
        if key in self._due and self._due[key] <= due:
            return
        self._due[key] = due
        heapq.heappush(self._heap, (due, next(self._order), key))
        self._changed.set()

    def retry(self, key: Key) -> timedelta:
        """Asks for `key` after a delay that doubles with every failure in a row."""
        failures = self._failures.get(key, 0)
        self._failures[key] = failures + 1
        delay: timedelta = min(FIRST_RETRY * 2 ** min(failures, 20), LAST_RETRY)
        # Spread by a fifth, so that what failed together does not come back together.
        delay *= random.uniform(0.8, 1.2)  # noqa: S311 (no secret)
        self.add(key, self._now() + delay)
        return delay

    def succeeded(self, key: Key) -> None:
        """The next failure of `key` counts as the first."""
        self._failures.pop(key, None)

    def forget(self, key: Key) -> None:
        """Drops a key that is gone."""
        self._due.pop(key, None)
        self._failures.pop(key, None)

    def clear(self) -> None:
        """Drops everything, work that goes on excepted."""
        self._due.clear()
        self._heap.clear()
        self._failures.clear()

    async def take(self) -> Key:
        """The next key that is due; nobody else gets it until it is `done`."""
        while True:
            if (key := self._pop()) is not None:
                return key
            self._changed.clear()
            wait_s = LONGEST_WAIT_S
            if self._heap:
                wait_s = min(wait_s, (self._heap[0][0] - self._now()).total_seconds())
            try:
                async with asyncio.timeout(max(wait_s, 0.001)):
                    await self._changed.wait()
            except TimeoutError:
                pass

    def done(self, key: Key) -> None:
        """Ends the work on a key; what was asked for meanwhile can start."""
        self._working.discard(key)
        if key in self._due:
            heapq.heappush(self._heap, (self._due[key], next(self._order), key))
        self._changed.set()

    def _pop(self) -> Key | None:
        now = self._now()
        while self._heap and self._heap[0][0] <= now:
            due, _, key = heapq.heappop(self._heap)
            # Stale: asked for again at another time, or being worked on (done() brings it back).
            if self._due.get(key) == due and key not in self._working:
                del self._due[key]
                self._working.add(key)
                return key
        return None
