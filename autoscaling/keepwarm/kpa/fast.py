"""The fast engine: the reference's decisions and requests, compiled, bit for bit the same.

A `FastLog` holds one request log in memory and runs policies over it, one after the other.
"""

import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from keepwarm.kpa import fast_decider, fast_revision
from keepwarm.kpa.decider import DeciderSpec
from keepwarm.kpa.errors import InputError
from keepwarm.kpa.fast_jit import FOLDER
from keepwarm.kpa.fast_loop import run
from keepwarm.kpa.fast_memory import NO_FAULT, TOO_MANY_PODS, enlarged, new_memory
from keepwarm.kpa.fast_revision import IDLE
from keepwarm.kpa.model import (
    MICROSECONDS,
    Phases,
    Pods,
    Policy,
    Requests,
    Result,
    Timeline,
    whole_us,
)
from keepwarm.kpa.outcomes import MAX_PODS


def compile_first(tell: Callable[[str], None]) -> None:
    """Compiles the engine when that has not been done on this machine, and tells what it takes."""
    if any(FOLDER.rglob("fast_loop.run-*.nbi")):
        return
    tell("compiling the fast engine, once for this version ...")
    began = time.perf_counter()
    FastLog(Requests([0.0], [0.0], 1.0), Pods((0.0,)), Phases()).run(Policy())
    tell(f"compiled in {time.perf_counter() - began:.0f} s, kept in {FOLDER}")


class FastLog:
    """A request log with pods and phases; `run` is one policy over it."""

    def __init__(self, requests: Requests, pods: Pods, phases: Phases) -> None:
        self._end_us = whole_us((requests.duration_s,))[0]
        self._pods = pods
        self._phases = phases
        self._memory = new_memory(len(requests), np.array(whole_us(pods.start_s), np.int64))
        self._memory.requests["arrival_us"] = whole_us(requests.arrival_s)
        self._memory.requests["service_us"] = whole_us(requests.service_s)

    def run(self, policy: Policy) -> Result:
        """The policy's result. Raises InputError when it asks for too many pods."""
        while True:
            self._prepare(policy)
            run(self._memory)
            fault = int(self._memory.loop["fault"])
            if fault == NO_FAULT:
                return self._result(policy)
            if fault == TOO_MANY_PODS:
                raise InputError(f"The policy asks for more than {MAX_PODS} pods at once.")
            self._memory = enlarged(self._memory, fault)

    def _prepare(self, policy: Policy) -> None:
        loop, pods, phases = self._memory.loop, self._pods, self._phases
        for name in loop.dtype.names or ():
            loop[name] = 0
        loop["requests"] = len(self._memory.requests)
        loop["end_us"] = self._end_us
        loop["slowdown"] = pods.slowdown
        loop["concurrency"] = policy.container_concurrency
        for name, seconds in (
            ("timeout_us", pods.request_timeout_s),
            ("quiet_us", pods.drain_quiet_s),
            ("grace_us", pods.termination_grace_s),
            ("create_us", phases.tick_s),
            ("scrape_us", phases.scrape_s),
            ("report_us", phases.activator_s),
            ("cut_us", phases.queue_proxy_s),
        ):
            loop[name] = whole_us((seconds,))[0]
        loop["next_ready_us"] = loop["next_gone_us"] = IDLE
        loop["changes"] = 1
        self._memory.changes[0] = (0, 0, 0, 0)
        self._memory.free[:] = np.arange(len(self._memory.free))
        loop["free"] = len(self._memory.free)
        create_us = int(loop["create_us"])
        if schedule := policy.schedule:
            steps = [
                (time_us, schedule.at(time_us, policy.min_scale))
                for time_us, _ in schedule.until(self._end_us)
            ]
            self._memory = self._memory._replace(
                schedule=np.array(steps, np.int64).reshape(len(steps), 2)
            )
            policy = replace(policy, min_scale=schedule.at(create_us, policy.min_scale))
        else:
            self._memory = self._memory._replace(schedule=np.zeros((0, 2), np.int64))
        fast_revision.set_policy(self._memory.revision.policy, policy)
        fast_revision.reset(self._memory.revision.state, create_us, policy.initial_scale)
        fast_decider.reset(self._memory.scaler, DeciderSpec.of(policy), create_us, 0)

    def _result(self, policy: Policy) -> Result:
        loop, requests = self._memory.loop, self._memory.requests
        rows = int(loop["changes"])
        # The last row is the end itself; a row that begins there would last no time.
        changes = self._memory.changes[: max(rows - 1, 1)]
        return Result(
            policy=policy,
            duration_s=self._end_us / MICROSECONDS,
            wait_s=requests["wait_us"] / MICROSECONDS,
            verdict=requests["verdict"].copy(),
            outcome=requests["outcome"].copy(),
            timeline=Timeline(
                changes["time_us"] / MICROSECONDS,
                *(changes[name].astype(np.int64) for name in ("ready", "starting", "draining")),
            ),
            ready_pod_seconds=int(loop["ready_us"]) / MICROSECONDS,
            starting_pod_seconds=int(loop["starting_us"]) / MICROSECONDS,
            draining_pod_seconds=int(loop["draining_us"]) / MICROSECONDS,
            pods_started=int(loop["pods_started"]),
            ticks=int(loop["ticks"]),
            stepped_ticks=int(loop["stepped"]),
        )
