"""A predictor that plays a script, and how the tests ask the stage in front of it."""

import asyncio
import time
from contextlib import aclosing

from openinference import clock
from openinference.context import Caller, RequestContext
from openinference.errors import ServingError
from openinference.generation import Chunk, FinishReason, GenerationRequest
from openinference.messages import ModelState, ModelStatus
from openinference.sampling import SamplingParams

HEL, LO = Chunk(0, "Hel", 3, 1), Chunk(0, "lo", 3, 2, FinishReason.EOS)


def ask(text="Hi", *, stream=True, model="m", **sampling):
    return GenerationRequest(
        model, (text,), SamplingParams(**{"max_tokens": 8, "temperature": 0.0, **sampling}), stream
    )


def who(cache_control=None, *, tenant="acme", priority=0, deadline=None):
    return RequestContext(
        "abc",
        deadline,
        tenant=tenant,
        priority=priority,
        caller=Caller(cache_control=cache_control),
    )


class FakePredictor:
    """Plays `script`: chunks, errors, events to wait for. Counts calls and those given up."""

    def __init__(self):
        self.script = [HEL, LO]
        self.weights_id = "w1"
        self.state = ModelState.READY
        self.contexts = []
        self.aborted = 0
        self.waited = 0

    @property
    def calls(self):
        return len(self.contexts)

    async def generate(self, request, context):
        self.contexts.append(context)
        ended = False
        try:
            for step in self.script:
                if isinstance(step, asyncio.Event):
                    await step.wait()
                elif isinstance(step, Exception):
                    ended = True
                    context.reply.weights_id = self.weights_id
                    raise step
                else:
                    yield step
            context.reply.weights_id = self.weights_id
            ended = True
        finally:
            self.aborted += not ended

    async def is_ready(self, model):
        return True

    async def awake(self, model, context):
        self.waited += 1
        self.state = ModelState.READY

    def status(self, model):
        return ModelStatus(self.state)


class Clock:
    """Moves the clock on, for what asks the loop or our own clock for the time."""

    def __init__(self, monkeypatch):
        self._loop = asyncio.get_running_loop()
        self._real = type(self._loop).time
        self.ahead = 0.0
        monkeypatch.setattr(
            self._loop, "time", lambda: self._real(self._loop) + self.ahead, raising=False
        )
        monkeypatch.setattr(clock, "now", lambda: time.monotonic() + self.ahead)

    def forward(self, seconds):
        self.ahead += seconds


async def answer(stage, request, context=None):
    """The chunks; all that is to be kept has been written."""
    async with aclosing(stage.generate(request, context or who())) as chunks:
        got = [chunk async for chunk in chunks]
    await stage.settled()
    return got


async def outcome(stage, request, context=None):
    """What X-Cache says, and the text or the error's class."""
    context = context or who()
    try:
        got = "".join(chunk.text for chunk in await answer(stage, request, context))
    except ServingError as error:
        got = type(error).__name__
    told = context.reply.headers.get("x-cache")
    assert told == context.reply.cached
    return told, got


async def until(condition):
    """Waits for what has no event."""
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110 (what it looks at has no events)
            await asyncio.sleep(0.001)
