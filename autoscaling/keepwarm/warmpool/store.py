"""What was last seen of every watched object, and the view of it that one WarmPool needs."""

from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import TypeVar, cast

from keepwarm.warmpool.kinds import (
    DEPLOYMENT,
    INFERENCE_SERVICE,
    KNATIVE_SERVICE,
    POD_AUTOSCALER,
    POOL,
    REVISION,
    Kind,
    Seen,
)
from keepwarm.warmpool.observed import (
    Deployment,
    InferenceService,
    Key,
    KnativeService,
    PodAutoscaler,
    Pool,
    Revision,
)
from keepwarm.warmpool.world import World, records

Listener = Callable[[Kind, Seen | None, Seen | None], None]
T = TypeVar("T", bound=Seen)


class Store:
    """A cache by kind and namespace; listeners hear of every change, with before and after."""

    def __init__(self) -> None:
        self._seen: dict[str, dict[str, dict[str, Seen]]] = defaultdict(lambda: defaultdict(dict))
        self._listeners: list[Listener] = []

    def listen(self, listener: Listener) -> None:
        self._listeners.append(listener)

    def put(self, kind: Kind, after: Seen) -> None:
        """Takes in what was read or answered; unless it is newer, it has no effect."""
        named = self._seen[kind.name][after.key.namespace]
        before = named.get(after.key.name)
        if before is not None and 0 < _version(after) <= _version(before):
            return
        named[after.key.name] = after
        self._tell(kind, before, after)

    def drop(self, kind: Kind, gone: Seen) -> None:
        """Forgets a deleted object."""
        before = self._seen[kind.name][gone.key.namespace].pop(gone.key.name, None)
        if before is not None:
            self._tell(kind, before, None)

    def replace(self, kind: Kind, listed: list[Seen]) -> None:
        """Takes in a complete list: what is not in it is gone."""
        keys = {item.key for item in listed}
        for item in list(self._all(kind)):
            if item.key not in keys:
                self.drop(kind, item)
        for item in listed:
            self.put(kind, item)

    def pools(self, namespace: str | None = None) -> list[Pool]:
        """All WarmPools, or those of a namespace."""
        if namespace is None:
            return [cast("Pool", pool) for pool in self._all(POOL)]
        return self._of(POOL, namespace, Pool)

    def about(self, kind: Kind, item: Seen) -> Iterator[Key]:
        """The WarmPools whose next step may depend on `item`."""
        for pool in self.pools(item.key.namespace):
            if kind is POOL:
                # The same target's others, and those that wait for a hand-over.
                if item.key == pool.key or cast("Pool", item).service == pool.service:
                    yield pool.key
            elif kind is INFERENCE_SERVICE:
                if item.key == pool.service or _wrote(pool, item.key.name):
                    yield pool.key
            elif pool.spec is not None:
                service = item.key.name
                if isinstance(item, Revision | PodAutoscaler):
                    service = item.service
                if service == pool.spec.target.service or _wrote(pool, item.key.name):
                    yield pool.key

    def world(self, key: Key) -> World | None:
        """What the WarmPool's next step depends on; None when it is gone."""
        pools = self.pools(key.namespace)
        pool = next((pool for pool in pools if pool.key == key), None)
        if pool is None:
            return None
        revisions = self._of(REVISION, key.namespace, Revision)
        services = self._of(INFERENCE_SERVICE, key.namespace, InferenceService)
        written = [found.holder for found in revisions] + [found.holder for found in services]
        holders = {holder.uid: holder for holder in written}
        neighbours = tuple(other for other in pools if other.key != key)
        if pool.spec is None or pool.service is None:
            return World(pool, neighbours, holders=holders)
        name = pool.spec.target.service
        return World(
            pool,
            neighbours,
            service=self._one(INFERENCE_SERVICE, pool.service, InferenceService),
            knative=self._one(KNATIVE_SERVICE, Key(key.namespace, name), KnativeService),
            revisions=tuple(found for found in revisions if found.service == name),
            autoscalers={
                found.key.name: found
                for found in self._of(POD_AUTOSCALER, key.namespace, PodAutoscaler)
                if found.service == name
            },
            deployment=self._one(DEPLOYMENT, Key(key.namespace, name), Deployment),
            holders=holders,
        )

    def _tell(self, kind: Kind, before: Seen | None, after: Seen | None) -> None:
        for listener in self._listeners:
            listener(kind, before, after)

    def _all(self, kind: Kind) -> Iterator[Seen]:
        for named in self._seen[kind.name].values():
            yield from named.values()

    def _of(self, kind: Kind, namespace: str, seen: type[T]) -> list[T]:
        return cast("list[T]", list(self._seen[kind.name][namespace].values()))

    def _one(self, kind: Kind, key: Key, seen: type[T]) -> T | None:
        return cast("T | None", self._seen[kind.name][key.namespace].get(key.name))


def _wrote(pool: Pool, name: str) -> bool:
    return any(record.name == name for record in records(pool))


def _version(item: Seen) -> int:
    """Kubernetes compares resource versions as numbers (KEP-5504); another kind counts as old."""
    return int(item.resource_version) if item.resource_version.isdigit() else 0
