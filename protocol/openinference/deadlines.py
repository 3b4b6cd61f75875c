"""Bounding work in time: by the caller's deadline, and by the caller's staying."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine
from contextlib import aclosing
from typing import Any

from openinference.context import RequestContext
from openinference.errors import DeadlineExceeded
from openinference.generation import Chunk


async def until_deadline(
    chunks: AsyncGenerator[Chunk, None], context: RequestContext
) -> AsyncGenerator[Chunk, None]:
    """`chunks`, until the deadline of `context`: then it is closed and DeadlineExceeded raised."""
    async with aclosing(chunks):
        while True:
            try:
                async with asyncio.timeout_at(context.deadline):
                    chunk = await anext(chunks)
            except StopAsyncIteration:
                return
            except TimeoutError:
                raise DeadlineExceeded("the request's deadline has passed") from None
            yield chunk


async def while_connected(
    receive: Callable[[], Awaitable[Any]], work: Coroutine[Any, Any, None]
) -> None:
    """Runs `work` to its end, or cancels it when an ASGI caller disconnects.

    `receive` is ASGI's, after the request's body has been read: it then returns only when the
    connection is gone or the answer complete.
    """
    task = asyncio.ensure_future(work)
    watcher = asyncio.ensure_future(_disconnected(receive))
    try:
        await asyncio.wait((task, watcher), return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            task.result()
    finally:
        watcher.cancel()
        if not task.done():
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


async def _disconnected(receive: Callable[[], Awaitable[Any]]) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
