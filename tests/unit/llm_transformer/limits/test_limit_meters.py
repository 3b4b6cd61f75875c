"""Both meters, in process and in Redis, against one set of rules; LiteLLM's bugs by number."""

import asyncio
import random
from dataclasses import replace

import pytest

from llm_transformer.limits.meter import Ask, LocalMeter
from llm_transformer.limits.redis_meter import RedisMeter, keys
from llm_transformer.limits.rules import Limit, Limits, Rate, Verdict
from llm_transformer.store import RedisAddress, StoreUnavailableError, connect

START_MS = 1_700_000_000_000.0
MINUTE_S = 60.0


class Clock:
    """Time by hand, for both meters."""

    def __init__(self):
        self.ms = START_MS

    def pass_s(self, seconds):
        self.ms += seconds * 1000


class Metered:
    """A meter, its clock, and one key to ask for."""

    def __init__(self, meter, clock, tenant, tick):
        self.meter, self.clock, self.tenant, self._tick = meter, clock, tenant, tick

    def pass_s(self, seconds):
        self.clock.pass_s(seconds)
        self._tick()

    async def reserve(self, limits, tokens=1, *, key="k", address="a", lease_s=30.0):
        ask = Ask(self.tenant, key, address, limits, tokens, lease_s)
        return await self.meter.reserve(ask)

    async def settle(self, lease, tokens):
        self.meter.settle(lease, tokens)
        await self.meter.close()

    async def passes(self, limits, tokens=1, **options):
        """How many pass one after the other before one is refused."""
        count = 0
        while (await self.reserve(limits, tokens, **options))[0].refused is None:
            count += 1
            assert count < 10_000
        return count


@pytest.fixture(params=["process", "redis"])
async def metered(request):
    clock, tenant = Clock(), f"t{random.getrandbits(64):x}"
    if request.param == "process":
        yield Metered(LocalMeter(lambda: clock.ms), clock, tenant, lambda: None)
        return
    server = request.getfixturevalue("redis_server")
    _, _, now = keys(tenant, "", "now")

    def tick():
        server.client.set(now, repr(clock.ms))

    tick()
    store = connect(RedisAddress.parse(server.url), timeout_s=5)
    meter = RedisMeter(store, clock=f"tonumber(redis.call('GET', '{now}'))")
    yield Metered(meter, clock, tenant, tick)
    await meter.close()
    await store.close()


REQUESTS = Limits(requests=Rate(60, MINUTE_S, 5))
TOKENS = Limits(tokens=Rate(600, MINUTE_S, 600))


async def test_a_burst_passes_and_then_one_a_period(metered):
    assert await metered.passes(REQUESTS) == 5
    metered.pass_s(1.0)
    assert await metered.passes(REQUESTS) == 1
    metered.pass_s(3.5)
    assert await metered.passes(REQUESTS) == 3


async def test_in_any_minute_at_most_the_limit_and_the_burst_pass(metered):
    random.seed(7)
    passed = []
    for _ in range(200):
        metered.pass_s(random.choice([0, 0, 0.1, 0.4, 3]))
        verdict, _ = await metered.reserve(REQUESTS)
        if verdict.refused is None:
            passed.append(metered.clock.ms)
    for at in passed:
        assert sum(at <= other < at + 60_000 for other in passed) <= 60 + 5


async def test_retry_after_is_when_the_next_passes(metered):
    await metered.passes(REQUESTS)
    verdict, _ = await metered.reserve(REQUESTS)
    assert verdict.refused is Limit.REQUESTS
    assert verdict.retry_ms == pytest.approx(1000, abs=1)
    metered.pass_s(verdict.retry_ms / 1000)
    assert (await metered.reserve(REQUESTS))[0].refused is None


async def test_a_refused_request_costs_nothing(metered):
    await metered.passes(REQUESTS)
    for _ in range(50):
        assert (await metered.reserve(REQUESTS))[0].refused is Limit.REQUESTS
    metered.pass_s(1.0)
    assert (await metered.reserve(REQUESTS))[0].refused is None


async def test_keys_do_not_share_and_addresses_of_a_tenant_do(metered):
    limits = Limits(requests=Rate(60, MINUTE_S, 3), address=Rate(60, MINUTE_S, 4))
    assert await metered.passes(limits, key="one", address="a") == 3
    assert await metered.passes(limits, key="two", address="a") == 1
    verdict, _ = await metered.reserve(limits, key="two", address="a")
    assert verdict.refused is Limit.ADDRESS
    assert await metered.passes(limits, key="two", address="b") == 2


async def test_what_is_left_is_told(metered):
    limits = Limits(Rate(60, MINUTE_S, 5), Rate(60, MINUTE_S, 9), 3, Rate(600, MINUTE_S, 600))
    verdict, lease = await metered.reserve(limits, 100)
    assert verdict == Verdict(
        refused=None,
        retry_ms=0,
        requests=4,
        requests_full_ms=1000,
        address=8,
        address_full_ms=1000,
        concurrent=2,
        tokens=500,
        tokens_full_ms=0,
    )
    await metered.settle(lease, 60)
    verdict, _ = await metered.reserve(limits, 100)
    assert verdict.tokens == 440
    assert verdict.tokens_full_ms == pytest.approx(6000, abs=1)


async def test_as_many_run_at_a_time_as_the_plan_says(metered):
    limits = Limits(concurrent=2)
    leases = [(await metered.reserve(limits))[1] for _ in range(2)]
    verdict, _ = await metered.reserve(limits)
    assert (verdict.refused, verdict.retry_ms) == (Limit.CONCURRENT, 1000)
    await metered.settle(leases[0], 0)
    assert (await metered.reserve(limits))[0].refused is None


async def test_tokens_are_held_until_they_are_trued_up(metered):
    _, lease = await metered.reserve(TOKENS, 600)
    metered.pass_s(20)
    # Held tokens do not leak: what is given back later was never gone.
    assert (await metered.reserve(TOKENS, 1))[0].refused is Limit.TOKENS
    await metered.settle(lease, 50)
    assert (await metered.reserve(TOKENS, 551))[0].refused is Limit.TOKENS
    assert (await metered.reserve(TOKENS, 550))[0].refused is None


async def test_what_was_used_comes_back_at_the_rate_of_the_plan(metered):
    _, lease = await metered.reserve(TOKENS, 600)
    await metered.settle(lease, 600)
    verdict, _ = await metered.reserve(TOKENS, 100)
    assert verdict.retry_ms == pytest.approx(10_000, abs=1)
    metered.pass_s(9.99)
    assert (await metered.reserve(TOKENS, 100))[0].refused is Limit.TOKENS
    metered.pass_s(0.01)
    assert (await metered.reserve(TOKENS, 100))[0].refused is None


async def test_a_rate_of_many_tokens_a_millisecond_is_kept_too(metered):
    # 2048 of them, so that clocks of both meters can tell one from none.
    limits = Limits(tokens=Rate(2048 * 60_000, MINUTE_S, 600))
    _, lease = await metered.reserve(limits, 600)
    await metered.settle(lease, 600)
    assert (await metered.reserve(limits, 1))[0].refused is Limit.TOKENS


async def test_a_crash_gives_back_what_was_held_when_its_lease_ends(metered):
    await metered.reserve(TOKENS, 600, lease_s=30)
    metered.pass_s(29.9)
    assert (await metered.reserve(TOKENS, 1))[0].refused is Limit.TOKENS
    metered.pass_s(0.2)
    assert (await metered.reserve(TOKENS, 600))[0].refused is None


async def test_a_true_up_after_the_lease_has_ended_charges_nothing(metered):
    _, late = await metered.reserve(TOKENS, 600, lease_s=30)
    metered.pass_s(30.1)
    _, lease = await metered.reserve(TOKENS, 600)
    await metered.settle(late, 600)
    await metered.settle(lease, 0)
    assert (await metered.reserve(TOKENS, 600))[0].refused is None


async def test_a_lease_is_settled_once(metered):
    _, lease = await metered.reserve(TOKENS, 300)
    _, other = await metered.reserve(TOKENS, 300)
    for _ in range(3):
        await metered.settle(lease, 10)
    assert (await metered.reserve(TOKENS, 291))[0].refused is Limit.TOKENS
    assert (await metered.reserve(TOKENS, 290))[0].refused is None
    await metered.settle(other, 0)


async def test_more_than_was_reserved_is_paid_off_before_anything_else_passes(metered):
    _, lease = await metered.reserve(TOKENS, 100)
    await metered.settle(lease, 1200)
    metered.pass_s(60)
    assert (await metered.reserve(TOKENS, 1))[0].refused is Limit.TOKENS
    metered.pass_s(0.1)
    assert (await metered.reserve(TOKENS, 1))[0].refused is None


# LiteLLM (and redis-rate-limiters), by the number of the report.


async def test_litellm_10555_18730_concurrent_requests_do_not_pass_the_limit_together(metered):
    verdicts = await asyncio.gather(*(metered.reserve(TOKENS, 100) for _ in range(64)))
    assert sum(verdict.refused is None for verdict, _ in verdicts) == 6
    limits = Limits(concurrent=5)
    verdicts = await asyncio.gather(*(metered.reserve(limits, key="c") for _ in range(64)))
    assert sum(verdict.refused is None for verdict, _ in verdicts) == 5


async def test_litellm_17323_20256_no_key_is_limited_for_good(metered):
    limits = Limits(concurrent=3, tokens=Rate(600, MINUTE_S, 600))
    for _ in range(5):
        # No lease of these is ever settled: crashes, time-outs of the predictor.
        assert await metered.passes(limits, 100, lease_s=30) == 3
        metered.pass_s(30.1)


async def test_litellm_16011_32441_a_place_is_held_as_long_as_its_generation_runs(metered):
    limits = Limits(concurrent=2)
    leases = [(await metered.reserve(limits, lease_s=900))[1] for _ in range(2)]
    for _ in range(10):
        # No window of a minute gives it back.
        metered.pass_s(60)
        assert (await metered.reserve(limits))[0].refused is Limit.CONCURRENT
    await metered.settle(leases[0], 0)
    assert (await metered.reserve(limits))[0].refused is None


async def test_litellm_2113_2730_4148_replicas_share_one_limit(redis_server):
    stores = [connect(RedisAddress.parse(redis_server.url), timeout_s=5) for _ in range(3)]
    replicas = [RedisMeter(store) for store in stores]
    limits = Limits(Rate(10, 86400, 10), None, 8, Rate(1000, 86400, 600))
    ask = Ask(f"t{random.getrandbits(64):x}", "k", "", limits, 100, 300.0)
    verdicts = await asyncio.gather(*(replicas[n % 3].reserve(ask) for n in range(30)))
    assert sum(verdict.refused is None for verdict, _ in verdicts) == 6
    assert {verdict.refused for verdict, _ in verdicts} == {None, Limit.TOKENS}
    # What one replica reserved and trued up, another sees.
    for _, lease in verdicts:
        if lease is not None:
            replicas[1].settle(lease, 10)
    await replicas[1].close()
    verdict, _ = await replicas[2].reserve(ask)
    assert verdict.tokens == 600 - 60 - 100
    for replica, store in zip(replicas, stores, strict=True):
        await replica.close()
        await store.close()


async def test_litellm_14204_steady_use_does_not_push_the_recovery_away(metered):
    limits = Limits(requests=Rate(60, MINUTE_S, 1), tokens=Rate(600, MINUTE_S, 600))
    for _ in range(200):
        verdict, lease = await metered.reserve(limits, 10)
        assert verdict.refused is None
        await metered.settle(lease, 10)
        metered.pass_s(1.0)


async def test_litellm_5609_nothing_is_kept_for_ever(metered):
    if isinstance(metered.meter, LocalMeter):
        for number in range(100):
            await metered.reserve(REQUESTS, address=f"a{number}")
        return
    server = metered._tick
    limits = Limits(Rate(60, MINUTE_S, 5), Rate(60, MINUTE_S, 5), 3, Rate(600, MINUTE_S, 600))
    _, lease = await metered.reserve(limits, 100, lease_s=30)
    server()
    names = keys(metered.tenant, "k", "a")
    left = await _ttls(metered, names)
    assert all(0 < each <= 32_000 for each in left)
    await metered.settle(lease, 600)
    account, *_ = await _ttls(metered, names)
    assert 60_000 <= account <= 62_000


async def _ttls(metered, names):
    store = metered.meter._store
    return [await store.call(name, lambda client, name=name: client.pttl(name)) for name in names]


async def test_litellm_18953_a_key_that_stays_below_its_limit_is_never_refused(metered):
    # 600 a minute, 9 every second: under the limit the whole time, though often close to it.
    limits = Limits(tokens=Rate(600, MINUTE_S, 20))
    for _ in range(120):
        verdict, lease = await metered.reserve(limits, 10)
        assert verdict.refused is None
        await metered.settle(lease, 9)
        metered.pass_s(1.0)


async def test_litellm_35422_an_exhausted_limit_blocks_the_smallest_request_too(metered):
    _, lease = await metered.reserve(TOKENS, 600)
    assert (await metered.reserve(TOKENS, 1))[0].refused is Limit.TOKENS
    await metered.settle(lease, 600)
    assert (await metered.reserve(TOKENS, 1))[0].refused is Limit.TOKENS


async def test_litellm_2153_each_limit_works_without_the_others(metered):
    for limits, passing in (
        (Limits(requests=Rate(60, MINUTE_S, 2)), 2),
        (Limits(address=Rate(60, MINUTE_S, 3)), 3),
        (Limits(concurrent=4), 4),
        (Limits(tokens=Rate(50, MINUTE_S, 50)), 5),
    ):
        key = str(passing)
        assert await metered.passes(limits, 10, key=key, address=key) == passing
    assert (await metered.reserve(Limits(), 10**9))[0].refused is None


async def test_redis_rate_limiters_22_a_cost_above_one_is_charged_in_full(metered):
    limits = Limits(tokens=Rate(600, MINUTE_S, 100))
    _, lease = await metered.reserve(limits, 60)
    await metered.settle(lease, 60)
    assert (await metered.reserve(limits, 41))[0].refused is Limit.TOKENS
    assert (await metered.reserve(limits, 40))[0].refused is None


async def test_redis_gcra_6_a_cost_above_the_burst_is_refused_and_changes_nothing(metered):
    assert (await metered.reserve(TOKENS, 601))[0].refused is Limit.TOKENS
    assert (await metered.reserve(TOKENS, 600))[0].refused is None


async def test_one_replicas_share_of_a_limit():
    limits = Limits(Rate(60, MINUTE_S, 5), None, 8, Rate(600, MINUTE_S, 600))
    half = limits.shared(0.5)
    assert half == Limits(Rate(30, MINUTE_S, 2), None, 4, Rate(300, MINUTE_S, 600))
    assert limits.shared(0.01).concurrent == 1
    assert limits.shared(0.01).requests.burst == 1
    assert limits.shared(1) is limits
    assert replace(limits, requests=None).shared(0.5).requests is None


async def test_a_long_outage_leaves_nothing_owed_for_what_was_never_asked(fresh_redis):
    server = fresh_redis()
    store = connect(RedisAddress.parse(server.url), timeout_s=5)
    meter = RedisMeter(store)
    ask = Ask("t", "k", "", Limits(concurrent=2), 1, 300.0)
    _, lease = await meter.reserve(ask)
    server.kill()
    for _ in range(100):
        with pytest.raises(StoreUnavailableError):
            await meter.reserve(ask)
    meter.settle(lease, 0)
    await meter.close()
    # The call that found Redis gone may have reserved; the lease is to be given back.
    assert len(meter._owed) == 2
    await store.close()


async def test_a_reservation_whose_caller_left_meanwhile_is_given_back(redis_server):
    tenant = f"t{random.getrandbits(64):x}"
    store = connect(RedisAddress.parse(redis_server.url), timeout_s=5)
    meter = RedisMeter(store)
    ask = Ask(tenant, "k", "", Limits(concurrent=2), 1, 300.0)
    await meter.reserve(ask)
    redis_server.freeze()
    leaving = asyncio.create_task(meter.reserve(ask))
    await asyncio.sleep(0)
    while not store.client.connection_pool._in_use_connections:  # noqa: ASYNC110 (a plain state)
        await asyncio.sleep(0)
    leaving.cancel()
    await asyncio.gather(leaving, return_exceptions=True)
    redis_server.thaw()
    # The next one finds the place taken perhaps, and pays what is owed; then it is free.
    async with asyncio.timeout(20):
        while (await meter.reserve(ask))[0].refused is not None:
            await meter.close()
    assert (await meter.reserve(ask))[0].refused is Limit.CONCURRENT
    await meter.close()
    await store.close()
