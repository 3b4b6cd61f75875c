"""The meter that all replicas share: one script in Redis for a reservation, on Redis's clock.

The keys of a tenant carry its name as hash tag, so a Cluster runs the script on one node. What
cannot be settled because Redis is away is settled when it is back, or by the lease's own end.
"""

import asyncio
from collections.abc import Coroutine, Sequence
from importlib import resources
from typing import Any, Final

from llm_transformer.limits import metrics
from llm_transformer.limits.meter import Ask, Lease, LeaseIds
from llm_transformer.limits.rules import Limit, Limits, Rate, Verdict
from llm_transformer.store import Script, Store, StoreSkippedError, StoreUnavailableError

REDIS_CLOCK: Final = (
    "(function() local t = redis.call('TIME')"
    " return tonumber(t[1]) * 1000 + tonumber(t[2]) / 1000 end)()"
)
_ORDER: Final = (None, Limit.REQUESTS, Limit.ADDRESS, Limit.CONCURRENT, Limit.TOKENS)
# Settlements that wait for Redis to come back.
MOST_OWED: Final = 100_000


class RedisMeter:
    """Raises StoreUnavailableError where Redis cannot be asked."""

    def __init__(self, store: Store, *, clock: str = REDIS_CLOCK) -> None:
        """`clock` is a Lua expression of the time in milliseconds."""
        self._store = store
        self._reserve = _script("reserve.lua", clock)
        self._settle = _script("settle.lua", clock)
        self._ids = LeaseIds()
        self._owed: dict[str, tuple[Lease, int]] = {}
        self._paying = False
        self._tasks: set[asyncio.Task[object]] = set()
        store.on_recovery(self._pay)

    async def reserve(self, ask: Ask) -> tuple[Verdict, Lease | None]:
        limits = ask.limits
        lease = Lease(self._ids.next(), ask.tenant, ask.key, ask.tokens, limits.tokens)
        names = keys(ask.tenant, ask.key, ask.address)
        numbers = [lease.id, ask.tokens, ask.lease_s * 1000, *_numbers(limits)]
        try:
            answer = await self._store.call(
                names[0], lambda client: self._reserve(client, names, numbers)
            )
        except StoreSkippedError:
            raise
        except BaseException:
            # Redis may have reserved, or do so when it goes on.
            if limits.leases:
                self._owe(lease, 0)
            raise
        self._pay()
        verdict = _verdict(answer)
        return verdict, lease if verdict.refused is None and limits.leases else None

    def settle(self, lease: Lease, tokens: int) -> None:
        self._beside(self._settle_now(lease, tokens))

    async def close(self) -> None:
        """Waits for the settlements under way."""
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _settle_now(self, lease: Lease, tokens: int) -> bool:
        """Whether it is done; if not, it is owed."""
        account, leases, _ = keys(lease.tenant, lease.key, "")
        period = -1.0 if lease.rate is None else lease.rate.period_ms
        numbers = (lease.id, lease.tokens, tokens, period)
        try:
            await self._store.call(
                account, lambda client: self._settle(client, (account, leases), numbers)
            )
        except StoreUnavailableError:
            self._owe(lease, tokens)
            return False
        return True

    def _owe(self, lease: Lease, tokens: int) -> None:
        """Keeps a settlement until Redis answers again; beyond MOST_OWED the lease's end does."""
        if len(self._owed) < MOST_OWED:
            self._owed[lease.id] = (lease, tokens)
            metrics.OWED.set(len(self._owed))

    def _pay(self) -> None:
        if self._owed and not self._paying:
            self._paying = True
            self._beside(self._pay_one_by_one())

    async def _pay_one_by_one(self) -> None:
        try:
            for lease, tokens in list(self._owed.values()):
                if not await self._settle_now(lease, tokens):
                    return
                del self._owed[lease.id]
                metrics.OWED.set(len(self._owed))
        finally:
            self._paying = False

    def _beside(self, work: Coroutine[Any, Any, object]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def keys(tenant: str, key: str, address: str) -> tuple[str, str, str]:
    """The names in Redis of a key's account, of its leases and of a client's address."""
    tag = f"keepwarm:{{{tenant}}}"
    return f"{tag}:account:{key}", f"{tag}:leases:{key}", f"{tag}:address:{address}"


def _script(name: str, clock: str) -> Script:
    text = (resources.files(__package__) / name).read_text(encoding="utf-8")
    return Script(text.replace("CLOCK", clock, 1))


def _numbers(limits: Limits) -> Sequence[float]:
    concurrent = -1 if limits.concurrent is None else limits.concurrent
    rates = (limits.requests, limits.address, limits.tokens)
    requests, address, tokens = (_rate(rate) for rate in rates)
    return *requests, *address, concurrent, *tokens


def _rate(rate: Rate | None) -> tuple[float, float]:
    return (-1.0, -1.0) if rate is None else (rate.period_ms, rate.burst)


def _verdict(answer: list[int]) -> Verdict:
    which, wait_ms, *left = answer
    return Verdict(_ORDER[which], float(wait_ms), *left)
