"""A server for the drain tests: `python draining_server.py --http_port=... BEHAVIOUR`.

Each stream begins with "begun", waits for the drain, and then tells what it sees; what follows is
the behaviour: `finish` ends, `hang` never does. `fail` raises in the background when asked a
second time. `address` tells the caller's address at once.
"""

import asyncio
import sys

from starlette.applications import Starlette

from openinference import text_tensors
from openinference.generation import Chunk, FinishReason
from openinference.messages import ServerMetadata
from openinference.server import app as server_app
from openinference.server import lifecycle
from openinference.server.settings import ServerSettings


class Service:
    metadata = ServerMetadata("draining", "1", ())
    models = ("m",)
    max_timeout_s = None

    def __init__(self, life, behaviour):
        self.life = life
        self.behaviour = behaviour
        self.asked = asyncio.Event()

    async def is_live(self):
        return True

    async def is_ready(self):
        return not self.life.draining

    async def is_model_ready(self, model, version):
        return await self.is_ready()

    async def model_metadata(self, model, version):
        return text_tensors.model_metadata(model, "draining")

    async def generate(self, request, version, context):
        if self.behaviour == "address":
            yield Chunk(0, context.caller.address, 1, 1, FinishReason.EOS)
            return
        yield Chunk(0, "begun", 1, 1)
        if self.behaviour == "fail":
            self.asked.set()
        await self.life.stopped()
        yield Chunk(0, f"ready={await self.is_ready()}", 1, 2)
        if self.behaviour == "hang":
            await asyncio.Event().wait()
        yield Chunk(0, "done", 1, 3, FinishReason.EOS)

    async def background(self):
        await self.asked.wait()
        raise RuntimeError("the background failed")


async def main(settings, behaviour):
    life = lifecycle.Lifecycle()
    service = Service(life, behaviour)
    app = server_app.build(
        Starlette(), service, max_body_bytes=settings.max_body_bytes, openai=False
    )
    await lifecycle.serve(app, service, settings, life, background=service.background)
    print("served", flush=True)


if __name__ == "__main__":
    asyncio.run(main(ServerSettings.from_args(sys.argv[1:-1]), sys.argv[-1]))
