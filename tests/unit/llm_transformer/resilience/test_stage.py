"""The stage over a scripted predictor: what is held, repeated, refused, and with which words."""

import asyncio
from contextlib import aclosing

import pytest
from prometheus_client import REGISTRY

from llm_transformer.resilience.backlog import BacklogPolicy
from llm_transformer.resilience.breaker import BreakerPolicy, CircuitBreaker
from llm_transformer.resilience.gate import Gate
from llm_transformer.resilience.limit import ConcurrencyLimit
from llm_transformer.resilience.retry_budget import RetryBudget
from llm_transformer.resilience.stage import ForwardStage
from llm_transformer.resilience.start_times import Start, StartTimes
from llm_transformer.resilience.wakeup import Probe, WakePolicy, Wakeup
from openinference import errors
from openinference.context import Caller, RequestContext
from openinference.errors import Reason, Unavailable
from openinference.generation import Chunk, FinishReason, GenerationRequest
from openinference.sampling import SamplingParams

REQUEST = GenerationRequest("m", ("Hi",), SamplingParams(), stream=True)
HEL, LO = Chunk(0, "Hel", 1, 1), Chunk(0, "lo", 1, 2, FinishReason.EOS)
UNREACHABLE = Unavailable("gone", retry_after_s=1, reason=Reason.UNREACHABLE)
FULL = Unavailable("full", retry_after_s=3, reason=Reason.FULL)
STARTING = Unavailable("starting", retry_after_s=9, reason=Reason.STARTING, phase="weights")


class FakePredictor:
    """Plays one script a call: chunks, errors, events to wait for; then the last one again."""

    def __init__(self):
        self.scripts = [[HEL, LO]]
        self.calls = 0

    async def generate(self, request, context):
        script = self.scripts[min(self.calls, len(self.scripts) - 1)]
        self.calls += 1
        for step in script:
            if isinstance(step, asyncio.Event):
                await step.wait()
            elif isinstance(step, Exception):
                raise step
            else:
                yield step


class FakeProbe:
    """Answers `probe` at once, or when `answer` is set."""

    def __init__(self):
        self.probe = Probe(ready=True)
        self.answer = asyncio.Event()
        self.answer.set()
        self.calls = self.open = 0

    async def __call__(self, timeout_s):
        self.calls += 1
        self.open += 1
        try:
            await self.answer.wait()
        finally:
            self.open -= 1
        return self.probe


class MemoryStore:
    def __init__(self):
        self.starts = []

    async def load(self):
        return list(self.starts)

    async def add(self, start):
        self.starts.append(start)


@pytest.fixture
def predictor():
    return FakePredictor()


@pytest.fixture
def probe():
    return FakeProbe()


@pytest.fixture
async def make(predictor, probe):
    stages = []

    def stage(*, limit=64, unreachable_s=5.0, most=100, breaker=None, target_s=2.0, probes=1):
        policy = WakePolicy(unreachable_s=unreachable_s, most_held=most, most_probes=probes)
        wakeup = Wakeup("m", probe, policy, StartTimes(60), MemoryStore())
        backlog = BacklogPolicy(target_s=target_s, interval_s=target_s / 2, most=most)
        stages.append(
            ForwardStage(
                predictor,
                model="m",
                wakeup=wakeup,
                gate=Gate(backlog, ConcurrencyLimit(limit, queue_s=1), model="m"),
                breaker=CircuitBreaker(breaker or BreakerPolicy()),
                budget=RetryBudget(),
            )
        )
        return stages[-1]

    yield stage
    for each in stages:
        await each.close()


def _in(seconds, **caller):
    deadline = asyncio.get_running_loop().time() + seconds
    return RequestContext("abc", deadline, caller=Caller(**caller))


async def _all(stage, context=None, request=REQUEST):
    async with aclosing(stage.generate(request, context or RequestContext("abc"))) as chunks:
        return [chunk async for chunk in chunks]


async def _until(condition):
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110 (what it looks at has no events)
            await asyncio.sleep(0.001)


async def test_an_awake_predictor_is_probed_once_and_then_called(make, predictor, probe):
    stage = make()
    for _ in range(3):
        assert await _all(stage) == [HEL, LO]
    assert (predictor.calls, probe.calls) == (3, 1)
    assert stage.status().state == "ready"


async def test_many_waiters_wake_it_once(make, predictor, probe):
    stage = make()
    probe.answer.clear()
    waiters = [asyncio.create_task(_all(stage)) for _ in range(50)]
    await _until(lambda: stage.status().state == "starting")
    assert (predictor.calls, probe.calls) == (0, 1)
    probe.answer.set()
    assert await asyncio.gather(*waiters) == [[HEL, LO]] * 50
    assert probe.calls == 1


async def test_where_a_burst_is_to_start_several_each_waiter_is_a_probe_within_bounds(make, probe):
    stage = make(probes=20)
    probe.answer.clear()
    first = asyncio.create_task(_all(stage))
    await _until(lambda: probe.open == 1)
    others = [asyncio.create_task(_all(stage)) for _ in range(29)]
    await _until(lambda: probe.open == 20)
    for each in others[9:]:
        each.cancel()
    await _until(lambda: probe.open == 10)
    probe.answer.set()
    assert await asyncio.gather(first, *others[:9]) == [[HEL, LO]] * 10
    await _until(lambda: probe.open == 0)
    assert (probe.calls, stage.status().state) == (20, "ready")


async def test_a_start_that_is_given_up_ends_all_its_probes(make, probe):
    stage = make(probes=20)
    probe.answer.clear()
    waiters = [asyncio.create_task(_all(stage)) for _ in range(5)]
    await _until(lambda: probe.open == 5)
    await stage.close()
    await _until(lambda: probe.open == 0)
    for each in waiters:
        each.cancel()


async def test_before_anybody_asks_it_is_asleep_and_status_wakes_nobody(make, probe):
    stage = make()
    status = stage.status()
    assert (status.state, status.expected_s) == ("asleep", 60)
    assert probe.calls == 0


async def test_a_held_caller_gets_503_with_what_is_left_just_before_its_deadline(make, probe):
    stage = make()
    probe.answer.clear()
    with pytest.raises(Unavailable, match=r"^model 'm' is starting, for 0 s so far; it") as raised:
        await _all(stage, _in(0.2))
    assert raised.value.reason is Reason.STARTING
    assert raised.value.retry_after_s == pytest.approx(60, abs=5)
    assert stage.status().state == "starting"


async def test_the_phase_is_told_while_it_starts(make, probe):
    stage = make()
    probe.probe = Probe(ready=False, phase="weights")
    context = _in(30)
    waiter = asyncio.create_task(_all(stage, context))
    await _until(lambda: stage.status().phase == "weights")
    await _until(lambda: context.reply.note is not None and "(phase weights)" in context.reply.note)
    probe.probe = Probe(ready=True)
    assert await waiter == [HEL, LO]
    assert context.reply.note is None


async def test_who_does_not_want_to_wait_gets_202_and_the_start_goes_on(
    make, predictor, probe, monkeypatch
):
    monkeypatch.setattr("llm_transformer.resilience.wakeup.AWAKE_WITHIN_S", 0.01)
    stage = make()
    probe.answer.clear()
    with pytest.raises(errors.Waking) as raised:
        await _all(stage, _in(300, nowait=True))
    assert raised.value.status.state == "starting"
    assert raised.value.retry_after_s > 50
    probe.answer.set()
    await _until(lambda: stage.status().state == "ready")
    assert await _all(stage, _in(300, nowait=True)) == [HEL, LO]
    assert probe.calls == 1


async def test_a_start_is_measured_and_kept_even_when_its_caller_has_left(make, probe, monkeypatch):
    monkeypatch.setattr("llm_transformer.resilience.wakeup.AWAKE_WITHIN_S", 0.0)
    stage = make()
    probe.answer.clear()
    caller = asyncio.create_task(_all(stage))
    await _until(lambda: stage.status().state == "starting")
    caller.cancel()
    await asyncio.gather(caller, return_exceptions=True)
    probe.answer.set()
    store = stage._wakeup._store
    await _until(lambda: store.starts)
    assert len(stage._wakeup._starts) == 1


async def test_what_others_have_measured_is_expected(make, probe):
    stage = make()
    store = stage._wakeup._store
    assert stage.status().expected_s == 60
    store.starts = [Start(30, 1000)]
    await stage.start()
    assert stage.status().expected_s == 30
    # Read again when a start begins: another replica may have seen one since.
    store.starts.append(Start(40, 2000))
    probe.probe = Probe(ready=False)
    waiting = asyncio.create_task(_all(stage))
    await _until(lambda: stage.status().expected_s == 40)
    store.starts.clear()
    await stage.start()
    assert stage.status().expected_s == 40
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)


async def test_where_nothing_answers_callers_are_not_held_for_ever(make, probe):
    stage = make(unreachable_s=0.05)
    probe.probe = Probe(ready=False, reachable=False)
    for _ in range(2):
        with pytest.raises(Unavailable, match=r"^the predictor of model 'm' cannot be") as raised:
            await _all(stage, _in(300))
        assert raised.value.retry_after_s
    probe.probe = Probe(ready=True)
    assert await _all(stage) == [HEL, LO]


async def test_more_held_callers_than_allowed_are_refused_at_once(make, probe):
    stage = make(most=2)
    probe.answer.clear()
    held = [asyncio.create_task(_all(stage)) for _ in range(2)]
    await _until(lambda: stage.status().state == "starting")
    await asyncio.sleep(0)
    with pytest.raises(Unavailable, match="too many requests wait"):
        await _all(stage)
    probe.answer.set()
    assert await asyncio.gather(*held) == [[HEL, LO]] * 2


@pytest.mark.parametrize("error", [UNREACHABLE, FULL, STARTING], ids=lambda e: e.reason)
async def test_what_fails_before_its_first_chunk_is_repeated(make, predictor, error):
    predictor.scripts = [[error], [HEL, LO]]
    assert await _all(make()) == [HEL, LO]
    assert predictor.calls == 2


async def test_time_at_a_predictor_that_died_is_no_time_in_the_queue(make, predictor, monkeypatch):
    stage = make()
    entered = []
    passes = stage._gate.passes

    async def note(sequences, priority, since, now):
        entered.append((since, now))
        assert passes(sequences)

    monkeypatch.setattr(stage._gate, "passes", lambda sequences: False)
    monkeypatch.setattr(stage._gate, "enter", note)
    dies = asyncio.Event()
    asyncio.get_running_loop().call_later(0.05, dies.set)
    predictor.scripts = [[dies, UNREACHABLE], [dies, FULL], [HEL, LO]]
    assert await _all(stage) == [HEL, LO]
    (_, first), (second_since, second), (third_since, _) = entered
    assert second - first >= 0.05
    assert second_since == pytest.approx(second, abs=0.02)
    # One that was turned away has been waiting all the time.
    assert third_since == second_since


@pytest.mark.parametrize("error", [UNREACHABLE, FULL, STARTING], ids=lambda e: e.reason)
async def test_what_keeps_failing_is_told_as_the_predictor_told_it(make, predictor, error):
    predictor.scripts = [[error]]
    with pytest.raises(Unavailable) as raised:
        await _all(make())
    assert raised.value is error
    assert predictor.calls == 3


async def test_nothing_is_repeated_after_the_first_chunk(make, predictor):
    predictor.scripts = [[HEL, UNREACHABLE], [HEL, LO]]
    chunks = make().generate(REQUEST, RequestContext("abc"))
    assert await anext(chunks) == HEL
    with pytest.raises(Unavailable):
        await anext(chunks)
    assert predictor.calls == 1


@pytest.mark.parametrize(
    "error", [errors.InvalidInput("bad"), errors.InternalError(), errors.DeadlineExceeded("late")]
)
async def test_what_a_repeat_cannot_mend_is_not_repeated(make, predictor, error):
    predictor.scripts = [[error]]
    with pytest.raises(type(error)):
        await _all(make())
    assert predictor.calls == 1


async def test_a_predictor_that_keeps_failing_is_not_called_for_a_while(make, predictor):
    stage = make(breaker=BreakerPolicy(min_calls=3, open_s=60))
    predictor.scripts = [[errors.InternalError()]]
    for _ in range(3):
        with pytest.raises(errors.InternalError):
            await _all(stage)
    with pytest.raises(Unavailable, match="keeps failing") as raised:
        await _all(stage)
    assert raised.value.reason is Reason.BREAKER
    assert 50 < raised.value.retry_after_s <= 60
    assert predictor.calls == 3


async def test_a_trial_ends_with_its_first_chunk_however_long_its_stream_is(make, predictor):
    stage = make(breaker=BreakerPolicy(min_calls=1, open_s=0))
    predictor.scripts = [[errors.InternalError()], [HEL, asyncio.Event()], [HEL, LO]]
    with pytest.raises(errors.InternalError):
        await _all(stage)
    async with aclosing(stage.generate(REQUEST, RequestContext("abc"))) as trial:
        assert await anext(trial) == HEL
        assert await _all(stage) == [HEL, LO]


async def test_streams_that_break_off_open_the_breaker(make, predictor):
    stage = make(breaker=BreakerPolicy(min_calls=4, open_s=60))
    predictor.scripts = [[HEL, Unavailable("silent", reason=Reason.STALLED)]]
    for _ in range(2):
        with pytest.raises(Unavailable, match="silent"):
            await _all(stage)
    with pytest.raises(Unavailable, match="keeps failing"):
        await _all(stage)


async def test_over_the_limit_requests_wait_and_are_served_by_priority(make, predictor):
    stage = make(limit=1)
    may_end = asyncio.Event()
    predictor.scripts = [[HEL, may_end, LO], [HEL, LO]]
    first = asyncio.create_task(_all(stage))
    await _until(lambda: predictor.calls == 1)
    order = []

    async def ask(name, priority):
        await _all(stage, RequestContext("abc", priority=priority))
        order.append(name)

    others = [asyncio.create_task(ask(*who)) for who in (("batch", -1), ("plain", 0), ("paid", 9))]
    await _until(lambda: len(stage._gate._backlog) == 3)
    assert predictor.calls == 1
    may_end.set()
    await asyncio.gather(first, *others)
    assert order == ["paid", "plain", "batch"]


async def test_who_waits_too_long_in_a_standing_queue_gets_503_and_a_time(make, predictor):
    stage = make(limit=1, target_s=0.1)
    predictor.scripts = [[HEL, asyncio.Event(), LO]]
    first = asyncio.create_task(_all(stage))
    await _until(lambda: predictor.calls == 1)
    with pytest.raises(Unavailable, match=r"^overloaded: .* try again in \d+ s$") as raised:
        await _all(stage)
    assert raised.value.reason is Reason.OVERLOADED
    assert 1 <= raised.value.retry_after_s <= 45
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    assert stage._gate._in == 0


async def test_a_caller_who_leaves_the_queue_leaves_no_place_taken(make, predictor):
    stage = make(limit=1)
    may_end = asyncio.Event()
    predictor.scripts = [[HEL, may_end, LO], [HEL, LO]]
    first = asyncio.create_task(_all(stage))
    await _until(lambda: predictor.calls == 1)
    waiting = asyncio.create_task(_all(stage))
    await _until(lambda: len(stage._gate._backlog) == 1)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    assert len(stage._gate._backlog) == 0
    may_end.set()
    assert await first == [HEL, LO]
    assert stage._gate._in == 0


async def test_a_caller_who_closes_its_stream_frees_its_place(make, predictor):
    stage = make(limit=1)
    predictor.scripts = [[HEL, asyncio.Event()], [HEL, LO]]
    chunks = stage.generate(REQUEST, RequestContext("abc"))
    assert await anext(chunks) == HEL
    await chunks.aclose()
    assert await _all(stage) == [HEL, LO]


def _gauges():
    return tuple(
        REGISTRY.get_sample_value(f"keepwarm_{name}", {"model": "m"})
        for name in (
            "predictor_sequences_in_flight",
            "queue_requests",
            "predictor_sequences_limit",
        )
    )


async def test_a_scrape_tells_who_is_in_who_waits_and_the_limit(make, predictor):
    ends = asyncio.Event()
    predictor.scripts = [[HEL, ends, LO]]
    stage = make(limit=1)
    assert _gauges() == (0, 0, 1)
    calls = [asyncio.create_task(_all(stage)) for _ in range(3)]
    await _until(lambda: _gauges()[:2] == (1, 2))
    ends.set()
    await asyncio.gather(*calls)
    in_flight, waiting, limit = _gauges()
    assert (in_flight, waiting) == (0, 0)
    assert limit > 1


async def test_who_leaves_the_queue_or_is_refused_by_the_breaker_holds_no_place(make, predictor):
    ends = asyncio.Event()
    predictor.scripts = [[ends, errors.InternalError("broken")], [HEL, LO]]
    stage = make(limit=1, breaker=BreakerPolicy(min_calls=1))
    first = asyncio.create_task(_all(stage))
    await _until(lambda: _gauges()[0] == 1)
    second = asyncio.create_task(_all(stage))
    await _until(lambda: _gauges()[1] == 1)
    second.cancel()
    await asyncio.gather(second, return_exceptions=True)
    assert _gauges()[:2] == (1, 0)
    ends.set()
    with pytest.raises(errors.InternalError):
        await first
    with pytest.raises(Unavailable, match="keeps failing"):
        await _all(stage)
    assert _gauges()[:2] == (0, 0)
