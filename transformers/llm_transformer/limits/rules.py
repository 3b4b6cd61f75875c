"""The rules of the limits, pure: what may pass at `now`, what it leaves, what a true-up returns.

Requests pass by GCRA: a theoretical arrival time that each request moves on by one period and that
may run ahead of the clock by a burst. Tokens are a bucket that leaks at the plan's rate; what is
reserved lies beside it and does not leak until it is trued up, so that what is returned was never
gone. All times are in milliseconds on one clock; `reserve.lua` and `settle.lua` are the same rules.
"""

import math
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, NamedTuple

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
    """`limit` in `per_s` seconds, `burst` (at least 1) at once.

    `period_ms` is between two at the sustained rate, `ahead_ms` how far ahead of the clock the
    arrival before one more may be.
    """

    limit: float
    per_s: float
    burst: float
    period_ms: float = field(init=False, repr=False, compare=False)
    ahead_ms: float = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        period_ms = self.per_s * 1000 / self.limit
        object.__setattr__(self, "period_ms", period_ms)
        object.__setattr__(self, "ahead_ms", (self.burst - 1) * period_ms)

    def shared(self, share: float, *, keep_burst: bool) -> "Rate":
        """One replica's part of it; `keep_burst` where a single request may need all of it."""
        burst = self.burst if keep_burst else max(1.0, float(int(self.burst * share)))
        return Rate(self.limit * share, self.per_s, burst)


@dataclass(frozen=True, slots=True)
class Limits:
    """What one request is held against; None is no limit.

    `leases` is whether a request holds something that it gives back.
    """

    requests: Rate | None = None
    address: Rate | None = None
    concurrent: int | None = None
    tokens: Rate | None = None
    leases: bool = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        leases = self.concurrent is not None or self.tokens is not None
        object.__setattr__(self, "leases", leases)

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


class Verdict(NamedTuple):
    """What a reservation came to: nothing refused, or the limit that is longest in the way.

    Then what each limit leaves now, and the milliseconds until all of it is there again; where
    there is no such limit, these mean nothing.
    """

    refused: Limit | None
    retry_ms: float
    requests: int
    requests_full_ms: float
    address: int
    address_full_ms: float
    concurrent: int
    tokens: int
    tokens_full_ms: float


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
    if now >= account.first_end:
        _expire(account, now)
    in_the_way = _longest_wait(account, address_tat, limits, tokens, now)
    if in_the_way is None:
        if (rate := limits.requests) is not None:
            account.requests_tat = max(account.requests_tat, now) + rate.period_ms
        if (rate := limits.address) is not None:
            address_tat = max(address_tat, now) + rate.period_ms
        if limits.leases:
            end = now + lease_ms
            account.leases[lease] = (end, tokens)
            account.first_end = min(account.first_end, end)
            account.held += tokens
    return _verdict(in_the_way, account, address_tat, limits, now), address_tat


def settle(account: Account, rate: Rate | None, lease: str, tokens: int, now: float) -> bool:
    """Returns a lease and charges what was used; False when it had expired, which charges nothing.

    More than was reserved is charged in full and paid off before anything else passes.
    """
    if now >= account.first_end:
        _expire(account, now)
    held = account.leases.pop(lease, None)
    if held is None:
        return False
    account.held -= held[1]
    if rate is not None:
        account.tokens_tat = max(account.tokens_tat, now) + tokens * rate.period_ms
    return True


def _expire(account: Account, now: float) -> None:
    for lease, (end, tokens) in list(account.leases.items()):
        if end <= now:
            del account.leases[lease]
            account.held -= tokens
    account.first_end = min((end for end, _ in account.leases.values()), default=math.inf)


def _longest_wait(
    account: Account, address_tat: float, limits: Limits, tokens: int, now: float
) -> tuple[Limit, float] | None:
    """The limit that is longest in the way, and for how many milliseconds; None if none is."""
    refused: Limit | None = None
    longest = 0.0
    if (rate := limits.requests) is not None:
        wait = account.requests_tat - now - rate.ahead_ms
        if wait > _SLACK:
            refused, longest = Limit.REQUESTS, wait
    if (rate := limits.address) is not None:
        wait = address_tat - now - rate.ahead_ms
        if wait > _SLACK and wait > longest:
            refused, longest = Limit.ADDRESS, wait
    most = limits.concurrent
    if most is not None and len(account.leases) >= most and longest < UNKNOWN_MS:
        refused, longest = Limit.CONCURRENT, UNKNOWN_MS
    if (rate := limits.tokens) is not None:
        wait = _bucket_wait(account, rate, tokens, now)
        if wait > longest:
            refused, longest = Limit.TOKENS, wait
    return None if refused is None else (refused, longest)


def _bucket_wait(account: Account, rate: Rate, tokens: int, now: float) -> float:
    tat = account.tokens_tat
    level = (tat - now) / rate.period_ms if tat > now else 0.0
    over = level + account.held + tokens - rate.burst
    if over <= _SLACK:
        return 0.0
    # Leaking helps against the level only; the rest must be given back by what holds it.
    return over * rate.period_ms if over <= level else max(level * rate.period_ms, UNKNOWN_MS)


def _verdict(
    in_the_way: tuple[Limit, float] | None,
    account: Account,
    address_tat: float,
    limits: Limits,
    now: float,
) -> Verdict:
    refused, retry_ms = in_the_way or (None, 0.0)
    requests = address = concurrent = tokens = 0
    requests_ms = address_ms = tokens_ms = 0.0
    if (rate := limits.requests) is not None:
        requests, requests_ms = _left(rate, account.requests_tat, 0, now)
    if (rate := limits.address) is not None:
        address, address_ms = _left(rate, address_tat, 0, now)
    if (most := limits.concurrent) is not None:
        concurrent = max(0, most - len(account.leases))
    if (rate := limits.tokens) is not None:
        tokens, tokens_ms = _left(rate, account.tokens_tat, account.held, now)
    return Verdict(
        refused,
        retry_ms,
        requests,
        requests_ms,
        address,
        address_ms,
        concurrent,
        tokens,
        tokens_ms,
    )


def _left(rate: Rate, tat: float, held: int, now: float) -> tuple[int, float]:
    """How many may come at `now` beside what is held, and the time until all that ran is there."""
    full_ms = tat - now if tat > now else 0.0
    left = rate.burst - held - full_ms / rate.period_ms + _SLACK
    return int(left) if left > 0 else 0, full_ms
