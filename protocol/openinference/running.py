"""The running event loop and task, asked for without a system call.

On Python 3.11 `asyncio.get_running_loop` asks the kernel for the process's id each time. The loop
that a thread has run last is the answer as long as that one runs.
"""

import asyncio
import threading
from typing import Any


class _Latest(threading.local):
    """What `loop` has found last in this thread."""

    loop: asyncio.AbstractEventLoop | None = None


_latest = _Latest()


def loop() -> asyncio.AbstractEventLoop:
    """The running loop; raises RuntimeError where none runs."""
    latest = _latest.loop
    if latest is None or not latest.is_running():
        latest = _latest.loop = asyncio.get_running_loop()
    return latest


def task() -> asyncio.Task[Any] | None:
    """The running task; None in a callback of the loop."""
    return asyncio.current_task(loop())
