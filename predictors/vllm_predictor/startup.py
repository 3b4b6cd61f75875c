"""Start-up phases: which one runs, and how many seconds each took, in the log and in Prometheus.

`import` begins when the process does; `engine` is everything of the engine's construction that is
not `weights` (its own process, memory profiling, KV cache, graphs).
"""

import logging
import os
import time
from enum import StrEnum
from pathlib import Path

from prometheus_client import Gauge

logger = logging.getLogger("vllm_predictor.startup")

PHASE_SECONDS = Gauge(
    "keepwarm_startup_phase_seconds", "Seconds spent in a start-up phase so far.", ["phase"]
)
PHASE_ACTIVE = Gauge(
    "keepwarm_startup_phase_active", "1 for the start-up phase that runs now.", ["phase"]
)
TOTAL_SECONDS = Gauge(
    "keepwarm_startup_seconds", "Seconds from the start of the process to its readiness."
)


class Phase(StrEnum):
    """The phases, in order."""

    IMPORT = "import"
    CONFIG = "config"
    WEIGHTS = "weights"
    ENGINE = "engine"
    WARMUP = "warmup"


class Startup:
    """A stopwatch that is always in one phase; a phase entered twice adds up."""

    def __init__(self, began: float) -> None:
        """`began` is when the process began, on the clock of time.monotonic."""
        self.began = began
        self.seconds = dict.fromkeys(Phase, 0.0)
        self.phase: Phase | None = Phase.IMPORT
        self.phase_began = began
        for phase in Phase:
            PHASE_SECONDS.labels(phase).set(0)
            PHASE_ACTIVE.labels(phase).set(phase is Phase.IMPORT)

    def enter(self, phase: Phase, now: float) -> None:
        """Ends the running phase at `now` and begins `phase`."""
        self._leave(now)
        self.phase = phase
        PHASE_ACTIVE.labels(phase).set(1)

    def finish(self, now: float) -> None:
        """Ends the last phase: the server is ready."""
        self._leave(now)
        self.phase = None
        total = now - self.began
        TOTAL_SECONDS.set(total)
        logger.info(
            "ready after %.1f s: %s",
            total,
            ", ".join(f"{phase} {seconds:.1f} s" for phase, seconds in self.seconds.items()),
        )

    def _leave(self, now: float) -> None:
        if self.phase is None:
            return
        self.seconds[self.phase] += now - self.phase_began
        self.phase_began = now
        PHASE_SECONDS.labels(self.phase).set(self.seconds[self.phase])
        PHASE_ACTIVE.labels(self.phase).set(0)


def process_began() -> float:
    """When this process began, on the clock of time.monotonic (Linux: CLOCK_MONOTONIC)."""
    # proc(5): field 22 of stat is the start in clock ticks since boot; the command may hold spaces.
    fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    since_boot = int(fields[19]) / os.sysconf("SC_CLK_TCK")
    age = time.clock_gettime(time.CLOCK_BOOTTIME) - since_boot
    return time.monotonic() - age
