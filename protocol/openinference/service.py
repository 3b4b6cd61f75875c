"""The one small interface between protocols and what answers them.

The REST routes and the gRPC servicer are written against it; the predictor implements it with an
engine, the transformer with its stages and a predictor client.
"""

from collections.abc import AsyncGenerator, Sequence
from importlib.metadata import version as distribution_version
from typing import Protocol

from openinference.context import RequestContext
from openinference.errors import NotFound
from openinference.generation import Chunk, GenerationRequest
from openinference.messages import ModelMetadata, ModelStatus, ServerMetadata

# What the edges offer beyond the core of V2.
EXTENSIONS = ("binary_tensor_data", "generate")


class InferenceService(Protocol):
    """What a server must know and do."""

    @property
    def metadata(self) -> ServerMetadata:
        """Name, version and extensions of the server."""

    @property
    def models(self) -> Sequence[str]:
        """Names of the served models."""

    @property
    def max_timeout_s(self) -> float | None:
        """The server's own bound on a request, in seconds; None is no bound."""

    async def is_live(self) -> bool:
        """Whether the process works; False asks for a restart."""

    async def is_ready(self) -> bool:
        """Whether every model can answer now."""

    async def is_model_ready(self, model: str, version: str | None) -> bool:
        """Whether this model can answer now; raises NotFound for an unknown one."""

    async def model_metadata(self, model: str, version: str | None) -> ModelMetadata:
        """The model's tensors; raises NotFound for an unknown one."""

    async def model_status(self, model: str, version: str | None) -> ModelStatus:
        """How far the model's start is; wakes nothing. Raises NotFound for an unknown one."""

    def generate(
        self, request: GenerationRequest, version: str | None, context: RequestContext
    ) -> AsyncGenerator[Chunk, None]:
        """The chunks that answer `request`.

        Every error comes as a ServingError, those that are known before generation starts before
        the first chunk. Closing the iterator aborts the generation.
        """


def server_metadata(name: str) -> ServerMetadata:
    """The metadata of a server of ours; the extensions are those that the edges offer."""
    return ServerMetadata(name, distribution_version("keepwarm"), EXTENSIONS)


async def repository_index(service: InferenceService, *, only_ready: bool) -> list[tuple[str, str]]:
    """Each model's name and state, READY or UNAVAILABLE: Triton's words."""
    states = [
        (name, "READY" if await service.is_model_ready(name, None) else "UNAVAILABLE")
        for name in service.models
    ]
    return [each for each in states if each[1] == "READY" or not only_ready]


def check_model(models: Sequence[str], model: str, version: str | None) -> None:
    """Raises NotFound unless `model` is one of `models`; our models have no versions."""
    if model not in models:
        raise NotFound(f"model {model!r:.80} not found")
    if version is not None:
        raise NotFound(f"model '{model}' has no version {version!r:.40}: it is not versioned")
