"""Leader election by a Lease, as client-go does it: whoever renews in time leads.

Expiry is judged by this replica's own clock, from when it last saw the Lease change; clocks of
different machines are never compared.
"""

import asyncio
import logging
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import httpx2
from lightkube import AsyncClient
from lightkube.core.exceptions import ApiError

from keepwarm.warmpool.kinds import LEASE
from keepwarm.warmpool.observed import Key

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Terms:
    """How long a lead lasts: others wait `lease_s`, the leader gives up after `renew_s`."""

    lease_s: float = 15.0
    renew_s: float = 10.0
    retry_s: float = 2.0


class Election:
    """One candidate. `leading` is true only while nobody else can think that they lead."""

    def __init__(
        self,
        client: AsyncClient,
        lease: Key,
        identity: str,
        terms: Terms | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        # The overloads know no generic resources.
        self._client: Any = client
        self._lease = lease
        self._identity = identity
        self._terms = terms or Terms()
        self._clock = clock
        self._until = 0.0
        self._seen: tuple[str, float] = ("", 0.0)
        self.changed = asyncio.Event()

    @property
    def leading(self) -> bool:
        return self._clock() < self._until

    async def run(self) -> None:
        """Stands for election until cancelled, then gives a lead up at once."""
        was = False
        try:
            while True:
                began = self._clock()
                try:
                    async with asyncio.timeout(self._terms.renew_s / 2):
                        if await self._acquire():
                            self._until = began + self._terms.renew_s
                except (ApiError, httpx2.HTTPError, OSError, TimeoutError) as error:
                    log.warning("the Lease: %s: %s", type(error).__name__, error)
                if self.leading != was:
                    was = self.leading
                    log.info("%s", "leading" if was else "not leading any more")
                    self.changed.set()
                await asyncio.sleep(self._terms.retry_s * random.uniform(0.9, 1.1))  # noqa: S311
        finally:
            if self.leading:
                await self._release()

    async def _acquire(self) -> bool:
        """Whether the Lease is this candidate's, now."""
        name, namespace = self._lease.name, self._lease.namespace
        try:
            lease = await self._client.get(LEASE, name, namespace=namespace)
        except ApiError as error:
            if error.status.code != 404:
                raise
            return await self._create()
        spec = lease.get("spec") or {}
        holder = spec.get("holderIdentity") or ""
        version = lease["metadata"]["resourceVersion"]
        if version != self._seen[0]:
            self._seen = (version, self._clock())
        length_s = float(spec.get("leaseDurationSeconds") or self._terms.lease_s)
        if holder not in {"", self._identity} and self._clock() < self._seen[1] + length_s:
            return False
        now = _now()
        took_over = holder != self._identity
        lease["spec"] = {
            "holderIdentity": self._identity,
            "leaseDurationSeconds": int(self._terms.lease_s),
            "acquireTime": now if took_over else spec.get("acquireTime", now),
            "renewTime": now,
            "leaseTransitions": int(spec.get("leaseTransitions") or 0) + took_over,
        }
        return await self._replace(lease)

    async def _create(self) -> bool:
        now = _now()
        spec = {
            "holderIdentity": self._identity,
            "leaseDurationSeconds": int(self._terms.lease_s),
            "acquireTime": now,
            "renewTime": now,
            "leaseTransitions": 0,
        }
        meta = {"name": self._lease.name, "namespace": self._lease.namespace}
        lease = LEASE.from_dict({"metadata": meta, "spec": spec})
        try:
            await self._client.create(lease, namespace=self._lease.namespace)
        except ApiError as error:
            if error.status.code == 409:
                return False
            raise
        return True

    async def _replace(self, lease: Any) -> bool:
        try:
            await self._client.replace(lease, self._lease.name, namespace=self._lease.namespace)
        except ApiError as error:
            # Another candidate was quicker.
            if error.status.code == 409:
                return False
            raise
        return True

    async def _release(self) -> None:
        """Empties the Lease, so that another replica need not wait for its end."""
        self._until = 0.0
        try:
            lease = await self._client.get(LEASE, self._lease.name, namespace=self._lease.namespace)
            if (lease.get("spec") or {}).get("holderIdentity") == self._identity:
                lease["spec"] = {**lease["spec"], "holderIdentity": "", "leaseDurationSeconds": 1}
                await self._replace(lease)
        except (ApiError, httpx2.HTTPError, OSError) as error:
            log.warning("the Lease was not released: %s", error)


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
