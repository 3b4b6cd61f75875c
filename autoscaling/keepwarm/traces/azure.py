"""Azure's LLM inference traces: CSV with `TIMESTAMP,ContextTokens,GeneratedTokens`.

AzurePublicDataset's 2023 files have naive times, the 2024 ones an offset; naive ones are UTC.
"""

import csv
from collections.abc import Iterable
from datetime import UTC, datetime

from keepwarm.traces.errors import TraceError
from keepwarm.traces.trace import Rows, Trace

HEADER = ("TIMESTAMP", "ContextTokens", "GeneratedTokens")


def read(lines: Iterable[str], source: str, *, any_order: bool = False) -> Trace:
    """The trace. Raises TraceError with the line for what is not such a row."""
    reader = csv.reader(lines)
    header = next(reader, None)
    if header is None:
        raise TraceError(source, "there is nothing in it.")
    names = [name.strip().lstrip("\ufeff") for name in header]
    if missing := [name for name in HEADER if name not in names]:
        raise TraceError(
            source,
            f"the header {','.join(names)} lacks {missing[0]}; it must hold {','.join(HEADER)}.",
            place="line 1",
        )
    columns = [names.index(name) for name in HEADER]
    rows = Rows.empty(source)
    for values in reader:
        if not values:
            continue
        line = reader.line_num
        if len(values) != len(names):
            raise rows.error(line, f"it has {len(values)} values and the header {len(names)}.")
        time, inputs, outputs = (values[column] for column in columns)
        rows.add(
            line,
            _moment(time, rows, line),
            _tokens(inputs, HEADER[1], rows, line),
            _tokens(outputs, HEADER[2], rows, line),
        )
    zero = min(rows.time_s, default=0.0)
    return rows.trace(start=datetime.fromtimestamp(zero, tz=UTC), zero_s=zero, any_order=any_order)


def _moment(text: str, rows: Rows, line: int) -> float:
    try:
        moment = datetime.fromisoformat(text.strip())
    except ValueError:
        raise rows.error(
            line, f"TIMESTAMP is {text!r}; it must be like 2023-11-16 18:17:03.9799600."
        ) from None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def _tokens(text: str, name: str, rows: Rows, line: int) -> int:
    try:
        return int(text)
    except ValueError:
        raise rows.error(line, f"{name} is {text!r}; it must be a whole number.") from None
