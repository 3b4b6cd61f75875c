"""Prometheus' answers: counts per step become requests, holes and errors are told."""

import json

import httpx
import numpy as np
import pytest

from keepwarm.traces import prometheus
from keepwarm.traces.errors import TraceError

T0 = 1_790_000_000


def matrix(*series: list[list[object]]) -> bytes:
    result = [{"metric": {"i": str(i)}, "values": values} for i, values in enumerate(series)]
    return json.dumps(
        {
            "status": "success",
            "data": {"resultType": "matrix", "result": result},
        }
    ).encode()


def values(counts: dict[int, object], step: int = 15) -> list[list[object]]:
    return [[T0 + at * step, str(count)] for at, count in counts.items()]


def test_each_sample_counts_the_step_that_ends_at_it() -> None:
    series = prometheus.parse(matrix(values({0: 2, 1: 0, 2: 3})), "s")
    trace = prometheus.requests(series, seed=3)
    assert trace.start is not None
    assert trace.start.timestamp() == T0 - 15
    assert trace.duration_s == 45
    assert np.histogram(trace.arrival_s, bins=[0, 15, 30, 45])[0].tolist() == [2, 0, 3]


def test_fractions_of_increase_keep_the_running_total() -> None:
    series = prometheus.parse(matrix(values(dict.fromkeys(range(100), 0.1))), "s")
    assert len(prometheus.requests(series)) == 10


def test_the_same_seed_places_the_requests_alike() -> None:
    series = prometheus.parse(matrix(values({0: 5, 1: 5})), "s")
    one, same, other = (prometheus.requests(series, seed=s).arrival_s for s in (1, 1, 2))
    assert (one == same).all()
    assert (one != other).any()


def test_tokens_per_step_become_the_steps_mean() -> None:
    series = prometheus.parse(matrix(values({0: 2, 1: 1})), "s")
    tokens = prometheus.parse(matrix(values({0: 300, 1: 50})), "tokens")
    trace = prometheus.requests(series, input_tokens=tokens)
    assert trace.input_tokens.tolist() == [150, 150, 50]


def test_a_hole_is_told_with_its_place_and_filled_only_when_asked() -> None:
    series = prometheus.parse(matrix(values({0: 1, 1: 1, 5: 1})), "s")
    with pytest.raises(TraceError, match=r"3 samples are missing up to .*--fill-gaps") as raised:
        prometheus.requests(series)
    assert raised.value.place is not None
    assert raised.value.place.startswith("after sample 2 (2026-")
    filled = prometheus.requests(series, fill_gaps=True)
    assert len(filled) == 3
    assert filled.duration_s == 90
    assert filled.warnings == ("3 missing samples count as silence.",)


def test_a_coarse_step_is_warned_of() -> None:
    trace = prometheus.requests(prometheus.parse(matrix(values({0: 1, 1: 1}, 300)), "s"))
    assert "bursts and gaps shorter than that are not in the data" in trace.warnings[0]


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"<html>", "not Prometheus' JSON"),
        (json.dumps({"status": "error", "error": "bad query"}).encode(), "bad query"),
        (
            json.dumps({"status": "success", "data": {"resultType": "vector"}}).encode(),
            "resultType is 'vector'",
        ),
        (matrix(), "no series"),
        (matrix(values({0: 1, 1: 1}), values({0: 1, 1: 1})), r"2 series.*sum\(...\)"),
        (matrix([]), "no samples"),
        (matrix(values({0: 1})), "does not tell the step"),
        (matrix(values({0: 1, 1: -2})), r"sample 2 \(2026.*value is -2"),
        (matrix(values({0: 1, 1: "NaN"})), "value is nan"),
        (matrix([[T0, "1"], [T0 - 15, "1"]]), "not after the one before"),
        (matrix([[T0, "1"], [T0 + 15]]), "sample 2: .*not .time, value"),
    ],
)
def test_a_wrong_answer_is_told(body: bytes, reason: str) -> None:
    with pytest.raises(TraceError, match=reason):
        prometheus.parse(body, "s")


def test_samples_off_the_grid_are_told() -> None:
    body = matrix([[T0, "1"], [T0 + 15, "1"], [T0 + 37, "1"]])
    with pytest.raises(TraceError, match="not on the grid of 15 s"):
        prometheus.requests(prometheus.parse(body, "s"))


def test_only_zeros_are_no_trace() -> None:
    with pytest.raises(TraceError, match="every sample is 0"):
        prometheus.requests(prometheus.parse(matrix(values({0: 0, 1: 0})), "s"))


def test_a_server_out_of_reach_is_told() -> None:
    with pytest.raises(TraceError, match="cannot be reached"):
        prometheus.fetch("http://127.0.0.1:1", "up", start_s=0, end_s=60, step_s=15)


def test_a_long_range_is_asked_for_in_pieces_with_the_token(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[tuple[float, float]] = []

    def answer(request: httpx.Request) -> httpx.Response:
        form = dict(httpx.QueryParams(request.content.decode()))
        start, end, step = (float(form[name]) for name in ("start", "end", "step"))
        assert request.headers["authorization"] == "Bearer secret"
        asked.append((start, end))
        points = int((end - start) // step) + 1
        return httpx.Response(200, content=matrix([[start + i * step, "1"] for i in range(points)]))

    client = httpx.Client
    monkeypatch.setattr(
        prometheus.httpx, "Client", lambda **k: client(**k, transport=httpx.MockTransport(answer))
    )
    monkeypatch.setenv(prometheus.TOKEN_ENV, "secret")
    series = prometheus.fetch("http://p", "q", start_s=0, end_s=15 * 24_999, step_s=15)
    assert len(series.t_s) == 25_000
    assert (np.diff(series.t_s) == 15).all()
    assert [round((b - a) / 15) + 1 for a, b in asked] == [11_000, 11_000, 3_000]
