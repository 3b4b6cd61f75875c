"""Samples of the hop benchmark, the tables that tell them, and the ratios that targets are of."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from closed_loop import Window
from contenders import FLOOR, LITELLM, OURS, PROXY, STOCK_GRPC, STOCK_MODEL, STOCK_REST
from report import cell, quantile, ratio, table


@dataclass(frozen=True, slots=True)
class HopSample:
    """One measurement of one server; CPU is of the process, microseconds per request.

    `load_core` is the share of the load core's time that driver and predictors used: near 1 it, and
    not the server, bounds the requests per second.
    """

    protocol: str
    server: str
    connections: int
    requests_per_s: float
    p50_ms: float
    p99_ms: float
    server_us: float
    server_core: float
    load_core: float
    predictor_us: float
    driver_us: float
    rss_mib: float
    errors: int

    @classmethod
    def of(cls, protocol: str, server: str, connections: int, window: Window[Any]) -> Self:
        """The sample of a window."""
        before, after = window.before, window.after
        server_us = after.server_us - before.server_us
        predictor_us = after.predictor_us - before.predictor_us
        driver_us = after.driver_us - before.driver_us
        requests = max(1, len(window.latencies_ms))
        return cls(
            protocol,
            server,
            connections,
            len(window.latencies_ms) / window.seconds,
            quantile(window.latencies_ms, 0.5),
            quantile(window.latencies_ms, 0.99),
            server_us / requests,
            server_us / 1e6 / window.seconds,
            (predictor_us + driver_us) / 1e6 / window.seconds,
            predictor_us / requests,
            driver_us / requests,
            after.rss_mib,
            window.errors,
        )


# What ours is told beside, by protocol.
BESIDE = {
    "V2 infer": (STOCK_REST, STOCK_GRPC, STOCK_MODEL, PROXY, FLOOR),
    "OpenAI chat": (LITELLM,),
}
MEASURES: dict[str, Callable[[HopSample], float]] = {
    "requests/s": lambda s: s.requests_per_s,
    "p99": lambda s: s.p99_ms,
    "CPU": lambda s: s.server_us,
}


def figures(samples: Sequence[HopSample]) -> dict[str, list[float]]:
    """Ratios within each repetition, and ours' CPU a request, by name."""
    found: dict[str, list[float]] = {}
    for protocol, others in BESIDE.items():
        for connections in _distinct(samples, lambda s: s.connections):
            ours = _group(samples, protocol, OURS, connections)
            where = f"{protocol}, c={connections}"
            if ours:
                found[f"{where}: CPU us"] = [s.server_us for s in ours]
            for other in others:
                theirs = _group(samples, protocol, other, connections)
                if not ours or not theirs:
                    continue
                pairs = list(zip(ours, theirs, strict=True))
                for measure, of in MEASURES.items():
                    name = f"{where}: {measure}, {OURS} / {other}"
                    found[name] = [ratio(of(a), of(b)) for a, b in pairs]
    return found


def tables(
    samples: Sequence[HopSample], idle_mib: Mapping[str, float], after_mib: Mapping[str, float]
) -> str:
    """The report: tables with a median and its range in each cell."""
    groups = [
        (protocol, connections, server, group)
        for protocol in BESIDE
        for connections in _distinct(samples, lambda s: s.connections)
        for server in _distinct(samples, lambda s: s.server)
        if (group := _group(samples, protocol, server, connections))
    ]
    ratios = figures(samples)
    parts = [
        table(
            ("", "c", "server", "requests/s", "p50 ms", "p99 ms", "CPU us/request", "errors"),
            [
                (
                    protocol,
                    connections,
                    server,
                    cell([s.requests_per_s for s in group], 0),
                    cell([s.p50_ms for s in group], 2),
                    cell([s.p99_ms for s in group], 1),
                    cell([s.server_us for s in group], 0),
                    sum(s.errors for s in group),
                )
                for protocol, connections, server, group in groups
            ],
        ),
        table(
            ("", "c", f"{OURS} beside", *MEASURES),
            [
                (
                    protocol,
                    connections,
                    other,
                    *(
                        cell(ratios[f"{protocol}, c={connections}: {m}, {OURS} / {other}"], 2)
                        for m in MEASURES
                    ),
                )
                for protocol, connections, other, _ in groups
                if other in BESIDE[protocol]
                and f"{protocol}, c={connections}: CPU, {OURS} / {other}" in ratios
            ],
        ),
        table(
            ("", "c", "server", "server's core", "load core", "predictor us", "driver us"),
            [
                (
                    protocol,
                    connections,
                    server,
                    cell([s.server_core for s in group], 2),
                    cell([s.load_core for s in group], 2),
                    cell([s.predictor_us for s in group], 0),
                    cell([s.driver_us for s in group], 0),
                )
                for protocol, connections, server, group in groups
            ],
        ),
        table(
            ("server", "RSS idle, MiB", "most under load", "afterwards"),
            [
                (
                    server,
                    f"{idle_mib[server]:.0f}",
                    f"{max(s.rss_mib for s in samples if s.server == server):.0f}",
                    f"{after_mib[server]:.0f}",
                )
                for server in _distinct(samples, lambda s: s.server)
            ],
        ),
    ]
    return "\n\n".join(parts)


def _group(
    samples: Sequence[HopSample], protocol: str, server: str, connections: int
) -> list[HopSample]:
    key = (protocol, server, connections)
    return [s for s in samples if (s.protocol, s.server, s.connections) == key]


def _distinct(samples: Sequence[HopSample], of: Callable[[HopSample], Any]) -> list[Any]:
    return list(dict.fromkeys(map(of, samples)))
