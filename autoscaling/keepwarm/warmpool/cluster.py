"""The API server as the controller uses it: lists, watches, and five kinds of writes.

Writes go through one rate limit, and only while `allowed` says so: a replica that is no leader any
more stops in the middle of its work.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import aclosing
from datetime import UTC, datetime
from typing import Any

from lightkube import AsyncClient
from lightkube.core.exceptions import ApiError
from lightkube.generic_resource import GenericNamespacedResource
from lightkube.types import PatchType

from keepwarm.warmpool import metrics
from keepwarm.warmpool.api import API_VERSION, KIND, WAKE
from keepwarm.warmpool.kinds import (
    ACCESS_REVIEW,
    EVENT,
    INFERENCE_SERVICE,
    POOL,
    REVISION,
    TOKEN_REVIEW,
    Kind,
)
from keepwarm.warmpool.observed import FINALIZER, MANAGER, Holder, Key, Object, Pool, place
from keepwarm.warmpool.ownership import Apply, Restore
from keepwarm.warmpool.status import Event

KINDS = {kind.name: kind for kind in (INFERENCE_SERVICE, REVISION)}
# Longer, and a connection that died without a word would go unnoticed.
WATCH_S = 240
PAGE = 250


class NotLeading(Exception):
    """Only the leader may write, and this replica does not lead."""


class Limiter:
    """A token bucket: `rate` a second, and up to `burst` at once."""

    def __init__(self, rate: float, burst: int) -> None:
        self._rate, self._burst = rate, burst
        self._tokens, self._at = float(burst), time.monotonic()

    async def take(self) -> None:
        """Waits for a token."""
        now = time.monotonic()
        self._tokens = min(self._burst, self._tokens + (now - self._at) * self._rate) - 1
        self._at = now
        if self._tokens < 0:
            await asyncio.sleep(-self._tokens / self._rate)


class Cluster:
    """Reads and writes of one API server."""

    def __init__(
        self, client: AsyncClient, limiter: Limiter, allowed: Callable[[], bool], *, name: str
    ) -> None:
        # The overloads know no generic resources.
        self._client: Any = client
        self._limiter = limiter
        self._allowed = allowed
        self._name = name

    async def listed(self, kind: Kind) -> tuple[list[Object], str]:
        """All objects of a kind, and the version from which to watch."""
        found = self._client.list(
            kind.resource, namespace="*", labels=dict(kind.labels), chunk_size=PAGE
        )
        items: list[Object] = [item async for item in found]
        metrics.REQUESTS.labels("list", kind.name).inc(max(1, -(-len(items) // PAGE)))
        return items, found.resourceVersion

    async def watch(self, kind: Kind, version: str) -> AsyncIterator[tuple[str, Object]]:
        """Changes since `version`. Raises TimeoutError when nothing came for long."""
        metrics.REQUESTS.labels("watch", kind.name).inc()
        changes = self._client.watch(
            kind.resource,
            namespace="*",
            labels=dict(kind.labels),
            resource_version=version,
            server_timeout=WATCH_S,
        )
        async with aclosing(changes):
            while True:
                async with asyncio.timeout(WATCH_S + 30):
                    change = await anext(changes, None)
                if change is None:
                    return
                yield change

    async def write_status(self, pool: Pool, status: dict[str, Any]) -> Object:
        """Makes the whole status what `status` says, unless the WarmPool is another by now."""
        body = {
            "apiVersion": API_VERSION,
            "kind": KIND,
            "metadata": _identity(pool.key, pool.uid, pool.resource_version),
            "status": status,
        }
        resource: Any = POOL.resource.Status
        return await self._apply(resource, pool.key, body)

    async def write_finalizer(self, pool: Pool, *, wanted: bool) -> Object:
        """Adds or takes away the finalizer."""
        meta = _identity(pool.key, pool.uid) | ({"finalizers": [FINALIZER]} if wanted else {})
        body = {"apiVersion": API_VERSION, "kind": KIND, "metadata": meta}
        return await self._apply(POOL.resource, pool.key, body)

    async def use_up(self, pool: Pool, wake: str) -> Object:
        """Removes the wake annotation, if it still says `wake`."""
        path = f"/metadata/annotations/{_escaped(WAKE)}"
        operations = [
            {"op": "test", "path": path, "value": wake},
            {"op": "remove", "path": path},
        ]
        return await self._patch(POOL.resource, pool.key, operations)

    async def apply(self, action: Apply) -> Object:
        """Sets the values with this controller's field manager, and those only."""
        holder = action.holder
        kind = KINDS[holder.kind]
        info = kind.resource._api_info.resource  # noqa: SLF001 (its only place)
        body: dict[str, Any] = {
            "apiVersion": f"{info.group}/{info.version}",
            "kind": info.kind,
            "metadata": _identity(holder.key, holder.uid, holder.resource_version),
        }
        for name, value in action.values.items():
            *steps, last = place(holder.kind, name)
            part = body
            for step in steps:
                part = part.setdefault(step, {})
            part[last] = _typed(holder, value)
        return await self._apply(kind.resource, holder.key, body)

    async def restore(self, action: Restore) -> Object:
        """Puts values back and takes this controller out of managedFields, in one patch.

        An apply without them would remove values that nobody else owns, even for a moment.
        """
        holder = action.holder
        operations: list[dict[str, Any]] = [
            {
                "op": "replace",
                "path": "/metadata/resourceVersion",
                "value": holder.resource_version,
            }
        ]
        entry = f"/metadata/managedFields/{holder.owners.entry}"
        for name, value in action.before.items():
            steps = place(holder.kind, name)
            path = "".join(f"/{_escaped(step)}" for step in steps)
            if value is None:
                operations.append({"op": "remove", "path": path})
            else:
                operations.append({"op": "add", "path": path, "value": _typed(holder, value)})
            if holder.owners.mine - action.before.keys():
                owned = "".join(f"/{_escaped(f'f:{step}')}" for step in steps)
                operations.append({"op": "remove", "path": f"{entry}/fieldsV1{owned}"})
        if not holder.owners.mine - action.before.keys():
            operations.append({"op": "remove", "path": entry})
        return await self._patch(KINDS[holder.kind].resource, holder.key, operations)

    async def wake(self, key: Key, text: str) -> None:
        """Asks for a wake as `kubectl annotate` would; any replica may."""
        patch = {"metadata": {"annotations": {WAKE: text}}}
        metrics.REQUESTS.labels("patch", POOL.name).inc()
        await self._client.patch(
            POOL.resource,
            key.name,
            patch,
            namespace=key.namespace,
            patch_type=PatchType.MERGE,
            field_manager=f"{MANAGER}-http",
        )

    async def may_wake(self, token: str, audience: str, key: Key) -> str | None:
        """The user that a token names, if it may create `warmpools/wake` there; else None."""
        asked = TOKEN_REVIEW.from_dict({"spec": {"token": token, "audiences": [audience]}})
        metrics.REQUESTS.labels("create", "TokenReview").inc()
        review = await self._client.create(asked)
        status = review.get("status") or {}
        if not status.get("authenticated") or audience not in (status.get("audiences") or ()):
            return None
        user = status["user"]
        access = {
            "user": user["username"],
            "uid": user.get("uid", ""),
            "groups": user.get("groups") or [],
            "extra": user.get("extra") or {},
            "resourceAttributes": {
                "group": API_VERSION.split("/", maxsplit=1)[0],
                "resource": "warmpools",
                "subresource": "wake",
                "verb": "create",
                "namespace": key.namespace,
                "name": key.name,
            },
        }
        metrics.REQUESTS.labels("create", "SubjectAccessReview").inc()
        answer = await self._client.create(ACCESS_REVIEW.from_dict({"spec": access}))
        allowed = (answer.get("status") or {}).get("allowed")
        return str(user["username"]) if allowed else None

    async def tell(self, pool: Pool, event: Event) -> None:
        """Writes an Event about a WarmPool."""
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        about = {"apiVersion": API_VERSION, "kind": KIND, "uid": pool.uid}
        about |= {"name": pool.key.name, "namespace": pool.key.namespace}
        body = {
            "metadata": {
                "name": f"{pool.key.name}.{time.time_ns():x}",
                "namespace": pool.key.namespace,
            },
            "involvedObject": about | {"resourceVersion": pool.resource_version},
            "type": event.type,
            "reason": event.reason,
            "message": event.message[:1024],
            "source": {"component": MANAGER},
            "reportingComponent": MANAGER,
            "reportingInstance": self._name,
            "firstTimestamp": now,
            "lastTimestamp": now,
            "count": 1,
        }
        await self._turn("create", "Event")
        await self._client.create(EVENT.from_dict(body), namespace=pool.key.namespace)

    async def _apply(
        self, resource: type[GenericNamespacedResource], key: Key, body: dict[str, Any]
    ) -> Object:
        await self._turn("apply", str(body["kind"]))
        answer = await self._client.patch(
            resource,
            key.name,
            body,
            namespace=key.namespace,
            patch_type=PatchType.APPLY,
            field_manager=MANAGER,
            force=True,
        )
        return dict(answer)

    async def _patch(
        self,
        resource: type[GenericNamespacedResource],
        key: Key,
        operations: Sequence[dict[str, Any]],
    ) -> Object:
        await self._turn("patch", resource.__name__)
        answer = await self._client.patch(
            resource,
            key.name,
            list(operations),
            namespace=key.namespace,
            patch_type=PatchType.JSON,
            field_manager=MANAGER,
        )
        return dict(answer)

    async def _turn(self, verb: str, kind: str) -> None:
        """Waits for a write's turn."""
        await self._limiter.take()
        if not self._allowed():
            raise NotLeading
        metrics.REQUESTS.labels(verb, kind).inc()


def _identity(key: Key, uid: str, version: str | None = None) -> dict[str, Any]:
    """Metadata that only this very object, in this version, will take."""
    found: dict[str, Any] = {"name": key.name, "namespace": key.namespace, "uid": uid}
    return found | ({"resourceVersion": version} if version else {})


def _typed(holder: Holder, value: str) -> str | int:
    return int(value) if holder.kind == "InferenceService" else value


def _escaped(step: str) -> str:
    """A step of a JSON pointer (RFC 6901)."""
    return step.replace("~", "~0").replace("/", "~1")


__all__ = ["ApiError", "Cluster", "Limiter", "NotLeading"]
