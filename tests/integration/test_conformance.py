"""Both servers pass the conformance suite, with an echo in place of vLLM behind them."""

import subprocess
import sys
from pathlib import Path

RUN = Path(__file__).parents[1] / "conformance" / "comparison" / "run.py"


def test_transformer_and_predictor_pass_every_case(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, RUN, "--ours", "--folder", tmp_path],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    for server in ("transformer", "predictor"):
        assert (tmp_path / f"{server}.xml").exists(), "no JUnit report"
