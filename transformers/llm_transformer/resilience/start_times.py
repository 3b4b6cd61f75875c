"""The measured distribution of start times, and what it says about a start that is under way.

The last starts are kept, so that a new GPU type or a larger model is learned within a few of them;
a store keeps them beyond this process.
"""

from collections import deque
from collections.abc import Iterable
from math import ceil
from typing import Final, Protocol

KEPT: Final = 100
QUANTILE: Final = 0.9
# Nobody should come back sooner than this, nor a start that is overdue be asked for more often.
LEAST_RETRY_S: Final = 1.0
OVERDUE_SHARE: Final = 0.25


class StartTimeStore(Protocol):
    """Where start times outlive the process; both raise nothing: a lost sample is no error."""

    async def load(self) -> list[float]:
        """The last start times in seconds, oldest first."""

    async def add(self, seconds: float) -> None:
        """Keeps one more."""


class NoStore:
    """Start times that end with the process."""

    async def load(self) -> list[float]:
        return []

    async def add(self, seconds: float) -> None:
        return


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
