"""The transformer's access log: one JSON object a line, written when a request ends.

With `--log_format json` the transformer's standard error is one. Of it the lines of the logger
`keepwarm.generations` are read, whose `came` is the time, and the others passed over. Status 499
says that the caller left.

| field | means |
|---|---|
| `time` | when the request came: RFC 3339, or seconds since 1970 |
| `status` | HTTP status; under 400, 499 or 5xx counts, other 4xx never reached the predictor |
| `input_tokens`, `output_tokens` | optional, 0 without them |
| `duration_s` | arrival to last byte, waiting for a pod included |
| `wait_s` | of that, waiting for the predictor to start or have room; optional |
| `cache` | `hit` and `coalesced` never reached the predictor |

What never reached the predictor does not scale it, so those lines are left out and counted. Other
fields are read over; `names` maps another log's names to these.
"""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import UTC, datetime

import orjson

from keepwarm.traces.trace import Rows, Trace

GENERATIONS = "keepwarm.generations"
FIELDS = ("time", "status", "input_tokens", "output_tokens", "duration_s", "wait_s", "cache")
CALLER_LEFT = 499
ANSWERED_WITHOUT_PREDICTOR = {"hit", "coalesced"}


def read(
    lines: Iterable[str | bytes], source: str, *, names: Mapping[str, str] | None = None
) -> Trace:
    """The trace of what reached the predictor. Raises TraceError with the line."""
    key = {field: (names or {}).get(field, field) for field in FIELDS}
    rows = Rows.empty(source)
    left_out = 0
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = orjson.loads(line)
        except orjson.JSONDecodeError as error:
            raise rows.error(number, f"it is not JSON ({error}).") from None
        if not isinstance(row, dict):
            raise rows.error(number, "it is not a JSON object.")
        is_ours = names is None and "logger" in row
        if is_ours and row["logger"] != GENERATIONS:
            continue
        came = "came" if is_ours else key["time"]
        time = _moment(row.get(came), came, rows, number)
        status = _number(row, key["status"], rows, number, default=200)
        if (400 <= status < 500 and status != CALLER_LEFT) or row.get(
            key["cache"]
        ) in ANSWERED_WITHOUT_PREDICTOR:
            left_out += 1
            continue
        duration = _number(row, key["duration_s"], rows, number, default=float("nan"))
        wait = _number(row, key["wait_s"], rows, number, default=0.0)
        if wait > duration:
            raise rows.error(number, f"wait_s {wait:g} is longer than duration_s {duration:g}.")
        rows.add(
            number,
            time,
            int(_number(row, key["input_tokens"], rows, number, default=0)),
            int(_number(row, key["output_tokens"], rows, number, default=0)),
            duration - wait,
        )
    zero = min(rows.time_s, default=0.0)
    trace = rows.trace(start=datetime.fromtimestamp(zero, tz=UTC), zero_s=zero, any_order=True)
    if not left_out:
        return trace
    told = f"{left_out:,} requests never reached the predictor (4xx, cache) and are left out."
    return replace(trace, warnings=(*trace.warnings, told))


def _moment(value: object, name: str, rows: Rows, line: int) -> float:
    if isinstance(value, str):
        try:
            moment = datetime.fromisoformat(value)
        except ValueError:
            raise rows.error(line, f"{name} is {value!r}; it must be RFC 3339.") from None
        if moment.tzinfo is None:
            raise rows.error(line, f"{name} is {value!r}; it must tell its offset, such as Z.")
        return moment.timestamp()
    if isinstance(value, int | float) and not isinstance(value, bool):
        if value >= 1e11:
            raise rows.error(line, f"{name} is {value}; it must be in seconds since 1970.")
        return float(value)
    told = "is missing" if value is None else f"is {value!r}"
    raise rows.error(line, f"{name} {told}; it must be RFC 3339 or seconds since 1970.")


def _number(row: dict[str, object], name: str, rows: Rows, line: int, *, default: float) -> float:
    value = row.get(name)
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise rows.error(line, f"{name} is {value!r}; it must be a number.")
    if value < 0:
        raise rows.error(line, f"{name} is {value}; it must be 0 or more.")
    return value
