"""The predictor's InferenceService: an engine that starts in the background and then answers."""

import asyncio
import logging
import threading
import time
from collections.abc import AsyncGenerator, Sequence
from typing import TYPE_CHECKING

from openinference import text_tensors
from openinference.context import RequestContext
from openinference.errors import Unavailable
from openinference.generation import Chunk, GenerationRequest, collect
from openinference.messages import ModelMetadata
from openinference.sampling import SamplingParams
from openinference.server.lifecycle import Lifecycle
from openinference.service import check_model, server_metadata
from vllm_predictor import engine_events
from vllm_predictor.settings import PredictorSettings
from vllm_predictor.startup import Phase, Startup

if TYPE_CHECKING:
    from vllm_predictor.engine import Engine

logger = logging.getLogger("vllm_predictor")

POLL_S = 0.2
# Until start times are measured and kept, a caller of a starting predictor is told this.
STARTING_RETRY_S = 10.0


class EngineEnded(Exception):
    """The engine's process has ended on its own; only a new process can answer again."""


class PredictorService:
    """An openinference InferenceService over one engine."""

    def __init__(self, settings: PredictorSettings, startup: Startup, lifecycle: Lifecycle) -> None:
        self._settings = settings
        self._startup = startup
        self._lifecycle = lifecycle
        self._engine: Engine | None = None
        self.max_timeout_s: float | None = settings.max_timeout_s
        self.models: Sequence[str] = (settings.model_name,)
        self.metadata = server_metadata("keepwarm-predictor")

    async def run(self) -> None:
        """Starts the engine, warms it up, and watches it; raises EngineEnded when it dies."""
        engine = await self._start_engine()
        try:
            self._startup.enter(Phase.WARMUP, time.monotonic())
            await self._warm_up(engine)
            self._startup.finish(time.monotonic())
            self._engine = engine
            while not engine.is_dead:  # noqa: ASYNC110 (vLLM offers a flag, no event)
                await asyncio.sleep(POLL_S)
            raise EngineEnded("the engine's process has ended")
        finally:
            self._engine = None
            engine.shutdown()

    async def _start_engine(self) -> "Engine":
        loop = asyncio.get_running_loop()
        building: asyncio.Future[Engine] = loop.create_future()

        def entered(phase: Phase) -> None:
            loop.call_soon_threadsafe(self._startup.enter, phase, time.monotonic())

        def build() -> None:
            try:
                from vllm_predictor import engine

                entered(Phase.CONFIG)
                built = engine.build(self._settings, lambda: entered(Phase.ENGINE))
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
                self._startup.enter(Phase.WEIGHTS if name == "weights_begin" else Phase.ENGINE, at)
            seen = len(reported)
            if done:
                return building.result()

    async def _warm_up(self, engine: "Engine") -> None:
        """One prompt through prefill and decode: kernels, graphs and caches are touched once."""
        request = GenerationRequest(
            self.models[0],
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
        check_model(self.models, model, version)
        return await self.is_ready()

    async def model_metadata(self, model: str, version: str | None) -> ModelMetadata:
        check_model(self.models, model, version)
        return text_tensors.model_metadata(model, platform="vllm")

    def generate(
        self, request: GenerationRequest, version: str | None, context: RequestContext
    ) -> AsyncGenerator[Chunk, None]:
        check_model(self.models, request.model, version)
        if self._engine is None:
            phase = self._startup.phase
            raise Unavailable(
                f"model '{request.model}' is starting (phase {phase})"
                if phase
                else f"model '{request.model}' has stopped",
                retry_after_s=STARTING_RETRY_S,
            )
        return self._engine.generate(request, context.request_id, traceparent=context.traceparent)


def _settle(
    future: "asyncio.Future[Engine]", engine: "Engine | None", error: Exception | None
) -> None:
    if future.cancelled():
        return
    if error is not None:
        future.set_exception(error)
    elif engine is not None:
        future.set_result(engine)
