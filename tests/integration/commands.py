"""Runs a command of `perf/` as its user would."""

import subprocess
import sys
from pathlib import Path

PERF = Path(__file__).parents[2] / "perf"


def run(command: str, *arguments: object, timeout_s: float) -> str:
    """What it prints, once it has ended well; fails with all that it printed when it has not."""
    done = subprocess.run(
        [sys.executable, PERF / command, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
