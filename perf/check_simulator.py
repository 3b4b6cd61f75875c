"""`python perf/check_simulator.py`: the simulated predictor over sockets beside its own model.

The arrivals of the fit's rows are sent to the real server in real time, and what callers saw is set
beside the same arrivals in virtual time; the difference is what server, sockets and a busy machine
add. Then what the predictor's process costs behind a transformer, as it is used: whole answers, and
streams with more tokens an event.
"""

import argparse
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import batching
import httpx
import uvloop
from fit_profile import BF16, Arrival, Row, draws, figures, predicted
from load import Run, run
from open_loop import allow_many_connections
from pinned import PinnedServer, free_port
from protocols import PROTOCOLS, Ask
from schedule import MIX as SHAPES
from schedule import Planned, Stage, plan, times

MODEL = "model"
PROFILE = "h200-bf16"
# More than the longest queue, more than any wait.
OUT_OF_REACH = 100_000


@contextmanager
def _started(name: str, program: Sequence[str], http: int, grpc: int) -> Iterator[PinnedServer]:
    common = (f"--model_name={MODEL}", "--host=127.0.0.1", "--log_level=warning", "--drain_s=1")
    ports = (f"--http_port={http}", f"--grpc_port={grpc}")
    server = PinnedServer(name, [*program, *common, *ports], port=http)
    try:
        server.wait_until_listening()
        # It listens while it starts.
        while httpx.get(f"http://127.0.0.1:{http}/v2/health/ready").status_code != 200:
            time.sleep(0.1)
        yield server
    finally:
        server.end()


@contextmanager
def _predictor(grpc: int, *flags: str) -> Iterator[PinnedServer]:
    program = str(Path(__file__).with_name("simulated_predictor.py"))
    own = (f"--profile={PROFILE}", f"--max_num_queued_reqs={OUT_OF_REACH}")
    with _started("predictor", [program, *own, *flags], free_port(), grpc) as server:
        yield server


@contextmanager
def _transformer(predictor: int) -> Iterator[PinnedServer]:
    """In front of it, with every bound out of reach: all that is offered gets to the engine."""
    bounds = ("engine_queue_target_s", "queue_target_s", "queue_longest_s", "queue_most")
    flags = (f"--{name}={OUT_OF_REACH}" for name in bounds)
    program = ["-m", "llm_transformer", "--allow_anonymous", "--predictor_concurrency=4096"]
    host = f"--predictor_host=127.0.0.1:{predictor}"
    with _started("transformer", [*program, host, *flags], free_port(), free_port()) as server:
        yield server


async def _driven(
    server: PinnedServer, port: int, protocol: str, planned: Sequence[Planned]
) -> tuple[Run, float]:
    """What came of it at `port`, and the share of a core that `server` used."""
    cpu_us = server.cpu_us()
    url = f"http://127.0.0.1:{port}"
    done = await run(url, PROTOCOLS[protocol], Ask(MODEL), planned, patience_s=120)
    return done, (server.cpu_us() - cpu_us) / 1e6 / done.seconds


def _row(row: Row, drawn: Sequence[Arrival]) -> list[str]:
    """A row of the table: measured on the GPU, in virtual time, over sockets."""
    planned = [
        Planned(at, f"{row.rate:g}-{number}", prompt, answer)
        for number, (at, prompt, answer) in enumerate(drawn)
    ]
    with _predictor(free_port()) as server:
        done, core = uvloop.run(_driven(server, server.port, "infer", planned))
    failed = sum(each.end != "ok" for each in done.outcomes)
    seen = figures(
        [(each.due_s, each.due_s + each.total_s, each.output_tokens) for each in done.outcomes]
    )
    told = {
        "measured": row.cells,
        "virtual time": predicted(batching.load(PROFILE), drawn),
        "over sockets": seen,
    }
    lines = []
    for what, cells in told.items():
        texts = ["" if cell is None else f"{cell:.0f}" for cell in cells]
        used = f"{core:.2f} | {failed}" if what == "over sockets" else " | "
        lines.append(f"| {row.rate:g} | {what} | {' | '.join(texts)} | {used} |")
    return lines


def _cost(protocol: str, rate: float, tokens_per_event: int, seconds: float) -> str:
    due = times((Stage(rate, rate, seconds),), seed=0)
    planned = list(plan(due, SHAPES, seed=0, name=f"{protocol}{rate:g}"))
    grpc = free_port()
    with (
        _predictor(grpc, f"--tokens_per_event={tokens_per_event}") as server,
        _transformer(grpc) as front,
    ):
        done, core = uvloop.run(_driven(server, front.port, protocol, planned))
    ok = [each for each in done.outcomes if each.end == "ok"]
    tokens = sum(each.output_tokens for each in ok)
    failed = Counter(each.end for each in done.outcomes if each.end != "ok").items()
    cpu_us = core * done.seconds * 1e6
    cells = (
        *(protocol, f"{rate:g}", f"{tokens_per_event}" if PROTOCOLS[protocol].streams else ""),
        *(f"{len(ok) / done.seconds:.0f}", f"{tokens / done.seconds:.0f}", f"{core:.2f}"),
        *(f"{cpu_us / len(ok):.0f}", ", ".join(f"{n} {end}" for end, n in failed) or "0"),
    )
    return f"| {' | '.join(cells)} |"


def _model_us(tokens_per_event: int, requests: int = 5000) -> tuple[float, float]:
    """CPU time of the model alone, microseconds: a request, and an event of it."""
    batch = batching.Batch(batching.load(PROFILE))
    began = time.process_time()
    for number in range(requests):
        batch.add(batching.Sequence(number / 1e3, 65, 83, tokens_per_event))
    told = batch.advance(float("inf"))
    cpu_us = (time.process_time() - began) * 1e6
    return cpu_us / requests, cpu_us / len(told)


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=6.0, help="of load, for the costs")
    arguments = parser.parse_args()
    allow_many_connections()
    whole, stream = _model_us(0), _model_us(1)
    print(
        f"The model alone: {whole[0]:.1f} us a whole answer, {stream[1]:.1f} us a streamed token\n"
    )
    names = ("served/s", "p50 ms", "p99 ms", "p99 of 50 tokens ms", "tokens/s", "core", "failed")
    print(f"| rate | what | {' | '.join(names)} |\n{'|---' * (len(names) + 2)}|")
    for row in BF16:
        print("\n".join(_row(row, draws(row)[0])), flush=True)
    costs = ("offered/s", "tokens an event", "served/s", "tokens/s", "core", "CPU us/request")
    print(f"\n| protocol | {' | '.join((*costs, 'failed'))} |\n{'|---' * (len(costs) + 2)}|")
    for protocol, rate, tokens in (
        *(("infer", 200, 1), ("infer", 1000, 1)),
        *(("generate_stream", 100, each) for each in (1, 4, 16)),
    ):
        print(_cost(protocol, rate, tokens, arguments.seconds), flush=True)


if __name__ == "__main__":
    main()
