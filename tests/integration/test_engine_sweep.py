"""A sweep of a real engine, by the benchmark's own script, is what `keepwarm engine` reads."""

import json
from collections.abc import Callable
from pathlib import Path

from typer.testing import CliRunner

from keepwarm.cli import app
from keepwarm.local.model_folder import demo_folder

from .commands import run

PLACES = 4


def test_a_measured_sweep_ends_in_advice(
    tmp_path: Path, free_ports: Callable[[int], list[int]]
) -> None:
    sweep = tmp_path / "sweep.json"
    run(
        *("gpu/parity.py", f"--model={demo_folder()}", f"--work={tmp_path / 'work'}"),
        *("--servers=ours", "--eager", "--load_format=auto", f"--max_num_seqs={PLACES}"),
        *("--connections=1,2", "--turns=1", "--seconds=10", "--shorter=16", f"--sweep={sweep}"),
        f"--port={free_ports(1)[0]}",
        timeout_s=400,
    )
    points = json.loads(sweep.read_text())["points"]
    assert [point["concurrency"] for point in points] == [1, 2]
    # Any machine keeps an hour, and none a nanosecond.
    told = CliRunner().invoke(
        app, ["engine", "advise", str(sweep), "--slo", "latency_p99<=1h", "--format", "json"]
    )
    assert told.exit_code == 0, told.output
    advice = json.loads(told.stdout)
    assert advice["max_num_seqs"] in {1, 2}
    assert advice["container_concurrency"] == advice["scale_target"] == advice["max_num_seqs"]
    refused = CliRunner().invoke(
        app, ["engine", "advise", str(sweep), "--slo", "ttft_p50<=0.001ms"]
    )
    assert refused.exit_code == 1
