"""The transformer's stages in a straight line, the predictor's forward stage last."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from typing import Protocol

from llm_transformer.auth import Identity
from llm_transformer.cache.stage import CachedForward
from llm_transformer.forward import Forward
from llm_transformer.measured import count, measured
from llm_transformer.models import ModelTable, model_table
from llm_transformer.settings import TransformerSettings
from openinference import text_tensors
from openinference.context import RequestContext
from openinference.generation import Chunk, GenerationRequest
from openinference.messages import ModelMetadata, ModelStatus
from openinference.server.lifecycle import Lifecycle
from openinference.service import check_model, server_metadata


class Authenticates(Protocol):
    """The first stage; see Authenticator."""

    def identify(self, context: RequestContext, model: str) -> Identity:
        """Who calls."""


class Limits(Protocol):
    """The stage behind it; see LimitStage."""

    def generate(
        self, request: GenerationRequest, context: RequestContext, identity: Identity
    ) -> AsyncGenerator[Chunk, None]:
        """The chunks that answer `request` once it may pass."""


class TransformerService:
    """An openinference InferenceService that answers with a predictor's chunks."""

    def __init__(
        self,
        settings: TransformerSettings,
        forward: Forward,
        lifecycle: Lifecycle,
        *,
        auth: Authenticates,
        limits: Limits | None = None,
        table: ModelTable | None = None,
    ) -> None:
        """`limits` stands in front of `forward`; None limits nothing.

        `table` says what is served; None is what the settings mean.
        """
        table = table or model_table(settings)
        self._asked = tuple(each.first for each in table.predictors)
        self._check_predictor = settings.enable_predictor_health_check
        self._forward = forward
        self._lifecycle = lifecycle
        self._auth = auth
        self._limits = limits
        # What may have an answer at hand; not where limits are kept, which may have to ask Redis.
        self._keeper = forward if limits is None and isinstance(forward, CachedForward) else None
        self.max_timeout_s: float | None = settings.longest_request_s
        self.models: Sequence[str] = table.names
        self.metadata = server_metadata("keepwarm-transformer")

    async def is_live(self) -> bool:
        return True

    async def is_ready(self) -> bool:
        return await self._can_answer(*self._asked)

    async def is_model_ready(self, model: str, version: str | None) -> bool:
        check_model(self.models, model, version)
        return await self._can_answer(model)

    async def model_metadata(self, model: str, version: str | None) -> ModelMetadata:
        check_model(self.models, model, version)
        return text_tensors.model_metadata(model, platform="keepwarm_transformer")

    async def model_status(self, model: str, version: str | None) -> ModelStatus:
        check_model(self.models, model, version)
        return self._forward.status(model)

    async def _can_answer(self, *models: str) -> bool:
        """Whether the process serves and, if predictors are to be asked, theirs say yes."""
        if self._lifecycle.draining:
            return False
        if not self._check_predictor:
            return True
        return all(await asyncio.gather(*map(self._forward.is_ready, models)))

    @property
    def keeps(self) -> bool:
        """Whether `kept` ever has an answer."""
        return self._keeper is not None

    def kept(
        self, request: GenerationRequest, version: str | None, context: RequestContext
    ) -> tuple[Chunk, ...] | None:
        """The chunks of an answer that this process has and may give at once; None, if not so."""
        if self._keeper is None:
            return None
        identity = self._auth.identify(context, request.model)
        check_model(self.models, request.model, version)
        chunks = self._keeper.kept(request, identity.tenant, context)
        if chunks is not None:
            count(chunks, request, identity.plan, context)
        return chunks

    def generate(
        self, request: GenerationRequest, version: str | None, context: RequestContext
    ) -> AsyncGenerator[Chunk, None]:
        identity = self._auth.identify(context, request.model)
        check_model(self.models, request.model, version)
        context = identity.stamped(context)
        chunks = (
            self._forward.generate(request, context)
            if self._limits is None
            else self._limits.generate(request, context, identity)
        )
        return measured(chunks, request, context)
