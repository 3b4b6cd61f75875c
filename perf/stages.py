"""`make bench-stages`: what each of the transformer's stages costs a request, by turning it off.

The same transformer many times, on one core in turn: with everything on, and with less of it. No
two requests are the same, so the cache misses and keeps every answer. Metrics, deadlines and
resilience (queue, breaker, retries) have no switch: they are in what is left with everything off,
and metrics are measured by themselves, without sockets.
"""

import sys
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import ExitStack
from typing import NamedTuple

import uvloop
from contenders import CONTENDERS, MODEL, OURS, PROXY, Contender, keepwarm
from exchanges import infer_exchange
from report import cell, keep, options, table, where
from rig import Rig

from llm_transformer.measured import measured
from openinference.context import RequestContext
from openinference.generation import Chunk, FinishReason, GenerationRequest
from openinference.sampling import SamplingParams

CONNECTIONS = 16
WARM_UP_S = 0.4
FIRST_WARM_UP_S = 1.5
BATCH = 2000
VARIANTS: tuple[Contender, ...] = (
    keepwarm(),
    keepwarm("without cache", cache=False),
    keepwarm("without limits", limits=False),
    keepwarm("without keys and limits", keys=False, limits=False),
    keepwarm("without cache, keys and limits", cache=False, keys=False, limits=False),
    keepwarm("and a line of JSON a request", "--log_format=json", log_level="info"),
    CONTENDERS[PROXY],
)


class StageSample(NamedTuple):
    """One measurement of one variant; CPU microseconds per request."""

    variant: str
    server_us: float
    errors: int


async def measure(
    rig: Rig, variants: Sequence[Contender], repetitions: int, seconds: float
) -> list[StageSample]:
    """All samples, the variants taking turns."""

    async def sample(name: str, seconds: float) -> StageSample:
        exchanges = [
            infer_exchange(MODEL, number, header=rig.keys.header, distinct=True)
            for number in range(CONNECTIONS)
        ]
        window = await rig.drive(rig.servers[name], exchanges, warm_up_s=WARM_UP_S, seconds=seconds)
        used = window.after.server_us - window.before.server_us
        return StageSample(name, used / max(1, len(window.latencies_ms)), window.errors)

    for variant in variants:
        await sample(variant.name, FIRST_WARM_UP_S)
    return [await sample(variant.name, seconds) for _ in range(repetitions) for variant in variants]


async def metrics_us(repetitions: int) -> list[float]:
    """CPU microseconds that the metrics add to a whole answer, one value a repetition."""
    request = GenerationRequest(MODEL, ("prompt",), SamplingParams(16), stream=False)
    context = RequestContext("1", plan="default")
    chunk = Chunk(0, "text", 20, 15, FinishReason.EOS)

    async def answer() -> AsyncGenerator[Chunk, None]:
        yield chunk

    def counted() -> AsyncGenerator[Chunk, None]:
        return measured(answer(), request, context)

    async def batch(make: Callable[[], AsyncGenerator[Chunk, None]]) -> float:
        began = time.process_time()
        for _ in range(BATCH):
            async for _ in make():
                pass
        return (time.process_time() - began) / BATCH * 1e6

    await batch(counted)
    return [await batch(counted) - await batch(answer) for _ in range(repetitions)]


def tables(samples: Sequence[StageSample], metrics: Sequence[float]) -> str:
    """The report: a difference is within a repetition."""
    by_variant: dict[str, list[float]] = {}
    for sample in samples:
        by_variant.setdefault(sample.variant, []).append(sample.server_us)
    everything = by_variant[OURS]
    return table(
        ("server", "CPU us/request", "more than with everything"),
        [
            (
                f"{variant}, everything on" if variant == OURS else variant,
                cell(values, 0),
                ""
                if variant == OURS
                else cell([b - a for a, b in zip(everything, values, strict=True)], 0),
            )
            for variant, values in by_variant.items()
        ]
        + [("(the metrics alone, without sockets)", cell(metrics, 0), "")],
    )


def main() -> None:
    """The command; its exit status is 1 when an answer was wrong."""
    arguments = options(__doc__, repetitions=5).parse_args()
    with ExitStack() as stack:
        rig = Rig(stack, VARIANTS)
        samples = uvloop.run(measure(rig, VARIANTS, arguments.repetitions, arguments.seconds))
        metrics = uvloop.run(metrics_us(arguments.repetitions))
    print(f"{where()}\n\n{tables(samples, metrics)}")
    keep(arguments.json, samples=[each._asdict() for each in samples], metrics_us=metrics)
    sys.exit(1 if any(each.errors for each in samples) else 0)


if __name__ == "__main__":
    main()
