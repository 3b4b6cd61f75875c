"""One transformer's protective stages in this process, over a real Redis and no predictor."""

import asyncio
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from prometheus_client import REGISTRY

from llm_transformer import stages
from llm_transformer.settings import TransformerSettings
from openinference.context import Caller, RequestContext
from openinference.errors import RateLimited
from openinference.generation import Chunk, FinishReason, GenerationRequest
from openinference.sampling import SamplingParams

# Long enough for a busy machine: what does not answer is waited for in vain.
TIMEOUT_S = 0.3
REFUSED = "limited"


@dataclass
class Streams:
    """A Forward whose answers go on until they are told to end."""

    end: asyncio.Event = field(default_factory=asyncio.Event)

    async def generate(self, request: GenerationRequest, context: RequestContext) -> Any:
        context.reply.sent = True
        if request.stream:
            yield Chunk(0, "", 2, 1)
            await self.end.wait()
        yield Chunk(0, "x", 2, 8, FinishReason.EOS)


class Replica:
    """Opened by `opened`; asks as one anonymous caller."""

    def __init__(self, stack: AsyncExitStack, store: Any, protection: stages.Protection) -> None:
        self.stack, self.store = stack, store
        self._protection = protection
        self.forward: Streams | None = None

    async def ask(self, *, stream: bool = False) -> str:
        """One request to its end: "answered" or "limited"; anything else is raised."""
        generator = self._generate(stream=stream)
        try:
            async for _ in generator:
                pass
        except RateLimited:
            return REFUSED
        return "answered"

    async def asks(self, count: int) -> int:
        """How many of `count` requests, one after the other, are answered."""
        return [await self.ask() for _ in range(count)].count("answered")

    async def open_stream(self) -> asyncio.Task[str]:
        """A stream that has begun; it ends when `forward.end` is set."""
        generator = self._generate(stream=True)
        await anext(generator)

        async def rest() -> str:
            async for _ in generator:
                pass
            return "answered"

        return asyncio.create_task(rest())

    def _generate(self, *, stream: bool) -> Any:
        context = RequestContext("r", caller=Caller())
        request = GenerationRequest("m", ("Hello",), SamplingParams(max_tokens=8), stream)
        identity = self._protection.auth.identify(context, "m")
        assert self._protection.limits is not None
        return self._protection.limits.generate(request, context, identity)


async def opened(
    stack: AsyncExitStack, folder: Path, url: str, assumed: int, **plan: Any
) -> Replica:
    """A replica that shares `url` with others, `assumed` until it has counted; one plan for all."""
    path = folder / "plans.yaml"
    path.write_text(yaml.safe_dump({"plans": {"anonymous": plan}}))
    settings = TransformerSettings(
        model_name="m",
        predictor_host="p",
        allow_anonymous=True,
        plans_file=str(path),
        redis_url=url,
        redis_timeout_s=TIMEOUT_S,
        redis_replicas=assumed,
    )
    forward = Streams()
    own = await stack.enter_async_context(AsyncExitStack())
    store = await own.enter_async_context(stages.shared_store(settings))
    made = await own.enter_async_context(stages.protection(settings, forward, store))
    replica = Replica(own, store, made)
    replica.forward = forward
    return replica


def metric(name: str, **labels: str) -> float:
    """A metric of this process."""
    return REGISTRY.get_sample_value(name, labels) or 0.0
