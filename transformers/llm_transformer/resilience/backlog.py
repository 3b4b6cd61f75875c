"""Who waits for the predictor, in which order they are served, and who has waited too long.

Higher priority first; within one, oldest first, until the queue stands. A queue stands when its
oldest has waited longer than half of `target_s` for `interval_s` on end. Then newest first, and who
has waited `target_s` is refused: someone is served in time, where oldest first would serve
everybody late. Below priority 0 (batch) a wait may always take `longest_s`.
Source: CoDel (RFC 8289) and "Fail at Scale" (ACM Queue 13/8): adaptive LIFO, controlled delay.
"""

from collections import deque
from dataclasses import dataclass, field
from typing import Generic, TypeVar

Ticket = TypeVar("Ticket")


@dataclass(frozen=True, slots=True)
class BacklogPolicy:
    """Times in seconds; `most` bounds how many wait."""

    target_s: float = 2.0
    interval_s: float = 1.0
    longest_s: float = 30.0
    most: int = 1000


@dataclass(eq=False, slots=True)
class Waiter(Generic[Ticket]):
    """`weight` is in sequences, `since` on the clock that hands in `now`."""

    ticket: Ticket
    priority: int
    weight: int
    since: float


@dataclass(slots=True)
class _Line(Generic[Ticket]):
    """The waiters of one priority, oldest left."""

    waiters: deque[Waiter[Ticket]] = field(default_factory=deque)
    above_since: float | None = None


class Backlog(Generic[Ticket]):
    """The waiters of all priorities."""

    def __init__(self, policy: BacklogPolicy) -> None:
        self._policy = policy
        self._lines: dict[int, _Line[Ticket]] = {}
        self._order: list[int] = []
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def push(self, waiter: Waiter[Ticket], now: float) -> Waiter[Ticket] | None:
        """Adds `waiter`; returns who must go for it, maybe itself, when the backlog is full."""
        out: Waiter[Ticket] | None = None
        if self._count >= self._policy.most:
            lowest = min(self._order)
            standing = lowest == waiter.priority and self._stands(self._lines[lowest], now)
            if lowest >= waiter.priority and not standing:
                return waiter
            out = self._lines[lowest].waiters[0]
            self.remove(out)
        line = self._lines.get(waiter.priority)
        if line is None:
            line = self._lines[waiter.priority] = _Line()
            self._order = sorted(self._lines, reverse=True)
        line.waiters.append(waiter)
        self._count += 1
        self._look(line, now)
        return out

    def peek(self, now: float) -> Waiter[Ticket] | None:
        """Who is served next; None when nobody waits."""
        if not self._count:
            return None
        line = self._lines[self._order[0]]
        self._look(line, now)
        return line.waiters[-1 if self._stands(line, now) else 0]

    def remove(self, waiter: Waiter[Ticket]) -> None:
        """Takes out a waiter that is in; one that is not is no error."""
        line = self._lines.get(waiter.priority)
        if line is None:
            return
        waiters = line.waiters
        if waiters and waiters[0] is waiter:
            waiters.popleft()
        elif waiters and waiters[-1] is waiter:
            waiters.pop()
        elif waiter in waiters:
            waiters.remove(waiter)
        else:
            return
        self._count -= 1
        if not waiters:
            # An empty queue does not stand: its clock starts anew.
            del self._lines[waiter.priority]
            self._order.remove(waiter.priority)

    def expire(self, now: float) -> list[Waiter[Ticket]]:
        """Takes out and returns who has waited too long."""
        gone = []
        for priority, line in list(self._lines.items()):
            self._look(line, now)
            standing = priority >= 0 and self._stands(line, now)
            allowed_s = self._policy.target_s if standing else self._policy.longest_s
            while line.waiters and now - line.waiters[0].since >= allowed_s:
                gone.append(line.waiters[0])
                self.remove(line.waiters[0])
        return gone

    def oldest_s(self, now: float) -> float:
        """How long the oldest has waited; 0 when nobody does."""
        return max((now - line.waiters[0].since for line in self._lines.values()), default=0.0)

    def _look(self, line: _Line[Ticket], now: float) -> None:
        """Notes since when the line's oldest has been waiting too long."""
        if now - line.waiters[0].since < self._policy.target_s / 2:
            line.above_since = None
        elif line.above_since is None:
            line.above_since = now

    def _stands(self, line: _Line[Ticket], now: float) -> bool:
        return line.above_since is not None and now - line.above_since >= self._policy.interval_s
