"""`make conformance-table`: the suite against four servers, and docs/conformance.md made from it.

All four serve a model that answers each text with itself, so that nothing of a model is measured:
our transformer in front of our predictor, that predictor, KServe's stock server and MLServer. They
are asked at the same time; JUnit and JSON results are left in build/conformance.
"""

import argparse
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import ExitStack
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from report import page

HERE = Path(__file__).parent
ROOT = HERE.parents[2]
START_S = 300
MODEL = "echo"
# Ours understand sampling, so that numbers among the parameters can be tested too.
GREEDY = ("--parameters", '{"max_tokens": 4, "temperature": 0.0}')


@dataclass
class Server:
    """One column: who it is, and how it is reached."""

    name: str
    software: str
    process: subprocess.Popen
    http: int
    grpc: int
    options: tuple[str, ...] = ()

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
    common = ["--model_name=echo", "--host=127.0.0.1"]
    predictor = [f"--http_port={predictor_http}", f"--grpc_port={predictor_grpc}", *common]
    command = [sys.executable, HERE / "echo_predictor.py", *predictor]
    behind = start(stack, command, folder / "predictor.log")
    transformer = [
        *(f"--predictor_host=127.0.0.1:{predictor_grpc}", f"--http_port={http}"),
        *(f"--grpc_port={grpc}", "--allow_anonymous", *common),
    ]
    command = [sys.executable, "-m", "llm_transformer", *transformer]
    front = start(stack, command, folder / "transformer.log")
    software = f"keepwarm {version('keepwarm')}"
    return [
        Server("transformer", software, front, http, grpc, GREEDY),
        Server("predictor", software, behind, predictor_http, predictor_grpc, GREEDY),
    ]


def start_kserve(stack, folder):
    http, grpc = free_ports(2)
    flags = [f"--http_port={http}", f"--grpc_port={grpc}"]
    command = [sys.executable, HERE / "kserve_echo.py", *flags]
    process = start(stack, command, folder / "KServe.log")
    return Server("KServe", f"KServe {version('kserve')}", process, http, grpc)


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
    process = start(stack, command, folder / "MLServer.log", cwd=HERE / "mlserver_echo", env=env)
    told = subprocess.run(
        [environment / "bin" / "python", "-c", "import mlserver; print(mlserver.__version__)"],
        capture_output=True,
        text=True,
        check=True,
    )
    return Server("MLServer", f"MLServer {told.stdout.strip()}", process, http, grpc)


def wait_until_ready(server):
    """Returns when the model is ready; raises RuntimeError after START_S or when it has ended."""
    end = time.monotonic() + START_S
    while time.monotonic() < end and server.process.poll() is None:
        try:
            with urllib.request.urlopen(f"{server.url}/v2/models/{MODEL}/ready", timeout=5):
                return
        except OSError:
            time.sleep(0.5)
    raise RuntimeError(f"{server.name} is not ready: its log is in the folder of the results")


def begin(stack, server, folder):
    """The suite against `server`, in a process of its own."""
    results = folder / f"{server.name}.json"
    results.unlink(missing_ok=True)
    command = [
        *(sys.executable, "-m", "pytest", HERE.parent, "-q", "--tb=short", *server.options),
        *("--url", server.url, "--grpc-url", f"127.0.0.1:{server.grpc}"),
        *("--model", MODEL, "--json-report", results),
        f"--junitxml={folder / server.name}.xml",
    ]
    return start(stack, command, folder / f"{server.name}.txt")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ours", action="store_true", help="test only ours, and write no page")
    parser.add_argument("--mlserver", type=Path, default=ROOT / "build" / "mlserver")
    parser.add_argument("--folder", type=Path, default=ROOT / "build" / "conformance")
    parser.add_argument("--page", type=Path, default=ROOT / "docs" / "conformance.md")
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    # So that the servers end with this process.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    with ExitStack() as stack:
        ours = start_ours(stack, arguments.folder)
        servers = list(ours)
        if not arguments.ours:
            servers.append(start_kserve(stack, arguments.folder))
            servers.append(start_mlserver(stack, arguments.folder, arguments.mlserver))
        for server in servers:
            wait_until_ready(server)
        for suite in [begin(stack, server, arguments.folder) for server in servers]:
            suite.wait()
    results = [
        json.loads((arguments.folder / f"{server.name}.json").read_text()) for server in servers
    ]
    columns = [
        (server.name, server.software, each) for server, each in zip(servers, results, strict=True)
    ]
    if not arguments.ours:
        arguments.page.write_text(page(columns))
        print(f"wrote {arguments.page}")
    failed = [
        f"{server.name}: {case}: {result['reason']}"
        for server, each in zip(ours, results, strict=False)
        for case, result in each.items()
        if result["outcome"] == "failed"
    ]
    print("\n".join(failed or ["ours pass every case that they offer"]))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
