"""The cold start: one probe wakes the predictor, everybody else waits for its answer.

The predictor is taken to be awake for `idle_s` after its last sign of life. After that, or when a
call finds it away, one probe goes ahead of all requests: behind Knative's activator it is held
until a pod is ready, and many callers do not count as many. The probe runs to its end even when all
callers have left, so each start is measured. Where a burst is to start several predictors at once,
more probes go beside it, as many as callers wait.
"""

import asyncio
import logging
import math
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from llm_transformer.resilience import metrics
from llm_transformer.resilience.start_times import Start, StartTimes, StartTimeStore, durations
from openinference import clock
from openinference.context import RequestContext
from openinference.errors import Reason, ServingError, Unavailable, Waking
from openinference.messages import ModelState, ModelStatus

logger = logging.getLogger("llm_transformer.wakeup")

# An answer that comes sooner was not a start.
AWAKE_WITHIN_S: Final = 1.0
# A held caller is answered a little before its deadline, while the answer still reaches it.
MARGIN_S: Final = 0.25
MARGIN_SHARE: Final = 0.1
FIRST_PAUSE_S: Final = 0.1
LONGEST_PAUSE_S: Final = 1.0
UNREACHABLE_RETRY_S: Final = 1.0
# Asked for by each request.
_READY: Final = ModelStatus(ModelState.READY)


@dataclass(frozen=True, slots=True)
class Probe:
    """What a probe found; `phase` is the start-up phase that the predictor is in, if it says."""

    ready: bool
    reachable: bool = True
    phase: str | None = None


@dataclass(frozen=True, slots=True)
class WakePolicy:
    """Times in seconds.

    `idle_s`: silence after which the predictor may be at zero; 0 is never. `unreachable_s`: how
    long callers are held while nothing at all answers. `probe_s`: the longest single probe.
    `most_held` bounds how many callers wait, `most_probes` how many probes go at a time.
    """

    idle_s: float = 60.0
    unreachable_s: float = 15.0
    probe_s: float = 300.0
    most_held: int = 1000
    most_probes: int = 1


class Wakeup:
    """Whether the predictor is awake, and the one task that wakes it."""

    def __init__(
        self,
        model: str,
        probe: Callable[[float], Awaitable[Probe]],
        policy: WakePolicy,
        starts: StartTimes,
        store: StartTimeStore,
    ) -> None:
        """`probe` is called with the seconds it may take; it raises nothing."""
        self._model = model
        self._probe = probe
        self._policy = policy
        self._starts = starts
        self._store = store
        self._seen_at = -math.inf
        self._waking: asyncio.Task[None] | None = None
        self._began = 0.0
        self._phase: str | None = None
        self._unreachable_since: float | None = None
        self._changed = asyncio.Event()
        self._held = 0
        # The probes beside the one that wakes.
        self._beside: list[asyncio.Task[None]] = []
        # Scraped from the start on, at 0.
        self._held_told = metrics.HELD.labels(model)
        self._start_seconds = metrics.STARTS.labels(model)
        self._publish()

    def is_awake(self, now: float) -> bool:
        """Whether a request may go straight to the predictor."""
        return self._waking is None and (
            now - self._seen_at < self._policy.idle_s
            or (self._policy.idle_s == 0 and self._seen_at > -math.inf)
        )

    def seen(self, now: float) -> None:
        """The predictor has answered."""
        self._seen_at = now

    def away(self, phase: str | None = None) -> None:
        """A call found no predictor, or one that is starting in `phase`."""
        self._seen_at = -math.inf
        self._phase = phase
        self._publish()

    def status(self, now: float) -> ModelStatus:
        """What is known without asking; it wakes nobody."""
        if self._waking is not None:
            elapsed_s = now - self._began
            return ModelStatus(ModelState.STARTING, self._phase, elapsed_s, self._starts.expected_s)
        if self.is_awake(now):
            return _READY
        return ModelStatus(ModelState.ASLEEP, expected_s=self._starts.expected_s)

    def begin(self) -> None:
        """Starts the probe unless it runs."""
        if self._waking is None:
            self._began = clock.now()
            self._waking = asyncio.create_task(self._wake())

    async def learn(self) -> None:
        """Reads what is known of earlier starts, by this process or any other."""
        known = durations(await self._store.load())
        if known:
            self._starts.replace(known)

    async def close(self) -> None:
        """Ends the probe."""
        if self._waking is not None:
            self._waking.cancel()
            await asyncio.gather(self._waking, return_exceptions=True)

    async def wait(self, context: RequestContext) -> None:
        """Returns when the predictor is ready.

        Raises Unavailable a little before the deadline of `context`, with what is left of a start
        as retry time, or when nothing answers for `unreachable_s`; Waking at once for a caller who
        asked not to wait.
        """
        loop = asyncio.get_running_loop()
        came = loop.time()
        self.begin()
        if self._held >= self._policy.most_held:
            metrics.SHED.labels("held_full", metrics.priority_class(context.priority)).inc()
            raise self._starting(came, "too many requests wait for it already; ")
        until = came + AWAKE_WITHIN_S if context.caller.nowait else _until(context, came)
        outcome = "cancelled"
        self._hold(self._held + 1)
        try:
            async with asyncio.timeout_at(until):
                while self._waking is not None:
                    context.reply.note = self._note(loop.time())
                    await self._changed.wait()
                    self._check_reachable(loop.time())
            outcome = "served"
        except TimeoutError:
            outcome = "timeout"
            now = loop.time()
            if context.caller.nowait:
                raise Waking(
                    self._note(now),
                    retry_after_s=self._starts.remaining_s(now - self._began),
                    model=self._model,
                    status=self.status(now),
                ) from None
            raise self._starting(now) from None
        except ServingError:
            outcome = "unreachable"
            raise
        finally:
            context.reply.note = None
            self._hold(self._held - 1)
            metrics.HELD_SECONDS.labels(outcome).observe(loop.time() - came)

    async def _wake(self) -> None:
        loop = asyncio.get_running_loop()
        pause_s = FIRST_PAUSE_S
        learned = False
        try:
            while True:
                probe = await self._probe(self._policy.probe_s)
                now = loop.time()
                if probe.ready:
                    break
                self._note_probe(probe, now)
                if not learned:
                    learned = True
                    await self.learn()
                if self._out_of_reach(now) and not self._held:
                    logger.warning("model '%s': no predictor answers; nobody waits", self._model)
                    return
                await asyncio.sleep(pause_s)
                pause_s = min(LONGEST_PAUSE_S, 1.5 * pause_s)
            self._seen_at = now
            self._unreachable_since = None
            self._end()
            await self._started(now - self._began)
        finally:
            if self._waking is asyncio.current_task():
                self._end()

    def _end(self) -> None:
        self._waking = None
        self._phase = None
        self._match_probes()
        self._tell()

    def _hold(self, callers: int) -> None:
        self._held = callers
        self._held_told.set(callers)
        self._match_probes()

    def _match_probes(self) -> None:
        """A probe for each caller, within bounds: what counts requests then counts the callers."""
        probes = 0 if self._waking is None else min(self._held, self._policy.most_probes)
        while len(self._beside) < probes - 1:
            self._beside.append(asyncio.create_task(self._probe_beside()))
        while self._beside and len(self._beside) >= probes:
            self._beside.pop().cancel()

    async def _probe_beside(self) -> None:
        while True:
            if (await self._probe(self._policy.probe_s)).ready:
                return
            await asyncio.sleep(LONGEST_PAUSE_S)

    async def _started(self, seconds: float) -> None:
        if seconds < AWAKE_WITHIN_S:
            return
        logger.info("model '%s' is ready, %.1f s after it was asked for", self._model, seconds)
        self._start_seconds.observe(seconds)
        self._starts.add(seconds)
        await self._store.add(Start(seconds, time.time()))

    def _note_probe(self, probe: Probe, now: float) -> None:
        self._phase = probe.phase
        if probe.reachable:
            self._unreachable_since = None
        elif self._unreachable_since is None:
            self._unreachable_since = now
        self._tell()

    def _tell(self) -> None:
        self._publish()
        self._changed.set()
        self._changed = asyncio.Event()

    def _out_of_reach(self, now: float) -> bool:
        since = self._unreachable_since
        return since is not None and now - since >= self._policy.unreachable_s

    def _check_reachable(self, now: float) -> None:
        if self._out_of_reach(now):
            raise Unavailable(
                f"the predictor of model '{self._model}' cannot be reached",
                retry_after_s=UNREACHABLE_RETRY_S,
                reason=Reason.UNREACHABLE,
            )

    def _note(self, now: float) -> str:
        elapsed_s = now - self._began
        phase = f" (phase {self._phase})" if self._phase else ""
        left_s = self._starts.remaining_s(elapsed_s)
        return (
            f"model '{self._model}' is starting{phase}, for {elapsed_s:.0f} s so far;"
            f" it should take {math.ceil(left_s)} s more"
        )

    def _starting(self, now: float, why: str = "") -> Unavailable:
        return Unavailable(
            why + self._note(now),
            retry_after_s=self._starts.remaining_s(now - self._began),
            reason=Reason.STARTING,
        )

    def _publish(self) -> None:
        # Without a clock: asleep and awake-but-silent look alike to a scrape, which asks nobody.
        awake = self._waking is None and self._seen_at > -math.inf
        metrics.STATE.labels(self._model, "ready").set(awake)
        metrics.STATE.labels(self._model, "starting").set(self._waking is not None)


def _until(context: RequestContext, now: float) -> float | None:
    left_s = context.remaining_s(now)
    if left_s is None or context.deadline is None:
        return None
    return context.deadline - min(MARGIN_S, MARGIN_SHARE * left_s)
