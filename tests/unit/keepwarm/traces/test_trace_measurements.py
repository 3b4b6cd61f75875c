"""Measured times: histograms, samples and quantiles; the latency model of the engine."""

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from keepwarm.traces import histogram, latency
from keepwarm.traces.errors import TraceError
from keepwarm.traces.latency import LatencyModel, PerfRun
from keepwarm.traces.trace import Trace

SCRAPE = """# TYPE start_seconds histogram
start_seconds_bucket{phase="total",le="10"} 0
start_seconds_bucket{phase="total",le="20"} 4
start_seconds_bucket{phase="total",le="40"} 10
start_seconds_bucket{phase="total",le="+Inf"} 10
start_seconds_sum{phase="total"} 250
other_bucket{le="1"} 5
"""


def test_a_scrapes_histogram_interpolates_inside_its_buckets() -> None:
    found = histogram.from_scrape(SCRAPE, "start_seconds", "metrics")
    assert found.count == 10
    assert found.quantile(0.2) == pytest.approx(15)
    assert found.quantile(0.7) == pytest.approx(30)
    assert found.quantile(0.0) == 10
    assert found.quantile(1.0) == 40


def test_label_sets_of_one_histogram_add_up() -> None:
    twice = SCRAPE + SCRAPE.replace('phase="total"', 'phase="other"')
    assert histogram.from_scrape(twice, "start_seconds_bucket", "m").count == 20


def test_an_instant_querys_buckets_are_read(tmp_path: Path) -> None:
    result = [
        {"metric": {"le": le}, "value": [0, count]}
        for le, count in (("10", "0"), ("20", "5"), ("+Inf", "5"))
    ]
    path = tmp_path / "query.json"
    path.write_text(json.dumps({"data": {"result": result}}))
    assert histogram.read(str(path)).quantile(0.5) == pytest.approx(15)


@pytest.mark.parametrize(
    ("counts", "reason"),
    [
        ({10.0: 5.0, 20.0: 4.0, np.inf: 5.0}, "falls at le=20"),
        ({10.0: 0.0, np.inf: 0.0}, "counted nothing"),
        ({}, "counted nothing"),
        ({10.0: 5.0, np.inf: 10.0}, "50% of the times are above the last bucket, 10 s"),
    ],
)
def test_a_histogram_that_tells_nothing_is_refused(counts: dict[float, float], reason: str) -> None:
    with pytest.raises(TraceError, match=reason):
        histogram.from_buckets(counts, "h")


def test_measured_seconds_are_read_with_the_line_of_a_wrong_one(tmp_path: Path) -> None:
    path = tmp_path / "times"
    path.write_text("40\n30\n\n50\n")
    found = histogram.read(str(path))
    assert (found.count, found.quantile(0.5)) == (3, 40)
    path.write_text("40\n-3\n")
    with pytest.raises(TraceError, match=r"line 2: '-3' is not a time"):
        histogram.read(str(path))


def test_quantiles_give_a_lognormal_through_them() -> None:
    found = histogram.read("p50=38s,p95=1m")
    assert found.quantile(0.5) == pytest.approx(38, rel=0.01)
    assert found.quantile(0.95) == pytest.approx(60, rel=0.03)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("45s", "no file and no quantiles"),
        ("p50=fast", "not a duration"),
        ("p50=10s,p95=5s", "rise with the quantile"),
        ("p50=1s,p50=2s", "rise with the quantile|given twice"),
        ("mean=10s", "not a quantile"),
        ("p0=10s", "not between"),
    ],
)
def test_a_guess_or_a_wrong_quantile_is_refused(text: str, reason: str) -> None:
    with pytest.raises(TraceError, match=reason):
        histogram.read(text)


@given(st.lists(st.floats(0, 1e4), min_size=2, max_size=50), st.integers(1, 500), st.integers(0, 9))
def test_draws_have_the_distributions_quantiles(times: list[float], number: int, seed: int) -> None:
    found = histogram.from_times("\n".join(map(repr, times)).encode(), "t")
    drawn = found.draw(number, seed)
    assert len(drawn) == number
    assert min(times) <= min(drawn) <= max(drawn) <= max(times)
    # An even number has two in the middle, half a stratum to either side.
    low, high = found.quantile(0.5 - 0.5 / number), found.quantile(0.5 + 0.5 / number)
    assert low - 1e-9 <= np.median(drawn) <= high + 1e-9


def perf_run(model: LatencyModel, noise: float = 0.03, seed: int = 1) -> PerfRun:
    """Requests of an engine that behaves like `model`, stepped token by token."""
    random = np.random.default_rng(seed)
    n = 300
    arrival = np.sort(random.uniform(0, 60, n))
    inputs = random.integers(20, 2000, n).astype(np.float64)
    outputs = random.integers(2, 200, n).astype(np.float64)
    ttft = model.ttft_s(inputs) * random.lognormal(0, noise, n)
    left = outputs - 1
    end = np.full(n, np.nan)
    now, dt = 0.0, 0.005
    begin = arrival + ttft
    while np.isnan(end).any():
        decoding = (begin <= now) & np.isnan(end)
        inside = ((arrival <= now) & np.isnan(end)).sum()
        step = model.step_s + model.step_s_per_request * max(0, inside - 1)
        left[decoding] -= dt / step
        now += dt
        end[decoding & (left <= 0)] = now
    return PerfRun("run", arrival, inputs, outputs, ttft, end - arrival)


def test_the_fit_finds_prefill_and_decode_against_batch() -> None:
    truth = LatencyModel(0.03, 0.0001, 0.012, 0.0006)
    found = latency.fit(perf_run(truth))
    assert found.prefill_s == pytest.approx(truth.prefill_s, rel=0.1)
    assert found.prefill_s_per_token == pytest.approx(truth.prefill_s_per_token, rel=0.1)
    assert found.step_s == pytest.approx(truth.step_s, rel=0.1)
    assert found.step_s_per_request == pytest.approx(truth.step_s_per_request, rel=0.15)
    assert found.slowdown == pytest.approx(0.05, rel=0.2)
    assert found.ttft_error < 0.05
    assert found.duration_error < 0.05


def test_no_coefficient_is_negative_when_batch_does_not_matter() -> None:
    found = latency.fit(perf_run(LatencyModel(0.03, 0.0, 0.012, 0.0)))
    assert found.step_s_per_request >= 0
    assert found.prefill_s_per_token >= 0


def test_others_are_counted_over_the_time_a_request_decodes() -> None:
    ones = np.ones(3)
    run = PerfRun(
        "r",
        np.array([0.0, 1.0, 10.0]),
        ones,
        ones,
        np.array([1.0, 0.0, 1.0]),
        np.array([3.0, 1.0, 2.0]),
    )
    assert latency.others_in_engine(run) == pytest.approx([0.5, 1.0, 0.0])


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        ([b"{}"], "line 1: it must be a JSON object with timestamp"),
        ([b"{", b""], "line 1"),
        ([json.dumps(dict.fromkeys(latency.FIELDS, 1)).encode()], "1 requests are too few"),
        (
            [json.dumps(dict.fromkeys(latency.FIELDS, 1) | {"ttft_ms": 5}).encode()],
            "ttft_ms is longer",
        ),
        ([json.dumps(dict.fromkeys(latency.FIELDS, -1)).encode()], "0 or more"),
    ],
)
def test_a_wrong_perf_run_is_told(lines: list[bytes], reason: str) -> None:
    with pytest.raises(TraceError, match=reason):
        latency.read(lines, "run.jsonl")


def test_a_run_of_equal_answers_cannot_be_fitted() -> None:
    run = perf_run(LatencyModel(0.03, 0.0, 0.012, 0.0))
    same = PerfRun(
        "r", run.arrival_s, run.input_tokens, np.full(300, 50.0), run.ttft_s, run.duration_s
    )
    with pytest.raises(TraceError, match="equally long"):
        latency.fit(same)


def test_a_trace_without_tokens_cannot_be_timed() -> None:
    zeros = np.zeros(1, dtype=np.int64)
    with pytest.raises(TraceError, match="no token counts"):
        LatencyModel(1, 0, 1, 0).service_s(Trace("t", np.zeros(1), zeros, zeros, 1.0))


def test_a_fit_says_how_far_it_was_measured_and_survives_its_file(tmp_path: Path) -> None:
    run = perf_run(LatencyModel(0.05, 0.0002, 0.011, 0.0004))
    found = latency.fit(run)
    seen = latency.others_in_engine(run)
    assert 1 < found.most_at_once <= round(float(seen.max())) + 1
    path = tmp_path / "model.json"
    path.write_text(json.dumps(asdict(found)))
    assert latency.load(path) == found


@pytest.mark.parametrize("text", ["", "[]", '{"prefill_s": 1}', '{"speed": 3}'])
def test_what_is_no_latency_model_is_told(tmp_path: Path, text: str) -> None:
    path = tmp_path / "model.json"
    path.write_text(text)
    with pytest.raises(TraceError, match="no latency model"):
        latency.load(path)


def test_a_latency_model_with_a_negative_time_is_told(tmp_path: Path) -> None:
    path = tmp_path / "model.json"
    path.write_text(json.dumps(asdict(LatencyModel(-0.05, 0.0002, 0.011, 0.0004))))
    with pytest.raises(TraceError, match="0 or more"):
        latency.load(path)
