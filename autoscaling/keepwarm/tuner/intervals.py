"""Stretches of time that do not touch, and how much of each day they cover.

Billing, the bound and the schedules all ask the same three questions of the same arrays.
"""

from dataclasses import dataclass

import numpy as np

from keepwarm.traces.trace import Bools, Floats


@dataclass(frozen=True, eq=False)
class Intervals:
    """k stretches [begin_s, end_s), rising, none touching the next. [k] each."""

    begin_s: Floats
    end_s: Floats

    @classmethod
    def union(cls, begin_s: Floats, end_s: Floats) -> "Intervals":
        """What at least one of the given stretches covers; they may come in any order."""
        keep = end_s > begin_s
        order = np.argsort(begin_s[keep], kind="stable")
        begin, end = begin_s[keep][order], end_s[keep][order]
        if not begin.size:
            return cls(begin, end)
        reach = np.maximum.accumulate(end)
        first = np.concatenate(([True], begin[1:] > reach[:-1]))
        last = np.concatenate((first[1:], [True]))
        return cls(begin[first], reach[last])

    @classmethod
    def where(cls, t_s: Floats, holds: Bools, end_s: float) -> "Intervals":
        """When a condition holds that may change at each of `t_s` and ends at `end_s`."""
        before = np.concatenate(([False], holds[:-1]))
        after = np.concatenate((holds[1:], [False]))
        until = np.append(t_s[1:], end_s)
        return cls(t_s[holds & ~before], until[holds & ~after])

    def extended(self, seconds: float, end_s: float) -> "Intervals":
        """Each stretch that much longer, none past `end_s`."""
        return Intervals.union(self.begin_s, np.minimum(self.end_s + seconds, end_s))

    def until(self, times_s: Floats) -> Floats:
        """How much is covered before each of the times. Same shape."""
        length = self.end_s - self.begin_s
        if not length.size:
            return np.zeros_like(times_s)
        whole = np.concatenate(([0.0], np.cumsum(length)))
        at = np.searchsorted(self.begin_s, times_s, side="right")
        last = np.maximum(at - 1, 0)
        part = np.clip(times_s - self.begin_s[last], 0.0, length[last])
        return np.where(at == 0, 0.0, whole[last] + part)

    def within(self, edges_s: Floats) -> Floats:
        """How much is covered between each edge and the next. [len(edges) - 1]."""
        return np.diff(self.until(edges_s))

    @property
    def total_s(self) -> float:
        return float((self.end_s - self.begin_s).sum())


def integral(t_s: Floats, value: Floats, end_s: float, times_s: Floats) -> Floats:
    """The integral from 0 up to each time of a value that holds from `t_s[i]` to `t_s[i+1]`."""
    edges = np.append(t_s, end_s)
    area = np.concatenate(([0.0], np.cumsum(value * np.diff(edges))))
    return np.asarray(np.interp(times_s, edges, area))
