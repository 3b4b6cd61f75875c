"""Whether a Redis node is worth asking: pure rules over failures and time.

A failure that proves the node useless (refused, read-only, out of memory) stops the asking at
once; silence must happen twice in a row, for a busy event loop can look like it once.
"""

from dataclasses import dataclass
from typing import Final

SILENCES: Final = 2
# Between two probes of a node that is not asked: doubled up to the longest.
FIRST_PROBE_S: Final = 0.05
LONGEST_PROBE_S: Final = 1.0


@dataclass(slots=True)
class Circuit:
    """One node's. `key` is a key of its that failed, which a probe writes beside."""

    key: str
    is_open: bool = False
    silences: int = 0
    probe_s: float = FIRST_PROBE_S

    def succeeded(self) -> None:
        """The node answered."""
        self.silences = 0
        self.is_open = False
        self.probe_s = FIRST_PROBE_S

    def failed(self, key: str, *, silent: bool) -> bool:
        """The node did not answer, or with a failure; True when this opens the circuit."""
        self.key = key
        self.silences += 1
        if self.is_open or (silent and self.silences < SILENCES):
            return False
        self.is_open = True
        return True

    def probe_failed(self) -> None:
        """Waits longer before the next probe."""
        self.probe_s = min(self.probe_s * 2, LONGEST_PROBE_S)
