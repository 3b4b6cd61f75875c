"""The shell around `reconcile`: watches fill the store, changes fill the queue, workers do steps.

Only the leader works; the other replica keeps its store warm, so that a hand-over takes seconds.
"""

import asyncio
import logging
import time
from collections import defaultdict
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import httpx2

from keepwarm.warmpool import metrics
from keepwarm.warmpool.cluster import KINDS, ApiError, Cluster, NotLeading
from keepwarm.warmpool.election import Election
from keepwarm.warmpool.kinds import POD_AUTOSCALER, POOL, WATCHED, Kind, Seen
from keepwarm.warmpool.lead import KEPT, cold_start
from keepwarm.warmpool.observed import Key, PodAutoscaler, Pool
from keepwarm.warmpool.ownership import Apply, Restore
from keepwarm.warmpool.queue import WorkQueue
from keepwarm.warmpool.reconcile import Action, Finalizer, UseUp, reconcile
from keepwarm.warmpool.reflector import Reflector
from keepwarm.warmpool.status import Event
from keepwarm.warmpool.store import Store
from keepwarm.warmpool.world import World

log = logging.getLogger(__name__)
# Every WarmPool is looked at this often even if nothing seemed to happen.
RESYNC = timedelta(minutes=10)


class Controller:
    """Everything of one replica but its HTTP server."""

    def __init__(self, cluster: Cluster, election: Election, *, workers: int) -> None:
        self.store = Store()
        self.queue = WorkQueue()
        self.election = election
        self._cluster = cluster
        self._workers = workers
        self._reflectors = [Reflector(kind, cluster, self.store) for kind in WATCHED]
        self._cold_starts: dict[Key, list[float]] = defaultdict(list)
        self._errors: dict[Key, str] = {}
        self.store.listen(self._changed)

    @property
    def synced(self) -> bool:
        """Whether the first list of every kind is in."""
        return all(reflector.synced.is_set() for reflector in self._reflectors)

    async def run(self) -> None:
        """Until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            for reflector in self._reflectors:
                tasks.create_task(reflector.run())
            for reflector in self._reflectors:
                await reflector.synced.wait()
            log.info("all kinds are listed")
            election = tasks.create_task(self.election.run())
            try:
                await self._lead()
            finally:
                # Given up before the reflectors are, so that another replica can go on.
                election.cancel()

    async def _lead(self) -> None:
        while True:
            self.election.changed.clear()
            if not self.election.leading:
                await self.election.changed.wait()
                continue
            self._errors.clear()
            self._cold_starts.clear()
            self.queue.clear()
            for pool in self.store.pools():
                self.queue.add(pool.key)
            workers = [asyncio.create_task(self._work()) for _ in range(self._workers)]
            try:
                while self.election.leading:
                    self.election.changed.clear()
                    await self.election.changed.wait()
            finally:
                for worker in workers:
                    worker.cancel()
                await asyncio.gather(*workers, return_exceptions=True)

    def _changed(self, kind: Kind, before: Seen | None, after: Seen | None) -> None:
        """Asks for the steps that may follow from what was seen."""
        if not self.election.leading:
            return
        for item in (before, after):
            if item is not None:
                for key in self.store.about(kind, item):
                    self.queue.add(key)
        if kind is POD_AUTOSCALER and isinstance(after, PodAutoscaler):
            earlier = before.activity if isinstance(before, PodAutoscaler) else None
            if (took := cold_start(earlier, after.activity)) is not None:
                for key in self.store.about(kind, after):
                    seconds = self._cold_starts[key]
                    seconds.append(took.total_seconds())
                    del seconds[:-KEPT]

    async def _work(self) -> None:
        while True:
            key = await self.queue.take()
            began = time.perf_counter()
            try:
                result = await self._attempt(key)
            finally:
                self.queue.done(key)
            metrics.RECONCILES.labels(result).inc()
            metrics.RECONCILE_SECONDS.observe(time.perf_counter() - began)

    async def _attempt(self, key: Key) -> str:
        """One step of one WarmPool; whatever fails is tried again later."""
        world = self.store.world(key)
        if world is None:
            self.queue.forget(key)
            self._cold_starts.pop(key, None)
            self._errors.pop(key, None)
            return "gone"
        try:
            await self._step(key, world)
        except NotLeading:
            return "not leading"
        except ApiError as error:
            return self._refused(key, error)
        except (httpx2.HTTPError, OSError) as error:
            delay = self.queue.retry(key)
            log.warning("%s: %s: %s; again in %s", key, type(error).__name__, error, delay)
            return "unreachable"
        except Exception as error:
            # One WarmPool that nobody foresaw must not stop the others.
            log.exception("%s", key)
            self._errors[key] = f"{type(error).__name__}: {error}"
            self.queue.retry(key)
            return "failed"
        self.queue.succeeded(key)
        if self._errors.pop(key, None) is not None:
            self.queue.add(key)
        return "done"

    def _refused(self, key: Key, error: ApiError) -> str:
        code = error.status.code
        delay = self.queue.retry(key)
        if code == 409:
            # Somebody was quicker; the watch brings what they did.
            log.info("%s: changed meanwhile; again in %s", key, delay)
            return "stale"
        log.warning("%s: %s; again in %s", key, error, delay)
        self._errors[key] = str(error)
        return "refused"

    async def _step(self, key: Key, seen: World) -> None:
        now = datetime.now(UTC)
        measured = tuple(self._cold_starts.get(key, ()))
        step = reconcile(replace(seen, cold_starts_s=measured, error=self._errors.get(key)), now)
        pool = seen.pool
        if step.status is not None:
            pool = Pool.read(await self._cluster.write_status(pool, step.status))
            # Told now; what was measured meanwhile stays.
            del self._cold_starts[key][: len(measured)]
            self.store.put(POOL, pool)
        try:
            for action in step.actions:
                await self._act(pool, action)
        finally:
            # Even when one failed: the next step has nothing new to tell.
            for event in step.events:
                await self._tell(pool, event)
        self.queue.add(key, min(step.again or now + RESYNC, now + RESYNC))

    async def _act(self, pool: Pool, action: Action) -> None:
        """Does one thing, and takes in what the API server answers."""
        log.info("%s: %s", pool.key, _sentence(action))
        match action:
            case Finalizer(wanted=wanted):
                pool = Pool.read(await self._cluster.write_finalizer(pool, wanted=wanted))
                if wanted:
                    self.store.put(POOL, pool)
            case UseUp(value=value):
                try:
                    answer = await self._cluster.use_up(pool, value)
                except ApiError as error:
                    # 422: it says something else by now, which is the next step's.
                    if error.status.code != 422:
                        raise
                else:
                    self.store.put(POOL, Pool.read(answer))
            case Apply(holder=holder) | Restore(holder=holder):
                if isinstance(action, Apply):
                    answer = await self._cluster.apply(action)
                else:
                    answer = await self._cluster.restore(action)
                kind = KINDS[holder.kind]
                self.store.put(kind, kind.read(answer))

    async def _tell(self, pool: Pool, event: Event) -> None:
        log.info("%s: %s: %s", pool.key, event.reason, event.message)
        try:
            await self._cluster.tell(pool, event)
        except (ApiError, httpx2.HTTPError, NotLeading) as error:
            # The status says the same; a step is not repeated for an Event.
            log.warning("%s: the Event %s was not written: %s", pool.key, event.reason, error)


def _sentence(action: Action) -> str:
    match action:
        case Finalizer(wanted=wanted):
            return "finalizer added" if wanted else "finalizer taken away"
        case UseUp(value=value):
            return f"wake {value} is used up"
        case Apply(holder=holder, values=values):
            what = ", ".join(f"{name}={value}" for name, value in sorted(values.items()))
            return f"{what} on {holder.kind} {holder.key.name}"
        case Restore(holder=holder, before=before):
            what = ", ".join(f"{name}={value}" for name, value in sorted(before.items()))
            return f"{what} put back on {holder.kind} {holder.key.name}"
