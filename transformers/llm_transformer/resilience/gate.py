"""The gate in front of the predictor: a concurrency limit with the backlog before it.

The decisions are those of `backlog` and `limit`; here are the futures, the timer and the sentence
that a refused caller gets.
"""

import asyncio
import math
import random
from typing import Final

from llm_transformer.resilience import metrics
from llm_transformer.resilience.backlog import Backlog, BacklogPolicy, Waiter
from llm_transformer.resilience.limit import ConcurrencyLimit
from openinference import clock, running
from openinference.errors import Reason, Unavailable

TICK_S: Final = 0.05
# Over how many seconds the rate of answers is averaged.
RATE_TAU_S: Final = 5.0
LEAST_RETRY_S: Final = 1.0
MOST_RETRY_S: Final = 30.0

_Ticket = asyncio.Future[None]


class Gate:
    """At most `limit` sequences are in; who comes next waits, is let in, or refused."""

    def __init__(self, policy: BacklogPolicy, limit: ConcurrencyLimit, *, model: str) -> None:
        """`model` stands for the predictor in metrics."""
        self._limit = limit
        self._backlog: Backlog[_Ticket] = Backlog(policy)
        self._in = 0
        self._timer: asyncio.TimerHandle | None = None
        self._rate_per_s = 0.0
        self._left_at = -math.inf
        # Read when they are scraped: to tell each change costs more than the change.
        metrics.QUEUED.labels(model).set_function(lambda: len(self._backlog))
        metrics.IN_FLIGHT.labels(model).set_function(lambda: self._in)
        metrics.LIMIT.labels(model).set_function(lambda: self._limit.value)

    def passes(self, sequences: int) -> bool:
        """Lets in, as `enter` does, where that needs no waiting; False if it does."""
        if self._backlog or not self._fits(sequences):
            return False
        self._in += sequences
        return True

    async def enter(self, sequences: int, priority: int, since: float, now: float) -> None:
        """Returns when `sequences` more may go; each enter needs its `leave`.

        `since` is when the request first asked. Raises Unavailable with a retry time when it is
        shed.
        """
        if self.passes(sequences):
            return
        ticket: _Ticket = running.loop().create_future()
        waiter = Waiter(ticket, priority, sequences, since)
        out = self._backlog.push(waiter, now)
        if out is not None:
            self._refuse(out, "backlog_full", now)
        self._arm()
        try:
            await ticket
        except asyncio.CancelledError:
            if ticket.done() and not ticket.cancelled() and ticket.exception() is None:
                self.leave(sequences, clock.now())
            else:
                self._backlog.remove(waiter)
            raise

    def leave(self, sequences: int, now: float) -> None:
        """Ends what an `enter` began, and lets others in."""
        self._in -= sequences
        self._admit(now)

    def answered(self, sequences: int, queued_s: float | None, now: float) -> None:
        """The predictor has answered; before `leave`."""
        decay = math.exp((self._left_at - now) / RATE_TAU_S)
        self._rate_per_s = self._rate_per_s * decay + sequences / RATE_TAU_S
        self._left_at = now
        full = bool(self._backlog) or self._in >= self._limit.value
        self._limit.answered(sequences, queued_s, now, full=full)

    def refused(self, now: float) -> None:
        """The predictor said that it is full; before `leave`."""
        self._limit.refused(self._in, now)

    def retry_after_s(self, now: float) -> float:
        """When a caller who is turned away may come back: when today's backlog is served.

        Spread, so that they do not all come at once.
        """
        rate = self._rate_per_s * math.exp((self._left_at - now) / RATE_TAU_S)
        drained_s = (len(self._backlog) + 1) / rate if rate > 0 else LEAST_RETRY_S
        bounded_s = min(max(drained_s, LEAST_RETRY_S), MOST_RETRY_S)
        return bounded_s * random.uniform(1.0, 1.5)  # noqa: S311 (not a secret)

    def _fits(self, sequences: int) -> bool:
        # What is larger than the limit goes alone.
        return self._in == 0 or self._in + sequences <= self._limit.value

    def _admit(self, now: float) -> None:
        while (waiter := self._backlog.peek(now)) is not None and self._fits(waiter.weight):
            self._backlog.remove(waiter)
            if not waiter.ticket.done():
                self._in += waiter.weight
                metrics.queue_seconds(waiter.priority).observe(now - waiter.since)
                waiter.ticket.set_result(None)

    def _arm(self) -> None:
        if self._timer is None:
            self._timer = running.loop().call_later(TICK_S, self._tick)

    def _tick(self) -> None:
        self._timer = None
        now = clock.now()
        for waiter in self._backlog.expire(now):
            self._refuse(waiter, "queue_time", now)
        self._admit(now)
        if self._backlog:
            self._arm()

    def _refuse(self, waiter: Waiter[_Ticket], reason: str, now: float) -> None:
        if waiter.ticket.done():
            return
        retry_s = self.retry_after_s(now)
        metrics.SHED.labels(reason, metrics.priority_class(waiter.priority)).inc()
        waiter.ticket.set_exception(
            Unavailable(
                f"overloaded: {len(self._backlog)} requests wait, this one for"
                f" {now - waiter.since:.1f} s; try again in {math.ceil(retry_s)} s",
                retry_after_s=retry_s,
                reason=Reason.OVERLOADED,
            )
        )
