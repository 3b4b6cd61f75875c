"""Experiment 6: a burst from 50 to 1000 requests/s on a cluster, with scale-out and from zero.

A small machine carries neither a thousand requests a second through a gateway, an activator and two
queue-proxies nor the predictors for them. So rates and engines are divided by one stated factor: a
predictor of 1/10 speed at 1/10 of the load takes as long and scales as the whole one would. No
prompt comes twice: a cache would only take load off.
"""

import argparse
import asyncio
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass

import cluster
import driver
import uvloop
from cluster import Deployment, Pods, Service
from cost import Cost
from figures import Figures, Outcome, figures, quantile
from loads import SEED, told
from machine import Watch
from mix import Prompts, Request
from open_loop import Callers
from overload import GATE_OPEN
from results import Burst, Result, Second
from schedule import Stage, times
from stacks import Engine

FROM, TO = 50.0, 1000.0
PLACES = 256
TITLE = "Burst from 50 to 1000 requests/s, on a cluster"
QUESTION = (
    "How soon does Knative have the predictors that a burst needs, who is served meanwhile, and"
    " what does it cost beside as many that always run?"
)
PATIENCE_S = 120.0


@dataclass(frozen=True)
class Scenario:
    """Where a burst begins: so many predictors at least, and how long the load is low before."""

    part: str
    least: int
    calm_s: float
    # Of the transformer.
    flags: tuple[str, ...] = ()


# As many probes as callers wait for a start, so that Knative counts them.
COUNTED = ("--wake_probes=1000",)
# Nobody waits in the transformer for a place: all do in Knative's activator.
OPEN = ("--predictor_idle_s=0", *GATE_OPEN)


def scenarios(most: int) -> dict[str, Scenario]:
    """By name: scale-out and from zero, each with the transformer open too; what never scales."""
    return {
        "one": Scenario("scale-out from one predictor", 1, 10.0),
        "one-open": Scenario("the same, transformer open", 1, 10.0, OPEN),
        "zero": Scenario("from zero", 0, 0.0),
        "zero-counted": Scenario("from zero, each caller counted", 0, 0.0, COUNTED),
        "zero-open": Scenario("from zero, transformer open", 0, 0.0, OPEN),
        "always": Scenario(f"always {most} predictors", most, 10.0),
    }


def add_flags(parser: argparse.ArgumentParser) -> None:
    """What only this experiment is told."""
    names = tuple(scenarios(0))
    parser.add_argument(
        "--begin", nargs="+", choices=names, default=names, help="burst: from where"
    )
    parser.add_argument("--scale", type=float, default=10.0, help="burst: divides rates and engine")
    parser.add_argument("--burst-seconds", type=float, default=45.0, help="how long a burst lasts")
    parser.add_argument("--predictors", type=int, default=7, help="burst: most of them")
    parser.add_argument("--start-s", type=float, default=20.0, help="burst: a predictor's start")
    parser.add_argument("--window-s", type=int, default=10, help="burst: Knative's stable window")


def run(engine: Engine, environment: dict[str, str], given: argparse.Namespace) -> Result:
    """All scenarios, one after the other."""
    bursts = []
    for name in given.begin:
        scenario = scenarios(given.predictors)[name]
        wanted = Deployment(
            profile=engine.kind,
            scale=given.scale,
            places=max(1, round(PLACES / given.scale)),
            least=scenario.least,
            most=given.predictors,
            start_s=given.start_s,
            window_s=given.window_s,
            flags=scenario.flags,
        )
        with cluster.applied(wanted) as service:
            service.wait_for(scenario.least)
            bursts.append(uvloop.run(_burst(service, scenario, wanted, given)))
    label = engine.label
    if given.scale != 1:
        label += f"; rates and engines divided by {given.scale:g}"
    return Result("burst", TITLE, QUESTION, label, environment, bursts=tuple(bursts))


async def _burst(
    service: Service, scenario: Scenario, wanted: Deployment, given: argparse.Namespace
) -> Burst:
    low, high = FROM / given.scale, TO / given.scale
    until = scenario.calm_s + given.burst_seconds
    stages = [Stage(high, high, given.burst_seconds)]
    if scenario.calm_s:
        stages.insert(0, Stage(low, low, scenario.calm_s))
    prompts = Prompts(SEED)
    requests = [Request(prompts.draw(at_s, 0.0), stream=False) for at_s in times(stages, seed=SEED)]
    watch = Watch({})
    sampled: list[Pods] = []
    sampling = asyncio.create_task(_sample(service, sampled))
    has_text = driver.PROTOCOLS[True, True].has_text
    try:
        with closing(
            Callers(service.gateway, headers={"host": service.host}, has_text=has_text)
        ) as callers:
            outcomes, usage = await driver.drive(
                [callers],
                requests,
                v2=True,
                patience_s=PATIENCE_S,
                watched=driver.Watched(0.0, until, watch.begin, watch.end),
                model=cluster.SERVICE,
            )
    finally:
        sampling.cancel()
    seen = figures(
        scenario.part,
        outcomes,
        window=(0.0, max(each.ended_s for each in outcomes) + 1e-6),
        hit_target=None,
        usage=usage,
    )
    print(f"{scenario.part}: {told(seen)}", file=sys.stderr, flush=True)
    seconds = tuple(by_second(outcomes, sampled))
    return Burst(
        scenario.part,
        facts(wanted, seconds, scenario),
        seconds,
        seen,
        cost(seconds, seen, until, given),
    )


async def _sample(service: Service, sampled: list[Pods]) -> None:
    """The pods of each second, from now on."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    while True:
        sampled.append(await loop.run_in_executor(None, service.pods))
        await asyncio.sleep(max(0.0, began + len(sampled) - loop.time()))


def by_second(outcomes: Sequence[Outcome], sampled: Sequence[Pods]) -> Iterator[Second]:
    """What was due and what ended in each second for which pods were sampled."""
    for number, pods in enumerate(sampled):
        ended = [each for each in outcomes if number <= each.ended_s < number + 1]
        served = [each for each in ended if each.whole]
        refused = sum(each.status == 503 for each in ended)
        yield Second(
            at_s=number,
            offered=sum(number <= each.due_s < number + 1 for each in outcomes),
            served=len(served),
            refused=refused,
            failed=len(ended) - len(served) - refused,
            p50_ms=quantile([each.total_s * 1e3 for each in served], 0.5),
            pods=pods.existing,
            ready=pods.ready,
        )


def facts(wanted: Deployment, seconds: Sequence[Second], scenario: Scenario) -> dict[str, str]:
    """What is told beside the plot."""
    most = max(second.ready for second in seconds)
    begins = scenario.calm_s
    full = next((s.at_s for s in seconds if s.at_s >= begins and s.ready == most), begins)
    told = {
        "a predictor": f"{wanted.places} places, {wanted.profile} at 1/{wanted.scale:g} of its"
        f" speed, {wanted.start_s:g} s to load",
        "Knative": f"target and containerConcurrency {wanted.places}, window {wanted.window_s} s,"
        f" {wanted.least} to {wanted.most} predictors",
        "the transformer": f"holds {wanted.held} callers while nothing is ready"
        if not wanted.flags
        else f"told {' '.join(wanted.flags)}",
        "predictors": f"{most} ready, {full - begins:.0f} s after the burst began",
        "first answer": _first_answer(seconds, begins),
    }
    if wanted.scale != 1:
        told["scale"] = f"1/{wanted.scale:g} of load and engine"
    return told


def _first_answer(seconds: Sequence[Second], begins: float) -> str:
    first = next((s.at_s for s in seconds if s.at_s >= begins and s.served), None)
    return "none" if first is None else f"in second {first - begins + 1:.0f} of the burst"


def cost(seconds: Sequence[Second], seen: Figures, until: float, given: argparse.Namespace) -> Cost:
    """Predictors' seconds while load was offered; one of a tenth of the speed is a tenth GPU."""
    pods_s = float(sum(second.pods for second in seconds if second.at_s < until))
    served, generated = seen.served_rps * seen.seconds, seen.engine_rps * seen.seconds
    return Cost(pods_s / given.scale, given.gpu_price, served, generated)
