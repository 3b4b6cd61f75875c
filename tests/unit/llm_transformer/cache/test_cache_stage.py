"""The stage over a scripted predictor: what is kept, for whom, how long, and who is told what."""

import asyncio
import math
from collections import Counter
from contextlib import aclosing

import pytest
from prometheus_client import REGISTRY

from openinference import errors
from openinference.context import Cached
from openinference.generation import Chunk, FinishReason
from openinference.messages import ModelState

from .scripted import HEL, LO, answer, ask, outcome, until, who

TOO_LONG = errors.InvalidInput("the prompt is too long")


def _metric(name, **labels):
    return REGISTRY.get_sample_value(f"keepwarm_cache_{name}", labels) or 0.0


async def test_the_second_time_the_engine_does_not_work(make, predictor):
    stage = make()
    assert await outcome(stage, ask()) == ("miss", "Hello")
    assert await outcome(stage, ask()) == ("hit", "Hello")
    assert predictor.calls == 1


async def test_a_stream_is_replayed_chunk_by_chunk_and_whole_for_who_wants_it_whole(
    make, predictor
):
    stage = make()
    await answer(stage, ask())
    assert await answer(stage, ask()) == [HEL, LO]
    assert await answer(stage, ask(stream=False)) == [Chunk(0, "Hello", 3, 2, FinishReason.EOS)]
    assert predictor.calls == 1


@pytest.mark.parametrize(
    ("sampling", "cache_control", "told"),
    [
        ({"temperature": 0.7}, None, "bypass bypass"),
        ({"temperature": 0.7, "seed": 1}, None, "miss hit"),
        ({"temperature": 0.7}, "sampled", "miss hit"),
        ({}, "no-store", "bypass bypass"),
        ({}, "no-cache", "miss miss"),
        ({}, "max-age=60", "miss hit"),
    ],
)
async def test_what_is_answered_twice_alike(make, sampling, cache_control, told):
    stage = make()
    twice = [await outcome(stage, ask(**sampling), who(cache_control)) for _ in range(2)]
    assert " ".join(told for told, _ in twice) == told


async def test_no_cache_puts_a_new_answer_in_place_of_the_old_one(make, predictor):
    stage = make()
    await answer(stage, ask())
    predictor.script = [Chunk(0, "New", 3, 1, FinishReason.EOS)]
    assert await outcome(stage, ask(), who("no-cache")) == ("miss", "New")
    assert await outcome(stage, ask()) == ("hit", "New")


async def test_no_store_neither_reads_nor_writes(make, predictor):
    stage = make()
    await outcome(stage, ask(), who("no-store"))
    assert await outcome(stage, ask()) == ("miss", "Hello")
    predictor.script = [Chunk(0, "New", 3, 1, FinishReason.EOS)]
    assert await outcome(stage, ask(), who("no-store")) == ("bypass", "New")
    assert await outcome(stage, ask()) == ("hit", "Hello")


async def test_max_age_is_the_oldest_that_will_do(make, predictor, clock):
    stage = make()
    await answer(stage, ask())
    clock.forward(100)
    assert (await outcome(stage, ask(), who("max-age=101")))[0] == "hit"
    assert (await outcome(stage, ask(), who("max-age=99")))[0] == "miss"


async def test_only_if_cached_never_asks_the_engine(make, predictor):
    stage = make()
    assert await outcome(stage, ask(), who("only-if-cached")) == ("miss", "DeadlineExceeded")
    assert predictor.calls == 0
    await answer(stage, ask())
    assert await outcome(stage, ask(), who("only-if-cached")) == ("hit", "Hello")


async def test_tenants_do_not_see_each_others_answers_unless_they_share(make, predictor):
    stage = make()
    for tenant in ("acme", "umbrella", None):
        assert (await outcome(stage, ask(), who(tenant=tenant)))[0] == "miss"
    shared = make(by_tenant=False)
    assert (await outcome(shared, ask(), who(tenant="acme")))[0] == "miss"
    assert (await outcome(shared, ask(), who(tenant="umbrella")))[0] == "hit"


async def test_headers_tell_the_age_the_life_and_what_it_is(make, clock):
    stage = make()
    first, second = who(), who()
    await answer(stage, ask(stream=False), first)
    clock.forward(12)
    await answer(stage, ask(stream=False), second)
    life = first.reply.headers["cache-control"]
    etag = first.reply.headers["etag"]
    assert first.reply.headers == {"x-cache": "miss", "cache-control": life, "etag": etag}
    visibility, _, seconds = life.partition(", max-age=")
    assert visibility == "private"
    assert 300 <= int(seconds) <= 600
    age = second.reply.headers.pop("age")
    assert second.reply.headers == {"x-cache": "hit", "cache-control": life, "etag": etag}
    assert 12 <= int(age) <= 15
    passed = who("no-store")
    await answer(stage, ask(), passed)
    assert passed.reply.headers == {"x-cache": "bypass", "cache-control": "no-store"}
    everybody = who()
    await answer(make(by_tenant=False), ask(), everybody)
    assert everybody.reply.headers["cache-control"].startswith("public, ")


async def test_after_new_weights_have_answered_the_old_answers_are_dead(make, predictor):
    stage = make()
    await answer(stage, ask())
    predictor.weights_id = "w2"
    assert (await outcome(stage, ask()))[0] == "hit"  # nobody knows yet
    await answer(stage, ask("something else", temperature=1.0))  # also what is not kept tells
    assert (await outcome(stage, ask()))[0] == "miss"
    assert (await outcome(stage, ask()))[0] == "hit"
    predictor.weights_id = "w1"  # a rollback
    await answer(stage, ask("a third"))
    assert (await outcome(stage, ask()))[0] == "hit"


async def test_new_weights_of_an_adapter_leave_the_others_alone(make, predictor):
    stage = make()
    for model in ("m", "adapter"):
        predictor.weights_id = f"w-{model}"
        await answer(stage, ask(model=model))
    predictor.weights_id = "w-new"
    await answer(stage, ask("else", model="adapter"))
    assert (await outcome(stage, ask(model="m")))[0] == "hit"
    assert (await outcome(stage, ask(model="adapter")))[0] == "miss"


async def test_answers_of_unknown_weights_are_not_kept_unless_an_id_is_assumed(make, predictor):
    predictor.weights_id = None
    stage = make()
    assert [(await outcome(stage, ask()))[0] for _ in range(2)] == ["miss", "miss"]
    stage = make(assumed="v1")
    assert [(await outcome(stage, ask()))[0] for _ in range(2)] == ["miss", "hit"]


@pytest.mark.parametrize(
    "script",
    [
        [HEL],
        [HEL, errors.Unavailable("the engine has ended")],
        [HEL, errors.DeadlineExceeded("the request's deadline has passed")],
        [errors.Unavailable("full", retry_after_s=1)],
        [errors.NotFound("no such adapter")],
        [errors.InternalError()],
        [HEL, RuntimeError("a bug")],
    ],
)
async def test_nothing_but_whole_answers_is_kept(make, predictor, script):
    stage = make()
    predictor.script = script
    context = who()
    first = await outcome(stage, ask(), context)
    assert first[0] == "miss"
    predictor.script = [HEL, LO]
    assert await outcome(stage, ask()) == ("miss", "Hello")


async def test_an_error_is_not_for_anybody_to_keep(make, predictor):
    predictor.script = [errors.Unavailable("full", retry_after_s=1)]
    context = who()
    await outcome(make(), ask(), context)
    assert context.reply.headers == {"x-cache": "miss", "cache-control": "no-store"}


async def test_an_answer_over_the_bound_is_passed_on_and_not_kept(make, predictor):
    stage = make(record_bytes=1000)
    chunks = [Chunk(0, "word ", 3, number) for number in range(1, 2000)]
    predictor.script = [*chunks, LO]
    assert await answer(stage, ask()) == predictor.script
    assert (await outcome(stage, ask()))[0] == "miss"


async def test_a_slow_reader_holds_back_what_is_too_large_to_keep(make, predictor):
    stage = make(record_bytes=1000)
    made = 0

    async def endless(request, context):
        nonlocal made
        while made < 100_000:
            made += 1
            yield Chunk(0, "word ", 3, made)

    predictor.generate = endless
    async with aclosing(stage.generate(ask(), who())) as chunks:
        async for chunk in chunks:
            await asyncio.sleep(0)
            if chunk.num_output_tokens == 1000:
                break
    assert made < 2000


# Penetration: what nobody can answer is asked for again and again.
@pytest.mark.parametrize(("negative_ttl_s", "calls"), [(60, 1), (0, 100)])
async def test_a_request_that_always_fails_reaches_the_engine_once_a_minute(
    make, predictor, clock, negative_ttl_s, calls
):
    predictor.script = [TOO_LONG]
    stage = make(negative_ttl_s=negative_ttl_s)
    for _ in range(100):
        context = who()
        told, got = await outcome(stage, ask(), context)
        assert got == "InvalidInput"
    assert predictor.calls == calls
    if negative_ttl_s:
        assert (told, context.reply.headers["cache-control"]) == ("hit", "private, max-age=60")
        clock.forward(60)
        await outcome(stage, ask())
        assert predictor.calls == 2


# Avalanche: what was made together dies together, unless lives differ.
@pytest.mark.parametrize(("least", "most", "together"), [(300, 600, False), (450, 450, True)])
async def test_answers_made_together_do_not_die_together(make, clock, least, most, together):
    stage = make(ttl_least_s=least, ttl_most_s=most, most_bytes=2**24)
    for number in range(300):
        await answer(stage, ask(f"{number}"))
    gone = Counter()
    for minute in range(1, 12):
        clock.forward(60)
        for number in range(300):
            told, _ = await outcome(stage, ask(f"{number}"), who("only-if-cached"))
            gone[minute] += told == "miss"
    died = [gone[minute] - gone[minute - 1] for minute in range(1, 12)]
    assert sum(died) == 300
    # Evenly over five minutes that is 60 a minute.
    assert (max(died) == 300) is together
    assert together or max(died) < 110


# Breakdown: an answer that everybody wants dies, and everybody asks at once.
@pytest.mark.parametrize(("cache_control", "calls"), [(None, 2), ("no-store", 201)])
async def test_when_a_hot_answer_expires_the_engine_works_once(
    make, predictor, clock, cache_control, calls
):
    stage = make()
    await answer(stage, ask())
    clock.forward(601)
    outcomes = await asyncio.gather(
        *(outcome(stage, ask(), who(cache_control)) for _ in range(200))
    )
    assert {got for _, got in outcomes} == {"Hello"}
    assert predictor.calls == calls
    if cache_control is None:
        assert Counter(told for told, _ in outcomes) == {"miss": 1, "coalesced": 199}


async def test_who_comes_late_gets_the_stream_from_its_beginning_and_piece_by_piece(
    make, predictor
):
    stage = make()
    rest = asyncio.Event()
    predictor.script = [HEL, rest, LO]
    async with aclosing(stage.generate(ask(), who())) as first:
        assert await anext(first) == HEL
        late = who()
        async with aclosing(stage.generate(ask(), late)) as second:
            assert await anext(second) == HEL
            assert late.reply.cached is Cached.COALESCED
            rest.set()
            assert [chunk async for chunk in second] == [LO]
        assert [chunk async for chunk in first] == [LO]
    assert predictor.calls == 1


async def test_a_client_that_leaves_alone_ends_the_work(make, predictor):
    stage = make()
    predictor.script = [HEL, asyncio.Event()]
    async with aclosing(stage.generate(ask(), who())) as chunks:
        await anext(chunks)
    await until(lambda: predictor.aborted == 1)
    predictor.script = [HEL, LO]
    assert await outcome(stage, ask()) == ("miss", "Hello")


async def test_a_caller_cancelled_before_the_first_chunk_ends_the_work_too(make, predictor):
    stage = make()
    predictor.script = [asyncio.Event()]
    task = asyncio.create_task(answer(stage, ask()))
    await until(lambda: predictor.calls == 1)
    task.cancel()
    await until(lambda: predictor.aborted == 1)


async def test_when_who_began_leaves_the_work_goes_on_and_another_one_stands_for_it(
    make, predictor
):
    stage = make()
    rest = asyncio.Event()
    predictor.script = [HEL, rest, LO]
    leaver, heir, other = who(), who(), who()
    async with aclosing(stage.generate(ask(), leaver)) as first:
        await anext(first)
        followers = [asyncio.create_task(answer(stage, ask(), each)) for each in (heir, other)]
        await until(lambda: other.reply.cached is not None)
        assert (heir.reply.cached, other.reply.cached) == (Cached.COALESCED, Cached.COALESCED)
    rest.set()
    assert await asyncio.gather(*followers) == [[HEL, LO], [HEL, LO]]
    # Else a tenant's work would be free for who sends it twice and leaves once.
    assert (heir.reply.cached, other.reply.cached) == (Cached.MISS, Cached.COALESCED)
    assert leaver.reply.cached is Cached.COALESCED
    assert (predictor.calls, predictor.aborted) == (1, 0)


async def test_followers_keep_their_own_deadlines(make, predictor):
    stage = make()
    rest = asyncio.Event()
    predictor.script = [rest, HEL, LO]
    now = asyncio.get_running_loop().time()
    patient = asyncio.create_task(answer(stage, ask(), who(deadline=now + 100)))
    await until(lambda: predictor.calls == 1)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):  # as the edge does
            await answer(stage, ask(), who(deadline=now + 0.01))
    rest.set()
    assert await patient == [HEL, LO]


async def test_the_work_is_not_bound_by_the_deadline_of_who_began_it(make, predictor):
    stage = make(flight_s=300)
    now = asyncio.get_running_loop().time()
    await answer(stage, ask(), who(deadline=now + 1))
    (context,) = predictor.contexts
    assert context.deadline - now > 299


async def test_an_error_reaches_all_who_wait_and_is_not_asked_for_again_by_each(make, predictor):
    stage = make()
    gate = asyncio.Event()
    predictor.script = [gate, errors.Unavailable("full", retry_after_s=1)]
    tasks = [asyncio.create_task(outcome(stage, ask())) for _ in range(50)]
    await until(lambda: predictor.calls == 1)
    gate.set()
    outcomes = await asyncio.gather(*tasks)
    assert {got for _, got in outcomes} == {"Unavailable"}
    assert predictor.calls == 1


async def test_a_person_does_not_wait_behind_a_batch_job_and_the_job_may_follow_him(
    make, predictor
):
    stage = make()
    gate = asyncio.Event()
    predictor.script = [gate, HEL, LO]
    asked = [(-1, 1), (0, 2), (-1, 2), (0, 2)]
    tasks = []
    for priority, calls in asked:
        tasks.append(asyncio.create_task(answer(stage, ask(), who(priority=priority))))
        await until(lambda calls=calls: predictor.calls == calls)
    gate.set()
    assert await asyncio.gather(*tasks) == [[HEL, LO]] * 4
    assert predictor.calls == 2


async def test_a_hit_does_not_wake_a_sleeping_model_and_a_miss_waits_for_it(make, predictor):
    stage = make()
    await answer(stage, ask())
    predictor.state = ModelState.ASLEEP
    assert (await outcome(stage, ask()))[0] == "hit"
    assert predictor.waited == 0
    assert (await outcome(stage, ask("new")))[0] == "miss"
    assert predictor.waited == 1
    predictor.state = ModelState.ASLEEP

    async def away(model, context):
        raise errors.Unavailable("the predictor cannot be reached")

    predictor.awake = away
    context = who()
    assert await outcome(stage, ask("newer"), context) == ("miss", "Unavailable")
    assert context.reply.headers["cache-control"] == "no-store"


async def test_each_caller_waits_for_a_start_by_himself_then_one_generates(make, predictor):
    stage = make()
    predictor.state = ModelState.ASLEEP
    awake = asyncio.Event()

    async def wait(model, context):
        predictor.waited += 1
        if context.caller.nowait:
            raise errors.Waking("starting", model="m")
        await awake.wait()

    predictor.awake = wait
    tasks = [asyncio.create_task(outcome(stage, ask())) for _ in range(20)]
    await until(lambda: predictor.waited == 20)
    awake.set()
    outcomes = await asyncio.gather(*tasks)
    assert Counter(told for told, _ in outcomes) == {"miss": 1, "coalesced": 19}
    assert predictor.calls == 1


async def test_metrics_count_what_was_done(make, predictor):
    def counts():
        return (
            _metric("misses_total"),
            _metric("hits_total", level="l1", kind="answer"),
            _metric("hits_total", level="l1", kind="error"),
            _metric("coalesced_total", where="process"),
            _metric("bypassed_total", reason="sampled"),
            _metric("bypassed_total", reason="no_store"),
            _metric("negative_entries_total"),
            _metric("saved_tokens_total", kind="prompt"),
            _metric("saved_tokens_total", kind="completion"),
        )

    stage, before = make(), counts()
    for _ in range(3):
        await outcome(stage, ask())
    await asyncio.gather(*(outcome(stage, ask("two")) for _ in range(2)))
    await outcome(stage, ask(temperature=1.0))
    await outcome(stage, ask(), who("no-store"))
    predictor.script = [TOO_LONG]
    for _ in range(2):
        await outcome(stage, ask("bad"))
    assert [after - at for after, at in zip(counts(), before, strict=True)] == [
        *(3, 2, 1, 1, 1, 1, 1),
        # Two hits and the coalesced one, of 3 tokens in and 2 out.
        *(9, 6),
    ]
    assert _metric("bytes") == stage.shelf._local.bytes
    assert _metric("entries") == 3
    assert not math.isnan(_metric("evictions_total", reason="expired"))
