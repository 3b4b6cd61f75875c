"""A server as a child process: its own session, its lines on the console, an orderly end."""

import asyncio
import contextlib
import ctypes
import os
import signal
import sys
from collections.abc import Sequence
from typing import Self

from keepwarm.local.console import Console

_PR_SET_PDEATHSIG = 1


class Server:
    """A running `python -m MODULE ...`.

    It has a session of its own, so that Ctrl-C reaches the supervisor alone, which then decides in
    which order the servers drain. It gets SIGTERM should the supervisor be killed.
    """

    def __init__(
        self, name: str, process: asyncio.subprocess.Process, output: asyncio.Task[None]
    ) -> None:
        self.name = name
        self._process = process
        self._output = output

    @classmethod
    async def start(cls, name: str, module: str, args: Sequence[str], console: Console) -> Self:
        """Starts it; what it prints goes to `console` under `name`."""
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            module,
            *args,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=_end_with_parent,
        )
        assert process.stdout is not None
        return cls(name, process, asyncio.create_task(_copy(process.stdout, name, console)))

    @property
    def status(self) -> int | None:
        """The exit status, negative for a signal; None while it runs."""
        return self._process.returncode

    async def ended(self) -> int:
        """Waits for its end; returns the exit status."""
        return await self._process.wait()

    async def stop(self) -> None:
        """SIGTERM, the end of its drain, and then nothing of its session is left."""
        if self._process.returncode is None:
            self._process.terminate()
            await self._process.wait()
        self.kill()
        await self._output

    def kill(self) -> None:
        """Ends its whole session at once."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)


def _end_with_parent() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


async def _copy(output: asyncio.StreamReader, name: str, console: Console) -> None:
    while True:
        try:
            line = await output.readline()
        except ValueError:  # a line over the reader's limit
            continue
        if not line:
            return
        text = line.decode(errors="replace").rstrip()
        if text:
            console.line(name, text)
