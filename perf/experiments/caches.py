"""Experiment 4: no cache, one in each process, and Redis behind those, by the prompt's length.

Two transformers share the load in turn. Prompts are drawn from a population by Zipf's law and no
cache has been filled, so the hit ratio is what each level makes of it. "after a rollout" starts
both transformers anew over the same Redis: what is left is what their processes did not hold.
"""

import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import uvloop
from loads import SEED, Offer, Window, offer, row
from mix import Prompts
from pinned import free_port
from results import Row
from schedule import Shape
from stacks import Engine, Running, Stack, in_front, started

REPLICAS = 2
RATE = 500.0
POPULATION = 2000
TOKENS = 100
LENGTHS = (30, 200, 1000)
NONE = Stack("no cache", ("--cache=off",), replicas=REPLICAS)
L1 = Stack("L1, in process", (), replicas=REPLICAS)
L2 = Stack("L1 and L2, Redis", (), replicas=REPLICAS)
REFILLED = Stack("L1 and L2, after a rollout", (), replicas=REPLICAS)
TITLE = "Levels of cache, by the prompt's length, at 500 requests/s"
QUESTION = (
    f"What does each level add when {POPULATION} prompts are asked by Zipf's law, {TOKENS} tokens"
    f" each, {REPLICAS} transformers share the load and every cache begins empty?"
)


def run(engine: Engine, lengths: Sequence[int], window: Window, price: float) -> Iterator[Row]:
    """A row for each length and level."""
    for length in lengths:
        # One engine for all: Redis keeps an answer under the address of who made it.
        with started(engine, *engine.places) as running, redis() as url:
            shared = (f"--redis_url={url}",)
            levels = (NONE, L1, replace(L2, transformer=shared))
            for stack in (*levels, replace(REFILLED, transformer=shared)):
                yield _row(stack, running, length, window, price)


def _row(stack: Stack, running: Running, length: int, window: Window, price: float) -> Row:
    # All asked are from the population: a cache may answer all but each one's first time.
    prompts = Prompts(SEED, shapes=(Shape(1, length, TOKENS),), hot=POPULATION)
    with in_front(stack, running) as served:
        # Once: a second try would find a cache that the first has filled.
        offers = [Offer(RATE, 1.0)]
        (seen,) = uvloop.run(offer(stack, served, prompts, offers, window, tries=1))
    return row(f"prompts of {length} tokens", RATE, seen, price)


@contextmanager
def redis() -> Iterator[str]:
    """A redis-server that keeps nothing on disk; gives its URL. Raises RuntimeError without one."""
    program = shutil.which("redis-server")
    if program is None:
        raise RuntimeError("redis-server is not installed (Debian's package redis-server)")
    port = free_port()
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log"
        command = [program, "--port", str(port), "--bind", "127.0.0.1", "--save", ""]
        process = subprocess.Popen([*command, "--dir", folder, "--logfile", str(log)])  # noqa: S603
        try:
            yield f"redis://127.0.0.1:{port}"
        finally:
            process.terminate()
            process.wait(10)
