"""A short run of perf/overload.py: at three times what the engine can do, goodput stays."""

import json
from pathlib import Path

from .commands import run


def test_goodput_at_three_times_saturation_is_nine_tenths_of_the_peak(tmp_path: Path) -> None:
    report = tmp_path / "samples.json"
    # Its exit status says whether the goodput has stayed and every answer was right.
    run(
        *("overload.py", "--stacks", "keepwarm", "--loads", "1", "3"),
        *("--seconds", "8", "--json", report),
        timeout_s=300,
    )
    saturated, over = json.loads(report.read_text())
    assert over["good"] >= 0.9 * saturated["good"] > 0
    assert over["wrong"] == saturated["wrong"] == 0
    assert over["refused"] > over["good"]
