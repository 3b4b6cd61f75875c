"""The predictor's InferenceService: an engine that starts in the background and then answers."""

import asyncio
import gc
import logging
import threading
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager, nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING

from openinference import text_tensors
from openinference.context import QUEUE_TIME, WEIGHTS, RequestContext
from openinference.errors import Reason, Unavailable
from openinference.generation import Chunk, GenerationRequest, collect
from openinference.messages import ModelMetadata, ModelState, ModelStatus
from openinference.sampling import SamplingParams
from openinference.server.lifecycle import Lifecycle
from openinference.service import check_model, server_metadata
from vllm_predictor import admin, engine_ahead, engine_events, weights
from vllm_predictor.adapter_files import Catalog, parse_fixed
from vllm_predictor.adapter_metrics import count_request
from vllm_predictor.adapters import Adapters
from vllm_predictor.admission import Admission
from vllm_predictor.early_process import EarlyProcess
from vllm_predictor.settings import PredictorSettings
from vllm_predictor.sleep import Sleeper
from vllm_predictor.startup import Phase, Startup

if TYPE_CHECKING:
    from vllm_predictor.engine import Engine

logger = logging.getLogger("vllm_predictor")

POLL_S = 0.2
# The transformer tells its callers what it has measured; this is for direct callers.
STARTING_RETRY_S = 10.0
# The phases that the engine's own process reports.
_BEGINS = {"weights_begin": Phase.WEIGHTS, "weights_end": Phase.ENGINE}


class EngineEnded(Exception):
    """The engine's process has ended on its own; only a new process can answer again."""


class PredictorService:
    """An openinference InferenceService over one engine."""

    def __init__(
        self,
        settings: PredictorSettings,
        startup: Startup,
        lifecycle: Lifecycle,
        early: EarlyProcess | None = None,
    ) -> None:
        """`early` becomes the engine's process; without one vLLM starts its own."""
        self._settings = settings
        self._early = early
        self._startup = startup
        self._lifecycle = lifecycle
        self._engine: Engine | None = None
        self._sleeper: Sleeper | None = None
        self._adapters: Adapters | None = None
        self._catalog = Catalog(parse_fixed(settings.adapters), settings.adapters_dir)
        self._weights_id = ""
        self._admission = Admission(settings.admitted_sequences)
        self.max_timeout_s: float | None = settings.max_timeout_s
        self.metadata = server_metadata("keepwarm-predictor")

    @property
    def models(self) -> Sequence[str]:
        """The model and the adapters that can be asked for now."""
        return (self._settings.model_name, *self._catalog.names())

    async def run(self) -> None:
        """Starts the engine, warms it up, and watches it; raises EngineEnded when it dies."""
        engine = await self._start_engine()
        try:
            self._startup.enter(Phase.WARMUP, time.monotonic())
            await self._warm_up(engine)
            self._weights_id = await asyncio.to_thread(weights.weights_id, self._settings.model_dir)
            self._adapters = Adapters(
                engine,
                self._catalog,
                most=self._settings.max_adapters,
                max_rank=self._settings.max_adapter_rank,
            )
            await self._adapters.preload()
            self._startup.finish(time.monotonic())
            self._engine = engine
            # vLLM's modules are there to stay: no search for garbage need walk through them.
            gc.freeze()
            gc.enable()
            async with self._sleeping(engine):
                await self._watch(engine)
        finally:
            self._engine = None
            engine.shutdown()

    async def _watch(self, engine: "Engine") -> None:
        """Raises EngineEnded when the engine can answer no more."""
        while not engine.is_dead:
            await asyncio.sleep(POLL_S)
            if self._sleeper is not None and self._sleeper.failed is not None:
                raise EngineEnded(f"the engine did not sleep or wake: {self._sleeper.failed}")
        raise EngineEnded("the engine's process has ended")

    @asynccontextmanager
    async def _sleeping(self, engine: "Engine") -> AsyncIterator[None]:
        """With --sleep_mode: the admin's calls are answered, and the engine sleeps when idle."""
        settings = self._settings
        if not settings.sleep_mode:
            yield
            return
        self._sleeper = Sleeper(engine)
        tasks = [asyncio.create_task(admin.serve(lambda: self._sleeper, settings.admin_port))]
        if settings.sleep_after_s is not None:
            when_idle = self._sleeper.sleep_when_idle(settings.sleep_level, settings.sleep_after_s)
            tasks.append(asyncio.create_task(when_idle))
        try:
            yield
        finally:
            self._sleeper = None
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _start_engine(self) -> "Engine":
        loop = asyncio.get_running_loop()
        building: asyncio.Future[Engine] = loop.create_future()

        def entered(phase: Phase) -> None:
            loop.call_soon_threadsafe(self._startup.enter, phase, time.monotonic())

        def build() -> None:
            try:
                engine_ahead.defer_imports(self._settings)
                from vllm_predictor import engine

                entered(Phase.CONFIG)
                built = engine.build(
                    self._settings, lambda: entered(Phase.ENGINE), early=self._early
                )
            except Exception as error:  # noqa: BLE001 (raised where the engine is awaited)
                loop.call_soon_threadsafe(_settle, building, None, error)
            else:
                loop.call_soon_threadsafe(_settle, building, built, None)

        # A daemon: SIGTERM while the model loads must not wait for the end of the load.
        threading.Thread(target=build, name="build-engine", daemon=True).start()
        seen = 0
        while True:
            done, _ = await asyncio.wait([building], timeout=POLL_S)
            reported = engine_events.events()
            for name, at in reported[seen:]:
                if phase := _BEGINS.get(name):
                    # The engine's process may be ahead of this one, whose time is told.
                    self._startup.enter(phase, max(at, self._startup.phase_began))
            seen = len(reported)
            if done:
                return building.result()

    async def _warm_up(self, engine: "Engine") -> None:
        """One prompt through prefill and decode: kernels, graphs and caches are touched once."""
        request = GenerationRequest(
            self._settings.model_name,
            ("Hello",),
            SamplingParams(max_tokens=4, temperature=0.0, ignore_eos=True),
            stream=False,
        )
        await collect(request, engine.generate(request, "warm-up"))

    async def is_live(self) -> bool:
        return True

    async def is_ready(self) -> bool:
        return self._engine is not None and not self._lifecycle.draining

    async def is_model_ready(self, model: str, version: str | None) -> bool:
        self._check_model(model, version)
        broken = self._adapters is not None and self._adapters.failed(model)
        return await self.is_ready() and not broken

    async def model_metadata(self, model: str, version: str | None) -> ModelMetadata:
        self._check_model(model, version)
        metadata = text_tensors.model_metadata(model, platform="vllm")
        properties = {"weights_id": self._weights_id}
        if model != self._settings.model_name:
            digest = self._adapters.weights_id(model) if self._adapters else None
            properties = {
                "base_model": self._settings.model_name,
                "weights_id": f"{self._weights_id}-{digest or 'not-loaded'}",
                "loaded": str(digest is not None).lower(),
            }
        return replace(metadata, properties={**metadata.properties, **properties})

    async def model_status(self, model: str, version: str | None) -> ModelStatus:
        self._check_model(model, version)
        if self._sleeper is not None and self._sleeper.waking:
            return ModelStatus(ModelState.STARTING, "waking")
        if self._sleeper is not None and self._sleeper.level is not None:
            return ModelStatus(ModelState.ASLEEP)
        if self._engine is not None:
            return ModelStatus(ModelState.READY)
        if self._startup.phase is None:
            return ModelStatus(ModelState.STOPPED)
        elapsed_s = time.monotonic() - self._startup.began
        return ModelStatus(ModelState.STARTING, self._startup.phase, elapsed_s)

    def generate(
        self, request: GenerationRequest, version: str | None, context: RequestContext
    ) -> AsyncGenerator[Chunk, None]:
        self._check_model(request.model, version)
        engine, adapters = self._engine, self._adapters
        if engine is None or adapters is None:
            phase = self._startup.phase
            raise Unavailable(
                f"model '{request.model}' is starting (phase {phase})"
                if phase
                else f"model '{request.model}' has stopped",
                retry_after_s=STARTING_RETRY_S,
                reason=Reason.STARTING if phase else None,
                phase=phase,
            )
        if request.model == self._settings.model_name:
            context.reply.headers[WEIGHTS] = self._weights_id
            chunks = engine.generate(
                request,
                context.request_id,
                traceparent=context.traceparent,
                on_scheduled=_noted_in(context),
            )
        else:
            chunks = _with_adapter(engine, adapters, request, context, self._weights_id)
        return self._admitted(request, chunks)

    async def _admitted(
        self, request: GenerationRequest, chunks: AsyncGenerator[Chunk, None]
    ) -> AsyncGenerator[Chunk, None]:
        """`chunks`, whose sequences count as being in the engine from before the first."""
        self._admission.enter(request.sequences, time.monotonic())
        try:
            async with self._awake(), aclosing(chunks):
                async for chunk in chunks:
                    yield chunk
        finally:
            self._admission.leave(request.sequences, time.monotonic())

    def _awake(self) -> AbstractAsyncContextManager[None]:
        """The engine, awake for as long as this lasts."""
        return nullcontext() if self._sleeper is None else self._sleeper.held()

    def _check_model(self, model: str, version: str | None) -> None:
        known = model == self._settings.model_name or self._catalog.find(model) is not None
        check_model((model,) if known else (), model, version)


async def _with_adapter(
    engine: "Engine",
    adapters: Adapters,
    request: GenerationRequest,
    context: RequestContext,
    base_weights: str,
) -> AsyncGenerator[Chunk, None]:
    """The chunks of an adapter, which stays in the engine until the last one."""
    with count_request(request.model) as count:
        async with adapters.lease(request.model) as adapter:
            context.reply.headers[WEIGHTS] = f"{base_weights}-{adapter.weights_id}"
            source = engine.generate(
                request,
                context.request_id,
                adapter=adapter,
                traceparent=context.traceparent,
                on_scheduled=_noted_in(context),
            )
            async with aclosing(source):
                async for chunk in source:
                    count(chunk)
                    yield chunk


def _noted_in(context: RequestContext) -> Callable[[float], None]:
    """Tells the caller how long its request waited in the engine's queue."""

    def note(queued_s: float) -> None:
        context.reply.headers[QUEUE_TIME] = f"{queued_s * 1e3:.0f}"

    return note


def _settle(
    future: "asyncio.Future[Engine]", engine: "Engine | None", error: Exception | None
) -> None:
    if future.cancelled():
        return
    if error is not None:
        future.set_exception(error)
    elif engine is not None:
        future.set_result(engine)
