"""The last stage for several predictors: each request goes to the stage of its model's predictor.

Each has its own channel, queue, breaker and cold start: one that is full, broken or away holds up
nobody who asks for another's model. What a predictor calls a model is its client's to know.
"""

from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager

from llm_transformer.models import ModelTable
from llm_transformer.predictor_client import PredictorClient
from llm_transformer.resilience.assembly import forward_stage
from llm_transformer.resilience.stage import ForwardStage
from llm_transformer.settings import TransformerSettings
from llm_transformer.store import Store
from openinference.context import RequestContext
from openinference.generation import Chunk, GenerationRequest
from openinference.messages import ModelStatus


class RoutedForward:
    """A Forward over the stages of all predictors; the names are those of the model table."""

    def __init__(self, stages: Mapping[str, ForwardStage]) -> None:
        """`stages` by model name; several names may have one stage."""
        self._stages = stages

    def generate(
        self, request: GenerationRequest, context: RequestContext
    ) -> AsyncGenerator[Chunk, None]:
        return self._stages[request.model].generate(request, context)

    async def is_ready(self, model: str) -> bool:
        return await self._stages[model].is_ready(model)

    async def awake(self, model: str, context: RequestContext) -> None:
        """Returns when the predictor of `model` is there; see ForwardStage."""
        await self._stages[model].awake(context)

    def status(self, model: str) -> ModelStatus:
        return self._stages[model].status()


@asynccontextmanager
async def routed_forward(
    settings: TransformerSettings, table: ModelTable, store: Store | None
) -> AsyncIterator[RoutedForward]:
    """A stage with a channel of its own for each predictor of `table`."""
    stages: dict[str, ForwardStage] = {}
    async with AsyncExitStack() as stack:
        for models in table.predictors:
            predictor = PredictorClient(
                models.target,
                tls=settings.predictor_use_ssl,
                stall_s=settings.stream_stall_s,
                names=models.names,
            )
            stack.push_async_callback(predictor.close)
            stage = forward_stage(settings, models.first, predictor, store)
            stack.push_async_callback(stage.close)
            await stage.start()
            stages.update(dict.fromkeys(models.names, stage))
        yield RoutedForward(stages)
