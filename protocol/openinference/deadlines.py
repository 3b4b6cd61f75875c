"""Bounding work in time: by the caller's deadline, and by the caller's staying."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine
from contextlib import aclosing
from typing import Any, Final

from openinference import clock, text_tensors
from openinference.context import RequestContext, shortened
from openinference.errors import DeadlineExceeded
from openinference.generation import Chunk, Completion, GenerationRequest, collect
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
    bound = _Bound(context.deadline)
    async with aclosing(chunks):
        try:
            while True:
                try:
                    with bound:
                        chunk = await anext(chunks)
                except StopAsyncIteration:
                    return
                yield chunk
        finally:
            bound.end()


class _Cut:
    """Cancels, at once, what one task awaits in a `with` block of it; one block after another.

    The block swallows this cancellation and no other.
    """

    __slots__ = ("_cancelling", "_has_cancelled", "_is_waiting", "_task")

    def __init__(self) -> None:
        self._task: asyncio.Task[Any] | None = None
        self._cancelling = 0
        self._is_waiting = self._has_cancelled = False

    def __enter__(self) -> None:
        self._task = self._task or asyncio.current_task()
        self._is_waiting = True

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> bool:
        self._is_waiting = False
        if not self._has_cancelled or self._task is None:
            return False
        self._has_cancelled = False
        # Not if somebody else has cancelled the task too.
        return self._task.uncancel() <= self._cancelling and kind is asyncio.CancelledError

    def cut(self) -> None:
        """Ends the block that the task is in, if it is in one."""
        if self._is_waiting and not self._has_cancelled and self._task is not None:
            self._has_cancelled = True
            self._cancelling = self._task.cancelling()
            self._task.cancel()


class _Bound:
    """`asyncio.timeout_at` for many waits of one task, with one timer for all of them.

    Each wait is a `with` block, which raises DeadlineExceeded at the deadline or after it.
    """

    __slots__ = ("_cut", "_is_late", "_timer")

    def __init__(self, deadline: float | None) -> None:
        self._cut = _Cut()
        self._is_late = False
        self._timer = (
            None
            if deadline is None
            else asyncio.get_running_loop().call_at(deadline, self._on_deadline)
        )

    def end(self) -> None:
        """No wait comes any more."""
        if self._timer is not None:
            self._timer.cancel()

    def __enter__(self) -> None:
        if self._is_late:
            raise _exceeded()
        if self._timer is not None:
            self._cut.__enter__()

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._cut.__exit__(kind):
            raise _exceeded() from None

    def _on_deadline(self) -> None:
        self._is_late = True
        self._cut.cut()


def _exceeded() -> DeadlineExceeded:
    return DeadlineExceeded("the request's deadline has passed")


async def collect_until_deadline(
    request: GenerationRequest, chunks: AsyncGenerator[Chunk, None], context: RequestContext
) -> list[Completion]:
    """All sequences of `request`; at the deadline of `context`, `chunks` is closed.

    Raises DeadlineExceeded then, and InternalError if a sequence is missing.
    """
    bound = _Bound(context.deadline)
    async with aclosing(chunks):
        try:
            with bound:
                return await collect(request, chunks)
        finally:
            bound.end()


class Caller:
    """Who asked for some work, and may leave before it is done."""

    __slots__ = ("_cut", "_has_left")

    def __init__(self) -> None:
        self._has_left = False
        self._cut = _Cut()

    def left(self) -> None:
        """The caller is gone; what is done for it ends, what has not begun is not done."""
        self._has_left = True
        self._cut.cut()

    async def while_there(self, work: Coroutine[Any, Any, None]) -> None:
        """Runs `work` to its end, or cancels it when the caller leaves."""
        if self._has_left:
            work.close()
            return
        try:
            with self._cut:
                await work
        except Exception:
            if not self._has_left:
                raise


async def while_connected(
    receive: Callable[[], Awaitable[Any]], work: Coroutine[Any, Any, None]
) -> None:
    """Runs `work` to its end, or cancels it when an ASGI caller disconnects.

    A caller who leaves within UNWATCHED_S is noticed after that.

    `receive` is ASGI's, after the request's body has been read: it then returns only when the
    connection is gone or the answer complete.
    """
    loop = asyncio.get_running_loop()
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
