"""`make bench-streams`: what a proxy adds to a stream: to its first token, between tokens, in CPU.

`generate_stream` through keepwarm and a bare proxy, OpenAI chat through keepwarm and LiteLLM, each
beside the same stream straight from the predictor's HTTP port, and beside a bare ASGI app that
tells ready-made events itself. The predictor tells tokens as an engine does: every stream gets one
at each step; "spread" gives each stream a beat of its own. The servers take turns in every
repetition; no two prompts are the same.
"""

import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple, Self

import uvloop
from closed_loop import Exchange, Window
from contenders import FLOOR, LITELLM, MODEL, OURS, PROXY
from exchanges import chat_stream_exchange, pace, stream_exchange
from hop import CHAT_PATHS, rig_of
from report import cell, keep, options, quantile, ratio, table, where
from rig import Rig

DIRECT = "no proxy"
GENERATE, CHAT = "generate_stream", "OpenAI chat"
PAUSE_MS = 20.0
WARM_UP_S, MOST_S = 1.0, 2.5
FIRST_WARM_UP_S = 1.5
# So many that none begins or ends while it is measured: CPU is then of tokens alone.
LONG = 200
SHORT = 5


class Load(NamedTuple):
    """What is asked of a server: so many streams at a time, of so many tokens each."""

    route: str
    streams: int
    tokens: int
    in_step: bool = True

    def __str__(self) -> str:
        """In words, the route left out."""
        if self.tokens == SHORT:
            return f"{SHORT} tokens again and again"
        if self.streams == 1:
            return "1 stream"
        return f"{self.streams} streams {'in step' if self.in_step else 'spread'}"


LOADS = {
    Load(GENERATE, 1, SHORT): (DIRECT, FLOOR, PROXY, OURS),
    Load(GENERATE, 1, LONG): (DIRECT, FLOOR, PROXY, OURS),
    Load(GENERATE, 16, LONG): (DIRECT, FLOOR, PROXY, OURS),
    Load(GENERATE, 64, LONG): (DIRECT, FLOOR, PROXY, OURS),
    Load(GENERATE, 64, LONG, in_step=False): (DIRECT, FLOOR, PROXY, OURS),
    Load(CHAT, 1, SHORT): (DIRECT, LITELLM, OURS),
    Load(CHAT, 16, LONG): (DIRECT, LITELLM, OURS),
    Load(CHAT, 64, LONG): (DIRECT, LITELLM, OURS),
}


@dataclass(frozen=True, slots=True)
class StreamSample:
    """One measurement; CPU is of the server's process, microseconds per token."""

    load: Load
    server: str
    tokens_per_s: float
    first_p50_ms: float
    first_p99_ms: float
    between_p50_ms: float
    between_p99_ms: float
    server_us: float
    load_core: float
    errors: int

    @classmethod
    def of(cls, load: Load, server: str, window: Window[Any]) -> Self:
        """The sample of a window."""
        before, after = window.before, window.after
        load_us = after.predictor_us - before.predictor_us + after.driver_us - before.driver_us
        return cls(
            load,
            server,
            window.events / window.seconds,
            quantile(window.first_ms, 0.5),
            quantile(window.first_ms, 0.99),
            quantile(window.between_ms, 0.5),
            quantile(window.between_ms, 0.99),
            (after.server_us - before.server_us) / max(1, window.events),
            load_us / 1e6 / window.seconds,
            window.errors,
        )


def exchange(rig: Rig, load: Load, server: str) -> Exchange:
    """One caller's streams."""
    prompt = pace(PAUSE_MS, in_step=load.in_step)
    header = "" if server in {DIRECT, FLOOR, PROXY} else rig.keys.header
    if load.route == CHAT:
        path = CHAT_PATHS.get(server, "/v1/chat/completions")
        return chat_stream_exchange(
            path, MODEL, tokens=load.tokens, prompt=prompt, header=header, distinct=True
        )
    return stream_exchange(MODEL, tokens=load.tokens, prompt=prompt, header=header, distinct=True)


async def sample(rig: Rig, load: Load, name: str, seconds: float) -> StreamSample:
    """One measurement of one server; `seconds` are at most MOST_S, for long streams to outlast."""
    window = await rig.drive(
        rig.http if name == DIRECT else rig.servers[name],
        [exchange(rig, load, name) for _ in range(load.streams)],
        warm_up_s=WARM_UP_S,
        seconds=min(seconds, MOST_S),
        early_firsts=True,
    )
    return StreamSample.of(load, name, window)


async def measure(
    rig: Rig, loads: Sequence[Load], repetitions: int, seconds: float
) -> list[StreamSample]:
    """All samples, the servers taking turns."""
    turns = [
        (load, name)
        for load in loads
        for name in LOADS[load]
        if name == DIRECT or name in rig.servers
    ]
    for load, name in turns:
        if load.tokens == SHORT:
            await sample(rig, load._replace(streams=16), name, FIRST_WARM_UP_S)
    return [
        await sample(rig, load, name, seconds) for _ in range(repetitions) for load, name in turns
    ]


def figures(samples: Sequence[StreamSample]) -> dict[str, list[float]]:
    """Ours' CPU per token, and its ratio to the others' within each repetition, by name."""
    found: dict[str, list[float]] = {}
    for load in dict.fromkeys(s.load for s in samples):
        ours = [s for s in samples if s.load == load and s.server == OURS]
        found[f"{load.route}, {load}: CPU us per token"] = [s.server_us for s in ours]
        for other in (FLOOR, PROXY, LITELLM):
            theirs = [s for s in samples if s.load == load and s.server == other]
            if theirs:
                found[f"{load.route}, {load}: CPU per token, {OURS} / {other}"] = [
                    ratio(a.server_us, b.server_us) for a, b in zip(ours, theirs, strict=True)
                ]
    return found


COLUMNS = (
    "",
    "at a time",
    "server",
    "tokens/s",
    "first token p50 ms",
    "added to it",
    "between tokens p99 ms",
    "added to the median",
    "CPU us/token",
    "errors",
)


def tables(samples: Sequence[StreamSample]) -> str:
    """The report: what is added is to the same stream of the same repetition without a proxy."""
    rows: list[Sequence[object]] = []
    for load in dict.fromkeys(s.load for s in samples):
        of_load = [s for s in samples if s.load == load]
        direct = [s for s in of_load if s.server == DIRECT]
        for server in dict.fromkeys(s.server for s in of_load):
            group = [s for s in of_load if s.server == server]
            pairs = list(zip(group, direct, strict=True))
            is_proxy = server != DIRECT
            first = [a.first_p50_ms - b.first_p50_ms for a, b in pairs if is_proxy]
            between = [a.between_p50_ms - b.between_p50_ms for a, b in pairs if is_proxy]
            rows.append(
                (
                    load.route,
                    load,
                    server,
                    cell([s.tokens_per_s for s in group], 0),
                    cell([s.first_p50_ms for s in group], 2),
                    cell(first, 2),
                    cell([s.between_p99_ms for s in group], 1),
                    cell(between, 2),
                    cell([s.server_us for s in group if is_proxy], 1),
                    sum(s.errors for s in group),
                )
            )
    return table(COLUMNS, rows)


def main() -> None:
    """The command; its exit status is 1 when a stream was wrong."""
    parser = options(__doc__, repetitions=3)
    parser.add_argument("--routes", nargs="+", choices=(GENERATE, CHAT), default=(GENERATE, CHAT))
    arguments = parser.parse_args()
    loads = [load for load in LOADS if load.route in arguments.routes]
    wanted = {name for load in loads for name in LOADS[load]} - {DIRECT}
    with ExitStack() as stack:
        rig = rig_of(stack, sorted(wanted))
        samples = uvloop.run(measure(rig, loads, arguments.repetitions, arguments.seconds))
    print(f"{where()}\n\n{tables(samples)}")
    keep(arguments.json, samples=[asdict(each) for each in samples], figures=figures(samples))
    sys.exit(1 if any(each.errors for each in samples) else 0)


if __name__ == "__main__":
    main()
