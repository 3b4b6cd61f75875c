"""Replicas over one real Redis: shared answers, one generation, hand-over, and Redis in trouble."""

import asyncio
from collections import Counter
from contextlib import aclosing

import pytest
import redis
from prometheus_client import REGISTRY

from llm_transformer.cache.directives import Directives
from llm_transformer.cache.key import digest_of
from llm_transformer.cache.redis_cache import RedisCache
from llm_transformer.cache.shared import Claim, Slot
from llm_transformer.store import RedisAddress, connect
from openinference import errors
from openinference.generation import Chunk, FinishReason
from openinference.messages import ModelState

from .scripted import HEL, LO, FakePredictor, answer, ask, outcome, until, who

LEASE_S = 0.6


@pytest.fixture
async def shared_of():
    """RedisCaches, each with connections of its own."""
    stores = []

    async def shared(url, *, lease_s=LEASE_S, timeout_s=1.0, record_bytes=2**20, predictor="p"):
        stores.append(connect(RedisAddress.parse(url), timeout_s=timeout_s))
        await stores[-1].start()
        return RedisCache(
            stores[-1], predictor=predictor, lease_s=lease_s, record_bytes=record_bytes
        )

    yield shared
    for store in stores:
        await store.close()


@pytest.fixture
def replica(make, shared_of, redis_server):
    """Makes one more replica."""
    redis_server.client.flushall()

    async def one(url=redis_server.url, lease_s=LEASE_S):
        return make(shared=await shared_of(url, lease_s=lease_s), lease_s=lease_s)

    return one


async def until_asked(condition):
    async with asyncio.timeout(20):
        while not await condition():  # noqa: ASYNC110 (Redis tells only who asks)
            await asyncio.sleep(0.01)


async def until_shared(stage, other):
    """Waits until one gives what the other has made."""

    async def shares():
        await answer(stage, ask("after"), who("no-cache"))
        return (await outcome(other, ask("after"), who("only-if-cached")))[0] == "hit"

    await until_asked(shares)


def _l2_errors():
    names = ("get", "claim", "renew", "commit", "release", "weights", "broken")
    return Counter(
        {
            name: REGISTRY.get_sample_value("keepwarm_cache_l2_errors_total", {"operation": name})
            or 0
            for name in names
        }
    )


async def test_what_one_replica_has_made_another_one_gives(replica, predictor):
    assert await outcome(await replica(), ask()) == ("miss", "Hello")
    other, context = await replica(), who()
    assert await answer(other, ask(), context) == [HEL, LO]
    assert context.reply.headers["x-cache"] == "hit"
    assert int(context.reply.headers["age"]) <= 2
    assert predictor.calls == 1


async def test_ages_and_lives_are_those_of_the_record_in_every_replica(
    replica, predictor, redis_server
):
    first, second = who(), who()
    await answer(await replica(), ask(), first)
    (key,) = redis_server.client.keys("*:of:*")
    redis_server.client.pexpire(key, redis_server.client.pttl(key) - 100_000)
    await answer(await replica(), ask(), second)
    assert 100 <= int(second.reply.headers["age"]) <= 103
    assert second.reply.headers["cache-control"] == first.reply.headers["cache-control"]
    assert (await outcome(await replica(), ask(), who("max-age=90")))[0] == "miss"


async def test_no_prompt_and_no_tenant_is_in_redis(replica, redis_server):
    await answer(await replica(), ask("my secret prompt"), who(tenant="umbrella"))
    for key in redis_server.client.keys("*"):
        for text in (key.encode(), redis.Redis(port=redis_server.port).get(key)):
            assert b"secret" not in text
            assert b"umbrella" not in text


async def test_services_that_name_their_models_alike_share_nothing(
    make, replica, shared_of, predictor, redis_server
):
    first = await replica()
    await answer(first, ask())
    other = FakePredictor()
    other.script, other.weights_id = [Chunk(0, "Other", 3, 1, FinishReason.EOS)], "w2"
    second = make(shared=await shared_of(redis_server.url, predictor="q"), forward=other)
    assert await outcome(second, ask()) == ("miss", "Other")
    assert await outcome(await replica(), ask()) == ("hit", "Hello")


async def test_errors_that_always_come_are_shared(replica, predictor):
    predictor.script = [errors.InvalidInput("the prompt is too long")]
    assert await outcome(await replica(), ask()) == ("miss", "InvalidInput")
    assert await outcome(await replica(), ask()) == ("hit", "InvalidInput")
    assert predictor.calls == 1


async def test_many_callers_of_many_replicas_reach_the_engine_once(replica, predictor):
    gate = asyncio.Event()
    predictor.script = [gate, HEL, LO]
    replicas = [await replica() for _ in range(4)]
    tasks = [asyncio.create_task(outcome(r, ask())) for r in replicas for _ in range(50)]
    await until(lambda: predictor.calls == 1)
    await asyncio.sleep(0.1)  # the others are waiting by now, or will be: both are fine
    gate.set()
    outcomes = await asyncio.gather(*tasks)
    assert {got for _, got in outcomes} == {"Hello"}
    assert Counter(told for told, _ in outcomes)["miss"] == 1
    assert predictor.calls == 1


async def test_followers_wait_for_weights_that_nobody_knew_before(replica, predictor):
    first, second = await replica(), await replica()
    await answer(first, ask("before"))
    assert (await outcome(second, ask("before")))[0] == "hit"
    predictor.weights_id = "w2"
    gate = asyncio.Event()
    predictor.script = [gate, HEL, LO]
    leader = asyncio.create_task(outcome(first, ask()))
    await until(lambda: predictor.calls == 2)
    follower = asyncio.create_task(outcome(second, ask()))
    await asyncio.sleep(0.1)
    gate.set()
    assert await leader == ("miss", "Hello")
    assert await follower == ("coalesced", "Hello")
    assert predictor.calls == 2


async def test_a_replica_hears_of_new_weights_and_lets_its_answers_die(replica, predictor, clock):
    first, second = await replica(), await replica()
    await answer(first, ask())
    await answer(second, ask())
    predictor.weights_id = "w2"
    await answer(first, ask("tells the new weights"))
    assert (await outcome(second, ask()))[0] == "hit"
    clock.forward(5)

    async def is_dead():
        return (await outcome(second, ask()))[0] == "miss"

    await until_asked(is_dead)


async def test_a_leader_that_is_left_hands_over_at_once(replica, predictor):
    first, second = await replica(lease_s=30), await replica(lease_s=30)
    predictor.script = [HEL, asyncio.Event()]
    leaving = asyncio.create_task(answer(first, ask()))
    await until(lambda: predictor.calls == 1)
    waiting = asyncio.create_task(outcome(second, ask()))
    await asyncio.sleep(0.1)
    predictor.script = [HEL, LO]
    leaving.cancel()
    async with asyncio.timeout(10):  # long before the lease would run out
        assert await waiting == ("miss", "Hello")
    assert (predictor.calls, predictor.aborted) == (2, 1)


async def test_a_leader_that_fails_hands_over_at_once(replica, predictor):
    first, second = await replica(lease_s=30), await replica(lease_s=30)
    gate = asyncio.Event()
    predictor.script = [gate, errors.Unavailable("full", retry_after_s=1)]
    failing = asyncio.create_task(outcome(first, ask()))
    await until(lambda: predictor.calls == 1)
    waiting = asyncio.create_task(outcome(second, ask()))
    await asyncio.sleep(0.1)
    predictor.script = [HEL, LO]
    gate.set()
    assert await failing == ("miss", "Unavailable")
    async with asyncio.timeout(10):
        assert await waiting == ("miss", "Hello")


async def test_a_leader_that_falls_silent_loses_its_lease_and_may_not_write(
    replica, shared_of, redis_server
):
    frozen, other = await shared_of(redis_server.url), await shared_of(redis_server.url)
    slot = Slot(digest_of(ask(), "acme"), "m", "w1")
    assert await frozen.claim(slot, "frozen") is Claim.LEAD
    assert await frozen.claim(slot, "frozen") is Claim.LEAD  # its answer may have got lost
    assert await other.claim(slot, "other") is Claim.WAIT

    async def has_taken_over():
        return await other.claim(slot, "other") is Claim.LEAD

    await until_asked(has_taken_over)
    stage, predictor = await replica(), FakePredictor()
    await answer(stage, ask("to have a record"))
    record = stage.shelf.look_here(digest_of(ask("to have a record"), "acme"), "m", Directives())
    await frozen.commit(slot, "frozen", record)
    assert await other.get(slot) is None
    await frozen.release(slot, "frozen")
    assert await frozen.claim(slot, "third") is Claim.WAIT
    await other.commit(slot, "other", record)
    assert (await frozen.get(slot)).etag == record.etag
    assert predictor.calls == 0


async def test_a_record_is_kept_and_given_under_the_weights_that_made_it(
    replica, shared_of, redis_server
):
    stage, shared = await replica(), await shared_of(redis_server.url)
    await answer(stage, ask())
    digest = digest_of(ask(), "acme")
    record = stage.shelf.look_here(digest, "m", Directives())
    await shared.commit(Slot(digest, "m", "w2"), None, record)
    assert await shared.get(Slot(digest, "m", "w2")) is None
    assert (await shared.get(Slot(digest, "m", "w1"))).weights_id == "w1"
    (key,) = redis_server.client.keys("*:of:w1")
    redis_server.client.copy(key, key.removesuffix("w1") + "w2")
    assert await shared.get(Slot(digest, "m", "w2")) is None


async def test_a_weights_id_that_cannot_be_read_costs_no_request(replica, redis_server):
    await answer(await replica(), ask())
    (key,) = redis_server.client.keys("*:weights:m")
    redis.Redis(port=redis_server.port).set(key, b"\xff\x00")
    assert await outcome(await replica(), ask()) == ("miss", "Hello")


async def test_a_lease_lives_as_long_as_the_work(replica, predictor):
    first, second = await replica(), await replica()
    gate = asyncio.Event()
    predictor.script = [gate, HEL, LO]
    leader = asyncio.create_task(outcome(first, ask()))
    await until(lambda: predictor.calls == 1)
    follower = asyncio.create_task(outcome(second, ask()))
    await asyncio.sleep(3 * LEASE_S)
    gate.set()
    assert [await leader, await follower] == [("miss", "Hello"), ("coalesced", "Hello")]
    assert predictor.calls == 1


async def test_a_hit_in_redis_does_not_wake_a_sleeping_model(replica, predictor):
    await answer(await replica(), ask())
    other = await replica()
    predictor.state = ModelState.ASLEEP
    assert (await outcome(other, ask()))[0] == "hit"
    assert (await outcome(other, ask(), who("only-if-cached")))[0] == "hit"
    assert predictor.waited == 0


@pytest.mark.parametrize("damage", [b"", b"kw1", b"kw0" + bytes(50), b"\xff" * 500, "shorten"])
async def test_a_record_that_cannot_be_read_is_replaced(replica, predictor, redis_server, damage):
    await answer(await replica(), ask())
    (key,) = redis_server.client.keys("*:of:*")
    if damage == "shorten":
        redis_server.client.execute_command("EVAL", _SHORTEN, 1, key)
    else:
        redis_server.client.set(key, damage, keepttl=True)
    before = _l2_errors()
    assert await outcome(await replica(), ask()) == ("miss", "Hello")
    assert _l2_errors() - before == {"broken": 1}
    assert await outcome(await replica(), ask()) == ("hit", "Hello")


_SHORTEN = "return redis.call('SET', KEYS[1], string.sub(redis.call('GET', KEYS[1]), 1, -2))"


async def test_large_answers_are_compressed_and_too_large_ones_are_not_written(
    replica, shared_of, predictor, redis_server
):
    predictor.script = [Chunk(0, "word ", 3, number) for number in range(1, 5000)]
    predictor.script.append(Chunk(0, "end", 3, 5000, FinishReason.EOS))
    await answer(await replica(), ask())
    (key,) = redis_server.client.keys("*:of:*")
    assert redis_server.client.strlen(key) < 40_000
    assert await answer(await replica(), ask()) == predictor.script
    small = await shared_of(redis_server.url, record_bytes=1000)
    assert await small.get(Slot(digest_of(ask(), "acme"), "m", "w1")) is None


async def test_renewing_replaces_what_redis_has(replica, predictor):
    await answer(await replica(), ask())
    predictor.script = [Chunk(0, "New", 3, 1, FinishReason.EOS)]
    assert await outcome(await replica(), ask(), who("no-cache")) == ("miss", "New")
    assert await outcome(await replica(), ask()) == ("hit", "New")


async def test_requests_flow_while_redis_is_dead_and_share_again_afterwards(
    make, shared_of, fresh_redis, predictor
):
    server = fresh_redis()
    stage = make(shared=await shared_of(server.url))
    await answer(stage, ask("before"))
    server.kill()
    before = _l2_errors()
    for number in range(20):
        assert await outcome(stage, ask(f"{number}")) == ("miss", "Hello")
        assert await outcome(stage, ask(f"{number}")) == ("hit", "Hello")
    assert sum((_l2_errors() - before).values()) >= 20
    server.start()
    other = make(shared=await shared_of(server.url))
    await until_shared(stage, other)


async def test_a_frozen_redis_is_waited_for_once_or_twice_and_then_not_at_all(
    make, shared_of, fresh_redis, predictor
):
    server = fresh_redis()
    stage = make(shared=await shared_of(server.url, timeout_s=0.05))
    await answer(stage, ask("before"))
    server.freeze()

    def waits():
        return REGISTRY.get_sample_value("keepwarm_redis_failures_total", {"kind": "timeout"}) or 0

    before = waits()
    for number in range(200):
        assert await outcome(stage, ask(f"{number}")) == ("miss", "Hello")
    assert waits() - before <= 10
    server.thaw()


async def test_a_full_redis_is_skipped_and_used_again_when_it_has_room(
    make, shared_of, fresh_redis, predictor
):
    server = fresh_redis("--maxmemory-policy", "noeviction")
    stage = make(shared=await shared_of(server.url))
    server.client.config_set("maxmemory", 1)
    for number in range(20):
        assert await outcome(stage, ask(f"{number}")) == ("miss", "Hello")
        assert await outcome(stage, ask(f"{number}")) == ("hit", "Hello")
    server.client.config_set("maxmemory", 0)
    other = make(shared=await shared_of(server.url))
    await until_shared(stage, other)


async def test_a_replica_for_a_master_keeps_nothing_and_requests_flow(
    make, shared_of, fresh_redis, predictor
):
    master = fresh_redis()
    readonly = fresh_redis("--replicaof", "127.0.0.1", str(master.port))
    stage = make(shared=await shared_of(readonly.url))
    assert await outcome(stage, ask()) == ("miss", "Hello")
    assert await outcome(stage, ask()) == ("hit", "Hello")


async def test_redis_that_dies_while_others_wait_leaves_nobody_waiting(
    make, shared_of, fresh_redis, predictor
):
    server = fresh_redis()
    gate = asyncio.Event()
    predictor.script = [gate, HEL, LO]
    replicas = [make(shared=await shared_of(server.url)) for _ in range(2)]
    leader = asyncio.create_task(outcome(replicas[0], ask()))
    await until(lambda: predictor.calls == 1)
    follower = asyncio.create_task(outcome(replicas[1], ask()))
    await asyncio.sleep(0.1)
    server.kill()
    await until(lambda: predictor.calls == 2)
    gate.set()
    assert [await leader, await follower] == [("miss", "Hello")] * 2


async def test_in_a_cluster_all_of_a_request_is_in_one_slot(
    make, shared_of, redis_cluster, predictor
):
    first, second = [make(shared=await shared_of(redis_cluster.url)) for _ in range(2)]
    for number in range(30):
        assert await outcome(first, ask(f"{number}")) == ("miss", "Hello")
    hits = [await outcome(second, ask(f"{number}")) for number in range(30)]
    assert hits == [("hit", "Hello")] * 30
    assert predictor.calls == 30


async def test_streaming_followers_of_another_replica_get_the_same_chunks(replica, predictor):
    first, second = await replica(), await replica()
    gate = asyncio.Event()
    predictor.script = [HEL, gate, LO]
    async with aclosing(first.generate(ask(), who())) as chunks:
        assert await anext(chunks) == HEL
        follower = asyncio.create_task(answer(second, ask()))
        await asyncio.sleep(0.1)
        gate.set()
        assert [chunk async for chunk in chunks] == [LO]
    assert await follower == [HEL, LO]
