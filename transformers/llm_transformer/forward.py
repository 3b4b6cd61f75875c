"""The last stage's face: what turns a request that may pass into a predictor's chunks.

`routed.RoutedForward` is what serves: a `resilience.stage.ForwardStage` for each predictor, which
holds, queues and repeats around a PredictorClient.
"""

from collections.abc import AsyncGenerator
from typing import Protocol

from openinference.context import RequestContext
from openinference.generation import Chunk, GenerationRequest
from openinference.messages import ModelStatus


class Forward(Protocol):
    """What the stages before it call."""

    def generate(
        self, request: GenerationRequest, context: RequestContext
    ) -> AsyncGenerator[Chunk, None]:
        """The predictor's chunks; closing the generator ends the work there.

        By its end or error `context.reply.weights_id` is set where the predictor tells it.
        Raises a ServingError.
        """

    async def is_ready(self, model: str) -> bool:
        """Whether the predictor says that it can answer for `model`; False when out of reach."""

    def status(self, model: str) -> ModelStatus:
        """How far the start of the predictor of `model` is, as far as it is known; asks nobody."""
