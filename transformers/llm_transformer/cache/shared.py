"""L2 as the stage sees it: records and leases that all replicas share. It never raises.

A lease says which replica generates an answer while the others wait for its record. It runs out
when its holder dies, and a record is only taken from the holder, so that a replica that was frozen
cannot put an old answer over a newer one.
"""

from enum import Enum
from typing import NamedTuple, Protocol

from llm_transformer.cache.record import Record


class Claim(Enum):
    """What came of asking for the right to generate."""

    LEAD = "lead"
    WAIT = "wait"
    # The store is out of reach: everybody for himself.
    ALONE = "alone"


class Slot(NamedTuple):
    """Where the answer of a request is kept: `digest` of the request, the model, its weights."""

    digest: bytes
    model: str
    weights_id: str | None


class SharedCache(Protocol):
    """What L2 must do; every failure counts as nothing found.

    `is_there` is whether there are others to ask and to tell.
    """

    is_there: bool

    async def get(self, slot: Slot) -> Record | None:
        """The record, if there is one."""

    async def claim(self, slot: Slot, token: str) -> Record | Claim:
        """The record, else the lease for `token` unless another one holds it."""

    async def renew(self, slot: Slot, token: str) -> None:
        """Keeps the lease from running out."""

    async def commit(self, slot: Slot, token: str | None, record: Record) -> None:
        """Puts a record and gives the lease back, if `token` still holds it; None asks nobody."""

    async def release(self, slot: Slot, token: str) -> None:
        """Gives the lease back without a record."""

    async def weights_id(self, model: str) -> str | None:
        """The weights that some replica last had an answer from."""

    async def tell_weights(self, model: str, weights_id: str) -> None:
        """Tells the other replicas which weights have just answered."""


class NoSharedCache:
    """L2 of a transformer that has no store."""

    is_there = False

    async def get(self, slot: Slot) -> Record | None:
        return None

    async def claim(self, slot: Slot, token: str) -> Record | Claim:
        return Claim.ALONE

    async def renew(self, slot: Slot, token: str) -> None:
        return

    async def commit(self, slot: Slot, token: str | None, record: Record) -> None:
        return

    async def release(self, slot: Slot, token: str) -> None:
        return

    async def weights_id(self, model: str) -> str | None:
        return None

    async def tell_weights(self, model: str, weights_id: str) -> None:
        return
