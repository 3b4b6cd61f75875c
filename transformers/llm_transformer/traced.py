"""The transformer's stages, each within a span of its own."""

from collections.abc import AsyncGenerator

from llm_transformer.auth import Identity
from llm_transformer.cache.stage import Predictor
from llm_transformer.forward import Forward
from llm_transformer.service import Authenticates, Limits
from llm_transformer.untraced import Untraced
from openinference.context import RequestContext
from openinference.generation import Chunk, GenerationRequest
from openinference.messages import ModelStatus
from openinference.tracing import Tracer, failed


class TracedForward:
    """A Forward within a span."""

    def __init__(self, forward: Forward, tracer: Tracer, stage: str) -> None:
        self._forward = forward
        self._tracer = tracer
        self._stage = stage

    async def is_ready(self, model: str) -> bool:
        return await self._forward.is_ready(model)

    def status(self, model: str) -> ModelStatus:
        return self._forward.status(model)

    def generate(
        self, request: GenerationRequest, context: RequestContext
    ) -> AsyncGenerator[Chunk, None]:
        return self._tracer.traced(
            self._stage, context, lambda inner: self._forward.generate(request, inner)
        )


class TracedPredictor(TracedForward):
    """The forward stage within a span, as the cache asks it."""

    def __init__(self, forward: Predictor, tracer: Tracer) -> None:
        super().__init__(forward, tracer, "forward")
        self._predictor = forward

    async def awake(self, model: str, context: RequestContext) -> None:
        await self._predictor.awake(model, context)


class TracedAuth:
    """An authenticator within a span."""

    def __init__(self, auth: Authenticates, tracer: Tracer) -> None:
        self._auth = auth
        self._tracer = tracer

    def identify(self, context: RequestContext, model: str) -> Identity:
        span, _ = self._tracer.start("auth", context)
        try:
            identity = self._auth.identify(context, model)
        except Exception as error:
            failed(span, error)
            raise
        finally:
            span.end()
        return identity


class TracedLimits:
    """The limits' stage within a span, which lasts until the charge is trued up."""

    def __init__(self, limits: Limits, tracer: Tracer) -> None:
        self._limits = limits
        self._tracer = tracer

    def generate(
        self, request: GenerationRequest, context: RequestContext, identity: Identity
    ) -> AsyncGenerator[Chunk, None]:
        return self._tracer.traced(
            "limits", context, lambda inner: self._limits.generate(request, inner, identity)
        )


class Traced(Untraced):
    """Each stage within a span."""

    def __init__(self, tracer: Tracer) -> None:
        self._tracer = tracer

    def forward(self, forward: Predictor) -> Predictor:
        return TracedPredictor(forward, self._tracer)

    def cache(self, cache: Forward) -> Forward:
        is_off = isinstance(cache, TracedPredictor)
        return cache if is_off else TracedForward(cache, self._tracer, "cache")

    def auth(self, auth: Authenticates) -> Authenticates:
        return TracedAuth(auth, self._tracer)

    def limits(self, limits: Limits | None) -> Limits | None:
        return None if limits is None else TracedLimits(limits, self._tracer)
