"""`make bench-streams`: what a proxy adds to a stream: to its first token, between tokens, in CPU.

`generate_stream` through keepwarm and a bare proxy, OpenAI chat through keepwarm and LiteLLM, each
beside the same stream straight from the predictor's HTTP port. The predictor tells tokens as an
engine does: every stream gets one at each step; "spread" gives each stream a beat of its own. The
servers take turns in every repetition; no two prompts are the same.
"""

import argparse
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Self

import uvloop
from closed_loop import Exchange, Window
from contenders import LITELLM, MODEL, OURS, PROXY
from exchanges import chat_stream_exchange, pace, stream_exchange
from hop import CHAT_PATHS, rig_of
from report import cell, keep, quantile, ratio, table, where
from rig import Rig

DIRECT = "no proxy"
GENERATE, CHAT = "generate_stream", "OpenAI chat"
ROUTES = {GENERATE: (DIRECT, PROXY, OURS), CHAT: (DIRECT, LITELLM, OURS)}
PAUSE_MS = 20.0
TOKENS = 200
# Streams at a time, and whether they go in step.
LOADS = ((1, True), (16, True), (64, True), (64, False))
WARM_UP_S = 1.0
FIRST_WARM_UP_S = 2.0


@dataclass(frozen=True, slots=True)
class StreamSample:
    """One measurement; CPU is of the server's process, microseconds per token, all in."""

    route: str
    server: str
    streams: int
    in_step: bool
    tokens_per_s: float
    first_p50_ms: float
    first_p99_ms: float
    between_p50_ms: float
    between_p99_ms: float
    server_us: float
    load_core: float
    errors: int

    @classmethod
    def of(
        cls, route: str, server: str, streams: int, window: Window[Any], *, in_step: bool
    ) -> Self:
        """The sample of a window."""
        before, after = window.before, window.after
        load_us = after.predictor_us - before.predictor_us + after.driver_us - before.driver_us
        return cls(
            route,
            server,
            streams,
            in_step,
            window.events / window.seconds,
            quantile(window.first_ms, 0.5),
            quantile(window.first_ms, 0.99),
            quantile(window.between_ms, 0.5),
            quantile(window.between_ms, 0.99),
            (after.server_us - before.server_us) / max(1, window.events),
            load_us / 1e6 / window.seconds,
            window.errors,
        )

    @property
    def load(self) -> tuple[str, int, bool]:
        """What was asked of the server."""
        return self.route, self.streams, self.in_step


def exchange(rig: Rig, route: str, server: str, *, in_step: bool, tokens: int) -> Exchange:
    """One caller's streams."""
    prompt = pace(PAUSE_MS, in_step=in_step)
    header = "" if server in {DIRECT, PROXY} else rig.keys.header
    make = partial(
        chat_stream_exchange if route == CHAT else stream_exchange,
        tokens=tokens,
        prompt=prompt,
        header=header,
        distinct=True,
    )
    if route == CHAT:
        return make(CHAT_PATHS.get(server, "/v1/chat/completions"), MODEL)
    return make(MODEL)


async def sample(
    rig: Rig, route: str, name: str, load: tuple[int, bool], seconds: float
) -> StreamSample:
    """One measurement of one server."""
    streams, in_step = load
    window = await rig.drive(
        rig.http if name == DIRECT else rig.servers[name],
        [exchange(rig, route, name, in_step=in_step, tokens=TOKENS) for _ in range(streams)],
        warm_up_s=WARM_UP_S,
        seconds=seconds,
    )
    return StreamSample.of(route, name, streams, window, in_step=in_step)


async def measure(
    rig: Rig, loads: Sequence[tuple[int, bool]], repetitions: int, seconds: float
) -> list[StreamSample]:
    """All samples, the servers taking turns."""
    turns = [
        (route, name)
        for route, names in ROUTES.items()
        for name in names
        if name == DIRECT or name in rig.servers
    ]
    for route, name in turns:
        await sample(rig, route, name, (16, True), FIRST_WARM_UP_S)
    return [
        await sample(rig, route, name, load, seconds)
        for _ in range(repetitions)
        for load in loads
        for route, name in turns
    ]


def figures(samples: Sequence[StreamSample]) -> dict[str, list[float]]:
    """Ours' CPU per token, and its ratio to the others' within each repetition, by name."""
    found: dict[str, list[float]] = {}
    for load in dict.fromkeys(s.load for s in samples):
        of_load = {
            server: [s for s in samples if s.load == load and s.server == server]
            for server in dict.fromkeys(s.server for s in samples)
        }
        route, streams, in_step = load
        place = f"{route}, {spoken(streams, in_step=in_step)}"
        ours = of_load.get(OURS, [])
        if not ours:
            continue
        found[f"{place}: CPU us per token"] = [s.server_us for s in ours]
        for other, theirs in of_load.items():
            if theirs and other not in {OURS, DIRECT}:
                found[f"{place}: CPU per token, {OURS} / {other}"] = [
                    ratio(a.server_us, b.server_us) for a, b in zip(ours, theirs, strict=True)
                ]
    return found


def spoken(streams: int, *, in_step: bool) -> str:
    """A load in words."""
    beat = "in step" if in_step else "spread"
    return "1 stream" if streams == 1 else f"{streams} streams {beat}"


def tables(samples: Sequence[StreamSample]) -> str:
    """The report: what is added is to the same stream of the same repetition without a proxy."""
    rows = []
    for load in dict.fromkeys(s.load for s in samples):
        of_load = [s for s in samples if s.load == load]
        direct = [s for s in of_load if s.server == DIRECT]
        for server in dict.fromkeys(s.server for s in of_load):
            group = [s for s in of_load if s.server == server]
            pairs = list(zip(group, direct, strict=True))
            added = (
                ("-",) * 3
                if server == DIRECT
                else (
                    cell([a.first_p50_ms - b.first_p50_ms for a, b in pairs], 2),
                    cell([a.between_p50_ms - b.between_p50_ms for a, b in pairs], 2),
                    cell([s.server_us for s in group], 1),
                )
            )
            rows.append(
                (
                    load[0],
                    spoken(load[1], in_step=load[2]),
                    server,
                    cell([s.tokens_per_s for s in group], 0),
                    cell([s.first_p50_ms for s in group], 2),
                    added[0],
                    cell([s.between_p99_ms for s in group], 1),
                    *added[1:],
                    sum(s.errors for s in group),
                )
            )
    return table(
        (
            "",
            "at a time",
            "server",
            "tokens/s",
            "first token p50 ms",
            "added to it, ms",
            "between tokens p99 ms",
            "added to the median, ms",
            "CPU us/token",
            "errors",
        ),
        rows,
    )


def main() -> None:
    """The command; its exit status is 1 when a stream was wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=2.0, help="length of one measurement")
    parser.add_argument("--repetitions", type=int, default=3, help="measurements of each kind")
    parser.add_argument("--json", type=Path, help="file for every sample")
    arguments = parser.parse_args()
    with ExitStack() as stack:
        rig = rig_of(stack, (PROXY, OURS, LITELLM))
        samples = uvloop.run(measure(rig, LOADS, arguments.repetitions, arguments.seconds))
    print(f"{where()}\n\n{tables(samples)}")
    keep(arguments.json, samples=[asdict(each) for each in samples], figures=figures(samples))
    sys.exit(1 if any(each.errors for each in samples) else 0)


if __name__ == "__main__":
    main()
