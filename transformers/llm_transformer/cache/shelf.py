"""Where kept answers are: L1 in process, L2 in Redis, and the weights they are good for."""

import asyncio
from typing import Final

from llm_transformer.cache import metrics
from llm_transformer.cache.directives import Directives
from llm_transformer.cache.local import LocalCache
from llm_transformer.cache.record import Record
from llm_transformer.cache.shared import Claim, SharedCache, Slot
from llm_transformer.cache.weights import Weights
from openinference import clock

# Between two looks whether another replica is done, in seconds: at first, and at most.
FIRST_PAUSE_S: Final = 0.02
LONGEST_PAUSE_S: Final = 0.2


class Shelf:
    """Both levels."""

    def __init__(self, local: LocalCache, shared: SharedCache, weights: Weights) -> None:
        self._local = local
        self.shared = shared
        self.weights = weights

    def look_here(self, digest: bytes, model: str, asked: Directives) -> Record | None:
        """What this process has, if it will do."""
        weights_id = self.weights.current(model)
        if weights_id is None:
            return None
        now = clock.now()
        record = self._local.get(_key(digest, weights_id), now)
        if record is None or not asked.accepts(record.age_s(now)):
            return None
        self.weights.check(model, now)
        return record

    async def look_shared(self, digest: bytes, model: str, asked: Directives) -> Record | None:
        """What the replicas have, if it will do; takes no lease."""
        record = await self.shared.get(self.slot(digest, model))
        if record is None:
            return None
        self.put_here(digest, record)
        return record if asked.accepts(record.age_s(clock.now())) else None

    def put_here(self, digest: bytes, record: Record) -> None:
        """Keeps it in this process."""
        self._local.put(_key(digest, record.weights_id), record)

    def slot(self, digest: bytes, model: str) -> Slot:
        """The place in L2, for the weights as they are known now."""
        return Slot(digest, model, self.weights.current(model))

    async def claim(self, digest: bytes, model: str, token: str) -> tuple[Record | Claim, bool]:
        """The record or the right to generate it, and whether it was waited for.

        Waits while another replica has that right; one that gives up or dies hands it over.
        """
        pause_s = FIRST_PAUSE_S
        waited = False
        while True:
            claim = await self.shared.claim(self.slot(digest, model), token)
            if claim is Claim.LEAD and waited:
                # The answer may be there, from weights that were not known here yet.
                before = self.weights.current(model)
                await self.weights.refresh(model, clock.now())
                if self.weights.current(model) != before:
                    record = await self.shared.get(self.slot(digest, model))
                    if record is not None:
                        await self.shared.release(self.slot(digest, model), token)
                        claim = record
            if claim is not Claim.WAIT:
                if isinstance(claim, Record):
                    self.put_here(digest, claim)
                elif waited:
                    metrics.HANDOVERS.inc()
                return claim, waited
            waited = True
            await asyncio.sleep(pause_s)
            pause_s = min(LONGEST_PAUSE_S, 1.5 * pause_s)


def _key(digest: bytes, weights_id: str) -> bytes:
    """Of an answer in this process; all digests have one length."""
    return digest + weights_id.encode()
