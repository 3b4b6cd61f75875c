"""The failure table of docs/redis.md, limits: one test a line, against real Redis.

Two replicas share a limit of four requests at once and four generations at a time. With Redis the
limit holds over both; without it each keeps to half of it. Nothing ever fails.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from llm_transformer import stages
from llm_transformer.limits import census

from .replica import Replica, metric, opened

if TYPE_CHECKING:
    from tests.redis_servers import ClusterGroup, RedisServer, SentinelGroup

# So slow a refill that none comes within a test.
REQUESTS = {"limit": 4, "per_s": 86400, "burst": 4}
TOKENS = {"limit": 60, "per_s": 86400}
SHARE = 2

Pair = Callable[..., Any]


@pytest.fixture
async def replicas(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Pair]:
    """Two replicas over one URL, with one plan, which have counted each other."""
    counts: list[census.Census] = []

    class Counted(census.Census):
        def __init__(self, *args: Any) -> None:
            super().__init__(*args)
            counts.append(self)

    monkeypatch.setattr(stages, "Census", Counted)
    monkeypatch.setattr(census, "PERIOD_S", 0.1)
    async with AsyncExitStack() as stack:

        async def open_pair(url: str, *, assumed: int = 9, **plan: Any) -> tuple[Replica, Replica]:
            pair = [await opened(stack, tmp_path, url, assumed, **plan) for _ in range(2)]
            await until(lambda: {each.share for each in counts} == {1 / SHARE}, "they are two")
            return pair[0], pair[1]

        yield open_pair


async def until(condition: Callable[[], bool], what: str) -> None:
    try:
        async with asyncio.timeout(30):
            while not condition():  # noqa: ASYNC110 (a metric)
                await asyncio.sleep(0.02)
    except TimeoutError:
        pytest.fail(f"not in time: {what}")


async def well(*pair: Replica) -> None:
    """Waits until both have found Redis well by themselves."""
    for replica in pair:
        await until(lambda replica=replica: replica.store.is_up, "Redis is found well")
    assert metric("keepwarm_redis_up") == 1


async def test_with_redis_the_limit_is_one_for_all(
    replicas: Pair, fresh_redis: "Callable[..., RedisServer]"
) -> None:
    one, two = await replicas(fresh_redis().url, requests=REQUESTS)
    assert await one.asks(3) + await two.asks(3) == 4
    assert metric("keepwarm_limit_local") == 0


async def test_down_at_the_start(replicas: Pair, fresh_redis: "Callable[..., RedisServer]") -> None:
    server = fresh_redis()
    server.kill()
    one, two = await replicas(server.url, assumed=SHARE, requests=REQUESTS)
    assert metric("keepwarm_redis_up") == 0
    assert [await one.asks(5), await two.asks(5)] == [SHARE, SHARE]
    assert metric("keepwarm_limit_local") == 1
    server.start()
    await well(one, two)
    assert await one.asks(5) + await two.asks(5) == 4
    assert metric("keepwarm_limit_local") == 0


async def test_killed_while_streams_run(
    replicas: Pair, fresh_redis: "Callable[..., RedisServer]"
) -> None:
    server = fresh_redis()
    one, two = await replicas(server.url, concurrent=4, tokens=TOKENS)
    streams = [await one.open_stream(), await two.open_stream()]
    recoveries = metric("keepwarm_redis_recoveries_total")
    server.kill()
    assert [await one.asks(3), await two.asks(3)] == [3, 3]
    one.forward.end.set()
    two.forward.end.set()
    assert await asyncio.gather(*streams) == ["answered", "answered"]
    server.start()
    await well(one, two)
    assert metric("keepwarm_redis_recoveries_total") >= recoveries + 2
    await until(lambda: metric("keepwarm_limit_owed_settlements") == 0, "nothing is owed")
    # What the streams had reserved went with Redis, and is not charged to the empty one.
    assert await asyncio.gather(*(one.ask() for _ in range(3))) == ["answered"] * 3


async def test_frozen(replicas: Pair, fresh_redis: "Callable[..., RedisServer]") -> None:
    server = fresh_redis()
    one, two = await replicas(server.url, concurrent=4)
    stream = await one.open_stream()
    waited = metric("keepwarm_redis_failures_total", kind="timeout")
    server.freeze()
    # Each replica waits for the silent server twice in a row (and once for its census, perhaps
    # beside); no later request waits at all.
    assert [await one.asks(20), await two.asks(20)] == [20, 20]
    assert metric("keepwarm_redis_failures_total", kind="timeout") - waited <= 2 * (2 + 1)
    skipped = metric("keepwarm_redis_skipped_total")
    assert await one.asks(20) == 20
    assert metric("keepwarm_redis_skipped_total") - skipped >= 20
    one.forward.end.set()
    assert await stream == "answered"
    server.thaw()
    await well(one, two)
    await until(lambda: metric("keepwarm_limit_owed_settlements") == 0, "nothing is owed")
    # All four places are there again: the stream's, and those of the requests that were given up.
    one.forward.end.clear()
    opened_streams = [await one.open_stream() for _ in range(4)]
    assert await two.ask() == "limited"
    one.forward.end.set()
    await asyncio.gather(*opened_streams)


async def test_read_only_after_a_failover(
    replicas: Pair, fresh_redis: "Callable[..., RedisServer]"
) -> None:
    server, promoted = fresh_redis(), fresh_redis()
    one, two = await replicas(server.url, requests=REQUESTS)
    assert await one.asks(1) == 1
    server.client.replicaof("127.0.0.1", promoted.port)
    assert [await one.asks(5), await two.asks(5)] == [SHARE, SHARE]
    assert metric("keepwarm_redis_failures_total", kind="readonly") > 0
    server.client.replicaof("NO", "ONE")
    await well(one, two)
    assert await one.asks(5) + await two.asks(5) <= 4


async def test_sentinels_replace_a_lost_master(
    replicas: Pair, redis_sentinels: "SentinelGroup"
) -> None:
    one, two = await replicas(redis_sentinels.url, requests=REQUESTS)
    assert await one.asks(1) == 1
    redis_sentinels.master.client.wait(1, 5000)
    redis_sentinels.master.kill()
    assert [await one.asks(5), await two.asks(5)] == [SHARE, SHARE]
    await well(one, two)
    # The new master knows what the old one had counted.
    assert await one.asks(5) + await two.asks(5) == 3


async def test_out_of_memory(replicas: Pair, fresh_redis: "Callable[..., RedisServer]") -> None:
    server = fresh_redis("--maxmemory-policy", "noeviction")
    one, two = await replicas(server.url, concurrent=4, requests=REQUESTS)
    stream = await one.open_stream()
    server.client.config_set("maxmemory", "1")
    assert [await one.asks(5), await two.asks(5)] == [SHARE, SHARE]
    assert metric("keepwarm_redis_failures_total", kind="oom") > 0
    one.forward.end.set()
    assert await stream == "answered"
    server.client.config_set("maxmemory", "0")
    await well(one, two)
    await until(lambda: metric("keepwarm_limit_owed_settlements") == 0, "nothing is owed")
    assert await one.asks(5) + await two.asks(5) == 3


async def test_a_cluster_moves_the_slot_under_load(
    replicas: Pair, redis_cluster: "ClusterGroup"
) -> None:
    one, two = await replicas(redis_cluster.url, requests={**REQUESTS, "limit": 100, "burst": 100})
    source = redis_cluster.node_of("keepwarm:{@}:account:anonymous")
    slot = source.client.execute_command("CLUSTER KEYSLOT", "keepwarm:{@}:account:anonymous")
    assert await one.asks(10) == 10
    target = next(node for node in redis_cluster.nodes[:3] if node is not source)
    load = asyncio.create_task(two.asks(50))
    await asyncio.to_thread(redis_cluster.move_slot, slot, source, target)
    assert await load == 50
    await well(one, two)
    passed = 0
    while await one.ask() == "answered":
        passed += 1
    # What was counted moved along; while it moved, a replica may have counted for itself.
    assert 40 <= passed <= 40 + 50
    assert redis_cluster.node_of("keepwarm:{@}:account:anonymous") is target


async def test_a_cluster_loses_a_master(replicas: Pair, redis_cluster: "ClusterGroup") -> None:
    one, two = await replicas(redis_cluster.url, requests=REQUESTS)
    lost = redis_cluster.node_of("keepwarm:{@}:account:anonymous")
    assert await one.asks(1) == 1
    lost.client.wait(1, 5000)
    lost.kill()
    assert [await one.asks(5), await two.asks(5)] == [SHARE, SHARE]
    await until(lambda: one.store.is_up and two.store.is_up, "the replica has taken over")
    assert await one.asks(5) + await two.asks(5) == 3
