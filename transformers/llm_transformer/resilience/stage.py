"""The last stage: what may pass reaches the predictor, once it is awake, not full, and not broken.

In order: wait for a predictor that is away, wait at the gate, ask the breaker, call. A call that
fails before its first chunk is repeated where that can help and the retry budget allows; after the
first chunk never. Generation changes nothing outside the engine, so a repeat is always safe, and
what the caller is charged is reserved once, around this stage.
"""

import asyncio
import random
from collections.abc import AsyncGenerator
from typing import Final, Protocol

from llm_transformer.resilience import metrics
from llm_transformer.resilience.breaker import CircuitBreaker, Outcome, State
from llm_transformer.resilience.gate import Gate
from llm_transformer.resilience.retry_budget import RetryBudget
from llm_transformer.resilience.wakeup import Wakeup
from openinference import clock
from openinference.context import RequestContext
from openinference.errors import InternalError, Reason, ServingError, Unavailable
from openinference.generation import Chunk, GenerationRequest
from openinference.messages import ModelStatus

ATTEMPTS: Final = 3
# Before a repeat after "full": the engine frees a place when a sequence ends.
BACKOFF_S: Final = 0.05


class Predictor(Protocol):
    """What the stage calls."""

    def generate(
        self, request: GenerationRequest, context: RequestContext
    ) -> AsyncGenerator[Chunk, None]:
        """The predictor's chunks; see PredictorClient."""

    async def is_ready(self, model: str) -> bool:
        """Whether the predictor can answer now."""


class ForwardStage:
    """A Forward that survives overload, faults and cold starts of its predictor."""

    def __init__(
        self,
        predictor: Predictor,
        *,
        model: str,
        wakeup: Wakeup,
        gate: Gate,
        breaker: CircuitBreaker,
        budget: RetryBudget,
    ) -> None:
        """`model` stands for the predictor in metrics."""
        self._model = model
        self._predictor = predictor
        self._wakeup = wakeup
        self._gate = gate
        self._breaker = breaker
        self._budget = budget
        self._told: State | None = None
        self._tell_breaker(State.CLOSED)

    async def is_ready(self, model: str) -> bool:
        """Asks the predictor, which wakes it."""
        return await self._predictor.is_ready(model)

    async def start(self) -> None:
        """Learns how long earlier starts of the predictor took."""
        await self._wakeup.learn()

    async def close(self) -> None:
        """Ends what runs beside the requests."""
        await self._wakeup.close()

    async def awake(self, context: RequestContext) -> None:
        """Returns when the predictor is there; raises as `generate` does before it calls."""
        if not self._wakeup.is_awake(clock.now()):
            await self._woken(context)

    def status(self) -> ModelStatus:
        """The predictor's status as far as it is known; asks nobody."""
        return self._wakeup.status(clock.now())

    async def generate(
        self, request: GenerationRequest, context: RequestContext
    ) -> AsyncGenerator[Chunk, None]:
        """The predictor's chunks; closing the generator ends the work there.

        Raises what the predictor answered with; Unavailable when it is away, full, broken or lost;
        Waking for a caller who does not wait.
        """
        began = clock.now()
        self._budget.request()
        weight = request.sequences
        attempt = 0
        while True:
            attempt += 1
            if not self._wakeup.is_awake(clock.now()):
                # A cold start is no overload: its wait does not count as queueing.
                began += await self._woken(context)
            if not self._gate.passes(weight):
                await self._let_in(weight, context, began)
            era = self._pass_breaker(request.model, weight, clock.now())
            outcome, answering = Outcome.NEITHER, False
            chunks = self._predictor.generate(request, context)
            try:
                async for chunk in chunks:
                    if not answering:
                        answering = True
                        # At once: a trial must not last as long as a stream does.
                        self._heard(era, clock.now())
                    yield chunk
            except ServingError as error:
                outcome = self._learn(error, attempt, clock.now(), answering=answering)
                if answering or not isinstance(error, Unavailable):
                    raise
                problem = error
            else:
                now = clock.now()
                self._wakeup.seen(now)
                self._gate.answered(weight, context.reply.queued_s, now)
                return
            finally:
                try:
                    await chunks.aclose()
                finally:
                    now = clock.now()
                    if not answering or outcome is Outcome.FAILURE:
                        self._record(outcome, era, now)
                    self._gate.leave(weight, now)
            began = await self._until_repeat(problem, attempt, began)

    async def _until_repeat(self, problem: Unavailable, attempt: int, began: float) -> float:
        """Returns when the call may be repeated, with when its wait in the queue began.

        Raises `problem` when it may not be.
        """
        if attempt == ATTEMPTS or not self._may_repeat(problem, clock.now()):
            raise problem from None
        if problem.reason is Reason.FULL:
            await asyncio.sleep(BACKOFF_S * attempt * random.uniform(0.5, 1.5))  # noqa: S311
            return began
        # What it waited at a predictor that is gone was not in the queue.
        return clock.now()

    async def _let_in(self, weight: int, context: RequestContext, began: float) -> None:
        """Waits at the gate; raises Unavailable for who is not let in."""
        asked = clock.now()
        await self._gate.enter(weight, context.priority, began, asked)
        context.reply.waited_s += clock.now() - asked

    async def _woken(self, context: RequestContext) -> float:
        """The seconds that the predictor's start was waited for."""
        since = clock.now()
        await self._wakeup.wait(context)
        waited_s = clock.now() - since
        context.reply.waited_s += waited_s
        return waited_s

    def _heard(self, era: int, now: float) -> None:
        """The predictor has begun to answer a call."""
        self._wakeup.seen(now)
        self._record(Outcome.SUCCESS, era, now)

    def _record(self, outcome: Outcome, era: int, now: float) -> None:
        self._breaker.record(outcome, now, era)
        self._tell_breaker(self._breaker.state(now))

    def _learn(self, error: ServingError, attempt: int, now: float, *, answering: bool) -> Outcome:
        """What an error says about the predictor; notes when it is full or away."""
        if isinstance(error, InternalError):
            return Outcome.FAILURE
        if not isinstance(error, Unavailable):
            return Outcome.SUCCESS if error.http_status < 500 else Outcome.NEITHER
        if error.reason is Reason.FULL and not answering:
            self._gate.refused(now)
            return Outcome.SUCCESS
        self._wakeup.away(error.phase)
        # A predictor that is gone fails many calls at once; whether it is back, the probe tells.
        # One that is there and fails again, or falls silent, is broken.
        again = attempt > 1 and not answering and error.reason is not Reason.STARTING
        return Outcome.FAILURE if again or error.reason is Reason.STALLED else Outcome.NEITHER

    def _pass_breaker(self, model: str, weight: int, now: float) -> int:
        """The era of a call that may go; one that may not leaves the gate and gets Unavailable."""
        refusal_s = self._breaker.refusal_s(now)
        if refusal_s is not None:
            self._gate.leave(weight, now)
            raise Unavailable(
                f"the predictor of model '{model}' keeps failing; calls are refused for a while",
                retry_after_s=refusal_s,
                reason=Reason.BREAKER,
            )
        return self._breaker.era

    def _may_repeat(self, error: Unavailable, now: float) -> bool:
        cause = error.reason or Reason.UNREACHABLE
        # A predictor that is still starting has done no work and is asked again by one probe.
        allowed = cause is Reason.STARTING or self._budget.take(now)
        metrics.RETRIES.labels(self._model, cause, "true" if allowed else "false").inc()
        return allowed

    def _tell_breaker(self, state: State) -> None:
        if state is self._told:
            return
        self._told = state
        for each in State:
            metrics.BREAKER.labels(self._model, each).set(each is state)
