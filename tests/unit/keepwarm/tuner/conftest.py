"""Workloads made by hand, and a fortnight small enough to search in seconds."""

from collections.abc import Callable
from datetime import UTC, datetime

import numpy as np
import pytest

from keepwarm.kpa import Pods, Policy, Requests
from keepwarm.tuner import slo
from keepwarm.tuner.evaluate import Rules
from keepwarm.tuner.prices import Prices
from keepwarm.tuner.setting import Setting
from keepwarm.tuner.space import Space
from keepwarm.tuner.workload import Workload

MONDAY = datetime(2026, 1, 5, tzinfo=UTC)
DAY_S = 86_400.0
PODS = Pods((40.0,))


@pytest.fixture(scope="session")
def made() -> Callable[..., Workload]:
    """A workload of given arrivals."""

    def make(arrival, service, end_s, *, pods=PODS, block_s=None, prefill_s=None, zone=UTC):
        size = len(arrival)
        return Workload(
            name="made",
            begins=MONDAY,
            zone=zone,
            requests=Requests(arrival, np.broadcast_to(service, size), end_s),
            prefill_s=None if prefill_s is None else np.full(size, prefill_s),
            pods=pods,
            block_s=block_s or end_s,
        )

    return make


@pytest.fixture(scope="session")
def fortnight(made) -> Workload:
    """Two weeks: working hours with a request every few minutes, a few strays at night."""
    rng = np.random.default_rng(11)
    arrival: list[float] = []
    for day in range(14):
        begin = day * DAY_S
        if day % 7 < 5:
            arrival += (begin + 9 * 3600 + rng.uniform(0, 8 * 3600, 55)).tolist()
        arrival += (begin + rng.uniform(0, DAY_S, 1)).tolist()
    return made(np.sort(arrival), 5.0, 14 * DAY_S, block_s=DAY_S)


@pytest.fixture(scope="session")
def rules() -> Rules:
    return Rules(slo.parse("cold<=6%"), Prices(2.5, node_linger_s=60), lead_s=40.0)


@pytest.fixture(scope="session")
def space() -> Space:
    return Space(Setting(Policy(target=8, target_burst_capacity=-1)), concurrency=8)
