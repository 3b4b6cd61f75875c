"""Sends server-sent events, and comments while there are none, so that proxies keep the stream.

The status goes out with the first event; when none has come for a while, with the first comment,
after which an error can only be an event.
"""

import asyncio
from typing import Final

from openinference import alarms, clock, sse
from openinference.context import RequestContext
from openinference.rest._wire import Answering

# Below the idle timeouts of common proxies (30 s to 100 s), with one comment to lose.
QUIET_S: Final = 10.0


class EventSender:
    """One stream's answer; `settle` must be awaited when no more events come."""

    def __init__(self, context: RequestContext, out: Answering) -> None:
        self._context = context
        self._out = out
        self._sent_at = clock.now()
        self._alarm = alarms.call_at(self._sent_at + QUIET_S, self._look)
        self._comment: asyncio.Task[None] | None = None
        self.begun = False

    async def send(self, part: bytes) -> None:
        """Sends events; the first goes with the status 200."""
        if self._comment is not None:
            await self._comment
        if not self.begun:
            await self._begin()
        await self._out.part(part)
        self._sent_at = clock.now()

    async def settle(self) -> None:
        """Ends the comments."""
        self._alarm.cancel()
        if self._comment is not None:
            await self._comment

    async def _begin(self) -> None:
        self.begun = True
        headers = {
            "content-type": sse.CONTENT_TYPE,
            "cache-control": "no-cache",
            # Nginx-like proxies buffer answers unless told.
            "x-accel-buffering": "no",
            **self._context.returned(),
        }
        await self._out.begin(headers.items())

    def _look(self) -> None:
        now = clock.now()
        due = self._sent_at + QUIET_S
        if due <= now:
            self._comment = asyncio.create_task(self._say_wait())
            due = now + QUIET_S
        self._alarm = alarms.call_at(due, self._look)

    async def _say_wait(self) -> None:
        try:
            if not self.begun:
                await self._begin()
            await self._out.part(sse.comment(self._context.reply.note or "waiting for the model"))
            self._sent_at = clock.now()
        finally:
            self._comment = None
