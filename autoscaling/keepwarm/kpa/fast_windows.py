"""The windows of `windows`, compiled: the same sums in the same order, so the same bits.

A window is a record and a ring of one-second sums. What is added to them: how many buckets hold
something and how much at most (to end sums early that can change no more), and where a sum over
silent seconds has got to (so that each tick of a silence continues it).
"""

import math
from typing import Any

import numpy as np

from keepwarm.kpa.fast_jit import jit
from keepwarm.kpa.windows import DELAY_SLOT_S, NEVER

MOST_SECONDS = 3600
MOST_DELAY_SLOTS = MOST_SECONDS // DELAY_SLOT_S + 1
HALF_ULP = 2.0**-54  # what is smaller than this part of a sum leaves the sum as it is

WINDOW = np.dtype(
    [
        ("size", "i8"),
        ("exponential", "i8"),
        ("first_write", "i8"),
        ("last_write", "i8"),
        ("position", "i8"),  # the bucket of last_write
        ("filled", "i8"),  # buckets that are not zero
        ("peak", "f8"),  # no bucket was ever larger
        ("total", "f8"),
        ("coefficient", "f8"),
        ("silent_s", "i8"),  # how many seconds after last_write are taken off in silent_total
        ("silent_total", "f8"),
    ]
)
DELAY = np.dtype([("slots", "i8"), ("head", "i8"), ("count", "i8")])


@jit
def round_half_away(value: float) -> float:
    """Go's math.Round."""
    whole = np.trunc(value)
    return float(whole + math.copysign(1.0, value) if abs(value - whole) >= 0.5 else whole)


@jit
def window_record(w: Any, ring: Any, second: int, value: float) -> None:
    """Adds to a second's sum; ignored when the second has left the window."""
    index = w.position
    if second != w.last_write:
        if second + w.size <= w.last_write:
            return
        if w.first_write == NEVER or w.first_write > second:
            w.first_write = second
        if second > w.last_write:
            _advance(w, ring, second)
            index = w.position
        else:
            index -= w.last_write - second
            if index < 0:
                index += w.size
    w.silent_s = 0
    if value != 0.0:
        before = ring[index]
        after = before + value
        ring[index] = after
        w.filled += (after != 0.0) - (before != 0.0)
        w.peak = max(w.peak, abs(after))
        w.total += value


@jit
def _advance(w: Any, ring: Any, second: int) -> None:
    """Takes the seconds that the ring is about to reuse off the total."""
    if second - w.last_write >= w.size:
        w.first_write = second
        if w.filled:
            ring[: w.size] = 0.0
            w.filled = 0
        w.total = 0.0
    else:
        index = w.position
        for _ in range(second - w.last_write):
            index += 1
            if index == w.size:
                index = 0
            if ring[index] != 0.0:
                w.total -= ring[index]
                ring[index] = 0.0
                w.filled -= 1
        w.position = index
    w.last_write = second


@jit
def window_is_empty(w: Any, second: int) -> bool:
    """Whether nothing was written for more than the window."""
    return bool(second - w.last_write > w.size)


@jit
def window_average(w: Any, ring: Any, second: int) -> float:
    """What the decider sees at that second."""
    if w.exponential:
        return _exponential(w, ring, second)
    size = w.size
    silent = second - w.last_write
    if silent >= size:
        return 0.0
    total = w.total
    if silent > 0:
        total = _without_silent(w, ring, silent)
    else:
        silent = 0
    seen = min(w.last_write - w.first_write + 1, size - silent)
    if total == 0.0:
        return 0.0
    return round_half_away(total / seen * 1e6) / 1e6


@jit
def _without_silent(w: Any, ring: Any, silent: int) -> float:
    """The total less the seconds after the last write, oldest first."""
    if w.silent_s == 0 or w.silent_s > silent:
        w.silent_s = 0
        w.silent_total = w.total
    total = w.silent_total
    index = w.position + w.silent_s
    if index >= w.size:
        index -= w.size
    for _ in range(silent - w.silent_s):
        index += 1
        if index == w.size:
            index = 0
        total -= ring[index]
    w.silent_s = silent
    w.silent_total = total
    return float(total)


@jit
def _exponential(w: Any, ring: Any, second: int) -> float:
    if window_is_empty(w, second):
        return 0.0
    size = w.size
    decay = 1 - w.coefficient
    weight = w.coefficient
    silent = max(second - w.last_write, 0)
    if silent:
        weight *= math.pow(decay, float(silent))
    total = 0.0
    left = w.filled
    index = w.position
    for _ in range(size - silent):
        if left == 0:
            break
        if ring[index] != 0.0:
            total += ring[index] * weight
            left -= 1
        weight *= decay
        if w.peak * weight < abs(total) * HALF_ULP:
            break
        index -= 1
        if index < 0:
            index = size - 1
    return total


@jit
def window_resize(w: Any, ring: Any, spare: Any, seconds: int, now_second: int) -> None:
    """A live change of the window, but for its coefficient: a young one counts as full after it."""
    size = w.size
    if seconds == size:
        return
    for index in range(len(ring)):
        spare[index] = ring[index]
        ring[index] = 0.0
    position = w.position
    w.total = 0.0
    w.filled = 0
    w.silent_s = 0
    w.size = seconds
    w.position = 0
    if now_second - w.last_write <= size:
        for back in range(min(seconds, size)):
            value = spare[(position - back) % size]
            ring[(seconds - back) % seconds] = value
            w.total += value
            w.filled += value != 0.0
        w.first_write = w.last_write - (size - 1)
    else:
        w.first_write = NEVER


@jit
def delay_record(d: Any, slots: Any, values: Any, second: int, value: int) -> int:
    """Notes a decision; returns the largest of the last slots. Values fall from head to end."""
    slot = second // DELAY_SLOT_S
    room = len(slots)
    while d.count > 0 and value >= values[(d.head + d.count - 1) % room]:
        d.count -= 1
    while d.count > 0 and slot - slots[d.head] >= d.slots:
        d.head = (d.head + 1) % room
        d.count -= 1
    if d.count == 0 or slots[(d.head + d.count - 1) % room] != slot:
        index = (d.head + d.count) % room
        slots[index] = slot
        values[index] = value
        d.count += 1
    return int(values[d.head])
