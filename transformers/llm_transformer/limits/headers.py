"""What a caller is told of its limits (draft-ietf-httpapi-ratelimit-headers-11).

`RateLimit-Policy` names each policy with its quota `q` in `w` seconds, `RateLimit` how much of it
is available now (`r`) and after how many seconds all of it is again (`t`).
"""

import math
from functools import lru_cache
from typing import Final

from llm_transformer.limits.rules import Limit, Limits, Rate, Standing

POLICY: Final = "ratelimit-policy"
STATE: Final = "ratelimit"


@lru_cache(maxsize=1024)
def policy(limits: Limits) -> str:
    """The policies, as a structured field (RFC 9651): a list of strings with parameters."""
    items = []
    for limit, rate, unit in (
        (Limit.REQUESTS, limits.requests, ""),
        (Limit.ADDRESS, limits.address, ""),
        (Limit.TOKENS, limits.tokens, ';qu="tokens"'),
    ):
        if rate is not None:
            items.append(f'"{limit}";q={_quota(rate)}{unit};w={math.ceil(rate.per_s)}')
    if limits.concurrent is not None:
        items.append(f'"{Limit.CONCURRENT}";q={limits.concurrent};qu="concurrent-requests"')
    return ", ".join(items)


def state(standing: Standing) -> str:
    """What is left of each policy."""
    return ", ".join(
        f'"{limit}";r={left.available}'
        + ("" if left.full_ms is None else f";t={math.ceil(left.full_ms / 1000)}")
        for limit, left in standing.items()
    )


def _quota(rate: Rate) -> int:
    return max(1, math.floor(rate.limit))
