"""The cache stage: a Forward that asks the one behind it only for answers that nobody has.

It looks in process, then in Redis, and else generates once for everybody who asks meanwhile, in
this process and in the others. A hit reaches neither the predictor nor the activator: it does not
wake a model, and does not keep one awake.
"""

import math
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Final, Protocol

from llm_transformer.cache import directives, metrics
from llm_transformer.cache.directives import Directives
from llm_transformer.cache.flight import Flight, Seat
from llm_transformer.cache.flights import Flights
from llm_transformer.cache.key import Digests, digest_of
from llm_transformer.cache.policy import CachePolicy
from llm_transformer.cache.record import Record
from llm_transformer.cache.shelf import Shelf
from llm_transformer.forward import Forward
from openinference import clock
from openinference.context import Cached, Reply, RequestContext
from openinference.errors import DeadlineExceeded
from openinference.generation import Chunk, GenerationRequest
from openinference.messages import ModelState, ModelStatus

_BYPASS: Final = {"x-cache": Cached.BYPASS.value, "cache-control": "no-store"}
# Until there is an answer: who is refused before gets an error that nobody may keep.
_NOTHING: Final = {"x-cache": Cached.MISS.value, "cache-control": "no-store"}


class Predictor(Forward, Protocol):
    """What is behind the cache: a Forward whose predictor's start can be waited for."""

    async def awake(self, model: str, context: RequestContext) -> None:
        """Returns when the predictor of `model` is there; see ForwardStage."""


class CachedForward:
    """A Forward over another one."""

    def __init__(self, forward: Predictor, policy: CachePolicy, shelf: Shelf) -> None:
        self._forward = forward
        self._policy = policy
        self._shelf = shelf
        self._digests = Digests()
        self._flights = Flights(forward, policy, shelf)
        # To caches downstream: a tenant's answers are for its own only (RFC 9111 5.2.2.7).
        self._visibility = "private" if policy.by_tenant else "public"

    async def is_ready(self, model: str) -> bool:
        return await self._forward.is_ready(model)

    def status(self, model: str) -> ModelStatus:
        return self._forward.status(model)

    async def settled(self) -> None:
        """Returns when nothing is in flight and nothing still to be written."""
        await self._flights.settled()

    async def close(self) -> None:
        """Ends the generations in flight."""
        await self._flights.close()
        await self._shelf.weights.close()

    def generate(
        self, request: GenerationRequest, context: RequestContext
    ) -> AsyncGenerator[Chunk, None]:
        """A kept answer's chunks, another request's, or the predictor's.

        Sets `context.reply.cached` and the headers that tell of it. Raises what the predictor
        answers with; DeadlineExceeded for a caller who wants nothing but what is kept.
        """
        asked = directives.parse(context.caller.cache_control)
        if not _may_be_kept(request, asked):
            return self._pass(request, context, asked)
        digest = digest_of(request, self._policy.scope(context.tenant))
        kept = self._shelf.look_here(digest, request.model, asked)
        if kept is None:
            return self._fly(digest, request, context, asked)
        return self._replay(kept, "l1", request, context.reply)

    def kept(
        self, request: GenerationRequest, tenant: str | None, context: RequestContext
    ) -> tuple[Chunk, ...] | None:
        """The answer for `tenant`, if this process has one that will do; else nothing is done."""
        asked = directives.parse(context.caller.cache_control)
        if not _may_be_kept(request, asked):
            return None
        digest = self._digests.of(request, self._policy.scope(tenant))
        kept = self._shelf.look_here(digest, request.model, asked)
        if kept is None or kept.error is not None:
            return None
        self._tell_kept(kept, Cached.HIT, "l1", context.reply)
        return kept.chunks(stream=request.stream)

    async def _pass(
        self, request: GenerationRequest, context: RequestContext, asked: Directives
    ) -> AsyncGenerator[Chunk, None]:
        """The predictor's chunks, for this caller only."""
        metrics.BYPASSED.labels("no_store" if asked.no_store else "sampled").inc()
        context.reply.cached = Cached.BYPASS
        context.reply.headers.update(_BYPASS)
        async with aclosing(self._forward.generate(request, context)) as chunks:
            async for chunk in chunks:
                yield chunk
        self._shelf.weights.learn(request.model, context.reply.weights_id)
        self._shelf.weights.tell_later(request.model, clock.now())

    async def _replay(
        self, kept: Record, level: str, request: GenerationRequest, reply: Reply
    ) -> AsyncGenerator[Chunk, None]:
        self._tell_kept(kept, Cached.HIT, level, reply)
        if kept.error is not None:
            raise kept.error.with_traceback(None)
        for chunk in kept.chunks(stream=request.stream):
            yield chunk

    async def _fly(
        self, digest: bytes, request: GenerationRequest, context: RequestContext, asked: Directives
    ) -> AsyncGenerator[Chunk, None]:
        """The chunks of a flight: one that is under way, or a new one."""
        shelf, flights = self._shelf, self._flights
        await shelf.weights.known(request.model, clock.now())
        renews = asked.no_cache
        flight = None if renews else flights.joinable(digest, context.priority)
        if flight is None and (asked.only_if_cached or not self._is_awake(request.model)):
            kept = None if renews else await shelf.look_shared(digest, request.model, asked)
            if kept is not None:
                async with aclosing(self._replay(kept, "l2", request, context.reply)) as chunks:
                    async for chunk in chunks:
                        yield chunk
                return
            context.reply.cached = Cached.MISS
            context.reply.headers.update(_NOTHING)
            if asked.only_if_cached:
                raise DeadlineExceeded("no answer is kept, and only-if-cached asks for no other")
            # Everybody waits for a start until his own deadline, and is told of it.
            await self._forward.awake(request.model, context)
        while True:
            flight = None if renews else flights.joinable(digest, context.priority)
            if flight is None:
                flight = flights.start(digest, request, context, renews=renews)
            seat = flight.enter(context.reply)
            try:
                await flight.begun()
                kept = None if flight.came_by is Cached.MISS else flight.record
                if kept is None or asked.accepts(kept.age_s(clock.now())):
                    self._tell(flight, seat)
                    while (next_chunk := await flight.next(seat)) is not None:
                        yield next_chunk
                    self._tell_end(flight, seat)
                    return
            finally:
                flight.leave(seat)
            # What another replica has kept is older than this caller wants.
            renews = True

    def _is_awake(self, model: str) -> bool:
        return self._forward.status(model).state is ModelState.READY

    def _tell(self, flight: Flight, seat: Seat) -> None:
        """Says how the flight's answer came about."""
        cached = flight.cached(seat)
        kept = flight.record
        if kept is not None and flight.came_by is not Cached.MISS:
            self._tell_kept(kept, cached, "l2", seat.reply)
            return
        seat.reply.cached = cached
        if cached is Cached.COALESCED:
            metrics.COALESCED.labels("process").inc()
        else:
            metrics.MISSES.inc()
        life_s = flight.ttl_s if kept is None else kept.ttl_s
        seat.reply.headers["x-cache"] = cached.value
        seat.reply.headers["cache-control"] = (
            "no-store"
            if flight.failed and kept is None
            else f"{self._visibility}, max-age={life_s:.0f}"
        )

    def _tell_end(self, flight: Flight, seat: Seat) -> None:
        """Adds what is known only now, which for a stream's headers is too late."""
        kept = flight.record
        if kept is None:
            return
        seat.reply.headers["etag"] = kept.etag
        if flight.came_by is Cached.MISS and flight.cached(seat) is Cached.COALESCED:
            _count_saved(kept)

    def _tell_kept(self, kept: Record, cached: Cached, level: str, reply: Reply) -> None:
        """Says that the answer is a kept one."""
        reply.cached = cached
        if cached is Cached.COALESCED:
            metrics.COALESCED.labels("replica").inc()
        else:
            metrics.HITS_OF[level, "answer" if kept.error is None else "error"].inc()
        _count_saved(kept)
        age_s = kept.age_s(clock.now())
        # Whole seconds, and no copy may live longer than the record (RFC 9111 4.2): rounded up.
        reply.headers.update(
            {
                "x-cache": cached.value,
                "age": f"{math.ceil(age_s)}",
                "etag": kept.etag,
                "cache-control": f"{self._visibility}, max-age={kept.ttl_s:.0f}",
            }
        )


def _may_be_kept(request: GenerationRequest, asked: Directives) -> bool:
    """Whether the same request always gets the same answer, or another one's will do."""
    sampling = request.sampling
    is_deterministic = sampling.temperature == 0 or sampling.seed is not None
    return not asked.no_store and (is_deterministic or asked.sampled)


def _count_saved(kept: Record) -> None:
    metrics.SAVED_PROMPT.inc(kept.prompt_tokens)
    metrics.SAVED_COMPLETION.inc(kept.completion_tokens)
