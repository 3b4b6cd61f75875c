"""Servers as child processes, on one core each where asked, and what the kernel says of them."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import psutil

START_S = 60.0
END_S = 10.0


def free_port() -> int:
    """A loopback port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _cpu_clock(pid: int) -> int:
    """The clock of another process's CPU time, in nanoseconds where /proc counts ticks of 10 ms.

    Source: clock_getcpuclockid(3), Linux's MAKE_PROCESS_CPUCLOCK(pid, CPUCLOCK_SCHED).
    """
    return (~pid << 3) | 2


class PinnedServer:
    """A Python program that listens on `port` and runs on `core` only, where that is given."""

    def __init__(
        self,
        name: str,
        arguments: Sequence[str],
        *,
        port: int,
        core: int | None = None,
        python: str = sys.executable,
        variables: Mapping[str, str] | None = None,
        quiet: bool = False,
        children_end_s: float = END_S,
    ) -> None:
        """Starts `PYTHON ARGUMENTS` with more environment variables.

        Its output goes to our stderr, or nowhere when `quiet`. Its children have `children_end_s`
        to end after it.
        """
        self.name = name
        self.port = port
        self._children_end_s = children_end_s
        self._process = subprocess.Popen(  # noqa: S603 (our own servers)
            [python, *arguments],
            stdout=subprocess.DEVNULL if quiet else sys.stderr,
            stderr=subprocess.DEVNULL if quiet else None,
            env={**os.environ, **(variables or {})},
        )
        if core is not None:
            # Before the interpreter has begun its first thread; later threads inherit it.
            os.sched_setaffinity(self._process.pid, {core})

    @property
    def pid(self) -> int:
        """Of the process."""
        return self._process.pid

    def wait_until_listening(self) -> None:
        """Returns when the port accepts; raises RuntimeError after START_S or when it ended."""

        def listens() -> bool:
            with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1.0):
                return True
            return False

        self.wait_until(listens, "listen", START_S)

    def wait_until(self, condition: Callable[[], bool], what: str, most_s: float) -> None:
        """Returns when it holds; raises RuntimeError after `most_s` or when the server ended."""
        deadline = time.monotonic() + most_s
        while not condition():
            if self._process.poll() is not None:
                raise RuntimeError(f"{self.name} ended with status {self._process.returncode}")
            if time.monotonic() > deadline:
                raise RuntimeError(f"{self.name} does not {what} after {most_s:g} s")
            time.sleep(0.05)

    def cpu_us(self) -> float:
        """CPU time that the process has used since its start, user and system, microseconds."""
        return time.clock_gettime_ns(_cpu_clock(self._process.pid)) / 1e3

    def rss_mib(self) -> float:
        """Resident memory now, MiB."""
        status = Path(f"/proc/{self._process.pid}/status").read_text(encoding="ascii")
        line = next(line for line in status.splitlines() if line.startswith("VmRSS:"))
        return int(line.split()[1]) / 1024

    def end(self) -> None:
        """SIGTERM, and SIGKILL when that does not help within END_S; its children end with it.

        A GPU's memory is that of an engine's own process, and free when that one is gone.
        """
        children = self._children()
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(END_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        _, left = psutil.wait_procs(children, self._children_end_s)
        for child in left:
            with suppress(psutil.NoSuchProcess):
                child.kill()
        psutil.wait_procs(left, END_S)

    def _children(self) -> list[psutil.Process]:
        """All below the process; none of one that has ended."""
        try:
            return psutil.Process(self._process.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            return []
