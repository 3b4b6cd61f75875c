"""Start times in a real Redis, and what replicas make of each other's."""

import pytest

from llm_transformer.resilience.shared_start_times import SharedStartTimes
from llm_transformer.resilience.start_times import KEPT, Start, durations
from llm_transformer.store import RedisAddress, connect


@pytest.fixture
async def starts_of():
    """SharedStartTimes of a model in the Redis at a URL."""
    stores = []

    def make(url, model="m"):
        stores.append(connect(RedisAddress.parse(url), timeout_s=1))
        return SharedStartTimes(stores[-1], model)

    yield make
    for store in stores:
        await store.close()


@pytest.mark.parametrize(
    ("starts", "seconds"),
    [
        ([], []),
        ([(30, 100)], [30]),
        ([(30, 100), (40, 200)], [30, 40]),
        ([(40, 200), (30, 100)], [30, 40]),  # in any order
        ([(30, 100), (12, 100.2)], [30]),  # two replicas, one start
        ([(12, 100), (30, 100.2), (5, 100.4)], [30]),  # whoever saw its end first
        ([(30, 100), (5, 106), (20, 107)], [30, 20]),
    ],
)
def test_what_replicas_saw_at_one_time_is_one_start(starts, seconds):
    assert durations(Start(*start) for start in starts) == seconds


async def test_one_replica_learns_what_another_measured(redis_server, starts_of):
    redis_server.client.flushall()
    first, second, other = (starts_of(redis_server.url, model) for model in ("m", "m", "x"))
    await first.add(Start(30.5, 1000.25))
    await first.add(Start(20, 2000))
    assert sorted(await second.load(), key=lambda start: start.ended_at) == [
        Start(30.5, 1000.25),
        Start(20, 2000),
    ]
    assert await other.load() == []
    assert 0 < redis_server.client.ttl("keepwarm:starts:{m}") <= 30 * 24 * 3600


async def test_only_the_last_starts_are_kept(redis_server, starts_of):
    redis_server.client.flushall()
    starts = starts_of(redis_server.url)
    for number in range(KEPT + 5):
        await starts.add(Start(1, number * 10))
    kept = await starts.load()
    assert len(kept) == KEPT
    assert min(start.ended_at for start in kept) == 50


async def test_what_is_no_start_is_left_out(redis_server, starts_of):
    redis_server.client.flushall()
    redis_server.client.lpush("keepwarm:starts:{m}", "1.5 10", "soon", "1 2 3")
    assert await starts_of(redis_server.url).load() == [Start(1.5, 10)]


async def test_without_redis_nothing_is_known_and_nothing_fails(starts_of, free_ports):
    (port,) = free_ports(1)
    starts = starts_of(f"redis://127.0.0.1:{port}")
    await starts.add(Start(30, 1000))
    assert await starts.load() == []
