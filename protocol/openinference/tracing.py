"""OpenTelemetry spans of the stages, exported over OTLP; without an endpoint there is no Tracer.

A stage is wrapped where the server is put together, so that without tracing nothing of this is on
a request's way. The W3C context travels in RequestContext: a span becomes the parent of what its
stage calls, in this process and in the next. Spans carry no prompts, answers, keys or tenants.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from typing import Final

from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
from opentelemetry.trace import Span, SpanKind, Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from openinference.context import QUEUE_TIME, TRACEPARENT, TRACESTATE, RequestContext
from openinference.errors import ServingError
from openinference.generation import Chunk, GenerationRequest
from openinference.messages import ModelMetadata, ModelStatus, ServerMetadata
from openinference.service import InferenceService

# A collector that is away must not hold the end of a drained server.
EXPORT_TIMEOUT_S: Final = 2
_W3C: Final = TraceContextTextMapPropagator()

Generate = Callable[[RequestContext], AsyncGenerator[Chunk, None]]


class Tracer:
    """Makes the spans of one server."""

    def __init__(self, server: str, processor: SpanProcessor, sample_ratio: float) -> None:
        """`sample_ratio` is the share of traces that begin here and are kept."""
        self._provider = TracerProvider(
            resource=Resource.create({"service.name": server}),
            # Who has begun a trace has decided about it.
            sampler=ParentBased(TraceIdRatioBased(sample_ratio)),
        )
        self._provider.add_span_processor(processor)
        self._tracer = self._provider.get_tracer("keepwarm")

    def close(self) -> None:
        """Exports what is left; blocks for it."""
        self._provider.shutdown()

    def start(
        self, stage: str, context: RequestContext, kind: SpanKind = SpanKind.INTERNAL
    ) -> tuple[Span, RequestContext]:
        """A span below the context's, and the context for what it calls."""
        came = {
            name: value
            for name, value in (
                (TRACEPARENT, context.traceparent),
                (TRACESTATE, context.tracestate),
            )
            if value is not None
        }
        span = self._tracer.start_span(stage, _W3C.extract(came), kind)
        goes: dict[str, str] = {}
        _W3C.inject(goes, trace.set_span_in_context(span))
        inner = context._replace(traceparent=goes.get(TRACEPARENT), tracestate=goes.get(TRACESTATE))
        return span, inner

    async def traced(
        self,
        stage: str,
        context: RequestContext,
        generate: Generate,
        *,
        kind: SpanKind = SpanKind.INTERNAL,
        attributes: Mapping[str, str | bool] | None = None,
    ) -> AsyncGenerator[Chunk, None]:
        """The chunks of `generate`, which is called within a span."""
        span, inner = self.start(stage, context, kind)
        span.set_attributes(dict(attributes or {}))
        outcome, first = "ok", True
        try:
            async with aclosing(generate(inner)) as chunks:
                async for chunk in chunks:
                    if first:
                        first = False
                        span.add_event("first_chunk")
                    yield chunk
        except (asyncio.CancelledError, GeneratorExit):
            outcome = "cancelled"
            raise
        except Exception as error:
            outcome = failed(span, error)
            raise
        finally:
            span.set_attribute("keepwarm.outcome", outcome)
            if context.reply.cached is not None:
                span.set_attribute("keepwarm.cache", context.reply.cached.value)
            if (queued_ms := context.reply.headers.get(QUEUE_TIME)) is not None:
                span.set_attribute("keepwarm.engine.queue_ms", int(queued_ms))
            span.end()


def failed(span: Span, error: Exception) -> str:
    """Marks a span; an error's own words may be the caller's, so its kind has to do."""
    span.set_status(Status(StatusCode.ERROR))
    if isinstance(error, ServingError):
        span.set_attribute("http.response.status_code", error.http_status)
    span.set_attribute("error.type", type(error).__name__)
    return type(error).__name__


def exporting(server: str, endpoint: str, sample_ratio: float) -> Tracer:
    """A tracer that exports to `endpoint` (http://HOST:PORT; https for TLS) in batches."""
    exporter = OTLPSpanExporter(
        endpoint, insecure=not endpoint.startswith("https"), timeout=EXPORT_TIMEOUT_S
    )
    return Tracer(server, BatchSpanProcessor(exporter), sample_ratio)


class TracedService:
    """An InferenceService whose generations are spans of kind server."""

    def __init__(self, service: InferenceService, tracer_: Tracer, stage: str) -> None:
        self._service = service
        self._tracer = tracer_
        self._stage = stage

    @property
    def metadata(self) -> ServerMetadata:
        return self._service.metadata

    @property
    def models(self) -> Sequence[str]:
        return self._service.models

    @property
    def max_timeout_s(self) -> float | None:
        return self._service.max_timeout_s

    async def is_live(self) -> bool:
        return await self._service.is_live()

    async def is_ready(self) -> bool:
        return await self._service.is_ready()

    async def is_model_ready(self, model: str, version: str | None) -> bool:
        return await self._service.is_model_ready(model, version)

    async def model_metadata(self, model: str, version: str | None) -> ModelMetadata:
        return await self._service.model_metadata(model, version)

    async def model_status(self, model: str, version: str | None) -> ModelStatus:
        return await self._service.model_status(model, version)

    def generate(
        self, request: GenerationRequest, version: str | None, context: RequestContext
    ) -> AsyncGenerator[Chunk, None]:
        return self._tracer.traced(
            self._stage,
            context,
            lambda inner: self._service.generate(request, version, inner),
            kind=SpanKind.SERVER,
            attributes={
                "keepwarm.request_id": context.request_id,
                "keepwarm.route": context.caller.route,
                "keepwarm.stream": request.stream,
                "gen_ai.request.model": request.model,
            },
        )
