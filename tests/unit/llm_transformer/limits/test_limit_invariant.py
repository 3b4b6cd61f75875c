"""Any interleaving of streams, crashes and expiries: charged <= limit, and every lease returns.

One state machine drives both meters beside a model in exact numbers.
"""

import asyncio
from fractions import Fraction

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    multiple,
    rule,
    run_state_machine_as_test,
)

from llm_transformer.limits.meter import Ask, LocalMeter
from llm_transformer.limits.redis_meter import RedisMeter, keys
from llm_transformer.limits.rules import Limits, Rate
from llm_transformer.store import RedisAddress, connect

START_MS = 1_700_000_000_000
LEASE_S = 30
CONCURRENT = 4


class Machine(RuleBasedStateMachine):
    """Tokens (60 in 60 s: one a second, `burst` at once) and four requests at a time."""

    running = Bundle("running")

    def open_meter(self):
        return LocalMeter(lambda: float(self.now_ms))

    def close_meter(self):
        pass

    def tell_time(self):
        pass

    @initialize(burst=st.integers(1, 200))
    def begin(self, burst):
        self.loop = asyncio.Runner()
        self.now_ms = START_MS
        self.burst = burst
        self.limits = Limits(concurrent=CONCURRENT, tokens=Rate(60, 60, burst))
        # The model: what leaks, and what is held until when.
        self.level, self.held, self.charges = Fraction(0), {}, []
        self.meter = self.open_meter()
        self.tell_time()

    @rule(target=running, tokens=st.integers(1, 220))
    def reserve(self, tokens):
        ask = Ask("t", "k", "", self.limits, tokens, float(LEASE_S))
        verdict, lease = self.loop.run(self.meter.reserve(ask))
        free = self.burst - self.level - sum(held for held, _ in self.held.values())
        if verdict.refused is None:
            assert tokens <= free
            assert len(self.held) < CONCURRENT
            self.held[lease.id] = (tokens, self.now_ms + LEASE_S * 1000)
            return lease
        # Nothing is refused that could pass.
        assert tokens > free or len(self.held) >= CONCURRENT
        assert verdict.retry_ms > 0
        return multiple()

    @rule(lease=consumes(running), part=st.floats(0, 1))
    def finish(self, lease, part):
        """A stream ends, is aborted or left: with any part of what was reserved."""
        used = int(lease.tokens * part)
        self.loop.run(self._settle(lease, used))
        if self.held.pop(lease.id, None) is not None:
            self.level += used
            self.charges.append((self.now_ms, used))

    @rule(lease=consumes(running))
    def crash(self, lease):
        """A replica dies: nobody will settle this."""

    @rule(lease=running)
    def settle_twice(self, lease):
        """A true-up is repeated after its answer was lost: the second does nothing."""
        self.loop.run(self._settle(lease, lease.tokens))
        if self.held.pop(lease.id, None) is not None:
            self.level += lease.tokens
            self.charges.append((self.now_ms, lease.tokens))

    @rule(ms=st.integers(0, 40_000))
    def pass_time(self, ms):
        self.now_ms += ms
        self.level = max(Fraction(0), self.level - Fraction(ms, 1000))
        self.held = {lease: held for lease, held in self.held.items() if held[1] > self.now_ms}
        self.tell_time()

    @invariant()
    def what_is_charged_in_any_time_is_within_the_limit(self):
        for number, (since, _) in enumerate(getattr(self, "charges", ())):
            charged = 0
            for at, used in self.charges[number:]:
                charged += used
                assert charged <= self.burst + Fraction(at - since, 1000)

    @invariant()
    def what_is_charged_and_held_is_within_the_burst(self):
        if hasattr(self, "held"):
            assert self.level + sum(held for held, _ in self.held.values()) <= self.burst

    def teardown(self):
        if not hasattr(self, "meter"):
            return
        # Nobody settles any more: in the end all of it is there again.
        self.pass_time(LEASE_S * 1000 + 1)
        self.pass_time(self.burst * 1000)
        ask = Ask("t", "k", "", self.limits, self.burst, float(LEASE_S))
        verdict, lease = self.loop.run(self.meter.reserve(ask))
        assert verdict.refused is None
        assert verdict.concurrent == CONCURRENT - 1
        self.loop.run(self._settle(lease, 0))
        self.loop.run(self.meter.close())
        self.close_meter()
        self.loop.close()

    async def _settle(self, lease, used):
        self.meter.settle(lease, used)
        await self.meter.close()


def test_in_process():
    run_state_machine_as_test(
        Machine, settings=settings(max_examples=300, stateful_step_count=40, deadline=None)
    )


def test_in_redis(redis_server):
    class InRedis(Machine):
        def open_meter(self):
            _, _, self.clock_key = keys("t", "", "now")
            redis_server.client.flushall()
            self.store = self.loop.run(self._connect())
            return RedisMeter(self.store, clock=f"tonumber(redis.call('GET', '{self.clock_key}'))")

        async def _connect(self):
            return connect(RedisAddress.parse(redis_server.url), timeout_s=5)

        def close_meter(self):
            self.loop.run(self.store.close())

        def tell_time(self):
            redis_server.client.set(self.clock_key, self.now_ms)

    run_state_machine_as_test(
        InRedis,
        settings=settings(
            max_examples=40,
            stateful_step_count=30,
            deadline=None,
            suppress_health_check=[HealthCheck.too_slow],
        ),
    )


def test_the_machine_finds_a_meter_that_lets_reserved_tokens_leak(monkeypatch):
    """The test tests: the plainest mistake, a reservation that leaks, is found."""
    from llm_transformer.limits import rules

    honest = rules.settle

    def leaky(account, rate, lease, tokens, now):
        held = account.leases.get(lease)
        settled = honest(account, rate, lease, tokens, now)
        if settled:
            account.tokens_tat -= held[1] * rate.period_ms / 2
        return settled

    monkeypatch.setattr(rules, "settle", leaky)
    with pytest.raises(AssertionError):
        run_state_machine_as_test(
            Machine,
            settings=settings(
                max_examples=300, stateful_step_count=40, deadline=None, phases=[Phase.generate]
            ),
        )
