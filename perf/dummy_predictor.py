"""A V2 gRPC predictor that answers at once: what is left of a request's time is the hop's.

Every prompt is answered with the same text. A stream gives one token at a time, with the pause
between two tokens that its prompt asks for in milliseconds ("5 ms between tokens", say).
"""

import argparse
import asyncio
import gc
from collections.abc import AsyncGenerator, Sequence

import grpc
import uvloop
from canned import ANSWER, piece

from openinference import text_tensors
from openinference.context import RequestContext
from openinference.generation import Chunk, FinishReason, GenerationRequest
from openinference.grpc_servicer import InferenceServicer, register
from openinference.messages import ModelMetadata, ServerMetadata
from openinference.service import check_model


class DummyService:
    """An openinference InferenceService without a model."""

    def __init__(self, model: str) -> None:
        self.models: Sequence[str] = (model,)
        self.metadata = ServerMetadata("dummy", "0", ())
        self.max_timeout_s: float | None = None

    async def is_live(self) -> bool:
        return True

    async def is_ready(self) -> bool:
        return True

    async def is_model_ready(self, model: str, version: str | None) -> bool:
        check_model(self.models, model, version)
        return True

    async def model_metadata(self, model: str, version: str | None) -> ModelMetadata:
        check_model(self.models, model, version)
        return text_tensors.model_metadata(model, "dummy")

    async def generate(
        self, request: GenerationRequest, version: str | None, context: RequestContext
    ) -> AsyncGenerator[Chunk, None]:
        check_model(self.models, request.model, version)
        if not request.stream:
            for index in range(request.sequences):
                yield Chunk(index, ANSWER, 8, 16, FinishReason.EOS)
            return
        pause_s = float(str(request.prompts[0]).split(maxsplit=1)[0]) / 1e3
        tokens = request.sampling.max_tokens or text_tensors.DEFAULT_MAX_TOKENS
        for number in range(1, tokens):
            yield Chunk(0, piece(number), 8, number)
            await asyncio.sleep(pause_s)
        yield Chunk(0, piece(tokens), 8, tokens, FinishReason.LENGTH)


async def serve(model: str, port: int) -> None:
    """Serves until the process is ended."""
    server = grpc.aio.server(options=(("grpc.so_reuseport", 0),))
    register(InferenceServicer(DummyService(model)), server)
    server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    # The less this takes of the core it shares with the driver, the more is left to load with.
    gc.freeze()
    gc.set_threshold(50_000)
    await server.wait_for_termination()


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model_name", required=True)
    parser.add_argument("--grpc_port", type=int, required=True)
    arguments = parser.parse_args()
    uvloop.run(serve(arguments.model_name, arguments.grpc_port))


if __name__ == "__main__":
    main()
