"""vLLM's own OpenAI server and our predictor as child processes with the same engine arguments."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil

NAME = "m"
POLL_S = 0.05
START_S = 420.0
END_S = 30.0


@dataclass(frozen=True)
class Engine:
    """Engine arguments under vLLM's names; ours are derived from them."""

    model: Path
    max_model_len: int = 3072
    max_num_seqs: int = 256
    max_num_batched_tokens: int = 8192
    load_format: str = "dummy"
    graph_sizes: Sequence[int] = (1, 2, 4, 8, 16, 32, 64, 128, 256)
    kv_cache_gib: float | None = None
    gpu_memory_utilization: float = 0.9
    sleep_mode: bool = False
    eager: bool = False

    def raw(self, *, tuned: bool = True) -> list[str]:
        """Arguments of vLLM's server; not `tuned` is what a user gets who only names the model."""
        args = [f"--model={self.model}", f"--served-model-name={NAME}"]
        args += [f"--load-format={self.load_format}", f"--max-model-len={self.max_model_len}"]
        args += [f"--gpu-memory-utilization={self.gpu_memory_utilization}"]
        args += ["--enable-sleep-mode"] if self.sleep_mode else []
        args += ["--enforce-eager"] if self.eager else []
        if not tuned:
            return args
        args += [f"--max-num-seqs={self.max_num_seqs}", "--enable-prefix-caching"]
        args += [f"--max-num-batched-tokens={self.max_num_batched_tokens}"]
        args += ["--cudagraph-capture-sizes", *map(str, self.graph_sizes)]
        if self.kv_cache_gib is not None:
            args += [f"--kv-cache-memory-bytes={int(self.kv_cache_gib * 2**30)}"]
        return args

    def ours(self) -> list[str]:
        """Arguments of our predictor, for the same engine."""
        args = [f"--model_dir={self.model}", f"--model_name={NAME}"]
        args += [f"--load_format={self.load_format}", f"--max_model_len={self.max_model_len}"]
        args += [f"--max_num_seqs={self.max_num_seqs}", f"--enforce_eager={self.eager}".lower()]
        args += [f"--max_num_batched_tokens={self.max_num_batched_tokens}"]
        args += [f"--gpu_memory_utilization={self.gpu_memory_utilization}"]
        args += [f"--max_num_queued_reqs={16 * self.max_num_seqs}"]
        args += [f"--cuda_graph_sizes={size}" for size in self.graph_sizes]
        args += ["--sleep_mode"] if self.sleep_mode else []
        if self.kv_cache_gib is not None:
            args += [f"--kv_cache_gib={self.kv_cache_gib}"]
        return args


@dataclass
class Server:
    """A child process that answers completions on `port`."""

    process: subprocess.Popen[bytes]
    port: int
    log: Path
    ours: bool
    began: float = field(default_factory=time.monotonic)

    @classmethod
    def start(
        cls,
        arguments: Sequence[str],
        *,
        port: int,
        log: Path,
        ours: bool,
        environment: Mapping[str, str] | None = None,
    ) -> "Server":
        """Starts `python -m ARGUMENTS`, output to `log`."""
        with log.open("wb") as output:
            process = subprocess.Popen(  # noqa: S603 (the servers under test)
                [sys.executable, "-m", *arguments],
                stdout=output,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
                env={**os.environ, **(environment or {})},
            )
        return cls(process, port, log, ours)

    def first_token_s(self) -> float:
        """Seconds from the start of the process until a caller who keeps trying has a token.

        Raises RuntimeError with the end of the log when the server ends or takes too long.
        """
        while True:
            if self.ask("Hello", 1) is not None:
                return time.monotonic() - self.began
            if self.process.poll() is not None or time.monotonic() > self.began + START_S:
                raise RuntimeError(f"{self.log}:\n{self.log.read_text(errors='replace')[-3000:]}")
            time.sleep(POLL_S)

    def ask(self, prompt: str, tokens: int) -> float | None:
        """Seconds that a whole answer of so many tokens took; None while there is none."""
        path, body = self.completion(prompt, tokens, stream=False)
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}{path}", body, {"content-type": "application/json"}
        )
        began = time.monotonic()
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310
                answer.read()
        except (urllib.error.URLError, OSError):
            return None
        return time.monotonic() - began

    def completion(self, prompt: str, tokens: int, *, stream: bool) -> tuple[str, bytes]:
        """Path and body of a greedy completion of exactly so many tokens."""
        if self.ours:
            parameters = {"max_tokens": tokens, "temperature": 0, "ignore_eos": True}
            path = f"/v2/models/{NAME}/generate{'_stream' if stream else ''}"
            return path, json.dumps({"text_input": prompt, "parameters": parameters}).encode()
        body = {"model": NAME, "prompt": prompt, "max_tokens": tokens, "temperature": 0}
        body |= {"ignore_eos": True, "stream": stream}
        return "/v1/completions", json.dumps(body).encode()

    def cpu_s(self) -> float:
        """CPU seconds of the front end, user and system; the engine is a process of its own."""
        times = psutil.Process(self.process.pid).cpu_times()
        return float(times.user + times.system)

    def end(self) -> None:
        """SIGTERM to the process, SIGKILL to what is left of its session."""
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(END_S)
        except subprocess.TimeoutExpired:
            pass
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()


RAW = "vllm.entrypoints.openai.api_server"
OURS = "vllm_predictor"


def start_raw(engine: Engine, port: int, log: Path, *, tuned: bool = True) -> Server:
    """VLLM's own server."""
    arguments = [RAW, *engine.raw(tuned=tuned), f"--port={port}", "--host=127.0.0.1"]
    return Server.start(arguments, port=port, log=log, ours=False)


def start_ours(engine: Engine, port: int, log: Path, *flags: str) -> Server:
    """Our predictor."""
    arguments = [OURS, *engine.ours(), f"--http_port={port}", f"--grpc_port={port + 1}"]
    arguments += [f"--admin_port={port + 2}", "--host=127.0.0.1", *flags]
    return Server.start(arguments, port=port, log=log, ours=True)
