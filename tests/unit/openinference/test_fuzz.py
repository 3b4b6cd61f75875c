"""The fuzzer of tests/fuzz, bounded: `make fuzz` runs it for longer."""

import subprocess
import sys
from pathlib import Path

RUN = Path(__file__).parents[2] / "fuzz" / "run.py"


def test_no_decoder_breaks_in_a_hundred_thousand_executions(tmp_path):
    # In a process of its own: atheris instruments what is imported after it.
    done = subprocess.run(
        [sys.executable, RUN, "every", tmp_path, "-runs=100000"],
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    assert "stat::number_of_executed_units: 100000" in done.stderr
