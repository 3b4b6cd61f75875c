"""`make conformance-table`: the suite against four servers, and docs/conformance.md made from it.

Ours are `keepwarm run`'s two servers with the real engine; KServe's stock server and MLServer serve
a model that answers each text with itself, so that nothing of a model is measured. All four are
asked at the same time; JUnit and JSON results are left in build/conformance.
"""

import argparse
import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path

from report import page

HERE = Path(__file__).parent
ROOT = HERE.parents[2]
START_S = 400
GREEDY = '{"max_tokens": 4, "temperature": 0.0}'


@dataclass
class Server:
    """One column: who it is, and how it is reached."""

    name: str
    software: str
    model: str
    http: int
    grpc: int
    options: list[str] = field(default_factory=list)

    @property
    def url(self):
        return f"http://127.0.0.1:{self.http}"


def free_ports(count):
    with ExitStack() as stack:
        sockets = [
            stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)
        ]
        return [each.getsockname()[1] for each in sockets]


def start(stack, command, log, *, cwd=ROOT, env=None):
    """A child process until `stack` ends; its output goes to the file `log`."""
    output = stack.enter_context(log.open("w"))
    child = subprocess.Popen(
        [str(word) for word in command],
        cwd=cwd,
        env={**os.environ, **(env or {})},
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.STDOUT,
    )

    def end():
        child.terminate()
        try:
            child.wait(60)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()

    stack.callback(end)
    return child


def start_ours(stack, folder):
    http, grpc, predictor_http, predictor_grpc = free_ports(4)
    flags = {
        "--http-port": http,
        "--grpc-port": grpc,
        "--predictor-http-port": predictor_http,
        "--predictor-grpc-port": predictor_grpc,
    }
    words = [word for pair in flags.items() for word in pair]
    command = [sys.executable, "-m", "keepwarm.cli", "run", *words]
    start(stack, command, folder / "ours.log")
    software = f"keepwarm {version('keepwarm')}"
    options = ["--parameters", GREEDY]
    return [
        Server("transformer", software, "smollm2", http, grpc, options),
        Server("predictor", software, "smollm2", predictor_http, predictor_grpc, options),
    ]


def start_kserve(stack, folder):
    http, grpc = free_ports(2)
    flags = [f"--http_port={http}", f"--grpc_port={grpc}"]
    start(stack, [sys.executable, HERE / "kserve_echo.py", *flags], folder / "kserve.log")
    return Server("KServe", f"KServe {version('kserve')}", "echo", http, grpc)


def start_mlserver(stack, folder, environment):
    http, grpc, metrics = free_ports(3)
    env = {
        "MLSERVER_HTTP_PORT": str(http),
        "MLSERVER_GRPC_PORT": str(grpc),
        "MLSERVER_METRICS_PORT": str(metrics),
        "MLSERVER_METRICS_DIR": str(folder / "mlserver-metrics"),
        "MLSERVER_PARALLEL_WORKERS": "0",
    }
    command = [environment / "bin" / "mlserver", "start", "."]
    start(stack, command, folder / "mlserver.log", cwd=HERE / "mlserver_echo", env=env)
    told = subprocess.run(
        [environment / "bin" / "python", "-c", "import mlserver; print(mlserver.__version__)"],
        capture_output=True,
        text=True,
        check=True,
    )
    return Server("MLServer", f"MLServer {told.stdout.strip()}", "echo", http, grpc)


def wait_until_ready(server):
    """Returns when the model is ready; raises TimeoutError after START_S."""
    end = time.monotonic() + START_S
    while time.monotonic() < end:
        try:
            with urllib.request.urlopen(f"{server.url}/v2/models/{server.model}/ready", timeout=5):
                return
        except OSError:
            time.sleep(0.5)
    raise TimeoutError(f"{server.name} is not ready after {START_S} s")


def test(server, folder):
    """The suite's results by case."""
    results = folder / f"{server.name}.json"
    results.unlink(missing_ok=True)
    subprocess.run(
        [
            *(sys.executable, "-m", "pytest", HERE.parent, "-q", "--tb=short", *server.options),
            *("--url", server.url, "--grpc-url", f"127.0.0.1:{server.grpc}"),
            *("--model", server.model, "--json-report", results),
            f"--junitxml={folder / server.name}.xml",
        ],
        cwd=ROOT,
        stdout=(folder / f"{server.name}.txt").open("w"),
        stderr=subprocess.STDOUT,
        check=False,
    )
    return json.loads(results.read_text())


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mlserver", type=Path, default=ROOT / "build" / "mlserver")
    parser.add_argument("--folder", type=Path, default=ROOT / "build" / "conformance")
    parser.add_argument("--page", type=Path, default=ROOT / "docs" / "conformance.md")
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        servers = [
            *start_ours(stack, arguments.folder),
            start_kserve(stack, arguments.folder),
            start_mlserver(stack, arguments.folder, arguments.mlserver),
        ]
        for server in servers:
            wait_until_ready(server)
        with ThreadPoolExecutor(len(servers)) as pool:
            results = list(pool.map(lambda server: test(server, arguments.folder), servers))
    columns = [
        (server.name, server.software, each) for server, each in zip(servers, results, strict=True)
    ]
    arguments.page.write_text(page(columns))
    print(f"wrote {arguments.page}")


if __name__ == "__main__":
    main()
