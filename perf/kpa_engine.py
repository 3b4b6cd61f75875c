"""How fast the twin runs: many policies on one core, beside the reference engine and SimFaaS.

`make bench-kpa`. SimFaaS knows no autoscaler: an instance serves one request at a time and is gone
after a fixed idle time. It stands here as the simulator that one would otherwise take.
"""

import argparse
import itertools
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from keepwarm.kpa import Pods, Policy, Requests, simulate, simulate_policies
from keepwarm.traces.generate import generate
from keepwarm.traces.presets import PRESETS

HERE = Path(__file__).parent
SIMFAAS = HERE.parent / "build/simfaas/bin/python"  # make bench-kpa sets it up
DAY_S = 86_400.0
PODS = Pods((38.0, 41.5, 55.0), slowdown=0.03)


def policies(count: int) -> list[Policy]:
    """What a tuner tries: windows, targets, limits, burst capacities, floors."""
    grid = itertools.product(
        (6, 30, 60, 120, 300, 600, 1800, 3600),
        (1.0, 2.0, 4.0, 8.0),
        (0, 8),
        (-1.0, 0.0, 211.0),
        (0, 1),
        (0, 600),
    )
    every = [
        Policy(
            stable_window_s=window,
            target=target,
            container_concurrency=concurrency,
            target_burst_capacity=burst,
            min_scale=least,
            scale_down_delay_s=delay,
        )
        for window, target, concurrency, burst, least, delay in grid
    ]
    # Spread over the grid, so that fewer are no easier.
    return [every[number * len(every) // count % len(every)] for number in range(count)]


def log(days: float, seed: int) -> Requests:
    """Office hours, as many requests as the ServeGen office trace has, 20 ms a token."""
    trace = generate(
        PRESETS["internal-office-hours"], duration_s=days * DAY_S, seed=seed, mean_rps=0.127
    )
    return Requests(trace.arrival_s, 0.3 + 0.02 * trace.output_tokens, trace.duration_s)


def cpu_s(work: Callable[[], object]) -> float:
    """CPU seconds of this process: other work on the machine counts little."""
    began = time.process_time()
    work()
    return time.process_time() - began


def told(values: Sequence[float], form: str = "{:.3g}") -> str:
    """The median and the range."""
    low, middle, high = (
        form.format(value) for value in (min(values), statistics.median(values), max(values))
    )
    return f"{middle} ({low}..{high})"


def command(*parts: str | Path, **options: Any) -> str:
    """What a program of ours prints; its errors are seen as they come."""
    done = subprocess.run(  # noqa: S603 (our own)
        parts, check=True, stdout=subprocess.PIPE, text=True, **options
    )
    return done.stdout


def compile_times() -> tuple[float, float]:
    """Seconds until a first result in a new process: nothing compiled yet, and all kept."""
    code = (
        "from keepwarm.kpa import *\n"
        "next(simulate([Policy()], Requests([0.0], [0.0], 1.0), Pods((0.0,))))"
    )
    with tempfile.TemporaryDirectory() as folder:
        environment = os.environ | {"NUMBA_CACHE_DIR": folder}

        def start() -> float:
            began = time.perf_counter()
            command(sys.executable, "-c", code, env=environment)
            return time.perf_counter() - began

        return start(), start()


def simfaas(requests: Requests, repetitions: int) -> list[tuple[float, int, int, float]]:
    """SimFaaS's seconds, requests, cold starts and average instances, from its own environment."""
    given = {
        "arrival_s": requests.arrival_s.tolist(),
        "service_s": requests.service_s.tolist(),
        "duration_s": requests.duration_s,
        "cold_start_s": float(np.mean(PODS.start_s)),
        "expiration_s": 60.0,
        "repetitions": repetitions,
    }
    printed = command(SIMFAAS, HERE / "simfaas_replay.py", input=json.dumps(given))
    return [tuple(json.loads(line)) for line in printed.splitlines()]


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--days", type=float, default=14.0)
    parser.add_argument("--policies", type=int, default=500)
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})

    first_s, again_s = compile_times()
    print(f"first result in a new process  {first_s:.1f} s with compiling, {again_s:.1f} s without")

    requests, tried = log(options.days, options.seed), policies(options.policies)
    next(simulate(tried, requests, PODS))
    ticks = stepped = 0

    def all_policies() -> None:
        nonlocal ticks, stepped
        for result in simulate(tried, requests, PODS):
            ticks += result.ticks
            stepped += result.stepped_ticks

    began = time.perf_counter()
    took_s = cpu_s(all_policies)
    wall_s = time.perf_counter() - began
    print(
        f"{options.days:g} days, {len(requests)} requests, {len(tried)} policies on one core"
        f"  {took_s:.1f} s of CPU, {wall_s:.1f} s of wall time"
        f"\n  {ticks:.3g} policy-ticks ({ticks / took_s:.3g}/s), {stepped / ticks:.0%} of them one"
        f" by one; {len(requests) * len(tried) / took_s:.3g} requests/s"
    )
    reduced_s = cpu_s(lambda: simulate_policies(tried, requests, PODS))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"  with sums per day {reduced_s:.1f} s; largest memory {peak:.0f} MiB")

    day = log(1.0, options.seed)
    few = policies(6)
    ratios = []
    for _ in range(options.repetitions):
        slow = cpu_s(lambda: [*simulate(few, day, PODS, engine="reference")])
        ratios.append(slow / cpu_s(lambda: [*simulate(few, day, PODS)]))
    print(f"reference engine / fast engine, CPU, one day  {told(ratios)}")

    if not SIMFAAS.exists():
        print("SimFaaS is not installed: make bench-kpa")
        return
    single = Policy(container_concurrency=1, target=1, utilization=1, stable_window_s=60)
    rows = simfaas(requests, options.repetitions)
    ours = [
        cpu_s(lambda: next(simulate([single], requests, PODS))) for _ in range(options.repetitions)
    ]
    result = next(simulate([single], requests, PODS))
    ratios = [row[0] / mine for row, mine in zip(rows, ours, strict=True)]
    print(
        f"SimFaaS / fast engine, CPU, the same log  {told(ratios)}"
        f"\n  SimFaaS {told([row[1] / row[0] for row in rows])} requests/s, cold {rows[0][2]},"
        f" {rows[0][3]:.2f} instances on average"
        f"\n  ours    {told([len(requests) / mine for mine in ours])} requests/s,"
        f" cold {np.sum(result.verdict == 2)},"
        f" {(result.ready_pod_seconds + result.starting_pod_seconds) / requests.duration_s:.2f}"
        " pods on average (an autoscaler's decisions every 2 s included)"
    )


if __name__ == "__main__":
    main()
