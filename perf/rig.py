"""Servers under test on one core, driver and predictors on another, and one load at a time.

The driver is this process. Both predictors (gRPC and HTTP) are ready-made answers, the same for
every server in front of them.
"""

import os
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from closed_loop import Exchange, Window, drive
from contenders import Contender, Keys, Upstreams
from pinned import PinnedServer, free_port

HERE = Path(__file__).parent


@dataclass(frozen=True, slots=True)
class Usage:
    """CPU microseconds so far, and the server's resident memory now."""

    server_us: float
    predictor_us: float
    driver_us: float
    rss_mib: float


class Rig:
    """The running servers; `keys` has the API key that ours know."""

    def __init__(self, stack: ExitStack, contenders: Sequence[Contender]) -> None:
        """Starts everything; `stack` ends it. Raises RuntimeError when a server does not start."""
        self._stack = stack
        cores = sorted(os.sched_getaffinity(0))
        self._server_core, self._load_core = cores[0], cores[-1]
        stack.callback(os.sched_setaffinity, 0, cores)
        os.sched_setaffinity(0, {self._load_core})
        folder = Path(stack.enter_context(TemporaryDirectory()))
        self.keys = Keys(folder)
        self.grpc = self._predictor("gRPC predictor", "canned_grpc.py", "grpc_port")
        self.http = self._predictor("HTTP predictor", "canned_http.py", "http_port")
        upstreams = Upstreams(f"127.0.0.1:{self.grpc.port}", f"127.0.0.1:{self.http.port}", folder)
        self.servers: dict[str, PinnedServer] = {}
        self.idle_mib: dict[str, float] = {}
        for contender in contenders:
            port = free_port()
            server = PinnedServer(
                contender.name,
                contender.arguments(upstreams, self.keys, port),
                port=port,
                core=self._server_core,
                python=contender.python,
                variables=contender.variables,
                quiet=contender.quiet,
            )
            stack.callback(server.end)
            self.servers[contender.name] = server
        for name, server in self.servers.items():
            server.wait_until_listening()
            self.idle_mib[name] = server.rss_mib()

    def _predictor(self, name: str, script: str, flag: str) -> PinnedServer:
        port = free_port()
        arguments = [str(HERE / script), f"--{flag}={port}"]
        server = PinnedServer(name, arguments, port=port, core=self._load_core)
        self._stack.callback(server.end)
        server.wait_until_listening()
        return server

    async def drive(
        self,
        server: PinnedServer,
        exchanges: Sequence[Exchange],
        *,
        warm_up_s: float,
        seconds: float,
        early_firsts: bool = False,
    ) -> Window[Usage]:
        """Loads one server by itself."""

        def usage() -> Usage:
            return Usage(
                server.cpu_us(),
                self.grpc.cpu_us() + self.http.cpu_us(),
                time.process_time() * 1e6,
                server.rss_mib(),
            )

        return await drive(
            server.port,
            exchanges,
            warm_up_s=warm_up_s,
            seconds=seconds,
            snapshot=usage,
            early_firsts=early_firsts,
        )
