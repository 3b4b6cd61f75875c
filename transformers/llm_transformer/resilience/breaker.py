"""A circuit breaker: calls that keep failing are refused at once until one trial succeeds.

Closed, it counts outcomes in a sliding window; it opens when too many of them are failures, lets a
single call through after a while (half-open), and closes or opens again with that call's outcome.
Source: Nygard, Release It!, "Circuit Breaker"; the window's rule is resilience4j's.
"""

from collections import deque
from dataclasses import dataclass
from enum import StrEnum


class State(StrEnum):
    """What the breaker does with calls."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


class Outcome(StrEnum):
    """What a call says about the predictor; NEITHER is a call that its caller gave up."""

    SUCCESS = "success"
    FAILURE = "failure"
    NEITHER = "neither"


@dataclass(frozen=True, slots=True)
class BreakerPolicy:
    """Opens when `failure_ratio` of at least `min_calls` within `window_s` seconds failed.

    It stays open `open_s` seconds, twice as long after each failed trial, up to `max_open_s`.
    """

    window_s: float = 10.0
    min_calls: int = 10
    failure_ratio: float = 0.5
    open_s: float = 1.0
    max_open_s: float = 30.0


class CircuitBreaker:
    """The state; `now` is in seconds on any steady clock."""

    def __init__(self, policy: BreakerPolicy) -> None:
        self._policy = policy
        self._outcomes: deque[tuple[float, bool]] = deque()
        self._failures = 0
        self._open_until: float | None = None
        self._open_s = policy.open_s
        self._trial = False
        self._era = 0

    @property
    def era(self) -> int:
        """Today's; what a call that was let through in an earlier one says is old news."""
        return self._era

    def state(self, now: float) -> State:
        """The state at `now`."""
        if self._open_until is None:
            return State.CLOSED
        return State.OPEN if now < self._open_until else State.HALF_OPEN

    def refusal_s(self, now: float) -> float | None:
        """None: the call may go, in today's era, and its outcome must be recorded.

        Otherwise the seconds after which another try makes sense.
        """
        if self._open_until is None:
            return None
        if now < self._open_until:
            return self._open_until - now
        if self._trial:
            return self._policy.open_s
        self._trial = True
        self._era += 1
        return None

    def record(self, outcome: Outcome, now: float, era: int) -> None:
        """Counts the outcome of a call that was let through in `era`.

        A call may have two: that it was answered, and later that its answer broke off.
        """
        if era != self._era:
            return
        if self._trial:
            self._end_trial(outcome, now)
            return
        if outcome is Outcome.NEITHER:
            return
        failed = outcome is Outcome.FAILURE
        self._outcomes.append((now, failed))
        self._failures += failed
        while self._outcomes[0][0] < now - self._policy.window_s:
            self._failures -= self._outcomes.popleft()[1]
        if (
            failed
            and len(self._outcomes) >= self._policy.min_calls
            and self._failures >= self._policy.failure_ratio * len(self._outcomes)
        ):
            self._open(now)

    def _end_trial(self, outcome: Outcome, now: float) -> None:
        self._trial = False
        if outcome is Outcome.SUCCESS:
            self._open_until = None
            self._open_s = self._policy.open_s
        elif outcome is Outcome.FAILURE:
            self._open_s = min(2 * self._open_s, self._policy.max_open_s)
            self._open(now)

    def _open(self, now: float) -> None:
        self._era += 1
        self._open_until = now + self._open_s
        self._outcomes.clear()
        self._failures = 0
