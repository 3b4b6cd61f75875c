"""What callers get, measured where the stages begin: answers by plan, time to first token, tokens.

Every label has a handful of values: models and plans are the operator's, routes and statuses ours.
"""

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Iterable
from datetime import UTC, datetime
from functools import cache
from typing import Final

from openinference import clock
from openinference.context import Cached, RequestContext
from openinference.errors import ServingError
from openinference.generation import Chunk, GenerationRequest, Usage, told
from openinference.instruments import Count, Counter, Histogram
from openinference.server import logs

CANCELLED: Final = "cancelled"
# A line for each generation, with --log_format json only.
_log = logging.getLogger(logs.GENERATIONS)

GENERATIONS: Final = Counter(
    "keepwarm_generations",
    "Generations asked for with a valid key, by model, route, plan and HTTP status (or "
    "cancelled), whatever the protocol. A stream that breaks has its error's status.",
    ["model", "route", "plan", "status"],
)
# The bounds of vLLM's histogram of the same name, as far as callers can tell them apart.
FIRST_TOKEN_SECONDS: Final = Histogram(
    "keepwarm_time_to_first_token_seconds",
    "Seconds until a stream's first token, waits for limits, queue and cold start included, by "
    "what the cache did (hit, coalesced, miss, bypass, off).",
    ["plan", "cache"],
    buckets=(0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 0.75, 1, 2, 5, 10, 20, 40, 80, 160, 300),
)
INTER_TOKEN_SECONDS: Final = Histogram(
    "keepwarm_inter_token_latency_seconds",
    "Seconds between two tokens of a sequence, of streams that are not replayed from the cache.",
    buckets=(0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 1, 2.5, 5, 10),
)
PROMPT_TOKENS: Final = Counter(
    "keepwarm_prompt_tokens", "Prompt tokens of answers, kept ones included.", ["plan"]
)
GENERATION_TOKENS: Final = Counter(
    "keepwarm_generation_tokens",
    "Tokens handed to callers, kept ones and those of broken answers included.",
    ["plan"],
)
ENGINE_QUEUE_SECONDS: Final = Histogram(
    "keepwarm_engine_queue_seconds",
    "Seconds that answered requests waited in the engine's own queue, as the predictor tells.",
    buckets=(0.001, 0.005, 0.01, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60),
)


async def measured(
    chunks: AsyncGenerator[Chunk, None], request: GenerationRequest, context: RequestContext
) -> AsyncGenerator[Chunk, None]:
    """`chunks`, counted and timed."""
    tally = _Tally(request, context, clock.now())
    status = "500"
    try:
        async for chunk in chunks:
            tally.add(chunk, clock.now())
            yield chunk
        status = "200"
    except ServingError as error:
        status = str(error.http_status)
        raise
    except (asyncio.CancelledError, GeneratorExit):
        # The edge ends a generation at its deadline, and tells the caller so.
        late = context.deadline is not None and clock.now() >= context.deadline
        status = "504" if late else CANCELLED
        raise
    finally:
        try:
            await chunks.aclose()
        finally:
            tally.end(status, clock.now())


def count(
    chunks: Iterable[Chunk], request: GenerationRequest, plan: str, context: RequestContext
) -> None:
    """Counts an answer that was there."""
    usage = Usage(request.sampling.n)
    for chunk in chunks:
        usage.add(chunk)
    _count(request.model, plan, context, "200", usage, seconds=0)


@cache
def _generations(model: str, route: str, plan: str, status: str) -> Count:
    return GENERATIONS.labels(model, route, plan, status)


@cache
def _tokens(plan: str) -> tuple[Count, Count]:
    return PROMPT_TOKENS.labels(plan), GENERATION_TOKENS.labels(plan)


def _count(
    model: str, plan: str, context: RequestContext, status: str, used: Usage, *, seconds: float
) -> None:
    """Counts a generation that has ended, and with --log_format json tells of it."""
    route = context.caller.route
    _generations(model, route, plan, status).inc()
    if used.completion_tokens:
        of_prompts, of_answers = _tokens(plan)
        of_prompts.inc(used.prompt_tokens)
        of_answers.inc(used.completion_tokens)
    if not _log.isEnabledFor(logging.INFO):
        return
    # What `keepwarm trace` reads.
    came = datetime.fromtimestamp(time.time() - seconds, UTC)
    fields = {
        "request_id": context.request_id,
        "model": model,
        "route": route,
        "plan": plan,
        "status": 499 if status == CANCELLED else int(status),
        "cache": context.reply.cached or "off",
        "input_tokens": used.prompt_tokens,
        "output_tokens": used.completion_tokens,
        "came": came.isoformat(timespec="milliseconds"),
        "duration_s": round(seconds, 4),
        "wait_s": round(min(context.reply.waited_s, seconds), 4),
    }
    _log.info("generation", extra={logs.FIELDS: fields})


class _Tally:
    """The counts of one request."""

    __slots__ = (
        "_answered",
        "_began",
        "_context",
        "_is_stream",
        "_last",
        "_model",
        "_n",
        "_seen",
    )

    def __init__(self, request: GenerationRequest, context: RequestContext, began: float) -> None:
        self._model = request.model
        self._is_stream = request.stream
        self._n = request.sampling.n
        self._context = context
        self._began = began
        self._answered = False
        # By sequence, the latest chunk, and for a stream when it came.
        self._last: dict[int, Chunk] = {}
        self._seen: dict[int, float] = {}

    def add(self, chunk: Chunk, now: float) -> None:
        """Counts a chunk that came at `now`."""
        self._last[chunk.index] = chunk
        if not self._is_stream:
            return
        cached = self._context.reply.cached
        if not self._answered:
            self._answered = True
            FIRST_TOKEN_SECONDS.labels(self._context.plan or "none", cached or "off").observe(
                now - self._began
            )
        elif cached is not Cached.HIT and chunk.index in self._seen:
            INTER_TOKEN_SECONDS.observe(now - self._seen[chunk.index])
        self._seen[chunk.index] = now

    def end(self, status: str, now: float) -> None:
        """Adds what has been counted to the metrics."""
        context = self._context
        used = Usage(self._n, *told(self._last, self._n))
        _count(
            self._model,
            context.plan or "none",
            context,
            status,
            used,
            seconds=now - self._began,
        )
        queued_s = context.reply.queued_s
        if queued_s is not None:
            ENGINE_QUEUE_SECONDS.observe(queued_s)
