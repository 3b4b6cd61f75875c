"""Our predictor and vLLM's own OpenAI server side by side on one GPU, in turns, the same engine.

    python perf/gpu/parity.py --model FOLDER --work FOLDER

Both are up for the whole run with half of the memory each; one works while the other idles. Load is
closed-loop server-sent events from several driver processes, so that the driver is not the bound.
Prints medians and ranges of tokens per second, time to the first token, time per token and CPU
seconds of the front end per 1000 tokens, and the ratios turn by turn.
"""

import argparse
import asyncio
import json
import multiprocessing
import os
import random
import shlex
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from closed_loop import Exchange, drive, http_post
from engines import Engine, Server, start_ours, start_raw

# Ours takes three ports.
OURS_ABOVE = 100
# The mix of prompts and answers, in words and tokens: short, medium, long as 3:2:1.
MIX = ((25, 50), (25, 50), (25, 50), (40, 100), (40, 100), (160, 200))


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True, help="logs go here")
    parser.add_argument("--load_format", default="dummy")
    parser.add_argument("--kv_cache_gib", type=float, default=14.0)
    parser.add_argument("--servers", default="raw,ours", help="one of them alone is no comparison")
    parser.add_argument("--port", type=int, default=18000, help="and some up to 102 above it")
    parser.add_argument("--connections", default="1,16,256")
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--shorter", type=int, default=1, help="divides the answers' lengths")
    parser.add_argument("--drivers", type=int, default=4)
    parser.add_argument("--max_num_seqs", type=int, default=256)
    parser.add_argument("--eager", action="store_true", help="for a machine without a GPU")
    parser.add_argument(
        "--flags", type=shlex.split, default=[], help='more of our predictor: "--a=b --c"'
    )
    parser.add_argument("--sweep", type=Path, help="write ours for `keepwarm engine advise` there")
    given = parser.parse_args()
    work = given.work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    os.environ.update(HF_HUB_OFFLINE="1", VLLM_NO_USAGE_STATS="1")
    engine = Engine(
        given.model.resolve(),
        load_format=given.load_format,
        kv_cache_gib=given.kv_cache_gib,
        max_num_seqs=given.max_num_seqs,
        gpu_memory_utilization=0.45,
        eager=given.eager,
    )
    servers: dict[str, Server] = {}
    try:
        for name in given.servers.split(","):
            log = work / f"parity-{name}.log"
            servers[name] = (
                start_raw(engine, given.port, log)
                if name == "raw"
                else start_ours(engine, given.port + OURS_ABOVE, log, *given.flags)
            )
            servers[name].first_token_s()
        counts = sorted(map(int, given.connections.split(",")))
        points = [sweep_point(count, compare(servers, count, given)) for count in counts]
        if given.sweep is not None:
            sweep = {"max_num_seqs": given.max_num_seqs, "points": points}
            given.sweep.write_text(json.dumps(sweep, indent=2) + "\n")
    finally:
        for server in servers.values():
            server.end()


def compare(
    servers: dict[str, Server], connections: int, given: argparse.Namespace
) -> list[dict[str, float]]:
    """One number of connections: the servers in turns, then their figures and ratios.

    Returns the turns of ours, or of the only one.
    """
    rows: dict[str, list[dict[str, float]]] = {name: [] for name in servers}
    for turn in range(given.turns):
        order = list(servers) if turn % 2 == 0 else list(servers)[::-1]
        for name in order:
            rows[name].append(load(servers[name], connections, turn, given))
    for name, turns in rows.items():
        print(json.dumps({"server": name, "connections": connections, **summary(turns)}))
    if len(rows) == 1:
        return next(iter(rows.values()))
    ratios = {
        key: spread(
            [ours[key] / raw[key] for ours, raw in zip(rows["ours"], rows["raw"], strict=True)]
        )
        for key in rows["raw"][0]
        if all(turn[key] > 0 for turn in rows["raw"])
    }
    print(json.dumps({"ratio": "ours/raw", "connections": connections, **ratios}), flush=True)
    return rows["ours"]


def load(
    server: Server, connections: int, seed: int, given: argparse.Namespace
) -> dict[str, float]:
    """One turn of one server; raises RuntimeError when an answer was wrong, or none ended."""
    drivers, seconds = min(given.drivers, connections), given.seconds
    shares = [connections // drivers + (n < connections % drivers) for n in range(drivers)]
    before, began = server.cpu_s(), time.monotonic()
    with multiprocessing.get_context("fork").Pool(drivers) as pool:
        jobs = [
            pool.apply_async(
                _drive,
                (server.port, _exchanges(server, share, seed * 100 + n, given.shorter), seconds),
            )
            for n, share in enumerate(shares)
        ]
        parts = [job.get() for job in jobs]
    cpu = (server.cpu_s() - before) / (time.monotonic() - began)
    tokens = sum(part["tokens"] / part["seconds"] for part in parts)
    errors = sum(part["errors"] for part in parts)
    if errors:
        raise RuntimeError(f"{errors} answers were wrong; see {server.log}")
    if not all(part["latencies_ms"] for part in parts):
        raise RuntimeError(f"no answer ended within {seconds:g} s; measure for longer")
    first = [value for part in parts for value in part["first_ms"]]
    whole = [value for part in parts for value in part["latencies_ms"]]
    return {
        "tokens_per_s": tokens,
        "ttft_p50_ms": statistics.median(first),
        "ttft_p99_ms": quantile(first, 0.99),
        "answer_p50_ms": statistics.median(whole),
        "answer_p99_ms": quantile(whole, 0.99),
        "cpu_s_per_1000_tokens": 1000 * cpu / tokens,
    }


def _exchanges(server: Server, count: int, seed: int, shorter: int) -> list[tuple[bytes, int]]:
    chosen = random.Random(seed)  # noqa: S311 (not secret)
    made = []
    for number in range(count):
        words, tokens = MIX[(seed + number) % len(MIX)]
        tokens = max(1, tokens // shorter)
        # Different beginnings, so that the prefix cache helps neither.
        prompt = " ".join(str(chosen.randint(0, 9999)) for _ in range(words // 2))
        path, body = server.completion(prompt, tokens, stream=True)
        made.append((http_post(path, body), tokens))
    return made


def _drive(port: int, requests: list[tuple[bytes, int]], seconds: float) -> dict[str, object]:
    """One driver process.

    Tokens are those of the answers that ended in the window: how many an event holds is the
    server's choice.
    """
    ended: list[tuple[float, int]] = []
    exchanges = [Exchange(request, _noting(ended, tokens)) for request, tokens in requests]
    window = asyncio.run(
        drive(port, exchanges, warm_up_s=2.0, seconds=seconds, snapshot=time.perf_counter)
    )
    return {
        "seconds": window.seconds,
        "tokens": sum(tokens for at, tokens in ended if window.before <= at < window.after),
        "errors": window.errors,
        "first_ms": window.first_ms,
        "latencies_ms": window.latencies_ms,
    }


def _noting(ended: list[tuple[float, int]], tokens: int) -> Callable[[int, bytes], bool]:
    def is_right(status: int, answer: bytes) -> bool:
        ended.append((time.perf_counter(), tokens))
        return status == 200 and b"error" not in answer[:200]

    return is_right


def sweep_point(connections: int, turns: list[dict[str, float]]) -> dict[str, float]:
    """The turns' medians as a point of a saturation sweep (autoscaling/keepwarm/engine)."""
    figures = {
        "tokens_per_s": ("tokens_per_s", 1.0),
        "ttft_p50_s": ("ttft_p50_ms", 1e-3),
        "ttft_p99_s": ("ttft_p99_ms", 1e-3),
        "latency_p50_s": ("answer_p50_ms", 1e-3),
        "latency_p99_s": ("answer_p99_ms", 1e-3),
    }
    return {"concurrency": connections} | {
        name: round(unit * statistics.median(turn[key] for turn in turns), 6)
        for name, (key, unit) in figures.items()
    }


def summary(turns: list[dict[str, float]]) -> dict[str, str]:
    """Each figure's median and range over the turns."""
    return {key: spread([turn[key] for turn in turns]) for key in turns[0]}


def spread(values: list[float]) -> str:
    """Median (least..most), three digits."""
    return f"{statistics.median(values):.3g} ({min(values):.3g}..{max(values):.3g})"


def quantile(values: list[float], q: float) -> float:
    """The value that a share `q` of the values does not exceed."""
    return sorted(values)[min(len(values) - 1, int(q * len(values)))]


if __name__ == "__main__":
    main()
