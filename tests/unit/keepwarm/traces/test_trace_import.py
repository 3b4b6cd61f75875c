"""Reading traces: what is read, and what is refused with which line and reason."""

import gzip
import json
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from keepwarm.traces import access_log, azure, mooncake, sources
from keepwarm.traces.errors import TraceError
from keepwarm.traces.sources import Format
from keepwarm.traces.trace import Trace

TRACES = Path(__file__).parents[3] / "data" / "traces"
CSV = "TIMESTAMP,ContextTokens,GeneratedTokens\n"


def row(timestamp: object, inputs: object = 10, outputs: object = 5) -> str:
    return json.dumps({"timestamp": timestamp, "input_length": inputs, "output_length": outputs})


def test_the_shared_azure_trace_has_the_published_size_and_zero() -> None:
    trace = sources.read(TRACES / "azure-llm-2023-code.jsonl.gz")
    assert len(trace) == 8819
    assert trace.arrival_s[0] == 0
    assert trace.start is None
    assert trace.duration_s == pytest.approx(3435, abs=5)


def test_mooncake_times_since_1970_give_a_start() -> None:
    trace = mooncake.read([row(1_790_000_000_000), row(1_790_000_002_500)], "t")
    assert trace.start == datetime.fromtimestamp(1_790_000_000, tz=UTC)
    assert trace.arrival_s.tolist() == [0.0, 2.5]


def test_fields_that_mooncake_also_has_are_read_over() -> None:
    line = json.dumps({"timestamp": 0, "input_length": 1, "output_length": 2, "hash_ids": [1]})
    assert mooncake.read([line], "t").output_tokens.tolist() == [2]


@pytest.mark.parametrize(
    ("lines", "place", "reason"),
    [
        ([], None, "no request"),
        ([row(5), row(3)], "line 2", "before that of line 1"),
        ([row(0), row(-4)], "line 2", "must be 0 or more"),
        ([row(0, -1)], "line 1", "input tokens is -1"),
        ([row(0, 1.5)], "line 1", "whole number"),
        ([row(0), "", "{"], "line 3", "not JSON"),
        (["[1]"], "line 1", "not a JSON object"),
        ([json.dumps({"input_length": 1, "output_length": 1})], "line 1", "timestamp is missing"),
        ([row("12")], "line 1", "must be a number"),
        ([row(1_790_000_000)], "line 1", "looks like seconds"),
        ([row(1_790_000_000_000_000)], "line 1", "looks like microseconds"),
        ([row(1_790_000_000_000_000_000)], "line 1", "looks like nanoseconds"),
        ([row(i) for i in range(3000)], None, None),
        ([row(i / 1000) for i in range(3000)], "line 3000", "unit of time is wrong"),
        ([row(7) for _ in range(100)], "line 100", "the same time"),
    ],
)
def test_a_wrong_mooncake_line_is_told_with_its_number_and_the_reason(
    lines: list[str], place: str | None, reason: str | None
) -> None:
    if reason is None:
        assert len(mooncake.read(lines, "t.jsonl")) == len(lines)
        return
    with pytest.raises(TraceError, match=reason) as raised:
        mooncake.read(lines, "t.jsonl")
    assert raised.value.place == place
    assert str(raised.value).startswith("t.jsonl")


def test_rows_out_of_order_can_be_sorted_when_asked() -> None:
    trace = mooncake.read([row(5, 50), row(3, 30)], "t", any_order=True)
    assert trace.arrival_s.tolist() == [0.003, 0.005]
    assert trace.input_tokens.tolist() == [30, 50]


@given(
    st.lists(
        st.tuples(st.integers(0, 10**9 - 1), st.integers(0, 10**6), st.integers(0, 10**6)),
        min_size=1,
        max_size=60,
    ),
    st.booleans(),
)
def test_what_is_written_is_read_again_unchanged(
    rows: list[tuple[int, int, int]],
    dated: bool,  # noqa: FBT001 - hypothesis gives it by position
) -> None:
    rows.sort(key=lambda r: r[0])
    time = np.array([r[0] for r in rows]) / 1000
    start = datetime(2026, 5, 4, tzinfo=UTC) if dated else None
    base = time[0] if dated else 0.0
    trace = Trace(
        "t",
        time - base,
        np.array([r[1] for r in rows]),
        np.array([r[2] for r in rows]),
        float(time[-1] - base) + 1,
        start,
    )
    again = mooncake.read(mooncake.write(trace), "t")
    assert again.start == start
    assert np.abs(again.arrival_s - trace.arrival_s).max() < 2e-6
    assert (again.input_tokens == trace.input_tokens).all()
    assert (again.output_tokens == trace.output_tokens).all()


def test_azure_rows_of_both_years_are_read() -> None:
    lines = [
        CSV,
        "2023-11-16 18:17:03.9799600,4808,10\n",
        "2023-11-16 18:17:04.0319600,3180,8\n",
        "2023-11-16 18:17:05.0319600+00:00,3180,8\n",
    ]
    trace = azure.read(lines, "code.csv")
    assert trace.arrival_s == pytest.approx([0, 0.052, 1.052])
    assert trace.start == datetime(2023, 11, 16, 18, 17, 3, 979960, tzinfo=UTC)


@pytest.mark.parametrize(
    ("lines", "place", "reason"),
    [
        ([], None, "nothing in it"),
        (["TIMESTAMP,ContextTokens\n"], "line 1", "lacks GeneratedTokens"),
        ([CSV], None, "no request"),
        ([CSV, "yesterday,1,2\n"], "line 2", "TIMESTAMP is 'yesterday'"),
        ([CSV, "2023-11-16 18:17:03,1.5,2\n"], "line 2", "ContextTokens is '1.5'"),
        ([CSV, "2023-11-16 18:17:03,1\n"], "line 2", "2 values and the header 3"),
        ([CSV, "2023-11-16 18:17:03,1,-2\n"], "line 2", "output tokens is -2"),
        (
            [CSV, "2023-11-16 18:17:03,1,2\n", "2023-11-16 18:17:01,1,2\n"],
            "line 3",
            "2 s before that of line 2",
        ),
    ],
)
def test_a_wrong_azure_line_is_told(lines: list[str], place: str | None, reason: str) -> None:
    with pytest.raises(TraceError, match=reason) as raised:
        azure.read(lines, "code.csv")
    assert raised.value.place == place


def log(**fields: object) -> str:
    return json.dumps({"time": "2026-11-02T09:00:00Z", "status": 200, "duration_s": 2.0} | fields)


def test_the_access_log_gives_service_times_without_the_wait_in_order_of_arrival() -> None:
    trace = access_log.read(
        [
            log(time="2026-11-02T09:00:05Z", wait_s=0.5, input_tokens=7, output_tokens=9),
            log(time="2026-11-02T10:00:00+01:00"),
        ],
        "access.jsonl",
    )
    assert trace.arrival_s.tolist() == [0.0, 5.0]
    assert trace.service_s is not None
    assert trace.service_s.tolist() == [2.0, 1.5]
    assert trace.input_tokens.tolist() == [0, 7]


def test_what_never_reached_the_predictor_is_left_out_and_told() -> None:
    lines = [log(), log(status=429), log(status=401), log(cache="hit"), log(cache="coalesced")]
    trace = access_log.read([*lines, log(status=503)], "access.jsonl")
    assert len(trace) == 2
    assert trace.warnings == (
        "4 requests never reached the predictor (4xx, cache) and are left out.",
    )


def test_another_logs_field_names_can_be_mapped() -> None:
    line = json.dumps({"ts": 1_790_000_000.25, "latency": 3.0})
    trace = access_log.read([line], "nginx", names={"time": "ts", "duration_s": "latency"})
    assert trace.service_s is not None
    assert trace.service_s.tolist() == [3.0]


def test_another_logs_logger_is_only_a_field() -> None:
    line = json.dumps({"logger": "access", "ts": 1_790_000_000.25, "latency": 3.0})
    trace = access_log.read([line], "proxy", names={"time": "ts", "duration_s": "latency"})
    assert len(trace) == 1


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (log(time=None), "time is missing"),
        (log(time="2026-11-02T09:00:00"), "must tell its offset"),
        (log(time="nine"), "must be RFC 3339"),
        (log(time=1_790_000_000_000), "must be in seconds"),
        (log(duration_s=-1), "must be 0 or more"),
        (log(wait_s=3), "longer than duration_s"),
        (log(status="ok"), "must be a number"),
    ],
)
def test_a_wrong_access_log_line_is_told(line: str, reason: str) -> None:
    with pytest.raises(TraceError, match=reason) as raised:
        access_log.read([log(), line], "access.jsonl")
    assert raised.value.place == "line 2"


@pytest.mark.parametrize(
    ("body", "form"),
    [
        (row(0) + "\n" + row(9), Format.MOONCAKE),
        (CSV + "2023-11-16 18:17:03,1,2\n2023-11-16 18:17:04,1,2\n", Format.AZURE),
        (log() + "\n" + log(), Format.ACCESS_LOG),
        (
            json.dumps(
                {
                    "status": "success",
                    "data": {
                        "resultType": "matrix",
                        "result": [{"metric": {}, "values": [[60, "1"], [120, "1"]]}],
                    },
                }
            ),
            Format.PROMETHEUS,
        ),
    ],
)
@pytest.mark.parametrize("zipped", [False, True])
def test_the_format_of_a_file_is_recognised(
    tmp_path: Path, body: str, form: Format, *, zipped: bool
) -> None:
    path = tmp_path / "trace"
    path.write_bytes(gzip.compress(body.encode()) if zipped else body.encode())
    guessed, asked = sources.read(path), sources.read(path, form=form)
    assert len(guessed) == len(asked) == 2
    assert guessed.arrival_s.tolist() == asked.arrival_s.tolist()


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "it is empty"),
        (b"time status\n", "--format tells"),
        (b"\x1f\x8b\x08broken", "no text"),
        (b"\xff\xfe{", "no text"),
    ],
)
def test_a_file_that_is_no_trace_is_told(tmp_path: Path, body: bytes, reason: str) -> None:
    path = tmp_path / "trace"
    path.write_bytes(body)
    with pytest.raises(TraceError, match=reason):
        sources.read(path)


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(TraceError, match="No such file"):
        sources.read(tmp_path / "none.jsonl")


def test_a_start_can_be_given_only_to_relative_times(tmp_path: Path) -> None:
    moment = datetime(2026, 11, 2, tzinfo=UTC)
    path = tmp_path / "trace"
    path.write_text(row(1000))
    assert sources.read(path, start=moment).start == moment
    path.write_text(row(1_790_000_000_000))
    with pytest.raises(TraceError, match="leave out --start"):
        sources.read(path, start=moment)


def test_a_stretch_has_its_own_zero_and_start() -> None:
    trace = mooncake.read([row(t * 1000) for t in (1, 5, 9, 20)], "t")
    part = trace.between(4, 10)
    assert part.arrival_s.tolist() == [1.0, 5.0]
    assert part.duration_s == 6.0
    with pytest.raises(TraceError, match="no request between"):
        trace.between(10, 12)
