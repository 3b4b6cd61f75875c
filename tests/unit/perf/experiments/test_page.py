"""The report of the experiments, read in a real browser without a network."""

from dataclasses import replace
from pathlib import Path

import page
import plots
import pytest
from cost import Cost
from results import Batches, Burst, Result, Second
from selenium.webdriver.common.by import By
from stacks import ALONE, Engine

from keepwarm.engine.sweep import Point, Sweep
from tests.browser import assert_stands_alone

ENGINE = Engine("h200-bf16").label
ENVIRONMENT = {
    "date": "2026-11-25 23:00 UTC",
    "commit": "0123456789ab",
    "CPU": "two <cores>",
    "load average before": "0.10 0.20 0.30",
}


def _result(name, rows=(), **more):
    return Result(name, f"The {name}", "Why?", ENGINE, ENVIRONMENT, tuple(rows), **more)


def _sweep(*counts):
    points = tuple(
        Point(concurrency=count, tokens_per_s=100.0 * count, ttft_p50_s=0.02, ttft_p99_s=0.05)
        for count in counts
    )
    return Sweep(max_num_seqs=max(counts), points=points)


@pytest.fixture
def results(row):
    """One of each kind."""
    ratios = (0.5, 0.98, 1.0)
    seconds = tuple(Second(n, 100, 90, 5, 0, 600.0, min(n, 4), min(n // 2, 4)) for n in range(20))
    burst = Burst("from zero", {"scale": "1/10"}, seconds, row().figures, Cost(60.0, 2.5, 900, 900))
    loads = [
        row(0.9, rate=rate, part="", stack=stack, p99_ms=ms)
        for stack in (ALONE.name, "keepwarm")
        for rate, ms in ((500.0, 300.0), (1000.0, None))
    ]
    return [
        _result("hit-ratio", [row(h, p99_ms=900 - 500 * h, part=ENGINE) for h in ratios]),
        _result("peak", loads),
        _result("cache", [row(None, stack=name, part="30") for name in ("no cache", "L1")]),
        _result(
            "batch", batches=(Batches(ENGINE, _sweep(6, 12), "x", "--max_num_seqs=6", _sweep(6)),)
        ),
        _result("burst", bursts=(burst,), notes=("A note.",)),
    ]


@pytest.fixture
def report(results, tmp_path):
    path = tmp_path / "report.html"
    path.write_text(page.render(results))
    return path


@pytest.mark.parametrize("width", [390, 1200])
def test_the_report_stands_alone_and_fits_any_screen(report, browser, width):
    assert_stands_alone(browser, report, width=width, pictures=6)


def test_the_report_says_what_was_measured_and_that_no_gpu_was_there(report, results, browser):
    browser.get(report.as_uri())
    body = browser.find_element(By.TAG_NAME, "body").text
    assert "No GPU:" in body
    assert "two <cores>" in body
    assert "A note." in body
    assert "--max_num_seqs=6" in body
    rows = browser.find_elements(By.CSS_SELECTOR, "table.figures tr")
    assert len(rows) == sum(1 + len(result.rows) for result in results if result.rows)
    verdicts = browser.find_element(By.ID, "verdicts").text
    assert "from a hit ratio of 98.0% on" in verdicts


def test_a_real_engine_is_named_with_its_gpu_and_is_no_simulated_one(results, row):
    label = Engine("ours", Path("/models/llama")).label
    environment = {**ENVIRONMENT, "GPU": "NVIDIA H100 80GB HBM3, 580.159.04"}
    rows = (row(None, stack=ALONE.name), row(0.9))
    told = page.render([replace(results[1], engine=label, environment=environment, rows=rows)])
    assert "our predictor, bf16, llama, on NVIDIA H100 80GB HBM3, 580.159.04" in told
    assert "No GPU:" not in told
    # Simulated beside a GPU is simulated all the same.
    assert page.engine(replace(results[1], environment=environment)) == ENGINE


def test_two_engines_of_one_stack_are_two_lines(row):
    rows = [
        row(None, rate=rate, stack=ALONE.name, part=part)
        for part in ("ours", "vLLM's own")
        for rate in (500.0, 1000.0)
    ]
    assert len(plots._lines(rows)) == 2
    assert len(plots._lines([replace(each, part="") for each in rows])) == 1


def test_every_plot_names_the_engine(results):
    from html import unescape

    for result in results:
        for picture in page.pictures(result):
            assert ENGINE in unescape(picture.svg)
