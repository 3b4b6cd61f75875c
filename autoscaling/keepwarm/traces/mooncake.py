"""Mooncake JSONL, in and out: `{"timestamp": ms, "input_length": n, "output_length": n}` a line.

The format of the Mooncake FAST'25 traces, which AIPerf, guidellm, SGLang and Dynamo also replay.
Other fields (`hash_ids`) are read over. Times are relative, or milliseconds since 1970.
"""

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime

import orjson

from keepwarm.traces.errors import TraceError
from keepwarm.traces.trace import Rows, Trace

# Years 2001 to 2286, in the unit of the name: what a time since 1970 looks like.
EPOCH_S = (1e9, 1e10)
EPOCH_MS = (1e12, 1e13)
FIELDS = ("timestamp", "input_length", "output_length")


def read(lines: Iterable[str | bytes], source: str, *, any_order: bool = False) -> Trace:
    """The trace. Raises TraceError with the line for what is not such a row."""
    rows = Rows.empty(source)
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        row = _object(line, rows, number)
        values = [_number(row, name, rows, number) for name in FIELDS]
        rows.add(number, values[0] / 1000, _tokens(values[1]), _tokens(values[2]))
    return with_epoch(rows, any_order=any_order)


def with_epoch(rows: Rows, *, any_order: bool) -> Trace:
    """Times of this century become a start and offsets. Raises TraceError for another unit."""
    if not rows.time_s:
        return rows.trace(start=None)
    first_ms = min(rows.time_s) * 1000
    if EPOCH_MS[0] <= first_ms < EPOCH_MS[1]:
        zero = first_ms / 1000
        return rows.trace(
            start=datetime.fromtimestamp(zero, tz=UTC), zero_s=zero, any_order=any_order
        )
    for low, high, unit in (
        (*EPOCH_S, "seconds"),
        (1e15, 1e16, "microseconds"),
        (1e18, 1e19, "nanoseconds"),
    ):
        if low <= first_ms < high:
            raise rows.error(
                rows.lines[0],
                f"timestamp {first_ms:.0f} looks like {unit} since 1970;"
                " Mooncake's unit is the millisecond.",
            )
    return rows.trace(start=None, any_order=any_order)


def write(trace: Trace) -> Iterator[bytes]:
    """The lines, with their newlines; milliseconds since 1970 when the start is known."""
    base = 0 if trace.start is None else round(trace.start.timestamp() * 1000)
    for arrival, inputs, outputs in zip(
        trace.arrival_s, trace.input_tokens, trace.output_tokens, strict=True
    ):
        row = (base + round(float(arrival) * 1000), int(inputs), int(outputs))
        yield orjson.dumps(dict(zip(FIELDS, row, strict=True))) + b"\n"


def _object(line: str | bytes, rows: Rows, number: int) -> dict[str, object]:
    try:
        row = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        raise rows.error(number, f"it is not JSON ({error}).") from None
    if not isinstance(row, dict):
        raise rows.error(number, "it is not a JSON object.")
    return row


def _number(row: dict[str, object], name: str, rows: Rows, number: int) -> float:
    value = row.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float):
        told = "is missing" if value is None else f"is {value!r}"
        raise rows.error(number, f"{name} {told}; it must be a number.")
    if name != "timestamp" and value != int(value):
        raise rows.error(number, f"{name} is {value}; it must be a whole number of tokens.")
    return value


def _tokens(value: float) -> int:
    return int(value)


__all__ = ["TraceError", "read", "with_epoch", "write"]
