"""How many replicas share a Redis, so that each knows its share when Redis is away.

Every replica says every few seconds that it is there; the last count that Redis told is kept.
"""

import asyncio
import os
from contextlib import suppress
from typing import Final

from llm_transformer.limits import metrics
from llm_transformer.store import Script, Store, StoreUnavailableError

PERIOD_S: Final = 2.0
# A replica that has not been heard of for so long is gone.
GONE_S: Final = 3 * PERIOD_S
_KEY: Final = "keepwarm:{replicas}"
_COUNT: Final = Script(
    """#!lua
local t = redis.call('TIME')
local now, gone = t[1] + t[2] / 1e6, tonumber(ARGV[2])
redis.call('ZADD', KEYS[1], string.format('%.6f', now), ARGV[1])
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', string.format('(%.6f', now - gone))
redis.call('PEXPIRE', KEYS[1], math.ceil(gone * 1000))
return redis.call('ZCARD', KEYS[1])
"""
)


class Census:
    """Counts from `start` to `close`."""

    def __init__(self, store: Store, assumed: int) -> None:
        """`assumed` is how many there are until Redis has told."""
        self._store = store
        self._id = os.urandom(8).hex()
        self._closing = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._count = assumed
        metrics.REPLICAS.set(assumed)

    @property
    def share(self) -> float:
        """One replica's part of what all share."""
        return 1 / self._count

    def start(self) -> None:
        """Begins to say that this replica is there."""
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def close(self) -> None:
        """Takes this replica out."""
        # Not cancelled: Redis's client may take a cancellation for its own time-out's.
        self._closing.set()
        if self._task is not None:
            await self._task
        with suppress(StoreUnavailableError):
            await self._store.call(_KEY, lambda client: client.zrem(_KEY, self._id))

    async def _run(self) -> None:
        while not self._closing.is_set():
            with suppress(StoreUnavailableError):
                count = await self._store.call(
                    _KEY, lambda client: _COUNT(client, [_KEY], [self._id, GONE_S])
                )
                self._count = max(1, count)
                metrics.REPLICAS.set(self._count)
            with suppress(TimeoutError):
                async with asyncio.timeout(PERIOD_S):
                    await self._closing.wait()
