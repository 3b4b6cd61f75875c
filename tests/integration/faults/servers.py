"""Our two servers as child processes, over the engine of fixed capacity, and what they tell."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import httpx

from keepwarm.local.model_folder import demo_folder

MODEL = "model"
FIXED_PREDICTOR = Path(__file__).parents[3] / "perf" / "fixed_predictor.py"
START_S = 60
ENGINE_START_S = 400


@dataclass
class Server:
    """A running server of ours."""

    process: subprocess.Popen[bytes]
    http: int
    grpc: int
    host: str = "127.0.0.1"

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.http}"

    @property
    def target(self) -> str:
        return f"{self.host}:{self.grpc}"

    def metric(self, name: str) -> float:
        """The sum of a metric's samples; 0 when there are none. Labels may be part of the name."""
        text = httpx.get(f"{self.url}/metrics").text
        labels = "" if "{" in name else r"(?:\{[^}]*\})?"
        samples = re.findall(rf"^{re.escape(name)}{labels} (\S+)$", text, re.MULTILINE)
        return sum(float(sample) for sample in samples)

    def is_ready(self) -> bool:
        with suppress(httpx.HTTPError):
            return httpx.get(f"{self.url}/v2/health/ready").status_code == 200
        return False

    def stop(self) -> None:
        """SIGSTOP: the kernel still takes its connections, nobody answers."""
        self.process.send_signal(signal.SIGSTOP)

    def kill(self) -> None:
        """SIGKILL, as the kernel's out-of-memory killer sends it."""
        self.process.kill()
        self.process.wait()

    def drained(self) -> int:
        """Waits for the process to end; returns its exit status."""
        return self.process.wait(60)


def _free_port(host: str) -> int:
    with socket.socket() as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])


@contextmanager
def predictor(
    *flags: str, grpc: int | None = None, host: str = "127.0.0.1", ready: bool = True
) -> Iterator[Server]:
    """The predictor's server over the fixed engine; `ready` waits until it can answer."""
    with _server(
        [str(FIXED_PREDICTOR), "--drain_s=30", *flags], grpc=grpc, host=host, ready=ready
    ) as server:
        yield server


@contextmanager
def real_predictor(*flags: str) -> Iterator[Server]:
    """The predictor with vLLM's engine and the demo's weights, ready."""
    folder = demo_folder()
    program = ["-m", "vllm_predictor", f"--model_dir={folder}", "--max_model_len=2048", *flags]
    with _server(program, ready=True, start_s=ENGINE_START_S) as server:
        yield server


@contextmanager
def transformer(
    predictor: str, *flags: str, wrapper: Sequence[str] = (), ready: bool = True
) -> Iterator[Server]:
    """A transformer in front of `predictor` (HOST:PORT); `wrapper` is a command that starts it."""
    with _server(
        ["-m", "llm_transformer", "--allow_anonymous", f"--predictor_host={predictor}", *flags],
        wrapper=wrapper,
        ready=ready,
    ) as server:
        yield server


@contextmanager
def _server(
    arguments: Sequence[str],
    *,
    grpc: int | None = None,
    host: str = "127.0.0.1",
    wrapper: Sequence[str] = (),
    ready: bool,
    start_s: float = START_S,
) -> Iterator[Server]:
    http, grpc = _free_port(host), grpc or _free_port(host)
    process = subprocess.Popen(
        [
            *(*wrapper, sys.executable, *arguments, f"--model_name={MODEL}", f"--host={host}"),
            *(f"--http_port={http}", f"--grpc_port={grpc}", "--log_level=warning"),
        ],
        env={**os.environ, "GRPC_VERBOSITY": "none"},
    )
    server = Server(process, http, grpc, host)
    try:
        end = time.monotonic() + start_s
        while ready and not server.is_ready():
            assert process.poll() is None, f"it ended with status {process.returncode}"
            assert time.monotonic() < end, "it is not ready"
            time.sleep(0.05)
        yield server
    finally:
        server.kill()
