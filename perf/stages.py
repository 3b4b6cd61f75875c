"""`make bench-stages`: what each of the transformer's stages costs a request, by turning it off.

The same transformer many times, on one core in turn: with everything on, and with less of it. No
two requests are the same, so the cache misses and keeps every answer. Metrics, deadlines and
resilience (queue, breaker, retries) have no switch: they are in what is left with everything off.
"""

import argparse
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import uvloop
from contenders import CONTENDERS, MODEL, OURS, PROXY, Contender, keepwarm
from exchanges import infer_exchange
from report import cell, keep, table, where
from rig import Rig

CONNECTIONS = 16
WARM_UP_S = 0.4
FIRST_WARM_UP_S = 1.5
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


def tables(samples: Sequence[StageSample]) -> str:
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
        ],
    )


def main() -> None:
    """The command; its exit status is 1 when an answer was wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=2.0, help="length of one measurement")
    parser.add_argument("--repetitions", type=int, default=5, help="measurements of each variant")
    parser.add_argument("--json", type=Path, help="file for every sample")
    arguments = parser.parse_args()
    with ExitStack() as stack:
        rig = Rig(stack, VARIANTS)
        samples = uvloop.run(measure(rig, VARIANTS, arguments.repetitions, arguments.seconds))
    print(f"{where()}\n\n{tables(samples)}")
    keep(arguments.json, samples=[each._asdict() for each in samples])
    sys.exit(1 if any(each.errors for each in samples) else 0)


if __name__ == "__main__":
    main()
