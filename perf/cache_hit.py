"""`python perf/cache_hit.py`: what a hit in the transformer's cache costs beside the bare minimum.

The transformer answers one request over and over from its cache; a bare ASGI app under uvicorn
answers the very same bytes. Both run on one core, in turn, and the driver on another, so that what
else happens on the machine meets both. The request is V2 JSON or an OpenAI chat.
"""

import os
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx
import orjson
import uvloop
from closed_loop import Exchange, Window, drive, http_post
from pinned import PinnedServer, free_port
from report import cell, keep, options, ratio, table, where

MODEL = "model"
CONNECTIONS = 32
WARM_UP_S = 0.3
INFER: dict[str, Any] = {
    "id": "1",
    "inputs": [
        {
            "name": "text_input",
            "shape": [1],
            "datatype": "BYTES",
            "data": ["The capital of France is"],
        }
    ],
    "parameters": {"max_tokens": 16, "temperature": 0},
}
CHAT: dict[str, Any] = {
    "model": MODEL,
    "messages": [{"role": "user", "content": "What is the capital of France?"}],
    "temperature": 0,
}
# Path, body, one more header.
REQUESTS: dict[str, tuple[str, dict[str, Any], str]] = {
    "V2 infer": (f"/v2/models/{MODEL}/infer", INFER, ""),
    "OpenAI chat": ("/openai/v1/chat/completions", CHAT, ""),
    "V2 infer, X-Request-ID": (f"/v2/models/{MODEL}/infer", INFER, "x-request-id: 1"),
    "V2 infer, traceparent": (
        f"/v2/models/{MODEL}/infer",
        INFER,
        "traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    ),
}
Cpu = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Sample:
    """One measurement: requests per second, CPU of the server a request, wrong answers."""

    requests_per_s: float
    server_us: float
    errors: int

    @classmethod
    def of(cls, window: Window[Cpu]) -> "Sample":
        """The sample of a window whose snapshots are the CPU microseconds of server and driver."""
        requests = max(1, len(window.latencies_ms))
        return cls(
            len(window.latencies_ms) / window.seconds,
            (window.after[0] - window.before[0]) / requests,
            window.errors,
        )


class Rig:
    """The transformer over a dummy predictor, and its floor."""

    def __init__(self, stack: ExitStack) -> None:
        """Starts the transformer; `stack` ends everything."""
        self._stack = stack
        self._here = Path(__file__).parent
        self._folder = Path(stack.enter_context(TemporaryDirectory()))
        cores = sorted(os.sched_getaffinity(0))
        self._server_core, self._load_core = cores[0], cores[-1]
        os.sched_setaffinity(0, {self._load_core})
        grpc_port, port = free_port(), free_port()
        dummy = [f"--model_name={MODEL}", f"--grpc_port={grpc_port}"]
        self._start("dummy", ["dummy_predictor.py", *dummy], grpc_port, self._load_core)
        self.transformer = self._start(
            "transformer",
            [
                *("-m", "llm_transformer", f"--model_name={MODEL}", "--allow_anonymous"),
                *(f"--predictor_host=127.0.0.1:{grpc_port}", "--log_level=warning"),
                *("--cache_weights_id=1", f"--http_port={port}", f"--grpc_port={free_port()}"),
            ],
            port,
            self._server_core,
        )

    def floor(self, name: str, body: bytes) -> PinnedServer:
        """A bare app that answers `body`."""
        path, port = self._folder / name.replace(" ", "-"), free_port()
        path.write_bytes(body)
        return self._start(
            f"floor of {name}",
            ["same_bytes.py", f"--http_port={port}", f"--body={path}"],
            port,
            self._server_core,
        )

    def answer(self, path: str, body: bytes) -> bytes:
        """The transformer's answer, from its cache."""
        for _ in range(3):
            told = httpx.post(f"http://127.0.0.1:{self.transformer.port}{path}", content=body)
        if told.headers.get("x-cache") != "hit":
            raise RuntimeError(f"not a hit: {told.status_code} {told.text}")
        return told.content

    def _start(self, name: str, arguments: list[str], port: int, core: int) -> PinnedServer:
        if arguments[0].endswith(".py"):
            arguments = [str(self._here / arguments[0]), *arguments[1:]]
        server = PinnedServer(name, arguments, port=port, core=core)
        self._stack.callback(server.end)
        server.wait_until_listening()
        return server


def exchange_of(path: str, body: bytes, header: str, answer: bytes) -> Exchange:
    """The request; an answer is right when it is as long as `answer` and says the same.

    An OpenAI answer has an id and a time of its own.
    """
    says = _said(orjson.loads(answer))
    return Exchange(
        http_post(path, body, header),
        lambda status, told: (
            status == 200
            and len(told) == len(answer)
            and (told == answer or _said(orjson.loads(told)) == says)
        ),
    )


def _said(answer: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in answer.items() if name not in ("id", "created")}


async def measure(server: PinnedServer, exchanges: Sequence[Exchange], seconds: float) -> Sample:
    """Loads one server."""
    window = await drive(
        server.port,
        exchanges,
        warm_up_s=WARM_UP_S,
        seconds=seconds,
        snapshot=lambda: (server.cpu_us(), time.process_time() * 1e6),
    )
    return Sample.of(window)


async def compare(
    rig: Rig, repetitions: int, seconds: float
) -> dict[str, list[tuple[Sample, Sample]]]:
    """Hit and floor in each repetition, by request."""
    found: dict[str, list[tuple[Sample, Sample]]] = {}
    for name, (path, request, header) in REQUESTS.items():
        body = orjson.dumps(request)
        answer = rig.answer(path, body)
        floor = rig.floor(name, answer)
        exchanges = [exchange_of(path, body, header, answer)] * CONNECTIONS
        found[name] = [
            (
                await measure(rig.transformer, exchanges, seconds),
                await measure(floor, exchanges, seconds),
            )
            for _ in range(repetitions)
        ]
    return found


def figures(found: Mapping[str, Sequence[tuple[Sample, Sample]]]) -> dict[str, list[float]]:
    """The floor's CPU time over the hit's and the hit's rate over the floor's, by name."""
    named: dict[str, list[float]] = {}
    for name, pairs in found.items():
        named[f"cache hit, {name}: of the floor, by CPU"] = [
            ratio(low.server_us, hit.server_us) for hit, low in pairs
        ]
        named[f"cache hit, {name}: of the floor, requests/s"] = [
            ratio(hit.requests_per_s, low.requests_per_s) for hit, low in pairs
        ]
    return named


def tables(found: Mapping[str, Sequence[tuple[Sample, Sample]]]) -> str:
    """The report."""
    ratios = figures(found)
    rows = []
    for name, pairs in found.items():
        told = [
            cell(ratios[f"cache hit, {name}: of the floor, {what}"], 2)
            for what in ("requests/s", "by CPU")
        ]
        for server, samples, last in zip(
            ("hit", "floor"), zip(*pairs, strict=True), (told, ["", ""]), strict=True
        ):
            rows.append(
                (
                    name,
                    server,
                    cell([s.requests_per_s for s in samples], 0),
                    cell([s.server_us for s in samples], 1),
                    *last,
                    sum(s.errors for s in samples),
                )
            )
    columns = ("request", "server", "requests/s", "CPU us/request")
    return table((*columns, "hit / floor, requests/s", "by CPU", "errors"), rows)


def main() -> None:
    """The command; its exit status is 1 when an answer was wrong."""
    arguments = options(__doc__, repetitions=5).parse_args()
    with ExitStack() as stack:
        found = uvloop.run(compare(Rig(stack), arguments.repetitions, arguments.seconds))
    print(f"{where()}\n\n{tables(found)}")
    samples = {name: [tuple(map(asdict, pair)) for pair in pairs] for name, pairs in found.items()}
    keep(arguments.json, samples=samples, figures=figures(found))
    sys.exit(1 if any(each.errors for pairs in found.values() for p in pairs for each in p) else 0)


if __name__ == "__main__":
    main()
