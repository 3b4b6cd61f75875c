"""Bounding work in time: by the caller's deadline, and by the caller's staying."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine
from typing import Any, Final, Self

from openinference import alarms, clock, running, text_tensors
from openinference.context import RequestContext, shortened
from openinference.errors import DeadlineExceeded
from openinference.generation import Chunk, Completion, GenerationRequest, collected
from openinference.messages import Parameters

# How long a request runs before anybody looks whether its caller has left. Most of what ends
# sooner, a cached answer or an error, costs more to watch than to finish.
UNWATCHED_S: Final = 0.1


def bounded(context: RequestContext, parameters: Parameters) -> RequestContext:
    """`context`, shortened by Triton's `timeout` request parameter where there is one."""
    timeout_s = text_tensors.timeout_s(parameters)
    if timeout_s is None:
        return context
    return shortened(context, clock.now(), timeout_s)


async def until_deadline(
    chunks: AsyncGenerator[Chunk, None], context: RequestContext
) -> AsyncGenerator[Chunk, None]:
    """`chunks`, until the deadline of `context`: then it is closed and DeadlineExceeded raised."""
    async with _Bound(chunks, context.deadline) as bound:
        async for chunk in chunks:
            bound.rest()
            yield chunk
            bound.wait()


async def collect_until_deadline(
    request: GenerationRequest, chunks: AsyncGenerator[Chunk, None], context: RequestContext
) -> list[Completion]:
    """All sequences of `request`; at the deadline of `context`, `chunks` is closed.

    Raises DeadlineExceeded then, and InternalError if a sequence is missing.
    """
    async with _Bound(chunks, context.deadline):
        return collected(request, [chunk async for chunk in chunks])


class _Cut:
    """Cancels, at once, what one task awaits between a `wait` and its `rest`; again and again.

    Who awaits asks `rest` whether a cancellation was this one, and then swallows it.
    """

    __slots__ = ("_cancelling", "_has_cancelled", "_is_waiting", "_task")

    def __init__(self, task: asyncio.Task[Any] | None) -> None:
        self._task = task
        self._cancelling = 0
        self._is_waiting = self._has_cancelled = False

    def rest(self) -> bool:
        """The wait has ended; whether it was cut, and by nobody else too."""
        self._is_waiting = False
        if not self._has_cancelled or self._task is None:
            return False
        self._has_cancelled = False
        return self._task.uncancel() <= self._cancelling

    def cut(self) -> None:
        """Ends the wait that the task is in, if it is in one."""
        if self._is_waiting and not self._has_cancelled and self._task is not None:
            self._has_cancelled = True
            self._cancelling = self._task.cancelling()
            self._task.cancel()


class _Bound(_Cut):
    """`asyncio.timeout_at` for many waits for chunks, with one timer for all of them.

    The block begins with a wait; at its end the chunks are closed, and a wait that was cut raises
    DeadlineExceeded.
    """

    __slots__ = ("_alarm", "_chunks", "_is_late")

    def __init__(self, chunks: AsyncGenerator[Chunk, None], deadline: float | None) -> None:
        """Of the running task."""
        super().__init__(None if deadline is None else running.task())
        self._chunks = chunks
        self._is_late = False
        self._alarm = None if deadline is None else alarms.call_at(deadline, self._on_deadline)

    def wait(self) -> None:
        """What is awaited now is cut at the deadline; raises DeadlineExceeded after it."""
        if self._is_late:
            raise _exceeded()
        self._is_waiting = True

    async def __aenter__(self) -> Self:
        self.wait()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        is_cut = self.rest() and kind is asyncio.CancelledError
        if self._alarm is not None:
            self._alarm.cancel()
        await self._chunks.aclose()
        if is_cut:
            raise _exceeded() from None

    def _on_deadline(self) -> None:
        self._is_late = True
        self.cut()


def _exceeded() -> DeadlineExceeded:
    return DeadlineExceeded("the request's deadline has passed")


class Caller(_Cut):
    """Who asked for some work, and may leave before it is done."""

    __slots__ = ("_has_left",)

    def __init__(self) -> None:
        super().__init__(None)
        self._has_left = False

    def left(self) -> None:
        """The caller is gone; what is done for it ends, what has not begun is not done."""
        self._has_left = True
        self.cut()

    async def while_there(self, work: Coroutine[Any, Any, None]) -> None:
        """Runs `work` to its end, or cancels it when the caller leaves."""
        if self._has_left:
            work.close()
            return
        self._task = running.task()
        self._is_waiting = True
        try:
            await work
        except asyncio.CancelledError:
            if not self.rest():
                raise
        except Exception:
            if not self._has_left:
                raise
        finally:
            self.rest()


async def while_connected(
    receive: Callable[[], Awaitable[Any]], work: Coroutine[Any, Any, None]
) -> None:
    """Runs `work` to its end, or cancels it when an ASGI caller disconnects.

    A caller who leaves within UNWATCHED_S is noticed after that.

    `receive` is ASGI's, after the request's body has been read: it then returns only when the
    connection is gone or the answer complete.
    """
    loop = running.loop()
    watchers: list[asyncio.Task[None]] = []
    caller = Caller()

    async def watch() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        caller.left()

    timer = loop.call_later(UNWATCHED_S, lambda: watchers.append(loop.create_task(watch())))
    try:
        await caller.while_there(work)
    finally:
        timer.cancel()
        for watcher in watchers:
            watcher.cancel()
