"""The guard in front of real Redis: bounded waits, no waits while it is ill, and its return."""

import asyncio

import pytest
from redis.exceptions import ResponseError

from llm_transformer.store import RedisAddress, Script, StoreUnavailableError, connect
from llm_transformer.store.guard import probe_key

TIMEOUT_S = 0.1


@pytest.fixture
async def store_of():
    stores = []

    def make(url, **options):
        store = connect(RedisAddress.parse(url), timeout_s=TIMEOUT_S, **options)
        stores.append(store)
        return store

    yield make
    for store in stores:
        await store.close()


async def _set(store, key="k", value="v"):
    return await store.call(key, lambda client: client.set(key, value, px=60_000))


async def _get(store, key="k"):
    return await store.call(key, lambda client: client.get(key))


async def until(condition, what, timeout_s=20):
    end = asyncio.get_running_loop().time() + timeout_s
    while not await condition():
        assert asyncio.get_running_loop().time() < end, f"not within {timeout_s} s: {what}"
        await asyncio.sleep(0.02)


async def well(store, key="k"):
    try:
        return await _set(store, key)
    except StoreUnavailableError:
        return False


async def test_calls_go_through(redis_server, store_of):
    store = store_of(redis_server.url)
    await _set(store)
    assert await _get(store) == b"v"
    assert store.is_up


async def test_more_calls_than_connections_wait_for_one(redis_server, store_of):
    store = store_of(redis_server.url, connections=4)
    assert all(await asyncio.gather(*(_set(store, f"k{n}") for n in range(64))))


async def test_a_script_runs_by_its_digest_and_again_after_redis_forgot_it(redis_server, store_of):
    store, script = store_of(redis_server.url), Script("return {KEYS[1], ARGV[1]}")
    for _ in range(2):
        answer = await store.call("a", lambda client: script(client, ["a"], [1]))
        assert answer == [b"a", b"1"]
        redis_server.client.script_flush()


async def test_what_redis_refuses_for_its_form_is_no_illness(redis_server, store_of, caplog):
    store = store_of(redis_server.url)
    with pytest.raises(StoreUnavailableError) as refused:
        await store.call("k", lambda client: client.execute_command("NOSUCH"))
    assert isinstance(refused.value.__cause__, ResponseError)
    assert "refuses what it is asked" in caplog.text
    assert store.is_up
    assert await _set(store)


async def test_a_killed_redis_is_not_asked_and_comes_back_by_itself(fresh_redis, store_of):
    server = fresh_redis()
    store, recoveries = store_of(server.url), []
    store.on_recovery(lambda: recoveries.append(True))
    await _set(store)
    server.kill()
    with pytest.raises(StoreUnavailableError):
        await _set(store)
    assert not store.is_up
    asked = []
    with pytest.raises(StoreUnavailableError):
        await store.call("k", asked.append)
    assert asked == []
    server.start()
    await until(lambda: well(store), "the store is well")
    assert store.is_up
    assert recoveries == [True]


async def test_a_redis_that_is_down_at_the_start_is_found_later(fresh_redis, store_of):
    server = fresh_redis()
    server.kill()
    store = store_of(server.url)
    await store.start()
    assert not store.is_up
    server.start()
    await until(lambda: well(store), "the store is well")


async def test_a_cluster_that_has_not_formed_yet_is_found_later(fresh_redis, free_ports, store_of):
    (bus,) = free_ports(1)
    server = fresh_redis("--cluster-enabled", "yes", "--cluster-port", str(bus))
    store = store_of(server.url.replace("redis:", "redis+cluster:"))
    await store.start()
    assert not store.is_up
    server.client.execute_command("CLUSTER ADDSLOTSRANGE", 0, 16383)
    await until(lambda: well(store), "the store is well")


async def test_a_frozen_redis_is_waited_for_twice_and_then_not_asked(fresh_redis, store_of):
    server = fresh_redis()
    store = store_of(server.url)
    await _set(store)
    server.freeze()
    for _ in range(2):
        assert store.is_up
        with pytest.raises(StoreUnavailableError):
            await _set(store)
    assert not store.is_up
    server.thaw()
    await until(lambda: well(store), "the store is well")


async def test_one_answer_in_between_forgives_a_silence(fresh_redis, store_of):
    server = fresh_redis()
    store = store_of(server.url)
    for _ in range(3):
        await _set(store)
        with pytest.raises(StoreUnavailableError):
            await store.call("k", lambda client: client.blpop(["none"], 10))
        assert store.is_up


async def test_a_replica_is_no_store_until_it_is_a_master(fresh_redis, store_of):
    master, replica = fresh_redis(), fresh_redis()
    replica.client.replicaof("127.0.0.1", master.port)
    store = store_of(replica.url)
    with pytest.raises(StoreUnavailableError):
        await _set(store)
    assert not store.is_up
    replica.client.replicaof("NO", "ONE")
    await until(lambda: well(store), "the store is well")


async def test_a_full_redis_is_no_store_until_it_has_room(fresh_redis, store_of):
    server = fresh_redis("--maxmemory", "1", "--maxmemory-policy", "noeviction")
    store = store_of(server.url)
    with pytest.raises(StoreUnavailableError):
        await _set(store)
    assert not store.is_up
    server.client.config_set("maxmemory", "0")
    await until(lambda: well(store), "the store is well")


async def test_sentinels_tell_the_new_master(redis_sentinels, store_of):
    store = store_of(redis_sentinels.url)
    await _set(store)
    old = redis_sentinels.master
    old.kill()
    with pytest.raises(StoreUnavailableError):
        await _set(store)
    await until(lambda: well(store), "the store is well")
    assert redis_sentinels.master is not old


async def test_a_cluster_loses_one_master_and_the_others_go_on(redis_cluster, store_of):
    store = store_of(redis_cluster.url)
    await store.start()
    keys = {redis_cluster.node_of(f"k{n}").port: f"k{n}" for n in range(100)}
    assert len(keys) == 3
    for key in keys.values():
        await _set(store, key)
    lost_port, lost = keys.popitem()
    redis_cluster.node_of(lost).kill()
    with pytest.raises(StoreUnavailableError):
        await _set(store, lost)
    for key in keys.values():
        await until(lambda key=key: well(store, key), f"{key} can be written")
    await until(lambda: well(store, lost), "the replica has taken over")
    assert redis_cluster.node_of(lost).port != lost_port


async def test_a_slot_that_moves_is_followed(redis_cluster, store_of):
    store = store_of(redis_cluster.url)
    await store.start()
    await _set(store, "k", "kept")
    source = redis_cluster.node_of("k")
    target = redis_cluster.node_of(
        next(f"o{n}" for n in range(99) if redis_cluster.node_of(f"o{n}") is not source)
    )
    slot = source.client.execute_command("CLUSTER KEYSLOT", "k")
    redis_cluster.move_slot(slot, source, target)
    await until(lambda: well(store, "k"), "k can be written")
    assert redis_cluster.node_of("k") is target


@pytest.mark.parametrize(
    ("key", "probe"),
    [
        ("plain", "keepwarm:probe:{plain}"),
        ("kw:{acme}:a", "keepwarm:probe:{acme}"),
        ("", "keepwarm:probe:{probe}"),
    ],
)
def test_a_probe_writes_beside_the_key(key, probe):
    assert probe_key(key) == probe
