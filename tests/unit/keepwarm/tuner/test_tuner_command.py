"""`keepwarm tune` as it is run: what it writes, what it refuses; the page in a real browser."""

import json
from pathlib import Path

import pytest
import yaml
from selenium.webdriver.common.by import By
from typer.testing import CliRunner, Result

from keepwarm.cli import app
from keepwarm.traces import mooncake
from keepwarm.traces.trace import Trace
from tests.browser import assert_stands_alone

BASE = Path(__file__).parents[4] / "manifests/base/inferenceservice.yaml"


@pytest.fixture(scope="module")
def trace(fortnight, tmp_path_factory) -> Path:
    """The fortnight as a file."""
    import numpy as np

    size = len(fortnight.requests)
    log = Trace(
        "made",
        fortnight.requests.arrival_s,
        np.full(size, 100),
        np.full(size, 50),
        fortnight.requests.duration_s,
    )
    path = tmp_path_factory.mktemp("trace") / "trace.jsonl"
    path.write_bytes(b"".join(mooncake.write(log)))
    return path


def run(trace: Path, out: Path, *more: str) -> Result:
    return CliRunner().invoke(
        app,
        [
            "tune",
            f"--trace={trace}",
            f"--isvc={BASE}",
            "--cold-start=p50=38s,p95=61s",
            "--gpu-price=2.5",
            "--service-time=p50=5s,p95=8s",
            "--slo=cold<=8%",
            "--node-linger=1m",
            "--candidates=120",
            f"--out={out}",
            *more,
        ],
    )


@pytest.fixture(scope="module")
def tuned(trace, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("tuned")
    result = run(trace, out, "--time-zone=UTC")
    assert result.exit_code == 0, result.output
    assert "Recommended" in result.stdout
    assert "clairvoyant bound" in result.stdout
    assert "Knobs that do not matter here" in result.stdout
    return out


def test_it_writes_what_can_be_applied_and_read(tuned):
    plan = json.loads((tuned / "plan.json").read_text())
    patch = yaml.safe_load((tuned / "patch.yaml").read_text())
    assert patch["kind"] == "InferenceService"
    week = plan["recommended"]["week"]
    assert week is not None
    pool = yaml.safe_load((tuned / "warmpool.yaml").read_text())
    assert pool["kind"] == "WarmPool"
    assert pool["spec"]["target"]["inferenceService"] == "chat"
    names = [row["name"] for row in plan["compared"]]
    assert {"recommended", "current", "always-on", "hybrid histogram"} <= set(names)
    lint = CliRunner().invoke(app, ["lint", str(tuned / "patch.yaml")])
    assert lint.exit_code == 0, lint.output


def test_json_is_the_plan_and_a_second_run_reads_what_the_first_simulated(trace, tuned):
    before = (tuned / "evaluations.jsonl").read_bytes()
    result = run(trace, tuned, "--json", "--time-zone=UTC")
    assert json.loads(result.stdout) == json.loads((tuned / "plan.json").read_text())
    assert (tuned / "evaluations.jsonl").read_bytes() == before


def test_where_nothing_keeps_the_slo_the_status_says_so_and_no_old_patch_is_left(trace, tmp_path):
    (tmp_path / "patch.yaml").write_text("old")
    result = run(trace, tmp_path, "--slo=cold<=0%", "--candidates=80")
    assert result.exit_code == 3
    assert "Nothing is recommended" in " ".join(result.stdout.split())
    assert not (tmp_path / "patch.yaml").exists()
    assert (tmp_path / "report.html").exists()


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (["--slo=cold<=fast"], "--slo"),
        (["--gpu-price=0"], "--gpu-price"),
        (["--cold-start=40s"], "no file and no quantiles"),
        (["--wake=p50=1s"], "--asleep-price"),
        (["--time-zone=Mars/Base"], "IANA time zone"),
        (["--to=3d"], "holds 3 d; a week is the least"),
        (["--gpus=8", "--gpus-per-node=4"], "--gpus-per-node"),
        (["--isvc=/nowhere.yaml"], "/nowhere.yaml"),
        (["--latency-model=/nowhere.json"], "/nowhere.json"),
        (["--slo=ttft_p99<=2s"], "--first-token"),
    ],
)
def test_wrong_input_is_told_with_its_reason(trace, tmp_path, more, told):
    result = run(trace, tmp_path, *more)
    assert result.exit_code == 2, result.output
    assert told in result.stderr


@pytest.mark.parametrize(
    ("lines", "told"),
    [
        (["", ""], "it is empty"),
        (['{"timestamp": 5, "input_length": -1, "output_length": 1}'], "line 1"),
        (
            [
                '{"timestamp": 50, "input_length": 1, "output_length": 1}',
                '{"timestamp": 5, "input_length": 1, "output_length": 1}',
            ],
            "line 2: its time is",
        ),
        (['{"timestamp": "soon", "input_length": 1, "output_length": 1}'], "line 1"),
    ],
)
def test_a_trace_that_cannot_be_used_is_told_with_its_line(tmp_path, lines, told):
    path = tmp_path / "trace.jsonl"
    path.write_text("\n".join(lines))
    result = run(path, tmp_path)
    assert result.exit_code == 2
    assert told in result.stderr


def test_a_trace_without_times_needs_them_measured(trace, tmp_path):
    result = CliRunner().invoke(
        app,
        [
            "tune",
            f"--trace={trace}",
            f"--isvc={BASE}",
            "--cold-start=p50=38s",
            "--gpu-price=1",
            f"--out={tmp_path}",
        ],
    )
    assert result.exit_code == 2
    assert "--latency-model" in result.stderr


@pytest.mark.parametrize("width", [390, 1200])
def test_the_page_stands_alone_and_fits_any_screen(tuned, browser, width):
    assert_stands_alone(browser, tuned / "report.html", width=width, pictures=6)
    assert browser.title == "keepwarm tune: chat"


def test_the_page_tells_the_same_as_the_plan(tuned, browser):
    browser.get((tuned / "report.html").as_uri())
    plan = json.loads((tuned / "plan.json").read_text())
    held = {row["name"]: row["held_out"] for row in plan["compared"]}
    chosen = browser.find_element(By.CSS_SELECTOR, "#compared tr.chosen")
    assert f"{held['recommended']['cost']['value']:.2f}" in chosen.text
    assert f"{held['recommended']['exposure']['value'] * 100:.2f} %" in chosen.text
    assert "autoscaling.knative.dev/window" in browser.find_element(By.TAG_NAME, "pre").text
    rows = browser.find_elements(By.CSS_SELECTOR, "#compared tr")
    assert len(rows) == len(plan["compared"]) + 1


def test_pointing_at_a_ring_tells_its_settings(tuned, browser):
    browser.get((tuned / "report.html").as_uri())
    told = browser.find_element(By.ID, "point")
    before = told.text
    # The row's click is the keyboard's and the finger's way to the same.
    row = browser.find_element(By.CSS_SELECTOR, "[data-point='0']")
    browser.execute_script("arguments[0].click()", row)
    assert told.text != before
    assert "stable window" in told.text
    assert "chosen" in row.get_attribute("class")
    browser.execute_script(
        "document.getElementById('front-1').dispatchEvent(new MouseEvent('mouseenter'))"
    )
    assert "chosen" not in row.get_attribute("class")
