"""A retry budget: retries are a share of the requests, so that they cannot multiply a failure.

Each request pays a fraction of a retry in, each retry takes a whole one out; a floor lets a quiet
server retry too. Source: Finagle's RetryBudget.
"""


class RetryBudget:
    """Up to `most` retries saved up; `ratio` a request and `floor_per_s` a second come in."""

    def __init__(
        self, *, ratio: float = 0.2, floor_per_s: float = 1.0, most: float = 100.0
    ) -> None:
        self._ratio = ratio
        self._floor_per_s = floor_per_s
        self._most = most
        self._saved = most / 2
        self._at: float | None = None

    def request(self) -> None:
        """A request has come in."""
        self._saved = min(self._most, self._saved + self._ratio)

    def take(self, now: float) -> bool:
        """Whether one more retry may be made at `now` (seconds on a steady clock)."""
        if self._at is not None:
            self._saved = min(self._most, self._saved + (now - self._at) * self._floor_per_s)
        self._at = now
        if self._saved < 1:
            return False
        self._saved -= 1
        return True
