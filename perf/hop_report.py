"""Samples of the hop benchmark, and what is told of them: medians with their range, ratios."""

import datetime as dt
import math
import os
import platform
import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from typing import Any, Protocol, Self

from closed_loop import Window


class Cpu(Protocol):
    """CPU microseconds so far."""

    server: float
    predictor: float
    driver: float


@dataclass(frozen=True, slots=True)
class InferSample:
    """One measurement of one server; CPU is of the process, microseconds per request.

    `load_core` is the share of the load core's time that driver and predictor used: near 1 it,
    and not the server, bounds the requests per second.
    """

    server: str
    connections: int
    requests_per_s: float
    p50_ms: float
    p99_ms: float
    server_us: float
    predictor_us: float
    driver_us: float
    server_core: float
    load_core: float
    rss_mib: float
    errors: int

    @classmethod
    def of(cls, server: str, connections: int, window: Window[Any], rss_mib: float) -> Self:
        """The sample of a window."""
        server_us, predictor_us, driver_us = _used(window)
        requests = max(1, len(window.latencies_ms))
        return cls(
            server,
            connections,
            len(window.latencies_ms) / window.seconds,
            quantile(window.latencies_ms, 0.5),
            quantile(window.latencies_ms, 0.99),
            server_us / requests,
            predictor_us / requests,
            driver_us / requests,
            server_us / 1e6 / window.seconds,
            (predictor_us + driver_us) / 1e6 / window.seconds,
            rss_mib,
            window.errors,
        )


@dataclass(frozen=True, slots=True)
class StreamSample:
    """One measurement of streams through our transformer.

    `added_first_ms` is the median time to the first event less that of the same stream straight
    from the predictor; CPU is the transformer's, microseconds per token.
    """

    streams: int
    pause_ms: float
    tokens_per_s: float
    first_p50_ms: float
    added_first_ms: float
    server_us: float
    errors: int

    @classmethod
    def of(
        cls,
        streams: int,
        pause_ms: float,
        window: Window[Any],
        direct_first_ms: Sequence[float],
    ) -> Self:
        """The sample of a window and of its reference."""
        first = quantile(window.first_ms, 0.5)
        return cls(
            streams,
            pause_ms,
            window.events / window.seconds,
            first,
            first - quantile(direct_first_ms, 0.5),
            _used(window)[0] / max(1, window.events),
            window.errors,
        )


def quantile(values: Sequence[float], q: float) -> float:
    """The smallest value with at least `q` of all values at or below it; nan of none."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(q * len(ordered)))] if ordered else math.nan


def markdown(
    infers: Sequence[InferSample], streams: Sequence[StreamSample], *, ours: str, stock: str
) -> str:
    """The report: tables with a median and its range in each cell."""
    lines = [
        _row(
            "connections",
            "server",
            "requests/s",
            "p50 ms",
            "p99 ms",
            "CPU us/request",
            "RSS MiB",
            "errors",
        ),
        _rule(8),
    ]
    lines += _server_rows(
        infers,
        lambda group: [
            _cell([s.requests_per_s for s in group], 0),
            _cell([s.p50_ms for s in group], 2),
            _cell([s.p99_ms for s in group], 1),
            _cell([s.server_us for s in group], 0),
            _cell([s.rss_mib for s in group], 0),
            str(sum(s.errors for s in group)),
        ],
    )
    lines += [
        "",
        _row(
            "connections", *(f"{what}, {ours} / {stock}" for what in ("requests/s", "p99", "CPU"))
        ),
        _rule(4),
    ]
    for connections in _distinct(sample.connections for sample in infers):
        pairs = list(
            zip(_group(infers, connections, ours), _group(infers, connections, stock), strict=True)
        )
        measures: tuple[Callable[[InferSample], float], ...] = (
            lambda s: s.requests_per_s,
            lambda s: s.p99_ms,
            lambda s: s.server_us,
        )
        cells = [_cell([_ratio(of(a), of(b)) for a, b in pairs], 2) for of in measures]
        lines.append(_row(connections, *cells))
    lines += [
        "",
        _row(
            "connections",
            "server",
            "server's core used",
            "load core used",
            "driver us/request",
            "predictor us/request",
        ),
        _rule(6),
    ]
    lines += _server_rows(
        infers,
        lambda group: [
            _cell([s.server_core for s in group], 2),
            _cell([s.load_core for s in group], 2),
            _cell([s.driver_us for s in group], 0),
            _cell([s.predictor_us for s in group], 0),
        ],
    )
    lines += [
        "",
        _row(
            "streams, pause ms",
            "tokens/s",
            "first event p50 ms",
            "added to the first event, ms",
            "CPU us/token",
            "errors",
        ),
        _rule(6),
    ]
    for kind in _distinct((sample.streams, sample.pause_ms) for sample in streams):
        of_kind = [s for s in streams if (s.streams, s.pause_ms) == kind]
        cells = [
            _cell([s.tokens_per_s for s in of_kind], 0),
            _cell([s.first_p50_ms for s in of_kind], 2),
            _cell([s.added_first_ms for s in of_kind], 2),
            _cell([s.server_us for s in of_kind], 0),
            str(sum(s.errors for s in of_kind)),
        ]
        lines.append(_row(f"{kind[0]}, {kind[1]:g}", *cells))
    lines += ["", f"Streams go through {ours} only: KServe's stock transformer cannot stream."]
    return "\n".join(lines)


def record(
    infers: Sequence[InferSample], streams: Sequence[StreamSample], settings: dict[str, float]
) -> dict[str, Any]:
    """Everything as JSON values."""
    return {
        "time": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "packages": {name: version(name) for name in ("kserve", "grpcio", "uvicorn", "uvloop")},
        "settings": settings,
        "infer": [asdict(sample) for sample in infers],
        "stream": [asdict(sample) for sample in streams],
    }


def _used(window: Window[Cpu]) -> tuple[float, float, float]:
    before, after = window.before, window.after
    return (
        after.server - before.server,
        after.predictor - before.predictor,
        after.driver - before.driver,
    )


def _server_rows(
    infers: Sequence[InferSample], cells: Callable[[Sequence[InferSample]], list[str]]
) -> list[str]:
    """One row for each number of connections and server: the cells of its repetitions."""
    return [
        _row(connections, server, *cells(_group(infers, connections, server)))
        for connections in _distinct(sample.connections for sample in infers)
        for server in _distinct(sample.server for sample in infers)
    ]


def _group(samples: Sequence[InferSample], connections: int, server: str) -> list[InferSample]:
    return [s for s in samples if s.connections == connections and s.server == server]


def _distinct(values: Any) -> list[Any]:
    return list(dict.fromkeys(values))


def _row(*cells: object) -> str:
    return f"| {' | '.join(str(cell) for cell in cells)} |"


def _rule(columns: int) -> str:
    return "|" + "---|" * columns


def _ratio(a: float, b: float) -> float:
    """`a` / `b`; nan of a server that gave no right answer."""
    return a / b if b else math.nan


def _cell(values: Sequence[float], digits: int) -> str:
    """Median with its range: `12.3 (11.9..14.0)`."""
    low, middle, high = min(values), statistics.median(values), max(values)
    return f"{middle:.{digits}f} ({low:.{digits}f}..{high:.{digits}f})"
