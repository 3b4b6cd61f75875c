"""`make bench-hop`: what a request through each server costs, side by side.

V2 infer through keepwarm with everything on, through KServe's transformer over REST and over gRPC,
through a bare proxy, and what answers without a hop; OpenAI chat through keepwarm and LiteLLM. The
servers take turns on one core in every repetition, so that what else happens on the machine meets
all of them. No two requests are the same: every cache misses.
"""

import asyncio
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict

import uvloop
from closed_loop import Exchange
from contenders import (
    CONTENDERS,
    FLOOR,
    LITELLM,
    MODEL,
    OURS,
    PROXY,
    STOCK_GRPC,
    STOCK_MODEL,
    STOCK_REST,
    installed,
)
from exchanges import chat_exchange, infer_exchange
from hop_report import HopSample, figures, tables
from report import keep, options, where
from rig import Rig

SERVERS = {
    "V2 infer": (FLOOR, STOCK_MODEL, PROXY, STOCK_REST, STOCK_GRPC, OURS),
    "OpenAI chat": (LITELLM, OURS),
}
CONNECTIONS = (1, 16, 64)
CHAT_PATHS = {OURS: "/openai/v1/chat/completions", LITELLM: "/v1/chat/completions"}
WARM_UP_S = 0.4
FIRST_WARM_UP_S = 1.5
# Memory is told again when a server has been left alone for so long.
REST_S = 3.0


def exchanges(rig: Rig, protocol: str, server: str, connections: int) -> list[Exchange]:
    """What so many callers send to a server."""
    if protocol == "OpenAI chat":
        make = chat_exchange(CHAT_PATHS[server], MODEL, rig.keys.header, distinct=True)
        return [make] * connections
    header = rig.keys.header if server == OURS else ""
    return [
        infer_exchange(MODEL, number, header=header, distinct=True) for number in range(connections)
    ]


async def sample(rig: Rig, protocol: str, name: str, connections: int, seconds: float) -> HopSample:
    """One measurement of one server."""
    window = await rig.drive(
        rig.servers[name],
        exchanges(rig, protocol, name, connections),
        warm_up_s=WARM_UP_S,
        seconds=seconds,
    )
    return HopSample.of(protocol, name, connections, window)


async def measure(
    rig: Rig, repetitions: int, seconds: float
) -> tuple[list[HopSample], dict[str, float]]:
    """All samples, the servers taking turns, and what each server's memory is afterwards, MiB."""
    turns = [
        (protocol, name)
        for protocol, names in SERVERS.items()
        for name in names
        if name in rig.servers
    ]
    for protocol, name in turns:
        await sample(rig, protocol, name, 16, FIRST_WARM_UP_S)
    samples = [
        await sample(rig, protocol, name, connections, seconds)
        for _ in range(repetitions)
        for connections in CONNECTIONS
        for protocol, name in turns
    ]
    await asyncio.sleep(REST_S)
    return samples, {name: server.rss_mib() for name, server in rig.servers.items()}


def rig_of(stack: ExitStack, names: Sequence[str]) -> Rig:
    """The servers of these names, save what is not installed here."""
    left_out = [name for name in names if not installed(name)]
    for name in left_out:
        print(f"{name} is left out: its environment is not set up (make bench-hop does)")
    return Rig(stack, [CONTENDERS[name] for name in names if name not in left_out])


def main() -> None:
    """The command; its exit status is 1 when an answer was wrong."""
    parser = options(__doc__, repetitions=3)
    parser.add_argument("--servers", nargs="+", choices=list(CONTENDERS), default=list(CONTENDERS))
    arguments = parser.parse_args()
    with ExitStack() as stack:
        rig = rig_of(stack, arguments.servers)
        samples, after_mib = uvloop.run(measure(rig, arguments.repetitions, arguments.seconds))
    print(f"{where()}\n\n{tables(samples, rig.idle_mib, after_mib)}")
    keep(
        arguments.json,
        samples=[asdict(each) for each in samples],
        idle_mib=rig.idle_mib,
        after_mib=after_mib,
        figures=figures(samples),
    )
    sys.exit(1 if any(each.errors for each in samples) else 0)


if __name__ == "__main__":
    main()
