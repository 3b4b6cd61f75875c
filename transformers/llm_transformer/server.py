"""The transformer's process: settings, KServe's registry and app, two ports, drain."""

import logging
import sys
from contextlib import AsyncExitStack

import kserve
import uvloop
from kserve.model_server import ModelServer, app, parser

from llm_transformer import stages
from llm_transformer.cache.assembly import cached_forward
from llm_transformer.models import ModelTable
from llm_transformer.routed import routed_forward
from llm_transformer.service import TransformerService
from llm_transformer.settings import TransformerSettings
from llm_transformer.untraced import Untraced
from openinference.server import app as server_app
from openinference.server import cors, lifecycle, logs, spans
from openinference.service import InferenceService

logger = logging.getLogger("llm_transformer")


class TransformerModel(kserve.Model):  # type: ignore[misc]  # kserve is not typed
    """The model as KServe's registry knows it; our routes answer for it."""

    def __init__(self, name: str, service: TransformerService) -> None:
        super().__init__(name)
        self._service = service
        self.ready = True

    async def healthy(self) -> bool:
        return await self._service.is_ready()


async def run(settings: TransformerSettings) -> None:
    """Serves until a signal, then drains."""
    life = lifecycle.Lifecycle()
    table = stages.served_models(settings)
    async with AsyncExitStack() as stack:
        wrap = Untraced()
        tracer = stack.enter_context(spans.tracer(settings, "keepwarm-transformer"))
        if tracer is not None:
            from llm_transformer.traced import Traced

            wrap = Traced(tracer)
        store = await stack.enter_async_context(stages.shared_store(settings))
        routed = await stack.enter_async_context(routed_forward(settings, table, store))
        forward = wrap.forward(routed)
        cached = wrap.cache(
            await stack.enter_async_context(cached_forward(settings, table, forward, store))
        )
        protection = await stack.enter_async_context(stages.protection(settings, cached, store))
        service = TransformerService(
            settings,
            cached,
            life,
            auth=wrap.auth(protection.auth),
            limits=wrap.limits(protection.limits),
            table=table,
        )
        await _serve(settings, table, service, spans.served(service, tracer, "request"), life)


async def _serve(
    settings: TransformerSettings,
    table: ModelTable,
    service: TransformerService,
    edge: InferenceService,
    life: lifecycle.Lifecycle,
) -> None:
    """Answers for `service` by what `edge` makes of it."""
    server = ModelServer(http_port=settings.http_port, workers=1, enable_grpc=False)
    for name in table.names:
        server.register_model(TransformerModel(name, service))
    served = server_app.build(app, edge, max_body_bytes=settings.max_body_bytes, openai=True)
    if settings.workers > 1:
        logger.warning("--workers=%d: one process serves; scale by replicas", settings.workers)
    for each in table.predictors:
        logger.info(
            "serving %s on ports %d (REST) and %d (gRPC), predictor at %s",
            ", ".join(f"model '{name}'" for name in each.names),
            settings.http_port,
            settings.grpc_port,
            each.target,
        )
    await lifecycle.serve(cors.allowing(served, settings.cors_origins), edge, settings, life)


def main() -> None:
    """Serves with the settings of the command line until SIGTERM."""
    settings = TransformerSettings.from_args(sys.argv[1:], parents=[parser])
    logs.configure(settings.log_level, settings.log_format)
    uvloop.run(run(settings))
