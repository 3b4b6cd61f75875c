"""A meter takes what a request may need before it runs, and is told afterwards what it used.

In process here; `redis_meter` is the same over Redis. Both pass the same tests.
"""

import itertools
import os
import time
from collections import OrderedDict, defaultdict
from collections.abc import Callable
from typing import Final, NamedTuple, Protocol

from llm_transformer.limits import rules
from llm_transformer.limits.rules import Account, Limits, Rate, Verdict

# Clients' addresses that are remembered; the one unseen for longest goes first.
MOST_ADDRESSES: Final = 100_000


class Ask(NamedTuple):
    """A reservation: for whom, held against what, how many tokens, for at most how long."""

    tenant: str
    key: str
    address: str
    limits: Limits
    tokens: int
    lease_s: float

    def within(self, share: float) -> "Ask":
        """The same held against one replica's share of the limits."""
        return self if share >= 1 else self._replace(limits=self.limits.shared(share))


class Lease(NamedTuple):
    """What a reservation holds until it is settled."""

    id: str
    tenant: str
    key: str
    tokens: int
    rate: Rate | None


class Meter(Protocol):
    """Counts; knows nothing of requests."""

    async def reserve(self, ask: Ask) -> tuple[Verdict, Lease | None]:
        """Takes all or nothing; a lease when something is to be given back."""

    def settle(self, lease: Lease, tokens: int) -> None:
        """Gives a lease back; `tokens` were used. Does not wait."""

    async def close(self) -> None:
        """Ends what runs beside the requests."""


class LeaseIds:
    """Ids that no other process gives: nobody else may settle a lease."""

    def __init__(self) -> None:
        self._prefix = os.urandom(8).hex()
        self._numbers = itertools.count()

    def next(self) -> str:
        """A new one."""
        return f"{self._prefix}{next(self._numbers):x}"


class LocalMeter:
    """Accounts in this process; atomic because nothing in it waits."""

    def __init__(self, now_ms: Callable[[], float] | None = None) -> None:
        self._now_ms = now_ms or _monotonic_ms
        self._ids = LeaseIds()
        # As many as there are keys.
        self._accounts: defaultdict[tuple[str, str], Account] = defaultdict(Account)
        self._addresses: OrderedDict[tuple[str, str], float] = OrderedDict()

    async def reserve(self, ask: Ask) -> tuple[Verdict, Lease | None]:
        tenant, key, address, limits, tokens, lease_s = ask
        lease, at, tat = self._ids.next(), (tenant, address), 0.0
        if limits.address is not None:
            tat = self._addresses.pop(at, 0.0)
        verdict, tat = rules.reserve(
            self._accounts[tenant, key],
            tat,
            limits,
            lease=lease,
            tokens=tokens,
            lease_ms=lease_s * 1000,
            now=self._now_ms(),
        )
        if limits.address is not None:
            self._addresses[at] = tat
            if len(self._addresses) > MOST_ADDRESSES:
                self._addresses.popitem(last=False)
        if verdict.refused is not None or not limits.leases:
            return verdict, None
        return verdict, Lease(lease, tenant, key, tokens, limits.tokens)

    def settle(self, lease: Lease, tokens: int) -> None:
        account = self._accounts[lease.tenant, lease.key]
        rules.settle(account, lease.rate, lease.id, tokens, self._now_ms())

    async def close(self) -> None:
        """Nothing runs beside the requests."""


def _monotonic_ms() -> float:
    return time.monotonic() * 1000
