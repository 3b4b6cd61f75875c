"""Which faults come, in which order: all from one seed."""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum


class Target(StrEnum):
    """What is hit; of the two transformers only one, so that the other's books can be read."""

    PREDICTOR = "predictor"
    REDIS = "redis"
    TRANSFORMER = "transformer"


class Kind(StrEnum):
    """kill -9, or -STOP and some time later -CONT."""

    KILL = "kill"
    STOP = "stop"


@dataclass(frozen=True, slots=True)
class Fault:
    """`hold_s` is how long it stays dead or frozen, `pause_s` what follows once it is well."""

    target: Target
    kind: Kind
    hold_s: float
    pause_s: float


def faults(seed: int, count: int) -> Iterator[Fault]:
    """`count` faults."""
    rng = random.Random(seed)
    for _ in range(count):
        target = rng.choice(list(Target))
        kind = rng.choice(list(Kind))
        longest_s = 0.3 if kind is Kind.KILL else 1.2
        yield Fault(target, kind, rng.uniform(0, longest_s), rng.uniform(0.05, 0.3))
