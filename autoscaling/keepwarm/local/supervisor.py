"""Starts predictor and transformer, shows progress until they answer, ends both together."""

import asyncio
import re
import signal
import socket
import tempfile
import time
from dataclasses import astuple, dataclass
from pathlib import Path

import httpx

from keepwarm.local.console import Console
from keepwarm.local.errors import LocalError
from keepwarm.local.processes import Server
from openinference import key_file
from openinference.api_keys import new_key

HOST = "127.0.0.1"
POLL_S = 0.5
_ACTIVE_PHASE = re.compile(r'^keepwarm_startup_phase_active\{phase="(\w+)"\} 1', re.MULTILINE)
_PHASES = {
    "import": "importing vLLM",
    "config": "reading the model's configuration",
    "weights": "loading the weights",
    "engine": "starting the engine",
    "warmup": "warming up",
}


@dataclass(frozen=True, slots=True)
class Ports:
    """The four ports."""

    http: int
    grpc: int
    predictor_http: int
    predictor_grpc: int


async def run(folder: Path, name: str, ports: Ports) -> int:
    """Serves `folder` as `name` until a signal (returns 0) or until a server dies (returns 1).

    Raises LocalError when a port is taken.
    """
    _check_ports(ports)
    console = Console()
    stop = asyncio.Event()
    servers: list[Server] = []
    key_folder = tempfile.TemporaryDirectory(prefix="keepwarm-")
    key, key_file = _demo_key(Path(key_folder.name))

    def on_signal() -> None:
        if stop.is_set():
            console.line("keepwarm", "second signal: ending both at once")
            for server in servers:
                server.kill()
        stop.set()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, on_signal)
    try:
        predictor = await Server.start(
            "predictor", "vllm_predictor", _predictor_args(folder, name, ports), console
        )
        servers.append(predictor)
        transformer = await Server.start(
            "transformer", "llm_transformer", _transformer_args(name, ports, key_file), console
        )
        servers.append(transformer)
        console.line("keepwarm", f"serving {folder} as '{name}'; Ctrl-C ends it")
        ended = [asyncio.create_task(server.ended()) for server in servers]
        stopped = asyncio.create_task(stop.wait())
        showing = asyncio.create_task(_show_progress(console, name, ports, key))
        await asyncio.wait([stopped, *ended], return_when=asyncio.FIRST_COMPLETED)
        showing.cancel()
        console.end_progress()
        dead = [server for server in servers if server.status is not None]
        for server in dead:
            console.line("keepwarm", f"the {server.name} has ended ({_how(server.status)})")
        if not dead:
            console.line("keepwarm", "stopping: requests in flight run to their end")
        return 1 if dead and not stop.is_set() else 0
    finally:
        # The transformer first: what it has in flight needs the predictor.
        for server in reversed(servers):
            await server.stop()
        key_folder.cleanup()


def _demo_key(folder: Path) -> tuple[str, Path]:
    """A key of this run's, and the file in which the transformer finds it."""
    text, key = new_key(tenant="demo")
    path = folder / key_file.FILE_NAME
    path.write_text(key_file.dump([key]), encoding="utf-8")
    return text, path


def _predictor_args(folder: Path, name: str, ports: Ports) -> list[str]:
    return [
        f"--model_name={name}",
        f"--model_dir={folder}",
        f"--host={HOST}",
        f"--http_port={ports.predictor_http}",
        f"--grpc_port={ports.predictor_grpc}",
        "--engine_log_level=error",
    ]


def _transformer_args(name: str, ports: Ports, keys: Path) -> list[str]:
    return [
        f"--model_name={name}",
        f"--host={HOST}",
        f"--http_port={ports.http}",
        f"--grpc_port={ports.grpc}",
        f"--predictor_host={HOST}:{ports.predictor_grpc}",
        "--predictor_protocol=grpc-v2",
        "--workers=1",
        "--allow_anonymous",
        f"--keys_file={keys}",
    ]


def _check_ports(ports: Ports) -> None:
    for port in astuple(ports):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((HOST, port))
            except OSError:
                raise LocalError(
                    f"port {port} is taken; end what listens there or choose other ports "
                    "(keepwarm run --help)"
                ) from None


async def _show_progress(console: Console, name: str, ports: Ports, key: str) -> None:
    """Progress until both are ready, then the requests to try."""
    began = time.monotonic()
    async with httpx.AsyncClient(timeout=5, trust_env=False) as client:
        predictor, transformer = (
            f"http://{HOST}:{port}" for port in (ports.predictor_http, ports.http)
        )
        while not (await _ready(client, predictor) and await _ready(client, transformer)):
            phase = await _phase(client, predictor)
            console.progress(f"{phase} ({time.monotonic() - began:.0f} s so far)")
            await asyncio.sleep(POLL_S)
    console.end_progress()
    console.line("keepwarm", f"ready after {time.monotonic() - began:.0f} s")
    console.text(_requests_to_try(name, ports, key))


async def _ready(client: httpx.AsyncClient, server: str) -> bool:
    try:
        return (await client.get(f"{server}/v2/health/ready")).status_code == httpx.codes.OK
    except httpx.HTTPError:
        return False


async def _phase(client: httpx.AsyncClient, predictor: str) -> str:
    try:
        metrics = (await client.get(f"{predictor}/metrics")).text
    except httpx.HTTPError:
        return "starting the servers"
    active = _ACTIVE_PHASE.search(metrics)
    return _PHASES.get(active.group(1), active.group(1)) if active else "starting the servers"


def _requests_to_try(name: str, ports: Ports, key: str) -> str:
    url = f"localhost:{ports.http}"
    return f"""
  OpenAI:
    curl -s {url}/openai/v1/chat/completions -d '{{"model":"{name}","messages":[{{"role":"user","content":"What is the capital of France?"}}],"temperature":0}}'
  V2:
    curl -s {url}/v2/models/{name}/infer -d '{{"inputs":[{{"name":"text_input","shape":[1],"datatype":"BYTES","data":["The capital of France is"]}}],"parameters":{{"max_tokens":8,"temperature":0}}}}'
  With a key (tenant demo, this run's; here callers without one are answered too):
    curl -s {url}/v1/completions -H 'authorization: Bearer {key}' -d '{{"model":"{name}","prompt":"The sea is","max_tokens":8}}'
  Streaming:
    curl -sN {url}/v2/models/{name}/generate_stream -d '{{"text_input":"Once upon a time","parameters":{{"max_tokens":40,"temperature":0}}}}'
"""  # noqa: E501 (lines to paste)


def _how(status: int | None) -> str:
    if status is not None and status < 0:
        return f"killed by {signal.Signals(-status).name}"
    return f"exit status {status}"
