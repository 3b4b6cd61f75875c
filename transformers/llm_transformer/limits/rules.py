"""The rules of the limits, pure: what may pass at `now`, what it leaves, what a true-up returns.

Requests pass by GCRA: a theoretical arrival time that each request moves on by one period and that
may run ahead of the clock by a burst. Tokens are a bucket that leaks at the plan's rate; what is
reserved lies beside it and does not leak until it is trued up, so that what is returned was never
gone. All times are in milliseconds on one clock; `reserve.lua` and `settle.lua` are the same rules.
"""

import math
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

# Wait for something else to end, whose end nobody knows.
UNKNOWN_MS: Final = 1000.0
# What sums of floating-point milliseconds and tokens may be off by.
_SLACK: Final = 1e-3


class Limit(StrEnum):
    """Which limit; the names that headers, messages and metrics use."""

    REQUESTS = "requests"
    ADDRESS = "address"
    CONCURRENT = "concurrent"
    TOKENS = "tokens"


@dataclass(frozen=True, slots=True)
class Rate:
    """`limit` in `per_s` seconds, `burst` at once."""

    limit: float
    per_s: float
    burst: float

    @property
    def period_ms(self) -> float:
        """Between two at the sustained rate."""
        return self.per_s * 1000 / self.limit

    def shared(self, share: float, *, keep_burst: bool) -> "Rate":
        """One replica's part of it; `keep_burst` where a single request may need all of it."""
        burst = self.burst if keep_burst else max(1.0, float(int(self.burst * share)))
        return Rate(self.limit * share, self.per_s, burst)


@dataclass(frozen=True, slots=True)
class Limits:
    """What one request is held against; None is no limit."""

    requests: Rate | None = None
    address: Rate | None = None
    concurrent: int | None = None
    tokens: Rate | None = None

    @property
    def leases(self) -> bool:
        """Whether a request holds something that it gives back."""
        return self.concurrent is not None or self.tokens is not None

    def shared(self, share: float) -> "Limits":
        """One replica's part of these limits."""
        if share >= 1:
            return self
        return Limits(
            self.requests and self.requests.shared(share, keep_burst=False),
            self.address and self.address.shared(share, keep_burst=False),
            self.concurrent and max(1, int(self.concurrent * share)),
            self.tokens and self.tokens.shared(share, keep_burst=True),
        )


@dataclass(frozen=True, slots=True)
class Left:
    """What a limit leaves now, and the milliseconds until all of it is there again (if known)."""

    available: int
    full_ms: float | None


Standing = dict[Limit, Left]


@dataclass(slots=True)
class Account:
    """One key's state."""

    requests_tat: float = 0.0
    tokens_tat: float = 0.0
    held: int = 0
    # By id, when it expires and how many tokens it holds.
    leases: dict[str, tuple[float, int]] = field(default_factory=dict)
    # No lease expires before this.
    first_end: float = math.inf


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a reservation came to: nothing refused, or the limit that is longest in the way."""

    refused: Limit | None
    retry_ms: float
    standing: Standing


def reserve(
    account: Account,
    address_tat: float,
    limits: Limits,
    *,
    lease: str,
    tokens: int,
    lease_ms: float,
    now: float,
) -> tuple[Verdict, float]:
    """Takes one request and `tokens` from `account`, all or nothing; also the address's new state.

    pre: tokens >= 1. A refused request changes nothing. The lease is returned by `settle`, or by
    itself after `lease_ms`.
    """
    _expire(account, now)
    waits: dict[Limit, float] = {}
    if (rate := limits.requests) is not None:
        waits[Limit.REQUESTS] = _gcra_wait(account.requests_tat, rate, now)
    if (rate := limits.address) is not None:
        waits[Limit.ADDRESS] = _gcra_wait(address_tat, rate, now)
    if limits.concurrent is not None and len(account.leases) >= limits.concurrent:
        waits[Limit.CONCURRENT] = UNKNOWN_MS
    if (rate := limits.tokens) is not None:
        waits[Limit.TOKENS] = _bucket_wait(account, rate, tokens, now)
    worst = max(waits, key=lambda limit: waits[limit], default=None)
    if worst is not None and waits[worst] > 0:
        return Verdict(
            worst, waits[worst], _standing(account, address_tat, limits, now)
        ), address_tat
    if limits.requests is not None:
        account.requests_tat = max(account.requests_tat, now) + limits.requests.period_ms
    if limits.address is not None:
        address_tat = max(address_tat, now) + limits.address.period_ms
    if limits.leases:
        account.leases[lease] = (now + lease_ms, tokens)
        account.first_end = min(account.first_end, now + lease_ms)
        account.held += tokens
    return Verdict(None, 0.0, _standing(account, address_tat, limits, now)), address_tat


def settle(account: Account, rate: Rate | None, lease: str, tokens: int, now: float) -> bool:
    """Returns a lease and charges what was used; False when it had expired, which charges nothing.

    More than was reserved is charged in full and paid off before anything else passes.
    """
    _expire(account, now)
    held = account.leases.pop(lease, None)
    if held is None:
        return False
    account.held -= held[1]
    if rate is not None:
        account.tokens_tat = max(account.tokens_tat, now) + tokens * rate.period_ms
    return True


def _expire(account: Account, now: float) -> None:
    if now < account.first_end:
        return
    for lease, (end, tokens) in list(account.leases.items()):
        if end <= now:
            del account.leases[lease]
            account.held -= tokens
    account.first_end = min((end for end, _ in account.leases.values()), default=math.inf)


def _gcra_wait(tat: float, rate: Rate, now: float) -> float:
    """Milliseconds until one more may pass; 0 is now."""
    ahead = max(0.0, tat - now)
    wait = ahead - (rate.burst - 1) * rate.period_ms
    return wait if wait > _SLACK else 0.0


def _bucket_wait(account: Account, rate: Rate, tokens: int, now: float) -> float:
    level = max(0.0, account.tokens_tat - now) / rate.period_ms
    over = level + account.held + tokens - rate.burst
    if over <= _SLACK:
        return 0.0
    # Leaking helps against the level only; the rest must be given back by what holds it.
    return over * rate.period_ms if over <= level else max(level * rate.period_ms, UNKNOWN_MS)


def _standing(account: Account, address_tat: float, limits: Limits, now: float) -> Standing:
    standing: Standing = {}
    if (rate := limits.requests) is not None:
        standing[Limit.REQUESTS] = _gcra_left(account.requests_tat, rate, now)
    if (rate := limits.address) is not None:
        standing[Limit.ADDRESS] = _gcra_left(address_tat, rate, now)
    if limits.concurrent is not None:
        left = max(0, limits.concurrent - len(account.leases))
        standing[Limit.CONCURRENT] = Left(left, None)
    if (rate := limits.tokens) is not None:
        full_ms = max(0.0, account.tokens_tat - now)
        available = rate.burst - account.held - full_ms / rate.period_ms
        standing[Limit.TOKENS] = Left(max(0, int(available + _SLACK)), full_ms)
    return standing


def _gcra_left(tat: float, rate: Rate, now: float) -> Left:
    ahead = max(0.0, tat - now)
    return Left(max(0, int(rate.burst - ahead / rate.period_ms + _SLACK)), ahead)
