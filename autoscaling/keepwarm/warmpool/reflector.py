"""Keeps the store as the API server is: one list, then one watch, for one kind.

Whatever ends the watch (an outage, an expired version, silence) leads to a new list, further and
further apart while that fails. So nothing is missed for longer than an outage lasts.
"""

import asyncio
import logging
import random

import httpx2
import msgspec

from keepwarm.warmpool.cluster import ApiError, Cluster
from keepwarm.warmpool.kinds import Kind, Seen
from keepwarm.warmpool.observed import Object
from keepwarm.warmpool.store import Store

log = logging.getLogger(__name__)
FIRST_RETRY_S, LAST_RETRY_S = 0.5, 30.0
# The cluster may not have the kind at all, such as Knative's in a cluster of Standard mode.
ABSENT_RETRY_S = 60.0


class Reflector:
    """One kind's list and watch; `synced` once its first list is in."""

    def __init__(self, kind: Kind, cluster: Cluster, store: Store) -> None:
        self.kind = kind
        self.synced = asyncio.Event()
        self._cluster = cluster
        self._store = store
        self._retry_s = FIRST_RETRY_S

    async def run(self) -> None:
        """Until cancelled."""
        name = self.kind.name
        while True:
            try:
                await self._follow()
            except TimeoutError:
                log.debug("%s: nothing for long, listing anew", name)
                continue
            except ApiError as error:
                if error.status.code == 404:
                    self._store.replace(self.kind, [])
                    self.synced.set()
                    log.warning("%s: the cluster has no such kind", name)
                    await asyncio.sleep(ABSENT_RETRY_S)
                    continue
                # 410: the version to watch from has expired, which a new list mends.
                log.info("%s: %s", name, error)
            except (httpx2.HTTPError, msgspec.DecodeError, OSError) as error:
                log.warning("%s: %s: %s", name, type(error).__name__, error)
            await asyncio.sleep(self._retry_s * random.uniform(0.8, 1.2))  # noqa: S311 (no secret)
            self._retry_s = min(self._retry_s * 2, LAST_RETRY_S)

    async def _follow(self) -> None:
        items, version = await self._cluster.listed(self.kind)
        read = [seen for item in items if (seen := self._read(item)) is not None]
        self._store.replace(self.kind, read)
        self.synced.set()
        async for change, raw in self._cluster.watch(self.kind, version):
            self._retry_s = FIRST_RETRY_S
            if (seen := self._read(raw)) is None:
                continue
            if change == "DELETED":
                self._store.drop(self.kind, seen)
            elif change in {"ADDED", "MODIFIED"}:
                self._store.put(self.kind, seen)

    def _read(self, raw: Object) -> Seen | None:
        """One object; one that nobody foresaw must not end the watch of all others."""
        try:
            return self.kind.read(raw)
        except Exception:
            log.exception("%s %s", self.kind.name, raw.get("metadata", {}).get("name"))
            return None
