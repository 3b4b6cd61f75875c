"""`python perf/limits.py`: what auth and limits cost a request, on and off side by side.

First the stages alone, without sockets: CPU time of a request through auth and limits to a Forward
that answers at once, less that of the same Forward called directly. Then whole transformers in
front of the dummy predictor, on one core in turn: open, with keys and limits in process, and (where
redis-server is installed) with limits in Redis. At last the stages alone again, with a Redis that
is well, frozen, and killed: how long a request takes, one after the other.
"""

import asyncio
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import uvloop
from canned import ANSWER
from closed_loop import drive
from contenders import MODEL, Keys
from exchanges import infer_exchange
from pinned import PinnedServer, free_port
from report import cell, options

from llm_transformer import stages
from llm_transformer.settings import TransformerSettings
from openinference.context import RequestContext, from_headers
from openinference.generation import Chunk, FinishReason, GenerationRequest
from openinference.sampling import SamplingParams

PROMPT = "Answer in one sentence: what is the capital of France, and on which river does it lie?"
REQUEST = GenerationRequest(MODEL, (PROMPT,), SamplingParams(64), stream=False)
CHUNK = Chunk(0, "The capital of France is Paris.", 20, 15, FinishReason.EOS)
CONNECTIONS = (1, 16)
OPEN, KEYS, REDIS = "open", "keys, limits", "keys, limits in Redis"
WARM_UP_S = 0.3
REQUESTS = 500
BATCH = 2000
# What the issue allows for auth and limits in process.
TARGET_US = 60.0


class Answering:
    """A Forward that answers at once."""

    async def generate(
        self, request: GenerationRequest, context: RequestContext
    ) -> AsyncGenerator[Chunk, None]:
        yield CHUNK


async def stages_us(files: Keys, repetitions: int) -> list[float]:
    """CPU microseconds that auth and limits add to a request, one value a repetition."""
    settings = TransformerSettings.from_args(
        [f"--model_name={MODEL}", "--predictor_host=p", *files.flags]
    )
    forward: Any = Answering()
    async with stages.protection(settings, forward, None) as made:
        assert made.limits is not None
        auth, limits = made.auth, made.limits
        headers = {"authorization": f"Bearer {files.key}"}

        def protected(context: RequestContext) -> AsyncGenerator[Chunk, None]:
            identity = auth.identify(context, MODEL)
            return limits.generate(REQUEST, identity.stamped(context), identity)

        def direct(context: RequestContext) -> AsyncGenerator[Chunk, None]:
            return forward.generate(REQUEST, context)

        now = asyncio.get_running_loop().time()

        async def batch(call: Callable[[RequestContext], AsyncGenerator[Chunk, None]]) -> float:
            contexts = [
                from_headers(headers, now, timeout_s=3600, address="10.0.0.1", route="infer")
                for _ in range(BATCH)
            ]
            began = time.process_time()
            for context in contexts:
                async for _ in call(context):
                    pass
            return (time.process_time() - began) / BATCH * 1e6

        await batch(protected)
        return [await batch(protected) - await batch(direct) for _ in range(repetitions)]


async def outages_ms(files: Keys, folder: Path) -> dict[str, list[float]]:
    """Milliseconds of each of REQUESTS requests in turn, by the state of Redis."""
    port = free_port()
    url = f"redis://127.0.0.1:{port}"
    settings = TransformerSettings.from_args(
        [f"--model_name={MODEL}", "--predictor_host=p", f"--redis_url={url}", *files.flags]
    )
    redis = _redis(port, folder)
    states: dict[str, list[float]] = {}
    try:
        async with (
            stages.shared_store(settings) as store,
            stages.protection(settings, Answering(), store) as made,  # type: ignore[arg-type]
        ):
            assert made.limits is not None
            headers = {"authorization": f"Bearer {files.key}"}

            async def requests(state: str) -> None:
                states[state] = []
                for _ in range(REQUESTS):
                    began = time.perf_counter()
                    context = from_headers(headers, asyncio.get_running_loop().time(), timeout_s=60)
                    identity = made.auth.identify(context, MODEL)
                    async for _ in made.limits.generate(REQUEST, context, identity):
                        pass
                    states[state].append((time.perf_counter() - began) * 1e3)

            recovered = asyncio.Event()
            store.on_recovery(recovered.set)
            if not store.is_up:
                await recovered.wait()
            await requests("well")
            recovered.clear()
            redis.send_signal(signal.SIGSTOP)
            await requests("frozen")
            redis.send_signal(signal.SIGCONT)
            await recovered.wait()
            await requests("well again")
            redis.kill()
            redis.wait()
            await requests("killed")
    finally:
        redis.kill()
        redis.wait()
    return states


def _redis(port: int, folder: Path) -> subprocess.Popen[bytes]:
    program = shutil.which("redis-server")
    assert program is not None
    flags = ("--bind", "127.0.0.1", "--save", "", "--dir", str(folder))
    return subprocess.Popen(  # noqa: S603 (our own server)
        [program, "--port", str(port), *flags], stdout=subprocess.DEVNULL
    )


def servers(stack: ExitStack, files: Keys, folder: Path) -> dict[str, PinnedServer]:
    """The transformers on one core, the predictor (and Redis) on another; `stack` ends them."""
    cores = sorted(os.sched_getaffinity(0))
    server_core, load_core = cores[0], cores[-1]
    os.sched_setaffinity(0, {load_core})
    here = Path(__file__).parent
    grpc_port = free_port()
    dummy = [str(here / "dummy_predictor.py"), f"--model_name={MODEL}", f"--grpc_port={grpc_port}"]
    predictor = PinnedServer("dummy predictor", dummy, port=grpc_port, core=load_core)
    stack.callback(predictor.end)
    predictor.wait_until_listening()
    programs = {OPEN: ["--allow_anonymous"], KEYS: files.flags}
    if shutil.which("redis-server") is not None:
        port = free_port()
        process = _redis(port, folder)
        stack.callback(process.wait)
        stack.callback(process.terminate)
        programs[REDIS] = [*files.flags, f"--redis_url=redis://127.0.0.1:{port}"]
    started = {}
    for name, flags in programs.items():
        port = free_port()
        arguments = [
            *("-m", "llm_transformer", f"--model_name={MODEL}", "--log_level=warning"),
            *(f"--predictor_host=127.0.0.1:{grpc_port}", f"--http_port={port}"),
            *(f"--grpc_port={free_port()}", *flags),
        ]
        started[name] = PinnedServer(name, arguments, port=port, core=server_core)
        stack.callback(started[name].end)
    for server in started.values():
        server.wait_until_listening()
    return started


async def server_us(
    started: dict[str, PinnedServer], header: str, repetitions: int, seconds: float
) -> tuple[dict[tuple[int, str], list[float]], int]:
    """CPU microseconds a request of each server, by connections; how many answers were wrong."""
    figures: dict[tuple[int, str], list[float]] = {}
    errors = 0
    for _ in range(repetitions):
        for connections in CONNECTIONS:
            for name, server in started.items():
                window = await drive(
                    server.port,
                    [infer_exchange(MODEL, n, ANSWER, header) for n in range(connections)],
                    warm_up_s=WARM_UP_S,
                    seconds=seconds,
                    snapshot=server.cpu_us,
                )
                errors += window.errors
                figures.setdefault((connections, name), []).append(
                    (window.after - window.before) / max(1, len(window.latencies_ms))
                )
    return figures, errors


def main() -> None:
    """The command; its exit status is 1 when an answer was wrong."""
    arguments = options(__doc__, repetitions=5).parse_args()
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        files = Keys(folder)
        alone = uvloop.run(stages_us(files, arguments.repetitions))
        outages = uvloop.run(outages_ms(files, folder)) if shutil.which("redis-server") else {}
        started = servers(stack, files, folder)
        figures, errors = uvloop.run(
            server_us(
                started,
                files.header,
                arguments.repetitions,
                arguments.seconds,
            )
        )
    print(f"auth and limits in process, alone: {cell(alone, 0)} us a request", end="")
    print(f" (allowed: {TARGET_US:.0f})\n")
    print("| connections | server | CPU us/request | more than open |")
    print("|---|---|---|---|")
    for (connections, server), values in figures.items():
        more = [a - b for a, b in zip(values, figures[connections, OPEN], strict=True)]
        print(f"| {connections} | {server} | {cell(values, 0)} | {cell(more, 0)} |")
    if outages:
        print("\n| Redis | median ms | p99 ms | longest ms | over 5 ms |\n|---|---|---|---|---|")
    for state, taken in outages.items():
        late = sum(each > 5 for each in taken)
        p99 = statistics.quantiles(taken, n=100)[-1]
        print(f"| {state} | {statistics.median(taken):.2f} | {p99:.2f} ", end="")
        print(f"| {max(taken):.1f} | {late} of {len(taken)} |")
    print(f"\nwrong answers: {errors}")
    if arguments.json is not None:
        record = {"stages_us": alone, "servers_us": [[*key, v] for key, v in figures.items()]}
        arguments.json.write_text(json.dumps(record, indent=2) + "\n")
    sys.exit(1 if errors else 0)


if __name__ == "__main__":
    main()
