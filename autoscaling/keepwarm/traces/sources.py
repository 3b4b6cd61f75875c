"""Which importer reads a file: by its name and its first line, or as told."""

import gzip
import io
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from enum import StrEnum
from pathlib import Path

import orjson

from keepwarm.traces import access_log, azure, mooncake, prometheus
from keepwarm.traces.errors import TraceError
from keepwarm.traces.trace import Trace


class Format(StrEnum):
    """What `keepwarm trace` reads."""

    AUTO = "auto"
    MOONCAKE = "mooncake"
    AZURE = "azure"
    ACCESS_LOG = "access-log"
    PROMETHEUS = "prometheus"


def read(
    path: Path,
    *,
    form: Format = Format.AUTO,
    start: datetime | None = None,
    any_order: bool = False,
    fill_gaps: bool = False,
    seed: int = 0,
    names: Mapping[str, str] | None = None,
) -> Trace:
    """The trace in a file, gzipped or not. `start` is the moment of zero for relative times.

    Raises TraceError: with the line, the reason and what is allowed.
    """
    source = path.name
    try:
        body = path.read_bytes()
        if body[:2] == b"\x1f\x8b":
            body = gzip.decompress(body)
        text = body.decode()
    except OSError as error:
        raise TraceError(str(path), f"it cannot be read: {error.strerror or error}.") from None
    except (EOFError, UnicodeDecodeError) as error:
        raise TraceError(str(path), f"it is no text ({error}).") from None
    if not body.strip():
        raise TraceError(source, "it is empty.")
    known = _guess(body, source) if form is Format.AUTO else form
    match known:
        case Format.AZURE:
            trace = azure.read(io.StringIO(text, newline=""), source, any_order=any_order)
        case Format.ACCESS_LOG:
            trace = access_log.read(body.splitlines(), source, names=names)
        case Format.PROMETHEUS:
            series = prometheus.parse(body, source)
            trace = prometheus.requests(series, seed=seed, fill_gaps=fill_gaps)
        case _:
            trace = mooncake.read(body.splitlines(), source, any_order=any_order)
    if start is None:
        return trace
    if trace.start is not None:
        raise TraceError(
            source,
            f"its times tell that it starts at {trace.start.isoformat()}: leave out --start.",
        )
    return replace(trace, start=start)


def _guess(body: bytes, source: str) -> Format:
    first = body.lstrip().split(b"\n", 1)[0].lstrip(b"\xef\xbb\xbf")
    if first.startswith(azure.HEADER[0].encode()):
        return Format.AZURE
    if first.startswith(b"{"):
        try:
            row = orjson.loads(first)
        except orjson.JSONDecodeError:
            row = None
        if row is None:
            return Format.PROMETHEUS if b'"resultType"' in body[:4096] else Format.MOONCAKE
        if row.get("status") in {"success", "error"}:
            return Format.PROMETHEUS
        return Format.ACCESS_LOG if "time" in row else Format.MOONCAKE
    raise TraceError(
        source,
        "it is not JSON and has no TIMESTAMP header; --format tells what it is"
        f" ({', '.join(form for form in Format if form is not Format.AUTO)}).",
        place="line 1",
    )
