"""The generations in flight: one for each request here, and with leases one in all replicas."""

import asyncio
import logging
from typing import Final

from llm_transformer.cache import metrics, record
from llm_transformer.cache.flight import Flight
from llm_transformer.cache.policy import CachePolicy
from llm_transformer.cache.record import Record
from llm_transformer.cache.shared import Claim
from llm_transformer.cache.shelf import Shelf
from llm_transformer.forward import Forward
from openinference import clock, running
from openinference.context import NOBODY, Cached, RequestContext, logged, new_request_id
from openinference.errors import InternalError, ServingError
from openinference.generation import GenerationRequest

logger = logging.getLogger("llm_transformer.cache")

# A lease is renewed so many times before it would run out.
RENEWALS: Final = 3
CLOSE_S: Final = 0.5


class Flights:
    """Starts generations, and keeps what comes of them."""

    def __init__(self, forward: Forward, policy: CachePolicy, shelf: Shelf) -> None:
        self._forward = forward
        self._policy = policy
        self._shelf = shelf
        self._under_way: dict[bytes, Flight] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def close(self) -> None:
        """Ends them all; what is about to be written has CLOSE_S for it."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=CLOSE_S)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def settled(self) -> None:
        """Returns when nothing is in flight and nothing still to be written."""
        if self._tasks:
            await asyncio.wait(self._tasks)

    def joinable(self, digest: bytes, priority: int) -> Flight | None:
        """The flight under way, unless it queues behind work that a caller of `priority` need not.

        One that is too large to be kept has forgotten its beginning, and nobody can join it.
        """
        flight = self._under_way.get(digest)
        if flight is None or not flight.keeps_all or flight.priority < priority:
            return None
        return flight

    def start(
        self, digest: bytes, request: GenerationRequest, context: RequestContext, *, renews: bool
    ) -> Flight:
        """A new flight; `renews` for an answer that takes the place of what is kept."""
        loop = running.loop()
        flight = Flight(
            loop, context.priority, self._policy.draw_ttl_s(), self._policy.record_bytes
        )
        self._under_way[digest] = flight
        # It outlives who began it, so its bound and its reply are its own.
        now = clock.now()
        deadline = now + self._policy.flight_s
        # Several times as fast as dataclasses.replace.
        own = RequestContext(
            context.request_id,
            deadline,
            context.traceparent,
            context.tracestate,
            context.tenant,
            context.plan,
            context.priority,
            NOBODY,
            flight.reply,
        )
        flight.task = loop.create_task(self._fly(flight, digest, request, own, renews=renews))
        self._tasks.add(flight.task)
        flight.task.add_done_callback(self._tasks.discard)
        return flight

    async def _fly(
        self,
        flight: Flight,
        digest: bytes,
        request: GenerationRequest,
        context: RequestContext,
        *,
        renews: bool,
    ) -> None:
        """From take-off to the record; the followers learn of every end."""
        shared, model = self._shelf.shared, request.model
        token = new_request_id() if shared.is_there and not renews else None
        # Whether the lease may be ours, also while the answer to our claim is on its way.
        leased = token is not None
        renewal: asyncio.Task[None] | None = None
        try:
            if token is not None:
                claim, waited = await self._shelf.claim(digest, model, token)
                if isinstance(claim, Record):
                    leased = False
                    came_by = Cached.COALESCED if waited else Cached.HIT
                    flight.replay(claim, came_by, stream=request.stream)
                    return
                # A claim whose answer got lost may have got the lease all the same.
                if claim is Claim.LEAD:
                    renewal = asyncio.create_task(self._renew(digest, model, token))
            flight.came_by = Cached.MISS
            kept = await self._generate(flight, digest, request, context)
            if kept is not None and shared.is_there:
                # First, for who waits for the record looks for it under these weights; and each
                # time, for a Redis that has lost all knows nothing.
                await self._shelf.weights.tell(model, clock.now())
                await shared.commit(self._shelf.slot(digest, model), token, kept)
                leased = False
        except Exception:
            logger.exception(
                "request %s: its flight failed", context.request_id, extra=logged(context)
            )
            flight.fail(InternalError())
        finally:
            if self._under_way.get(digest) is flight:
                del self._under_way[digest]
            if renewal is not None:
                renewal.cancel()
            if leased and token is not None:
                await shared.release(self._shelf.slot(digest, model), token)

    async def _renew(self, digest: bytes, model: str, token: str) -> None:
        while True:
            await asyncio.sleep(self._policy.lease_s / RENEWALS)
            await self._shelf.shared.renew(self._shelf.slot(digest, model), token)

    async def _generate(
        self, flight: Flight, digest: bytes, request: GenerationRequest, context: RequestContext
    ) -> Record | None:
        """Lets the predictor generate; what is kept of it."""
        try:
            chunks = self._forward.generate(request, context)
            try:
                async for chunk in chunks:
                    flight.add(chunk)
                    if not flight.keeps_all:
                        await flight.room()
            finally:
                await chunks.aclose()
        except ServingError as error:
            kept = self._keep(digest, self._failure(error, self._answered(request, context)))
            if kept is not None:
                metrics.NEGATIVE.inc()
            flight.fail(error, kept)
            return kept
        except Exception:
            logger.exception("request %s failed", context.request_id, extra=logged(context))
            flight.fail(InternalError())
            return None
        kept = self._keep(digest, self._answer(flight, request, self._answered(request, context)))
        flight.finish(kept)
        return kept

    def _answered(self, request: GenerationRequest, context: RequestContext) -> str | None:
        return self._shelf.weights.learn(request.model, context.reply.weights_id)

    def _answer(
        self, flight: Flight, request: GenerationRequest, weights_id: str | None
    ) -> Record | None:
        """The answer as it is kept, if it may be."""
        if weights_id is None:
            metrics.NOT_KEPT.labels("no_weights_id").inc()
            return None
        kept = None
        if flight.keeps_all:
            kept = record.answer(
                request,
                flight.chunks,
                weights_id=weights_id,
                ttl_s=flight.ttl_s,
                made_at=clock.now(),
            )
            if kept is None:
                metrics.NOT_KEPT.labels("incomplete").inc()
        if not flight.keeps_all or (
            kept is not None and len(kept.packed()) > self._policy.record_bytes
        ):
            metrics.NOT_KEPT.labels("size").inc()
            return None
        return kept

    def _failure(self, error: ServingError, weights_id: str | None) -> Record | None:
        if weights_id is None or not self._policy.negative_ttl_s:
            return None
        return record.failure(
            error,
            weights_id=weights_id,
            ttl_s=self._policy.negative_ttl_s,
            made_at=clock.now(),
        )

    def _keep(self, digest: bytes, kept: Record | None) -> Record | None:
        if kept is not None:
            self._shelf.put_here(digest, kept)
        return kept
