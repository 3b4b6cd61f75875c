"""The stage: clamps, reserves before work, tells the caller, and trues up however it ends."""

import asyncio
from contextlib import aclosing

import pytest

from llm_transformer.auth import Identity
from llm_transformer.limits.addresses import ClientAddresses
from llm_transformer.limits.meter import LocalMeter
from llm_transformer.limits.plans import Plans
from llm_transformer.limits.shared_meter import SharedMeter
from llm_transformer.limits.stage import LimitStage
from llm_transformer.store import StoreUnavailableError
from openinference.context import Cached, Caller, RequestContext
from openinference.errors import (
    DeadlineExceeded,
    InternalError,
    InvalidInput,
    PayloadTooLarge,
    RateLimited,
    Unavailable,
)
from openinference.generation import Chunk, FinishReason, GenerationRequest
from openinference.sampling import SamplingParams

WHO = Identity("k", "acme", "p")
END = FinishReason.EOS
# "Hello" and what a text takes besides.
PROMPT = 5 + 4
MAX = 100


class Engine:
    """A Forward that gives `chunks` and then, perhaps, fails or waits for ever."""

    def __init__(self, *chunks, fail=None, hang=False, cached=None, sent=True):
        self.chunks, self.fail, self.hang = chunks, fail, hang
        self.cached, self.sent = cached, sent
        self.requests = []

    async def generate(self, request, context):
        self.requests.append(request)
        context.reply.cached = self.cached
        context.reply.sent = self.sent
        for chunk in self.chunks:
            yield chunk
        if self.hang:
            await asyncio.Event().wait()
        if self.fail is not None:
            raise self.fail


class Meter(LocalMeter):
    """Remembers what it is told."""

    def __init__(self):
        super().__init__(lambda: 1e9)
        self.asked, self.charged = [], []

    async def reserve(self, ask):
        self.asked.append(ask)
        return await super().reserve(ask)

    def settle(self, lease, tokens):
        self.charged.append(tokens)
        super().settle(lease, tokens)


def _stage(engine, meter=None, trusted=(), **plan):
    return LimitStage(
        engine,
        meter or Meter(),
        Plans.model_validate({"plans": {"p": plan}}),
        addresses=ClientAddresses(trusted),
        template_tokens=0,
        longest_request_s=300,
    )


def _request(max_tokens=MAX, n=1, prompts=("Hello",), *, stream=True):
    return GenerationRequest("m", prompts, SamplingParams(max_tokens, n=n), stream)


def _context(deadline=None, **caller):
    return RequestContext("r", deadline, caller=Caller(**caller))


async def _all(stage, request=None, context=None):
    return [c async for c in stage.generate(request or _request(), context or _context(), WHO)]


TOKENS = {"tokens": {"limit": 1000}}
ONE = Chunk(0, "a", 3, 1)
TWO = Chunk(0, "b", 3, 2)
LAST = Chunk(0, "c", 3, 7, END)


async def test_prompt_and_answers_are_reserved_before_work_and_trued_up_after_it():
    meter, engine = Meter(), Engine(ONE, TWO, LAST)
    assert await _all(_stage(engine, meter, **TOKENS)) == [ONE, TWO, LAST]
    assert [ask.tokens for ask in meter.asked] == [PROMPT + MAX]
    assert meter.charged == [3 + 7]


async def test_each_choice_and_each_prompt_counts():
    answers = [Chunk(index, "x", 3, 5, END) for index in range(4)]
    meter = Meter()
    request = _request(n=2, prompts=("Hello", "Hello"), stream=False)
    await _all(_stage(Engine(*answers), meter, **TOKENS), request)
    assert meter.asked[0].tokens == 2 * PROMPT + 4 * MAX
    assert meter.charged == [2 * 3 + 4 * 5]


# What a request costs: (chunks seen, how it ends, streamed) -> tokens.
ENDS = [
    ("a stream left after two tokens costs these", [ONE, TWO], "left", True, 3 + 2),
    ("a stream left before its first token costs its prompt", [], "left", True, PROMPT),
    ("an answer left before its end may have been made", [], "left", False, PROMPT + MAX),
    ("a deadline may have cut off an answer", [], DeadlineExceeded("x"), False, PROMPT + MAX),
    ("a deadline in a stream costs what was seen", [ONE], DeadlineExceeded("x"), True, 3 + 1),
    ("a fault costs what it brought", [ONE], InternalError(), True, 3 + 1),
    ("a refusal costs nothing", [], Unavailable("full"), True, 0),
]


@pytest.mark.parametrize(("what", "chunks", "end", "stream", "cost"), ENDS)
async def test_what_a_request_costs(what, chunks, end, stream, cost):
    meter = Meter()
    engine = Engine(*chunks, hang=end == "left", fail=None if end == "left" else end)
    stage = _stage(engine, meter, **TOKENS)
    generator = stage.generate(_request(stream=stream), _context(), WHO)
    if end == "left":
        reader = asyncio.create_task(_read(generator))
        async with asyncio.timeout(20):
            while len(engine.requests) < 1:  # noqa: ASYNC110 (a plain state)
                await asyncio.sleep(0)
        for _ in range(10):
            await asyncio.sleep(0)
        reader.cancel()
        await asyncio.gather(reader, return_exceptions=True)
    else:
        with pytest.raises(type(end)):
            await _read(generator)
    assert meter.charged == [cost], what


async def _read(generator):
    async with aclosing(generator):
        async for _ in generator:
            pass


async def test_a_generator_closed_between_two_chunks_gives_its_lease_back():
    meter = Meter()
    stage = _stage(Engine(ONE, TWO, LAST), meter, concurrent=1, **TOKENS)
    generator = stage.generate(_request(), _context(), WHO)
    await anext(generator)
    await generator.aclose()
    assert meter.charged == [3 + 1]
    await _all(stage)


async def test_what_is_refused_before_there_is_a_generator_gives_its_lease_back():
    class Refusing:
        def generate(self, request, context):
            raise InvalidInput("no such directive")

    meter = Meter()
    with pytest.raises(InvalidInput):
        await _all(_stage(Refusing(), meter, **TOKENS))
    assert meter.charged == [0]


async def test_what_never_reached_the_predictor_costs_nothing():
    meter = Meter()
    engine = Engine(fail=DeadlineExceeded("held for a start"), sent=False)
    with pytest.raises(DeadlineExceeded):
        await _all(_stage(engine, meter, **TOKENS), _request(stream=False))
    assert meter.charged == [0]


@pytest.mark.parametrize(
    ("cached", "cost"),
    [
        (Cached.HIT, 0),
        (Cached.COALESCED, 0),
        (Cached.MISS, 10),
        (Cached.BYPASS, 10),
        (None, 10),
    ],
)
async def test_what_the_engine_did_not_make_costs_no_tokens_but_is_a_request(cached, cost):
    meter = Meter()
    context = _context()
    stage = _stage(Engine(LAST, cached=cached), meter, requests={"limit": 60, "burst": 9}, **TOKENS)
    await _all(stage, context=context)
    assert meter.charged == [cost]
    assert '"requests";r=8' in context.reply.headers["ratelimit"]


async def test_over_a_limit_nothing_reaches_the_engine_and_the_caller_is_told_when_to_come_back():
    engine = Engine(LAST)
    stage = _stage(engine, requests={"limit": 60, "burst": 2})
    for _ in range(2):
        await _all(stage)
    context = _context()
    with pytest.raises(
        RateLimited, match="too many requests for your plan; try again in 1 s"
    ) as no:
        await _all(stage, context=context)
    assert no.value.retry_after_s == pytest.approx(1)
    assert len(engine.requests) == 2
    assert context.reply.headers == {
        "ratelimit-policy": '"requests";q=60;w=60',
        "ratelimit": '"requests";r=0;t=2',
    }


async def test_the_headers_name_every_limit():
    context = _context()
    stage = _stage(
        Engine(LAST),
        requests={"limit": 600, "per_s": 30, "burst": 20},
        requests_per_address={"limit": 60},
        concurrent=4,
        tokens={"limit": 1000, "burst": 500},
    )
    await _all(stage, context=context)
    assert context.reply.headers["ratelimit-policy"] == (
        '"requests";q=600;w=30, "address";q=60;w=60, "tokens";q=1000;qu="tokens";w=60, '
        '"concurrent";q=4;qu="concurrent-requests"'
    )
    assert context.reply.headers["ratelimit"] == (
        f'"requests";r=19;t=1, "address";r=5;t=1, "concurrent";r=3, "tokens";r={500 - 109};t=0'
    )


async def test_a_plan_without_limits_says_nothing():
    context, engine = _context(), Engine(LAST)
    await _all(_stage(engine), context=context)
    assert context.reply.headers == {}
    assert engine.requests == [_request()]


async def test_the_answer_is_cut_to_the_plan_and_the_route():
    engine = Engine(LAST)
    stage = _stage(engine, max_tokens=50, max_tokens_by_route={"infer": 5})
    await _all(stage)
    await _all(stage, context=_context(route="infer"))
    await _all(stage, _request(3))
    assert [request.sampling.max_tokens for request in engine.requests] == [50, 5, 3]


async def test_a_request_that_can_never_pass_reserves_nothing():
    meter = Meter()
    with pytest.raises(PayloadTooLarge):
        await _all(_stage(Engine(LAST), meter, tokens={"limit": 9}))
    assert meter.asked == []


async def test_the_lease_lasts_as_long_as_the_request_may():
    meter = Meter()
    stage = _stage(Engine(LAST), meter, **TOKENS)
    now = asyncio.get_running_loop().time()
    await _all(stage, context=_context(now + 40))
    await _all(stage)
    assert [ask.lease_s for ask in meter.asked] == pytest.approx([45, 305], abs=5)


async def test_a_request_past_its_deadline_reserves_nothing():
    meter = Meter()
    with pytest.raises(DeadlineExceeded):
        await _all(_stage(Engine(LAST), meter, **TOKENS), context=_context(0.0))
    assert meter.charged == []


async def test_addresses_are_told_apart_behind_trusted_proxies_only():
    stage = _stage(Engine(LAST), trusted=["10.0.0.0/8"], requests_per_address={"limit": 5})
    for client in ("1.1.1.1", "2.2.2.2"):
        await _all(stage, context=_context(address="10.0.0.1", forwarded_for=client))
    with pytest.raises(RateLimited, match="from your address"):
        await _all(stage, context=_context(address="10.0.0.1", forwarded_for="1.1.1.1"))
    await _all(stage, context=_context(address="9.9.9.9", forwarded_for="3.3.3.3"))
    with pytest.raises(RateLimited):
        await _all(stage, context=_context(address="9.9.9.9", forwarded_for="4.4.4.4"))


async def test_one_key_cannot_take_anothers_share():
    stage = _stage(Engine(LAST), requests={"limit": 10})
    await _all(stage)
    other = Identity("other", "acme", "p")
    assert [c async for c in stage.generate(_request(), _context(), other)] == [LAST]


class Flaky(Meter):
    """A shared meter that may be away."""

    away = False

    async def reserve(self, ask):
        if self.away:
            raise StoreUnavailableError
        return await super().reserve(ask)


async def test_litellm_35533_without_redis_a_replica_keeps_to_its_share_not_the_whole_limit():
    shared = Flaky()
    stage = _stage(
        Engine(LAST), SharedMeter(shared, lambda: 0.5), requests={"limit": 60, "burst": 4}, **TOKENS
    )
    await _all(stage)
    assert shared.charged == [10]
    shared.away = True
    for _ in range(2):
        await _all(stage)
    with pytest.raises(RateLimited):
        await _all(stage)
    assert shared.charged == [10]
    shared.away = False
    await _all(stage)
    assert shared.charged == [10, 10]


async def test_a_request_that_outlives_an_outage_is_settled_in_redis():
    shared = Flaky()
    stage = _stage(Engine(ONE, LAST), SharedMeter(shared, lambda: 1.0), **TOKENS)
    generator = stage.generate(_request(), _context(), WHO)
    await anext(generator)
    shared.away = True
    async for _ in generator:
        pass
    assert shared.charged == [10]


async def test_the_limits_of_a_key_hold_for_many_callers_at_once():
    engine = Engine(ONE, hang=True)
    stage = _stage(engine, concurrent=8)
    callers = [asyncio.create_task(_all(stage)) for _ in range(1000)]
    done, running = await asyncio.wait(callers, timeout=1)
    assert len(running) == 8
    assert all(isinstance(task.exception(), RateLimited) for task in done)
    for task in running:
        task.cancel()
    await asyncio.gather(*running, return_exceptions=True)
    verdict, _ = await stage._meter.reserve(stage._meter.asked[0])
    assert verdict.concurrent == 7
