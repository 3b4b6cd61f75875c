"""`python perf/hop.py`: what the hop through a transformer costs, ours and KServe's side by side.

Three servers answer the same V2 infer on one core, in turn: our transformer and KServe's, each in
front of the same dummy gRPC predictor, and a bare ASGI app as the floor. The load driver (this
process) and the predictor share another core. The three take turns in every repetition, so that
what else happens on the machine meets all of them.
"""

import argparse
import asyncio
import json
import os
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import uvloop
from closed_loop import Exchange, Window, drive, infer_exchange, stream_exchange
from dummy_predictor import ANSWER, PIECE
from hop_report import InferSample, StreamSample, markdown, record
from pinned import PinnedServer, free_port

from llm_transformer.predictor_client import PredictorClient
from openinference.context import RequestContext
from openinference.generation import GenerationRequest
from openinference.sampling import SamplingParams

MODEL = "model"
OURS, STOCK, FLOOR = "ours", "stock", "bare ASGI"
CONNECTIONS = (1, 16, 64)
STREAM_TOKENS = 200
# One stream as fast as it goes shows the added time, sixteen at a model's pace the cost of a token.
STREAMS = ((1, 0.0), (16, 5.0))
WARM_UP_S = 0.3
STREAM_WARM_UP_S = 1.0
FIRST_WARM_UP_S = 1.5


@dataclass(frozen=True, slots=True)
class CpuSnapshot:
    """CPU microseconds so far."""

    server: float
    predictor: float
    driver: float


class Rig:
    """The servers and the two cores."""

    def __init__(self, stack: ExitStack) -> None:
        """Starts everything; `stack` ends it."""
        cores = sorted(os.sched_getaffinity(0))
        self.server_core, self.load_core = cores[0], cores[-1]
        os.sched_setaffinity(0, {self.load_core})
        here = Path(__file__).parent

        def start(name: str, arguments: Sequence[str], port: int, core: int) -> PinnedServer:
            server = PinnedServer(name, arguments, port=port, core=core)
            stack.callback(server.end)
            return server

        grpc_port = free_port()
        self.predictor = start(
            "dummy predictor",
            [str(here / "dummy_predictor.py"), f"--model_name={MODEL}", f"--grpc_port={grpc_port}"],
            grpc_port,
            self.load_core,
        )
        self.predictor.wait_until_listening()
        in_front = [f"--model_name={MODEL}", f"--predictor_host=127.0.0.1:{grpc_port}"]
        in_front.append("--predictor_protocol=grpc-v2")
        programs = {
            OURS: ["-m", "llm_transformer", *in_front, "--allow_anonymous", "--log_level=warning"],
            STOCK: [
                str(here / "stock_transformer.py"),
                *in_front,
                "--enable_latency_logging=false",
                "--configure_logging=false",
            ],
            FLOOR: [str(here / "bare_asgi.py")],
        }
        self.servers: dict[str, PinnedServer] = {}
        for name, program in programs.items():
            port = free_port()
            arguments = [*program, f"--http_port={port}"]
            if name != FLOOR:
                arguments.append(f"--grpc_port={free_port()}")
            self.servers[name] = start(name, arguments, port, self.server_core)
        for server in self.servers.values():
            server.wait_until_listening()

    async def drive(
        self, name: str, exchanges: Sequence[Exchange], *, warm_up_s: float, seconds: float
    ) -> Window[CpuSnapshot]:
        """Loads one of the servers."""
        server = self.servers[name]
        return await drive(
            server.port,
            exchanges,
            warm_up_s=warm_up_s,
            seconds=seconds,
            snapshot=lambda: CpuSnapshot(
                server.cpu_us(), self.predictor.cpu_us(), time.process_time() * 1e6
            ),
        )

    async def infer(self, name: str, connections: int, seconds: float) -> InferSample:
        """One measurement of V2 infer."""
        exchanges = [infer_exchange(MODEL, number, ANSWER) for number in range(connections)]
        window = await self.drive(name, exchanges, warm_up_s=WARM_UP_S, seconds=seconds)
        return InferSample.of(name, connections, window, self.servers[name].rss_mib())

    async def stream(self, streams: int, pause_ms: float, seconds: float) -> StreamSample:
        """One measurement of generate_stream, and of the same streams without the transformer."""
        exchange = stream_exchange(MODEL, tokens=STREAM_TOKENS, pause_ms=pause_ms, token=PIECE)
        window = await self.drive(
            OURS, [exchange] * streams, warm_up_s=STREAM_WARM_UP_S, seconds=seconds
        )
        direct_ms = await self.direct_first_ms(streams, pause_ms, seconds)
        return StreamSample.of(streams, pause_ms, window, direct_ms)

    async def direct_first_ms(self, streams: int, pause_ms: float, seconds: float) -> list[float]:
        """Times to the first token of streams straight from the predictor, milliseconds."""
        request = GenerationRequest(
            MODEL,
            (f"{pause_ms:g} ms between tokens",),
            SamplingParams(max_tokens=STREAM_TOKENS),
            stream=True,
        )
        end = time.perf_counter() + seconds
        first_ms: list[float] = []

        async def caller(client: PredictorClient, delay_s: float) -> None:
            await asyncio.sleep(delay_s)
            while (began := time.perf_counter()) < end:
                first = None
                async for _ in client.generate(request, RequestContext("direct")):
                    first = first or (time.perf_counter() - began) * 1e3
                assert first is not None
                first_ms.append(first)

        async with _client(self.predictor.port) as client:
            await client.is_ready(MODEL)
            await asyncio.gather(*(caller(client, number / streams) for number in range(streams)))
        return first_ms


@asynccontextmanager
async def _client(port: int) -> AsyncIterator[PredictorClient]:
    client = PredictorClient(f"127.0.0.1:{port}", tls=False)
    try:
        yield client
    finally:
        await client.close()


async def measure(
    rig: Rig, repetitions: int, seconds: float
) -> tuple[list[InferSample], list[StreamSample]]:
    """All measurements, the servers taking turns."""
    for name in rig.servers:
        exchanges = [infer_exchange(MODEL, number, ANSWER) for number in range(16)]
        await rig.drive(name, exchanges, warm_up_s=0, seconds=FIRST_WARM_UP_S)
    infers = [
        await rig.infer(name, connections, seconds)
        for _ in range(repetitions)
        for connections in CONNECTIONS
        for name in rig.servers
    ]
    streams = [
        await rig.stream(count, pause_ms, seconds)
        for _ in range(repetitions)
        for count, pause_ms in STREAMS
    ]
    return infers, streams


def main() -> None:
    """The command; its exit status is 1 when an answer was wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=2.5, help="length of one measurement")
    parser.add_argument("--repetitions", type=int, default=3, help="measurements of each kind")
    parser.add_argument("--json", type=Path, help="file for every sample")
    arguments = parser.parse_args()
    with ExitStack() as stack:
        rig = Rig(stack)
        infers, streams = uvloop.run(measure(rig, arguments.repetitions, arguments.seconds))
    print(markdown(infers, streams, ours=OURS, stock=STOCK))
    if arguments.json is not None:
        settings = {"seconds": arguments.seconds, "repetitions": arguments.repetitions}
        arguments.json.write_text(json.dumps(record(infers, streams, settings), indent=2) + "\n")
    errors = sum(s.errors for s in infers) + sum(s.errors for s in streams)
    sys.exit(1 if errors else 0)


if __name__ == "__main__":
    main()
