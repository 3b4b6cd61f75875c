"""A short run of perf/overload.py: at three times what the engine can do, goodput stays."""

import json
import subprocess
import sys
from pathlib import Path

OVERLOAD = Path(__file__).parents[2] / "perf" / "overload.py"


def test_goodput_at_three_times_saturation_is_nine_tenths_of_the_peak(tmp_path: Path) -> None:
    report = tmp_path / "samples.json"
    done = subprocess.run(
        [
            *(sys.executable, OVERLOAD, "--stacks", "keepwarm", "--loads", "1", "3"),
            *("--seconds", "8", "--json", report),
        ],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    # Its exit status says whether the goodput has stayed and every answer was right.
    assert done.returncode == 0, done.stdout + done.stderr
    saturated, over = json.loads(report.read_text())
    assert over["good"] >= 0.9 * saturated["good"] > 0
    assert over["wrong"] == saturated["wrong"] == 0
    assert over["refused"] > over["good"]
