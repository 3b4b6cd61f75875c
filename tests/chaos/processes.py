"""The stack under test: one predictor, one Redis, two transformers; each may die and come back."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import httpx

MODEL = "model"
START_S = 90.0
# Characters of a log that tell why a process has ended.
LOG_TAIL = 2000
PERF = Path(__file__).parents[2] / "perf"
# Requests are given up after this; leases of a transformer that died end a little later.
LONGEST_S = 10.0


def free_port() -> int:
    """A loopback port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Process:
    """A child process that comes back on the same ports."""

    def __init__(self, command: Sequence[str], log: Path) -> None:
        self._command = command
        self._log = log.open("ab")
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Starts it; `well` tells when it works."""
        self._process = subprocess.Popen(
            self._command, stdin=subprocess.DEVNULL, stdout=self._log, stderr=self._log
        )

    async def well(self) -> None:
        """Returns when it answers; raises TimeoutError."""
        async with asyncio.timeout(START_S):
            while not await self.answers():
                assert self._process is not None
                if self._process.poll() is not None:
                    raise RuntimeError(
                        f"{self._command} ended with status {self._process.returncode}:"
                        f" {self._last_words()}"
                    )
                await asyncio.sleep(0.05)

    def _last_words(self) -> str:
        return Path(self._log.name).read_text()[-LOG_TAIL:]

    async def answers(self) -> bool:
        """Whether it works."""
        raise NotImplementedError

    def signal(self, number: int) -> None:
        """Sends a signal."""
        assert self._process is not None
        self._process.send_signal(number)

    def kill(self) -> None:
        """SIGKILL; returns when it is gone."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def close(self) -> None:
        """Ends it for good."""
        self.kill()
        self._log.close()


class Redis(Process):
    """A redis-server that keeps nothing on disk: what it held dies with it."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        super().__init__(
            [
                *("redis-server", "--port", str(self.port), "--bind", "127.0.0.1"),
                *("--save", "", "--appendonly", "no", "--dir", str(folder)),
            ],
            folder / "redis.log",
        )

    async def answers(self) -> bool:
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        except OSError:
            return False
        writer.write(b"PING\r\n")
        answer = await reader.readline()
        writer.close()
        return answer == b"+PONG\r\n"


class Server(Process):
    """One of our servers."""

    def __init__(self, name: str, program: Sequence[str], folder: Path) -> None:
        self.name = name
        self.http, self.grpc = free_port(), free_port()
        super().__init__(
            [
                *(sys.executable, *program, f"--model_name={MODEL}", "--host=127.0.0.1"),
                *(f"--http_port={self.http}", f"--grpc_port={self.grpc}", "--log_level=warning"),
            ],
            folder / f"{name}.log",
        )

    async def answers(self) -> bool:
        try:
            async with httpx.AsyncClient(timeout=5) as client:
                answer = await client.get(f"http://127.0.0.1:{self.http}/v2/health/ready")
        except httpx.HTTPError:
            return False
        return answer.status_code == 200

    async def metric(self, name: str) -> float:
        """A metric without labels; 0 when it has not been used."""
        async with httpx.AsyncClient(timeout=30) as client:
            text = (await client.get(f"http://127.0.0.1:{self.http}/metrics")).text
        for line in text.splitlines():
            if line.startswith(f"{name} "):
                return float(line.split()[1])
        return 0.0


class Stack:
    """All of them; `steady` is the transformer that no fault hits."""

    def __init__(self, folder: Path, keys_file: Path, plans_file: Path) -> None:
        os.environ["GRPC_VERBOSITY"] = "none"
        self.redis = Redis(folder)
        self.predictor = Server(
            "predictor",
            [str(PERF / "fixed_predictor.py"), "--slots=16", "--token_ms=20", "--prefill_ms=10"],
            folder,
        )
        self.steady, self.hit = (
            Server(
                name,
                [
                    *("-m", "llm_transformer", f"--predictor_host=127.0.0.1:{self.predictor.grpc}"),
                    *(f"--keys_file={keys_file}", f"--plans_file={plans_file}"),
                    *(f"--redis_url=redis://127.0.0.1:{self.redis.port}", "--redis_replicas=2"),
                    f"--max_timeout_s={LONGEST_S:g}",
                ],
                folder,
            )
            for name in ("steady transformer", "transformer")
        )

    @property
    def all(self) -> tuple[Process, ...]:
        return (self.redis, self.predictor, self.steady, self.hit)

    async def start(self) -> None:
        """Starts all; returns when all are well."""
        for process in self.all:
            process.start()
        await asyncio.gather(*(process.well() for process in self.all))

    def close(self) -> None:
        """Ends all."""
        for process in self.all:
            process.close()


async def revive(process: Process) -> None:
    """Brings a killed process back."""
    process.start()
    await process.well()


async def thaw(process: Process) -> None:
    """Lets a stopped process go on."""
    process.signal(signal.SIGCONT)
    await process.well()
