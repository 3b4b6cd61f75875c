"""Start times in Redis: all transformers of a model learn from all starts, new ones too."""

import logging
from typing import Final

from llm_transformer.resilience.start_times import KEPT, Start
from llm_transformer.store import Client, Store, StoreUnavailableError

logger = logging.getLogger("llm_transformer.start_times")

# A model that is not started for so long may have changed.
KEPT_S: Final = 30 * 24 * 3600


class SharedStartTimes:
    """A StartTimeStore in Redis: a list of "SECONDS ENDED_AT", newest first."""

    def __init__(self, store: Store, model: str) -> None:
        self._store = store
        self._key = f"keepwarm:starts:{{{model}}}"

    async def load(self) -> list[Start]:
        async def read(client: Client) -> list[bytes | str]:
            return await client.lrange(self._key, 0, KEPT - 1)

        try:
            return [
                start for item in await self._store.call(self._key, read) for start in _parsed(item)
            ]
        except StoreUnavailableError:
            return []

    async def add(self, start: Start) -> None:
        async def push(client: Client) -> None:
            async with client.pipeline(transaction=False) as pipeline:
                pipeline.lpush(self._key, f"{start.seconds:.3f} {start.ended_at:.3f}")
                pipeline.ltrim(self._key, 0, KEPT - 1)
                pipeline.expire(self._key, KEPT_S)
                await pipeline.execute()

        try:
            await self._store.call(self._key, push)
        except StoreUnavailableError:
            logger.info("a start of %.1f s was not kept: Redis is away", start.seconds)


def _parsed(item: bytes | str) -> list[Start]:
    """The start, or nothing for what another release may have written."""
    try:
        seconds, ended_at = map(float, item.split())
    except ValueError:
        return []
    return [Start(seconds, ended_at)]
