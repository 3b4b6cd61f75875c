"""What is counted of a generation, whatever its end and its protocol."""

import asyncio
import logging
from contextlib import aclosing
from datetime import UTC, datetime

import pytest
from prometheus_client import REGISTRY

from keepwarm.traces import sources
from llm_transformer.measured import count, measured
from openinference.context import Cached, Caller, RequestContext
from openinference.errors import RateLimited, Unavailable
from openinference.generation import Chunk, FinishReason, GenerationRequest
from openinference.sampling import SamplingParams
from openinference.server import logs

FIRST = "keepwarm_time_to_first_token_seconds_count"
BETWEEN = "keepwarm_inter_token_latency_seconds_count"


def _sample(name, **labels):
    return REGISTRY.get_sample_value(name, labels) or 0


class Since:
    """What has been added to the samples of a plan since."""

    def __init__(self, plan):
        self._plan = plan
        self._before = self._now()

    def _now(self):
        plan = self._plan
        return {
            **{
                status: _sample(
                    "keepwarm_generations_total",
                    model="m",
                    route="infer",
                    plan=plan,
                    status=status,
                )
                for status in ("200", "429", "500", "503", "504", "cancelled")
            },
            **{cache: _sample(FIRST, plan=plan, cache=cache) for cache in (*Cached, "off")},
            "between": _sample(BETWEEN),
            "prompt": _sample("keepwarm_prompt_tokens_total", plan=plan),
            "tokens": _sample("keepwarm_generation_tokens_total", plan=plan),
            "queued": _sample("keepwarm_engine_queue_seconds_count"),
        }

    def added(self):
        now = self._now()
        return {name: now[name] - was for name, was in self._before.items() if now[name] != was}


def _request(*, stream, prompts=1, n=1):
    return GenerationRequest("m", ("Hi",) * prompts, SamplingParams(n=n), stream=stream)


def _context(deadline=None):
    return RequestContext("a", deadline, plan="gold", caller=Caller(route="infer"))


async def _chunks(script, context=None, cached=None):
    if context is not None:
        context.reply.cached = cached
    for step in script:
        if isinstance(step, Exception):
            raise step
        if isinstance(step, asyncio.Event):
            await step.wait()
        else:
            yield step


def _sequence(index, tokens, prompt=5):
    return [
        Chunk(index, "x", prompt, k, FinishReason.LENGTH if k == tokens else None)
        for k in range(1, tokens + 1)
    ]


async def _drain(chunks):
    async for _ in chunks:
        pass


async def test_a_stream_has_its_first_token_and_the_gaps_of_each_sequence_timed():
    since, context = Since("gold"), _context()
    script = [*_sequence(0, 3), *_sequence(1, 2)]
    await _drain(measured(_chunks(script), _request(stream=True, n=2), context))
    # One prompt, however many choices.
    assert since.added() == {"200": 1, "off": 1, "between": 3, "prompt": 5, "tokens": 5}


async def test_a_whole_answer_has_tokens_and_no_first_one():
    since, context = Since("gold"), _context()
    context.reply.queued_s = 0.2
    script = [Chunk(k, "x", 4, 9, FinishReason.EOS) for k in range(2)]
    await _drain(measured(_chunks(script), _request(stream=False, prompts=2), context))
    assert since.added() == {"200": 1, "prompt": 8, "tokens": 18, "queued": 1}


async def test_a_replayed_stream_is_told_apart_and_has_no_gaps():
    since, context = Since("gold"), _context()
    chunks = _chunks(_sequence(0, 4), context, Cached.HIT)
    await _drain(measured(chunks, _request(stream=True), context))
    assert since.added() == {"200": 1, "hit": 1, "prompt": 5, "tokens": 4}


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (RateLimited("slow down", retry_after_s=1), "429"),
        (Unavailable("away", retry_after_s=1), "503"),
        (ValueError("a bug"), "500"),
    ],
)
async def test_an_error_is_counted_with_its_status_and_what_was_said_before_it(error, status):
    since = Since("gold")
    script = [*_sequence(0, 3)[:2], error]
    with pytest.raises(type(error)):
        await _drain(measured(_chunks(script), _request(stream=True), _context()))
    assert since.added() == {status: 1, "off": 1, "between": 1, "prompt": 5, "tokens": 2}


@pytest.mark.parametrize(("left_s", "status"), [(60, "cancelled"), (-1, "504")])
async def test_who_leaves_is_cancelled_and_who_ran_out_of_time_is_not(left_s, status):
    since = Since("gold")
    deadline = asyncio.get_running_loop().time() + left_s
    chunks = measured(
        _chunks([*_sequence(0, 1), asyncio.Event()]), _request(stream=True), _context(deadline)
    )
    async with aclosing(chunks):
        await anext(chunks)
    assert since.added() == {status: 1, "off": 1, "prompt": 5, "tokens": 1}


def test_an_answer_at_hand_is_counted():
    since = Since("gold")
    chunks = (Chunk(0, "x", 2, 7, FinishReason.EOS), Chunk(1, "y", 2, 3, FinishReason.LENGTH))
    count(chunks, _request(stream=False), "gold", _context())
    assert since.added() == {"200": 1, "prompt": 4, "tokens": 10}


async def test_a_generations_line_tells_what_was_done_and_not_what_was_said(caplog):
    caplog.set_level(logging.INFO, logger=logs.GENERATIONS)
    await _drain(measured(_chunks(_sequence(0, 3)), _request(stream=True), _context()))
    (record,) = caplog.records
    fields = dict(record.fields)
    assert fields.pop("duration_s") >= fields.pop("wait_s") >= 0
    assert datetime.fromisoformat(fields.pop("came")) <= datetime.now(UTC)
    assert fields == {
        "request_id": "a",
        "model": "m",
        "route": "infer",
        "plan": "gold",
        "status": 200,
        "cache": "off",
        "input_tokens": 5,
        "output_tokens": 3,
    }


async def test_the_json_log_is_a_trace(caplog, tmp_path):
    """What the transformer writes with --log_format json, `keepwarm trace` reads."""
    caplog.set_level(logging.INFO)
    logging.getLogger("llm_transformer").info("serving")
    waited, left, hit = _context(), _context(), _context()
    await _drain(measured(_chunks(_sequence(0, 3)), _request(stream=True), waited))
    async with aclosing(measured(_chunks(_sequence(0, 3)), _request(stream=True), left)) as chunks:
        await anext(chunks)
    hit.reply.cached = Cached.HIT
    await _drain(measured(_chunks(_sequence(0, 3)), _request(stream=True), hit))
    formatter = logs.JsonFormatter()
    log = tmp_path / "transformer.log"
    log.write_text("\n".join(formatter.format(record) for record in caplog.records))
    trace = sources.read(log)
    assert trace.input_tokens.tolist() == [5, 5]
    assert sorted(trace.output_tokens.tolist()) == [1, 3]
    assert trace.warnings == (
        "1 requests never reached the predictor (4xx, cache) and are left out.",
    )
