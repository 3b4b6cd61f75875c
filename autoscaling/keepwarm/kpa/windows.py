"""The autoscaler's sliding windows: sums over whole seconds, and the maximum of recent decisions.

Knative `pkg/autoscaler/aggregation/bucketing.go` and `aggregation/max/window.go`. Seconds are
whole numbers on any axis whose zero is an even Unix second; a time that never was is `NEVER`.
"""

import math
from collections import deque

NEVER = -(1 << 40)  # far below any second, so differences to it are larger than any window
WEIGHT_PRECISION = 0.9999
MIN_EXPONENT = 0.2
DELAY_SLOT_S = 2  # the delay window's granularity is the tick's (multiscaler.go:36)


def round_half_away(value: float) -> float:
    """Go's math.Round."""
    whole = float(math.trunc(value))
    return whole + math.copysign(1.0, value) if abs(value - whole) >= 0.5 else whole


def smoothing(buckets: int) -> float:
    """How fast weights decay in an exponential window of so many seconds."""
    return max(1 - math.pow(1 - WEIGHT_PRECISION, 1 / buckets), MIN_EXPONENT)


class Window:
    """A ring of one-second sums, averaged linearly or with weights that halve into the past."""

    def __init__(self, seconds: int, *, exponential: bool) -> None:
        self.exponential = exponential
        self.buckets = [0.0] * seconds
        self.first_write = NEVER
        self.last_write = NEVER
        self.total = 0.0
        self.coefficient = smoothing(seconds)

    def record(self, second: int, value: float) -> None:
        """Adds to a second's sum; ignored when the second has left the window."""
        size = len(self.buckets)
        if second != self.last_write:
            if second + size <= self.last_write:
                return
            if self.first_write == NEVER or self.first_write > second:
                self.first_write = second
            if second > self.last_write:
                if second - self.last_write >= size:
                    self.first_write = second
                    self.buckets = [0.0] * size
                    self.total = 0.0
                else:
                    for passed in range(self.last_write + 1, second + 1):
                        self.total -= self.buckets[passed % size]
                        self.buckets[passed % size] = 0.0
                self.last_write = second
        self.buckets[second % size] += value
        self.total += value

    def is_empty(self, second: int) -> bool:
        """Whether nothing was written for more than the window."""
        return second - self.last_write > len(self.buckets)

    def average(self, second: int) -> float:
        """What the decider sees at that second."""
        return self._exponential(second) if self.exponential else self._linear(second)

    def _linear(self, second: int) -> float:
        size = len(self.buckets)
        silent = second - self.last_write
        if silent >= size:
            return 0.0
        total = self.total
        for passed in range(self.last_write + 1, second + 1):
            total -= self.buckets[passed % size]
        # The divisor is what has been seen since the first write: a burst after silence shows at
        # full height at once.
        seen = min(self.last_write - self.first_write + 1, size - max(silent, 0))
        return round_half_away(total / seen * 1e6) / 1e6

    def _exponential(self, second: int) -> float:
        if self.is_empty(second):
            return 0.0
        size = len(self.buckets)
        weight = self.coefficient
        silent = max(second - self.last_write, 0)
        if silent:
            weight *= math.pow(1 - self.coefficient, float(silent))
        total = 0.0
        for back in range(size - silent):
            total += self.buckets[(self.last_write - back) % size] * weight
            weight *= 1 - self.coefficient
        return total

    def resize(self, seconds: int, now_second: int) -> None:
        """A live change of the window: a young window counts as full afterwards."""
        old, size = self.buckets, len(self.buckets)
        if seconds == size:
            return
        self.buckets = [0.0] * seconds
        self.total = 0.0
        if now_second - self.last_write <= size:
            for back in range(min(seconds, size)):
                second = self.last_write - back
                self.buckets[second % seconds] = old[second % size]
                self.total += old[second % size]
            self.first_write = self.last_write - (size - 1)
        else:
            self.first_write = NEVER
        self.coefficient = smoothing(seconds)


class DelayWindow:
    """The largest decision of the last `delay_s`, in slots of two seconds (scale-down-delay)."""

    def __init__(self, delay_s: int) -> None:
        self.slots = -(-delay_s // DELAY_SLOT_S)
        self.maxima: deque[tuple[int, int]] = deque()  # (slot, value), values fall

    def record(self, second: int, value: int) -> int:
        """Notes a decision; returns the largest that still counts."""
        slot = second // DELAY_SLOT_S
        while self.maxima and value >= self.maxima[-1][1]:
            self.maxima.pop()
        while self.maxima and slot - self.maxima[0][0] >= self.slots:
            self.maxima.popleft()
        # Two decisions in one slot: the larger, which was not popped above, stands for both.
        if not self.maxima or self.maxima[-1][0] != slot:
            self.maxima.append((slot, value))
        return self.maxima[0][1]
