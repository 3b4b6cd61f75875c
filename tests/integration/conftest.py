"""The whole stack, once for the session: `keepwarm run` with a real engine and real weights."""

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import psutil
import pytest

MODEL = "smollm2"
START_TIMEOUT_S = 400
CLIENTS = Path(__file__).parent / "clients"


@dataclass
class Stack:
    """A running `keepwarm run`: its ports, its output, its two servers."""

    process: subprocess.Popen[str]
    http: int
    grpc: int
    predictor_http: int
    predictor_grpc: int
    lines: list[str] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.http}"

    @property
    def predictor_url(self) -> str:
        return f"http://127.0.0.1:{self.predictor_http}"

    def server(self, module: str) -> psutil.Process:
        """The process of one of the two servers."""
        for child in psutil.Process(self.process.pid).children():
            if module in child.cmdline():
                return child
        raise AssertionError(f"{module} does not run")

    def metric(self, name: str, *, predictor: bool = True) -> float:
        """The sum of a metric's samples."""
        text = httpx.get(f"{self.predictor_url if predictor else self.url}/metrics").text
        samples = re.findall(rf"^{re.escape(name)}(?:\{{[^}}]*\}})? (\S+)$", text, re.MULTILINE)
        assert samples, f"no metric {name}"
        return sum(float(sample) for sample in samples)


@pytest.fixture(scope="session")
def stack(free_ports: Callable[[int], list[int]]) -> Iterator[Stack]:
    ports = free_ports(4)
    flags = ("--http-port", "--grpc-port", "--predictor-http-port", "--predictor-grpc-port")
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "keepwarm.cli", "run"),
            *(word for pair in zip(flags, map(str, ports), strict=True) for word in pair),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL,
        text=True,
    )
    stack = Stack(process, *ports)
    ready = threading.Event()

    def read() -> None:
        assert process.stdout is not None
        for line in process.stdout:
            stack.lines.append(line)
            if "Streaming:" in line:
                ready.set()
        ready.set()

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    try:
        assert ready.wait(START_TIMEOUT_S), "".join(stack.lines)
        assert process.poll() is None, "".join(stack.lines)
        yield stack
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        process.wait(60)
        reader.join(10)


@pytest.fixture
def start_transformer(
    free_ports: Callable[[int], list[int]], eventually: Callable[..., None]
) -> Iterator[Callable[..., tuple[subprocess.Popen[bytes], str]]]:
    """Starts another transformer, in front of any predictor: (process, URL)."""
    started: list[subprocess.Popen[bytes]] = []

    def start(predictor_port: int, *flags: str) -> tuple[subprocess.Popen[bytes], str]:
        http, grpc = free_ports(2)
        process = subprocess.Popen(
            [
                *(sys.executable, "-m", "llm_transformer", f"--model_name={MODEL}"),
                *(f"--predictor_host=127.0.0.1:{predictor_port}", "--host=127.0.0.1"),
                *(f"--http_port={http}", f"--grpc_port={grpc}", "--allow_anonymous", *flags),
            ]
        )
        started.append(process)
        url = f"http://127.0.0.1:{http}"
        eventually(lambda: _answers(url), "the transformer is live", timeout_s=60)
        return process, url

    yield start
    for process in started:
        process.kill()
        process.wait()


def _answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/v2/health/live").status_code == 200
    except httpx.HTTPError:
        return False


@pytest.fixture(scope="session")
def run_client() -> Callable[..., str]:
    """Runs a script of `clients/` in a process of its own and returns what it printed.

    KServe and tritonclient register the same protobuf names, so no process can hold both.
    """

    def run(script: str, *args: object) -> str:
        done = subprocess.run(
            [sys.executable, CLIENTS / script, *map(str, args)],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
            env={**os.environ, "OPENAI_API_KEY": "none"},
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run
