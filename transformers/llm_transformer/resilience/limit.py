"""How many sequences the predictor gets at a time: found by trying, as TCP finds its window.

It doubles while the predictor keeps up, then grows by one for each limit's worth of answers, and
shrinks by a tenth when the predictor refuses or says that the last few all waited in its queue; a
refusal also brings a limit that is far above what is in flight down to it. So the queue stands
here, where it can be shed by age and served by priority, and not in the engine; and several
transformers, or several predictors, share what there is. Source: additive increase, multiplicative
decrease, from the flight's size (RFC 5681); the least wait of several tells a queue from an
outlier (CoDel, RFC 8289); Netflix concurrency-limits, AIMDLimit.
"""

from collections import deque
from typing import Final

# How many answers in a row must have waited.
FEW: Final = 4
DECREASE: Final = 0.9
# One decrease answers all refusals of a second: they come in bursts, from one full queue.
COOL_DOWN_S: Final = 1.0


class ConcurrencyLimit:
    """The limit, in sequences."""

    def __init__(self, first: int, *, least: int = 1, most: int = 16384, queue_s: float) -> None:
        """Begins at `first`; answers that waited over `queue_s` in the engine shrink it."""
        self._value = float(min(max(first, least), most))
        self._least = least
        self._most = most
        self._queue_s = queue_s
        self._probing = True
        self._waits: deque[float] = deque(maxlen=FEW)
        self._decreased_at: float | None = None

    @property
    def value(self) -> int:
        """The limit now."""
        return int(self._value)

    def answered(self, sequences: int, queued_s: float | None, now: float, *, full: bool) -> None:
        """An answer came after `queued_s` seconds in the engine's queue (None: not told).

        `full` is whether the limit was what held requests back; else it needs no more.
        """
        if queued_s is not None:
            self._waits.append(queued_s)
        if len(self._waits) == FEW and min(self._waits) > self._queue_s:
            self._shrink(self._value, now)
        elif full:
            step = sequences if self._probing else sequences / self._value
            self._value = min(self._most, self._value + step)

    def refused(self, in_flight: int, now: float) -> None:
        """The predictor was full with `in_flight` sequences of ours.

        Others may have filled it, so the limit is at most halved.
        """
        self._shrink(min(self._value, max(in_flight, self._value / 2)), now)

    def _shrink(self, seen: float, now: float) -> None:
        if self._decreased_at is not None and now - self._decreased_at < COOL_DOWN_S:
            return
        self._decreased_at = now
        self._probing = False
        self._waits.clear()
        self._value = max(self._least, seen * DECREASE)
