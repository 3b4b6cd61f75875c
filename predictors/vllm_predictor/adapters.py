"""Which adapters are in the engine: loaded when first asked for, the least recently used leave.

The engine is never left to load or evict on its own: it would do so between two steps of running
requests, and a file that cannot be read then ends the whole engine. Here an adapter is loaded once
for all who wait, stays while a request uses it, and one that fails hurts nobody else.
"""

import asyncio
import collections
import functools
import itertools
import logging
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from openinference.errors import FailedDependency, NotFound, Unavailable
from vllm_predictor import adapter_files, weights
from vllm_predictor.adapter_files import Catalog
from vllm_predictor.adapter_metrics import EVICTIONS, LOAD_SECONDS, LOADS, RESIDENT

logger = logging.getLogger("vllm_predictor.adapters")

# An adapter that failed is tried again when its files change, and else not before this.
RETRY_FAILED_S: Final = 30.0
# How often a resident adapter's files are looked at for a change.
RECHECK_S: Final = 1.0
ALL_BUSY_RETRY_S: Final = 1.0


@dataclass(frozen=True, slots=True)
class Adapter:
    """An adapter as the engine knows it. `number` is never used twice."""

    name: str
    number: int
    folder: Path
    weights_id: str

    @property
    def engine_name(self) -> str:
        """Changes with the weights: the engine's prefix cache is keyed by it."""
        return f"{self.name}@{self.weights_id}"


class AdapterEngine(Protocol):
    """What the engine must do."""

    async def load_adapter(self, adapter: Adapter) -> None:
        """Raises any error when the adapter does not fit the model; the engine runs on."""

    async def unload_adapter(self, adapter: Adapter) -> None:
        """Forgets it; one that is not loaded is no error."""


@dataclass(slots=True)
class _Resident:
    adapter: Adapter
    stamp: weights.Stamp
    checked_at: float
    users: int = 0


@dataclass(frozen=True, slots=True)
class _Failure:
    error: FailedDependency
    stamp: weights.Stamp
    at: float


class Adapters:
    """The adapters of one engine; at most `most` are resident at a time."""

    def __init__(
        self, engine: AdapterEngine, catalog: Catalog, *, most: int, max_rank: int
    ) -> None:
        self._engine = engine
        self._catalog = catalog
        self._most = most
        self._max_rank = max_rank
        self._numbers = itertools.count(1)
        # From least to most recently used.
        self._resident: dict[str, _Resident] = {}
        # Versions that a new one has replaced and a request still uses.
        self._retired: set[int] = set()
        self._loading: dict[str, asyncio.Task[None]] = {}
        # Who uses or waits for an adapter; one with nobody may be put out.
        self._callers: collections.Counter[str] = collections.Counter()
        self._turn = asyncio.Lock()
        self._failed: dict[str, _Failure] = {}

    @property
    def resident(self) -> Sequence[str]:
        """Names of the adapters in the engine, the least recently used first."""
        return tuple(self._resident)

    def weights_id(self, name: str) -> str | None:
        """That of a resident adapter; None while it is not loaded."""
        found = self._resident.get(name)
        return found.adapter.weights_id if found else None

    def failed(self, name: str) -> bool:
        """Whether its last load failed."""
        return name in self._failed

    async def preload(self) -> None:
        """Loads those of the fixed table that fit; one that fails is logged and answers 424."""
        for name in self._catalog.fixed[: self._most]:
            try:
                async with self.lease(name):
                    pass
            except FailedDependency as error:
                logger.warning("%s", error)

    @asynccontextmanager
    async def lease(self, name: str) -> AsyncIterator[Adapter]:
        """The loaded adapter, which stays loaded until the block ends.

        Raises NotFound for a name that may not be served, FailedDependency when it cannot be
        loaded, Unavailable when every place is taken by a running request.
        """
        self._callers[name] += 1
        try:
            resident = await self._acquire(name)
            resident.users += 1
            try:
                yield resident.adapter
            finally:
                resident.users -= 1
                if resident.adapter.number in self._retired and not resident.users:
                    # To its end, also when the caller leaves.
                    await asyncio.shield(asyncio.ensure_future(self._unload(resident)))
        finally:
            self._callers[name] -= 1
            if not self._callers[name]:
                del self._callers[name]

    async def _acquire(self, name: str) -> _Resident:
        while True:
            folder = self._catalog.find(name)
            if folder is None:
                raise NotFound(f"model {name!r:.80} not found")
            found = self._resident.get(name)
            if found is not None and not self._changed(found, folder):
                self._resident[name] = self._resident.pop(name)
                return found
            task = self._loading.get(name)
            if task is None:
                self._refuse_known_failure(name, folder)
                task = self._loading[name] = asyncio.create_task(self._load(name, folder))
                task.add_done_callback(functools.partial(self._loaded, name))
            # The load goes on for the others when this caller leaves.
            await asyncio.shield(task)

    def _loaded(self, name: str, task: asyncio.Task[None]) -> None:
        del self._loading[name]
        if not task.cancelled():
            # Read even if all who waited have left, or Python reports it as forgotten.
            task.exception()

    def _changed(self, resident: _Resident, folder: Path) -> bool:
        now = time.monotonic()
        if now - resident.checked_at < RECHECK_S:
            return False
        resident.checked_at = now
        try:
            return weights.stamp(folder) != resident.stamp
        except OSError:
            # Its folder is going; what is loaded can still answer.
            return False

    def _refuse_known_failure(self, name: str, folder: Path) -> None:
        failure = self._failed.get(name)
        if failure is None:
            return
        if time.monotonic() - failure.at < RETRY_FAILED_S and _stamp(folder) == failure.stamp:
            raise FailedDependency(failure.error.message)
        del self._failed[name]

    async def _load(self, name: str, folder: Path) -> None:
        began = time.monotonic()
        stamp = _stamp(folder)
        try:
            await asyncio.to_thread(adapter_files.check, name, folder, self._max_rank)
            digest = await asyncio.to_thread(weights.weights_id, folder)
            adapter = Adapter(name, next(self._numbers), folder, digest)
            async with self._turn:
                await self._make_room(name)
                await self._load_into_engine(adapter)
                self._resident[name] = _Resident(adapter, stamp, time.monotonic())
        except FailedDependency as error:
            self._failed[name] = _Failure(error, stamp, time.monotonic())
            LOADS.labels(name, "failed").inc()
            raise
        except OSError as error:
            LOADS.labels(name, "failed").inc()
            raise FailedDependency(f"adapter '{name}' cannot be read: {error.strerror}") from None
        seconds = time.monotonic() - began
        LOADS.labels(name, "loaded").inc()
        LOAD_SECONDS.observe(seconds)
        RESIDENT.labels(name).set(1)
        logger.info("adapter '%s' (weights %s) loaded in %.2f s", name, digest, seconds)

    async def _load_into_engine(self, adapter: Adapter) -> None:
        try:
            await self._engine.load_adapter(adapter)
        except Unavailable:
            raise
        except Exception as error:  # noqa: BLE001 (vLLM passes on whatever its worker raised)
            # What the engine has kept of it would hold a place.
            await self._engine.unload_adapter(adapter)
            logger.warning("adapter '%s': the engine says: %s", adapter.name, error)
            raise FailedDependency(
                f"adapter '{adapter.name}' cannot be loaded: it does not fit this model"
            ) from None

    async def _make_room(self, name: str) -> None:
        """Puts out the least recently used idle adapters until one more has room."""
        if (old := self._resident.pop(name, None)) is not None:
            # A new version takes over; requests that use the old one keep it to their end.
            if old.users:
                self._retired.add(old.adapter.number)
            else:
                await self._unload(old)
        while len(self._resident) + len(self._retired) >= self._most:
            idle = next((each for each in self._resident if not self._callers[each]), None)
            if idle is None:
                raise Unavailable(
                    f"all {self._most} places for adapters are in use",
                    retry_after_s=ALL_BUSY_RETRY_S,
                )
            # Out of the table before the engine is told, so that nobody takes it meanwhile.
            resident = self._resident.pop(idle)
            EVICTIONS.labels(idle).inc()
            await self._unload(resident)

    async def _unload(self, resident: _Resident) -> None:
        adapter = resident.adapter
        if adapter.name not in self._resident:
            RESIDENT.labels(adapter.name).set(0)
        self._retired.discard(adapter.number)
        await self._engine.unload_adapter(adapter)


def _stamp(folder: Path) -> weights.Stamp:
    try:
        return weights.stamp(folder)
    except OSError:
        return ()
