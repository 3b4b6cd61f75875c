"""How many sequences may be in the engine, running or waiting; one more gets a 503 at once.

vLLM's own bound (`max_num_queued_reqs`) looks at the engine before the prompt is tokenized and
counts it after, so a burst passes it whole. Here a sequence counts from the moment it is let in.
"""

import math
from typing import Final

from openinference.errors import Reason, Unavailable

# Over how many seconds the rate of finished sequences is averaged.
RATE_TAU_S: Final = 10.0
LEAST_RETRY_S: Final = 1.0
MOST_RETRY_S: Final = 30.0


class Admission:
    """Counts sequences in and out; `now` is in seconds on a steady clock."""

    def __init__(self, bound: int) -> None:
        """At most `bound` sequences; what is larger goes in alone."""
        self._bound = bound
        self._rate_per_s = 0.0
        self._left_at = -math.inf
        self.sequences = 0

    def enter(self, sequences: int, now: float) -> None:
        """Lets a request in; each enter needs its `leave`. Raises Unavailable when full."""
        if self.sequences and self.sequences + sequences > self._bound:
            retry_s = self.retry_after_s(sequences, now)
            raise Unavailable(
                f"the engine is full: {self.sequences} sequences are in it, {self._bound} may be;"
                f" try again in {math.ceil(retry_s)} s",
                retry_after_s=retry_s,
                reason=Reason.FULL,
            )
        self.sequences += sequences

    def leave(self, sequences: int, now: float) -> None:
        """Lets a request out."""
        self.sequences -= sequences
        decay = math.exp((self._left_at - now) / RATE_TAU_S)
        self._rate_per_s = self._rate_per_s * decay + sequences / RATE_TAU_S
        self._left_at = now

    def retry_after_s(self, sequences: int, now: float) -> float:
        """In how many seconds, at the measured rate, there is room for `sequences`."""
        rate = self._rate_per_s * math.exp((self._left_at - now) / RATE_TAU_S)
        over = self.sequences + sequences - self._bound
        wait_s = over / rate if rate > 0 else LEAST_RETRY_S
        return min(max(wait_s, LEAST_RETRY_S), MOST_RETRY_S)
