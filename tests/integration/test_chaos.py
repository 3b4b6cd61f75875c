"""A short run of the chaos test; `make chaos` is the long one."""

import json
import subprocess
import sys
from pathlib import Path

from tests.redis_servers import need

CHAOS = Path(__file__).parents[1] / "chaos"
SEED = 5
FAULTS = 10


def test_ten_faults_leave_no_wrong_answer_no_hung_caller_and_right_books(tmp_path: Path) -> None:
    need("redis-server")
    report = tmp_path / "report.json"
    done = subprocess.run(
        [sys.executable, CHAOS, f"--faults={FAULTS}", f"--seed={SEED}", f"--json={report}"],
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    told = json.loads(report.read_text())
    assert told["problems"] == []
    assert sum(told["faults"].values()) == FAULTS
    assert told["outcomes"]["answered"] > 0
