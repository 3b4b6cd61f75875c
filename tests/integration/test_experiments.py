"""A tiny run of perf/experiments: the servers are real, the engine is the simulated one."""

import json
from pathlib import Path

import pytest

from .commands import run


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a baseline and a sweep have written."""
    out = tmp_path_factory.mktemp("bench")
    run(
        *("experiments", "baseline", "batch", "--engine=h200-fp8"),
        *("--rates", "40", "--seconds=2", "--warm-up=1", "--stream-share=0.5"),
        *("--in-flight", "6", "12", "--slo=latency_p99<=1m", f"--out={out}"),
        timeout_s=300,
    )
    return out


def test_the_cache_answers_about_the_share_that_was_asked_for_and_the_engine_the_rest(
    folder: Path,
) -> None:
    told = json.loads((folder / "baseline.json").read_text())
    assert "simulated" in told["engine"]
    assert told["environment"]["commit"]
    rows = [row["figures"] for row in told["rows"]]
    assert [(row["stack"], row["hit_target"]) for row in rows] == [
        ("engine alone", None),
        ("keepwarm, cache off", None),
        ("keepwarm", 0.5),
        ("keepwarm", 0.9),
    ]
    for row in rows:
        assert row["served_rps"] > 0
        assert row["failed_rps"] == row["limited_rps"] == 0
        assert row["streams"] > 0
        assert set(row["usage"]["cores"]) >= {"driver", "engine"}
    shares = [row["engine_share"] for row in rows]
    assert shares[:2] == [1, 1]
    assert shares[3] < shares[2] < 1
    assert rows[3]["hit_ratio"] > 0.6


def test_a_sweep_becomes_advice_and_the_advice_is_tried(folder: Path) -> None:
    told = json.loads((folder / "batch.json").read_text())
    (batches,) = told["batches"]
    kept = json.loads((folder / "sweep-h200-fp8.json").read_text())
    counts = [point["concurrency"] for point in kept["points"]]
    assert counts == [6, 12]
    assert "--max_num_seqs=" in batches["advice"]
    (proof,) = batches["proof"]["points"]
    assert proof["concurrency"] == batches["proof"]["max_num_seqs"] in counts
    assert proof["tokens_per_s"] > 0


def test_the_report_holds_what_was_run(folder: Path) -> None:
    report = (folder / "report.html").read_text()
    assert report.count("<figure>") == 3
    for said in ("No GPU:", "Baseline", "Batch size", "keepwarm engine advise", "engine alone"):
        assert said in report
