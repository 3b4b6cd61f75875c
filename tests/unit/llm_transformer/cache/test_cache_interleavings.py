"""Any order of callers who come and leave and of failures: nobody is cheated, nothing is left."""

import asyncio
from contextlib import suppress

from hypothesis import given, settings
from hypothesis import strategies as st

from llm_transformer.cache.local import LocalCache
from llm_transformer.cache.policy import CachePolicy
from llm_transformer.cache.shared import NoSharedCache
from llm_transformer.cache.shelf import Shelf
from llm_transformer.cache.stage import CachedForward
from llm_transformer.cache.weights import Weights
from openinference.context import Cached
from openinference.errors import ServingError, Unavailable
from openinference.generation import Chunk, FinishReason
from openinference.messages import ModelState, ModelStatus

from .scripted import ask, who

TOKENS = 4
STREAM = [Chunk(0, f"{number}", 3, number) for number in range(1, TOKENS)]
STREAM.append(Chunk(0, "end", 3, TOKENS, FinishReason.EOS))

# What happens next: a caller comes (batch or not, fresh or not), one leaves, the engine makes a
# token, or fails.
steps = st.lists(
    st.one_of(
        st.tuples(st.just("come"), st.sampled_from([0, -1]), st.sampled_from([None, "no-cache"])),
        st.tuples(st.just("leave"), st.integers(0, 9)),
        st.tuples(st.just("token")),
        st.tuples(st.just("fail")),
    ),
    max_size=40,
)


class SteppedEngine:
    """Makes a token for every generation in flight when told to."""

    def __init__(self):
        self.tick = asyncio.Condition()
        self.ticks = 0
        self.failing = False
        self.running = 0
        self.finished = 0

    async def generate(self, request, context):
        self.running += 1
        context.reply.sent = True
        try:
            for chunk in STREAM:
                at = self.ticks
                async with self.tick:
                    await self.tick.wait_for(lambda at=at: self.ticks > at)
                if self.failing:
                    raise Unavailable("the engine has ended")
                yield chunk
            context.reply.weights_id = "w"
            self.finished += 1
        finally:
            self.running -= 1

    async def step(self, *, failing=False):
        self.failing = failing
        async with self.tick:
            self.ticks += 1
            self.tick.notify_all()

    async def awake(self, model, context):
        return

    def status(self, model):
        return ModelStatus(ModelState.READY)


async def _settle():
    for _ in range(12):
        await asyncio.sleep(0)


async def _play(script):
    engine = SteppedEngine()
    shelf = Shelf(LocalCache(2**20), NoSharedCache(), Weights(NoSharedCache(), None))
    stage = CachedForward(engine, CachePolicy(), shelf)
    callers = []

    async def call(context):
        return [chunk async for chunk in stage.generate(ask(), context)]

    for action, *details in script:
        if action == "come":
            context = who(details[1], priority=details[0])
            callers.append((asyncio.create_task(call(context)), context))
        elif action == "leave" and callers:
            callers[details[0] % len(callers)][0].cancel()
        elif action in ("token", "fail"):
            await engine.step(failing=action == "fail")
        await _settle()
        here = sum(not task.done() for task, _ in callers)
        # Work goes on only for somebody, and for no more than ask for it.
        assert engine.running <= here
    for _ in range(TOKENS):
        await engine.step()
        await _settle()
    charged = 0
    for task, context in callers:
        assert task.done()
        with suppress(asyncio.CancelledError, ServingError):
            assert task.result() == STREAM
            charged += context.reply.cached is Cached.MISS
    assert engine.running == 0
    # Every work that came to its end was charged to exactly one who saw it.
    assert charged == engine.finished
    assert not stage._flights._under_way
    await stage.close()


@settings(max_examples=300)
@given(steps)
def test_everybody_gets_all_or_an_error_and_each_work_has_one_who_pays(script):
    asyncio.run(_play(script))
