"""`python perf/driver_cost.py`: what a streamed token costs a load driver, ours and one on httpx.

Both send the same open-loop load to `token_source.py`, which runs on another core; they take turns
in every repetition. The httpx driver is what is written by hand without thought: a client, a task a
request, `aiter_lines`, every event parsed. Then ours alone, with more and more streams in flight.
"""

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import httpx
from open_loop import allow_many_connections, drive
from pinned import PinnedServer, free_port
from protocols import PROTOCOLS, Ask, encoded
from schedule import MIX, Stage, plan, times

HERE = Path(__file__).parent
TOKENS = 100
SERVER_CORE, DRIVER_CORE = 0, 1


@dataclass(frozen=True, slots=True)
class Cost:
    """One run of a driver."""

    driver: str
    rate: float
    in_flight: int
    tokens_per_s: float
    core: float  # of one core, used by the driver
    failed: int

    @property
    def us_per_token(self) -> float:
        """CPU time of the driver for a token, its requests included."""
        return self.core / self.tokens_per_s * 1e6


@contextmanager
def _source(pause_ms: float) -> Iterator[str]:
    port = free_port()
    program = [str(HERE / "token_source.py"), f"--port={port}", f"--tokens={TOKENS}"]
    server = PinnedServer(
        "source", [*program, f"--pause_ms={pause_ms:g}"], port=port, core=SERVER_CORE
    )
    try:
        server.wait_until_listening()
        yield f"http://127.0.0.1:{port}"
    finally:
        server.end()


def _ours(url: str, rate: float, seconds: float) -> Cost:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "figures.json"
        flags = (f"--url={url}", f"--rate={rate:g}", f"--seconds={seconds:g}", f"--json={path}")
        _run([str(HERE / "load.py"), *flags, "--protocol=chat", f"--mix=1:30:{TOKENS}"])
        figures = json.loads(path.read_text())
    ends = figures["rows"]["all"]["ends"]
    done = ends.get("ok", 0)
    return Cost(
        "load.py",
        rate,
        figures["most_in_flight"],
        done * TOKENS / figures["run_s"],
        figures["driver_core"],
        sum(ends.values()) - done,
    )


def _by_httpx(url: str, rate: float, seconds: float) -> Cost:
    program = [__file__, "--httpx", url, "--rate", f"{rate:g}", "--seconds", f"{seconds:g}"]
    return Cost("httpx", rate, **json.loads(_run(program)))


def _run(program: list[str]) -> str:
    """What a Python program on the driver's core prints."""
    done = subprocess.run(  # noqa: S603 (our own programs)
        ["taskset", "-c", str(DRIVER_CORE), sys.executable, *program],  # noqa: S607
        check=True,
        capture_output=True,
        text=True,
    )
    return done.stdout


async def _drive_httpx(url: str, rate: float, seconds: float) -> dict[str, float]:
    """The driver on httpx; Cost's members."""
    protocol, asked = PROTOCOLS["chat"], Ask("model")
    stages = (Stage(rate, rate, seconds),)
    planned = list(plan(times(stages, seed=0), MIX, seed=0, name="httpx"))
    wire = [encoded(protocol, asked, each) for each in planned]
    flying = most = tokens = failed = 0
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
    async with httpx.AsyncClient(base_url=url, limits=limits, timeout=60) as client:

        async def send(number: int, due: float) -> None:  # noqa: ARG001
            nonlocal flying, most, tokens, failed
            flying += 1
            most = max(most, flying)
            path, content = wire[number]
            try:
                async with client.stream("POST", path, content=content) as response:
                    async for line in response.aiter_lines():
                        if line.startswith("data: {"):
                            tokens += protocol.has_text(json.loads(line[6:]))
            except httpx.HTTPError:
                failed += 1
            flying -= 1

        began, cpu = time.monotonic(), time.process_time()
        await drive((each.due_s for each in planned), send)
    lasted = time.monotonic() - began
    return {
        "in_flight": most,
        "tokens_per_s": tokens / lasted,
        "core": (time.process_time() - cpu) / lasted,
        "failed": failed,
    }


def _cell(values: list[float], digits: int) -> str:
    middle, least, most = statistics.median(values), min(values), max(values)
    return f"{middle:.{digits}f} ({least:.{digits}f}..{most:.{digits}f})"


def _table(costs: list[Cost]) -> str:
    names = ("driver", "offered/s", "streams in flight", "tokens/s", "core used", "CPU us/token")
    lines = [f"| {' | '.join((*names, 'failed'))} |", "|---" * (len(names) + 1) + "|"]
    for driver, rate in dict.fromkeys((each.driver, each.rate) for each in costs):
        own = [each for each in costs if (each.driver, each.rate) == (driver, rate)]
        cells = (
            _cell([each.in_flight for each in own], 0),
            _cell([each.tokens_per_s for each in own], 0),
            _cell([each.core for each in own], 2),
            _cell([each.us_per_token for each in own], 1),
            str(sum(each.failed for each in own)),
        )
        lines.append(f"| {driver} | {rate:g} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rate", type=float, default=10, help="requests a second, both drivers")
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--pause_ms", type=float, default=100, help="between a stream's tokens")
    parser.add_argument(
        "--more", type=float, nargs="*", default=(50, 100, 200, 400), help="rates, ours alone"
    )
    parser.add_argument("--httpx", metavar="URL", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.httpx:
        allow_many_connections()
        driven = _drive_httpx(arguments.httpx, arguments.rate, arguments.seconds)
        print(json.dumps(asyncio.run(driven)))
        return
    if not {SERVER_CORE, DRIVER_CORE} <= os.sched_getaffinity(0):
        parser.error("this takes two cores")
    costs, ratios = [], []
    with _source(arguments.pause_ms) as url:
        for _ in range(arguments.repetitions):
            pair = [run(url, arguments.rate, arguments.seconds) for run in (_ours, _by_httpx)]
            costs += pair
            ratios.append(pair[1].us_per_token / pair[0].us_per_token)
        for rate in arguments.more:
            costs.append(_ours(url, rate, arguments.seconds))
    print(_table(costs))
    print(f"\nA token costs httpx {_cell(ratios, 1)} times what it costs load.py.")


if __name__ == "__main__":
    main()
