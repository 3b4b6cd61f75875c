"""`make bench-idle`: the memory of 5,000 open streams that get a token now and then.

Each stream gets a token at once and then one each ten seconds, so all are open and nearly all are
idle. Keepwarm (everything on) and a bare proxy take turns, each a fresh process; its resident
memory is read before the first stream, while all are open, and after the last has ended. Every
stream is read to its end and must be whole.
"""

import asyncio
import resource
import sys
from contextlib import ExitStack
from dataclasses import asdict, dataclass

import uvloop
from contenders import CONTENDERS, MODEL, OURS, PROXY, Contender, keepwarm
from exchanges import pace, stream_exchange
from report import cell, keep, options, table, where
from rig import Rig

STREAMS = 5000
PAUSE_S = 10.0
TOKENS = 4
# The streams begin one after the other within the first; all are open for the second.
OPENING_S, OPEN_S = 10.0, 15.0
AFTER_S = 3.0
# The streams of the caller or of the server, and the rest of a process.
FILES = STREAMS + 1000


@dataclass(frozen=True, slots=True)
class IdleSample:
    """One measurement of a fresh server; `core` is the share of one that it used meanwhile."""

    server: str
    streams: int
    before_mib: float
    open_mib: float
    after_mib: float
    core: float
    tokens_per_s: float
    errors: int


def contenders(streams: int) -> tuple[Contender, ...]:
    """Ours is told that so many may be at the predictor; by default no more than 64 begin."""
    return keepwarm(OURS, f"--predictor_concurrency={streams}"), CONTENDERS[PROXY]


async def measure(rig: Rig, name: str, streams: int) -> IdleSample:
    """One measurement."""
    server = rig.servers[name]
    exchanges = [
        stream_exchange(
            MODEL,
            tokens=TOKENS,
            prompt=pace(PAUSE_S * 1e3, in_step=False),
            header=rig.keys.header,
            distinct=True,
        )
        for _ in range(streams)
    ]
    window = await rig.drive(server, exchanges, warm_up_s=OPENING_S, seconds=OPEN_S)
    await asyncio.sleep(AFTER_S)
    used_us = window.after.server_us - window.before.server_us
    return IdleSample(
        name,
        streams,
        rig.idle_mib[name],
        max(window.before.rss_mib, window.after.rss_mib),
        server.rss_mib(),
        used_us / 1e6 / window.seconds,
        window.events / window.seconds,
        window.errors,
    )


def figures(samples: list[IdleSample]) -> dict[str, list[float]]:
    """Ours' memory while all streams are open, by name."""
    ours = [s for s in samples if s.server == OURS]
    return {f"{s.streams} idle streams: RSS MiB": [t.open_mib for t in ours] for s in ours[:1]}


def tables(samples: list[IdleSample]) -> str:
    """The report."""
    rows = []
    for server in dict.fromkeys(s.server for s in samples):
        group = [s for s in samples if s.server == server]
        rows.append(
            (
                server,
                group[0].streams,
                cell([s.before_mib for s in group], 0),
                cell([s.open_mib for s in group], 0),
                cell([(s.open_mib - s.before_mib) * 1024 / s.streams for s in group], 1),
                cell([s.after_mib for s in group], 0),
                cell([s.tokens_per_s for s in group], 0),
                cell([s.core for s in group], 2),
                sum(s.errors for s in group),
            )
        )
    columns = ("server", "streams", "RSS before, MiB", "all open", "KiB a stream", "afterwards")
    return table((*columns, "tokens/s", "core used", "errors"), rows)


def raise_open_files() -> None:
    """Lets this process and its children open FILES files; raises ValueError where they may not."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = FILES if hard == resource.RLIM_INFINITY else min(FILES, hard)
    if most < FILES:
        raise ValueError(f"{FILES} open files are needed and {hard} allowed (ulimit -Hn)")
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


def main() -> None:
    """The command; its exit status is 1 when a stream was not whole."""
    parser = options(__doc__, repetitions=2, seconds=None)
    parser.add_argument("--streams", type=int, default=STREAMS, help="streams at a time")
    arguments = parser.parse_args()
    raise_open_files()
    samples = []
    for _ in range(arguments.repetitions):
        for contender in contenders(arguments.streams):
            with ExitStack() as stack:
                rig = Rig(stack, [contender])
                samples.append(uvloop.run(measure(rig, contender.name, arguments.streams)))
    print(f"{where()}\n\n{tables(samples)}")
    keep(arguments.json, samples=[asdict(each) for each in samples], figures=figures(samples))
    sys.exit(1 if any(each.errors for each in samples) else 0)


if __name__ == "__main__":
    main()
