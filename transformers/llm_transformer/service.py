"""The transformer's stages in a straight line: know the model, then forward to the predictor."""

from collections.abc import AsyncGenerator, Sequence

from llm_transformer.predictor_client import PredictorClient
from llm_transformer.settings import TransformerSettings
from openinference import text_tensors
from openinference.context import RequestContext
from openinference.generation import Chunk, GenerationRequest
from openinference.messages import ModelMetadata
from openinference.server.lifecycle import Lifecycle
from openinference.service import check_model, server_metadata


class TransformerService:
    """An openinference InferenceService that answers with a predictor's chunks."""

    def __init__(
        self, settings: TransformerSettings, predictor: PredictorClient, lifecycle: Lifecycle
    ) -> None:
        self._model = settings.model_name
        self._check_predictor = settings.enable_predictor_health_check
        self._predictor = predictor
        self._lifecycle = lifecycle
        self.max_timeout_s: float | None = settings.longest_request_s
        self.models: Sequence[str] = (settings.model_name,)
        self.metadata = server_metadata("keepwarm-transformer")

    async def is_live(self) -> bool:
        return True

    async def is_ready(self) -> bool:
        return not self._lifecycle.draining and (
            not self._check_predictor or await self._predictor.is_ready(self._model)
        )

    async def is_model_ready(self, model: str, version: str | None) -> bool:
        check_model(self.models, model, version)
        return await self.is_ready()

    async def model_metadata(self, model: str, version: str | None) -> ModelMetadata:
        check_model(self.models, model, version)
        return text_tensors.model_metadata(model, platform="keepwarm_transformer")

    def generate(
        self, request: GenerationRequest, version: str | None, context: RequestContext
    ) -> AsyncGenerator[Chunk, None]:
        check_model(self.models, request.model, version)
        return self._predictor.generate(request, context)
