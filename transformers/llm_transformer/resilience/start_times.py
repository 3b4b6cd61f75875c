"""The measured distribution of start times, and what it says about a start that is under way.

The last starts are kept, so that a new GPU type or a larger model is learned within a few of them;
a store keeps them beyond this process.
"""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from math import ceil, inf
from typing import Final, Protocol

KEPT: Final = 100
QUANTILE: Final = 0.9
# Nobody should come back sooner than this, nor a start that is overdue be asked for more often.
LEAST_RETRY_S: Final = 1.0
OVERDUE_SHARE: Final = 0.25


@dataclass(frozen=True, slots=True)
class Start:
    """One replica's view of a start: how long it waited, and when that ended (Unix time)."""

    seconds: float
    ended_at: float


class StartTimeStore(Protocol):
    """Where starts outlive the process; both raise nothing: a lost sample is no error."""

    async def load(self) -> list[Start]:
        """The last starts that any replica has seen, in no order; none when they are not known."""

    async def add(self, start: Start) -> None:
        """Keeps one more."""


class NoStore:
    """Starts that end with the process."""

    async def load(self) -> list[Start]:
        return []

    async def add(self, start: Start) -> None:
        return


def durations(starts: Iterable[Start]) -> list[float]:
    """Seconds of each start, oldest first.

    Replicas that waited at the same time waited for one start; it began when the first was asked.
    """
    found: list[float] = []
    ended_at = -inf
    for start in sorted(starts, key=lambda start: start.ended_at):
        if found and start.ended_at - start.seconds < ended_at:
            found[-1] = max(found[-1], start.seconds)
        else:
            found.append(start.seconds)
        ended_at = start.ended_at
    return found


class StartTimes:
    """The last starts, in seconds from the first request at zero to readiness."""

    def __init__(self, prior_s: float) -> None:
        """`prior_s` is expected of a start while none has been measured."""
        self._prior_s = prior_s
        self._seconds: deque[float] = deque(maxlen=KEPT)

    def __len__(self) -> int:
        return len(self._seconds)

    def add(self, *seconds: float) -> None:
        """Learns of starts, oldest first."""
        self._seconds.extend(seconds)

    def replace(self, seconds: Iterable[float]) -> None:
        """Knows these starts, oldest first, and no others."""
        self._seconds = deque(seconds, maxlen=KEPT)

    @property
    def expected_s(self) -> float:
        """Nine of ten starts have taken no longer."""
        return _quantile(self._seconds) or self._prior_s

    def remaining_s(self, elapsed_s: float) -> float:
        """What to tell a caller of a start that has taken `elapsed_s` so far.

        The same quantile among the starts that took longer than that. A start that is longer than
        all is asked for again after a quarter of its time.
        """
        longer = [seconds for seconds in self._seconds if seconds > elapsed_s]
        if not longer and not self._seconds and self._prior_s > elapsed_s:
            longer = [self._prior_s]
        left_s = _quantile(longer) - elapsed_s if longer else OVERDUE_SHARE * elapsed_s
        return max(LEAST_RETRY_S, left_s)


def _quantile(seconds: Iterable[float]) -> float:
    """The nearest-rank quantile; 0 of nothing."""
    ordered = sorted(seconds)
    return ordered[ceil(QUANTILE * len(ordered)) - 1] if ordered else 0.0
