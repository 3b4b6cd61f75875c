"""What a caller is told of its limits (draft-ietf-httpapi-ratelimit-headers-11).

`RateLimit-Policy` names each policy with its quota `q` in `w` seconds, `RateLimit` how much of it
is available now (`r`) and after how many seconds all of it is again (`t`).
"""

from math import ceil, floor
from typing import Final

from llm_transformer.limits.rules import Limit, Limits, Rate, Verdict

POLICY: Final = "ratelimit-policy"
STATE: Final = "ratelimit"


def policy(limits: Limits) -> str:
    """The policies, as a structured field (RFC 9651): a list of strings with parameters."""
    items = []
    for limit, rate, unit in (
        (Limit.REQUESTS, limits.requests, ""),
        (Limit.ADDRESS, limits.address, ""),
        (Limit.TOKENS, limits.tokens, ';qu="tokens"'),
    ):
        if rate is not None:
            items.append(f'"{limit}";q={_quota(rate)}{unit};w={ceil(rate.per_s)}')
    if limits.concurrent is not None:
        items.append(f'"{Limit.CONCURRENT}";q={limits.concurrent};qu="concurrent-requests"')
    return ", ".join(items)


def state(limits: Limits, verdict: Verdict) -> str:
    """What is left of each policy.

    The names are those of Limit, written out: to format a StrEnum takes longer than all the rest.
    """
    _, _, requests, requests_ms, address, address_ms, concurrent, tokens, tokens_ms = verdict
    items = []
    if limits.requests is not None:
        items.append(f'"requests";r={requests};t={ceil(requests_ms / 1000)}')
    if limits.address is not None:
        items.append(f'"address";r={address};t={ceil(address_ms / 1000)}')
    if limits.concurrent is not None:
        items.append(f'"concurrent";r={concurrent}')
    if limits.tokens is not None:
        items.append(f'"tokens";r={tokens};t={ceil(tokens_ms / 1000)}')
    return ", ".join(items)


def _quota(rate: Rate) -> int:
    return max(1, floor(rate.limit))
