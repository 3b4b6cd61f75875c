"""Experiment 5: what an engine gives at each number of requests in flight, and what follows.

Closed loop, the engine alone, the usual mix, no prompt twice: vLLM keeps the beginnings of prompts
and computes them once. The sweep is what `keepwarm engine advise` reads; what it advises is then
tried: the same engine, started with so many places and loaded with as many.
"""

import itertools
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import driver
import uvloop
from closed_loop import Exchange, drive, http_post
from figures import quantile
from loads import SEED
from mix import Prompts, Request
from results import Batches
from stacks import ALONE, Engine, Served, serving

from keepwarm.engine.sweep import Point, Sweep

# Multiples of six, so that the mix of 3:2:1 is exact at each.
IN_FLIGHT = (6, 12, 24, 48, 96, 192, 384)
SLO = "ttft_p99<=300ms,latency_p99<=3s"
# Of every so many sixes, one is streamed: its events take CPU that the others' need.
STREAMED = 4
SECONDS = 9.0
TITLE = "Batch size and quantisation"
QUESTION = (
    "How many requests at a time are worth it on this engine, and does fp8 move that? Then: is what"
    " keepwarm engine advise makes of it true?"
)


def run(
    engine: Engine, counts: Sequence[int], slo: str, *, seconds: float, folder: Path
) -> Batches:
    """The sweep, written to `folder` as well, what was advised from it, and what that gave."""
    sweep = measure(replace(engine, max_num_seqs=max(counts)), counts, seconds)
    path = folder / f"sweep-{engine.kind}.json"
    folder.mkdir(parents=True, exist_ok=True)
    path.write_text(sweep.model_dump_json(indent=2, exclude_none=True) + "\n")
    status, text = _advise(path, slo)
    proof = None
    if status == 0:
        places = json.loads(_advise(path, slo, "--format=json")[1])["max_num_seqs"]
        proof = measure(replace(engine, max_num_seqs=places), [places], seconds)
    return Batches(engine.label, sweep, slo, text, proof)


def _advise(path: Path, slo: str, *flags: str) -> tuple[int, str]:
    """Exit status and output of the command that users have."""
    command = ("-m", "keepwarm.cli", "engine", "advise", str(path), f"--slo={slo}", *flags)
    done = subprocess.run(  # noqa: S603 (our own command)
        [sys.executable, *command], capture_output=True, text=True, check=False
    )
    return done.returncode, (done.stdout or done.stderr).strip()


def measure(engine: Engine, counts: Sequence[int], seconds: float) -> Sweep:
    """A point for each number in flight."""
    with serving(ALONE, engine) as served:
        points = [uvloop.run(_point(served, count, seconds)) for count in counts]
    return Sweep(max_num_seqs=engine.max_num_seqs or max(counts), points=tuple(points))


async def _point(served: Served, count: int, seconds: float) -> Point:
    """The mix so many at a time; raises RuntimeError when an answer was wrong."""
    ended: list[tuple[float, int]] = []
    exchanges = [
        _exchange(served, Request(planned, number // 6 % STREAMED == 0), ended)
        for number, planned in enumerate(Prompts(SEED + count).in_turn(count))
    ]
    window = await drive(
        served.ports[0],
        exchanges,
        # The first answers find an emptier engine than the later ones.
        warm_up_s=seconds / 3,
        seconds=seconds,
        snapshot=time.perf_counter,
    )
    if window.errors:
        raise RuntimeError(f"{window.errors} answers were wrong with {count} in flight")
    tokens = sum(tokens for at, tokens in ended if window.before <= at < window.after)
    point = Point(
        concurrency=count,
        tokens_per_s=tokens / window.seconds,
        ttft_p50_s=_seconds(window.first_ms, 0.5),
        ttft_p99_s=_seconds(window.first_ms, 0.99),
        latency_p50_s=_seconds(window.latencies_ms, 0.5),
        latency_p99_s=_seconds(window.latencies_ms, 0.99),
    )
    print(f"{count} in flight: {point}", file=sys.stderr, flush=True)
    return point


def _seconds(values_ms: Sequence[float], share: float) -> float | None:
    value = quantile(values_ms, share)
    return None if value is None else round(value / 1e3, 6)


def _exchange(served: Served, request: Request, ended: list[tuple[float, int]]) -> Exchange:
    serial = itertools.count()

    def fresh() -> bytes:
        name = f"{request.planned.prompt}again{next(serial)}"
        again = replace(request, planned=replace(request.planned, prompt=name))
        return http_post(*driver.encode(again, v2=served.v2))

    def is_right(status: int, answer: bytes) -> bool:
        ended.append((time.perf_counter(), request.planned.output_tokens))
        return status == 200 and b'"error"' not in answer

    return Exchange(fresh(), is_right, fresh)
