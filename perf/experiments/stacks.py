"""The servers under test: an engine, alone or behind our transformer, with and without its parts.

An engine is the calibrated simulator, vLLM on this machine's CPU with SmolLM2, our predictor on a
GPU, or vLLM's own server there. "engine alone" is what a user runs who puts nothing in front: it
takes every request and queues without bound. vLLM's own server and the simulator then have vLLM's
own number of places; our predictor has those of its profile in every stack.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
from overload import GATE_OPEN, OUT_OF_REACH, PREDICTOR_OPEN
from pinned import PinnedServer, free_port

from vllm_predictor.profiles import PROFILES, Profile

MODEL = "model"
PERF = Path(__file__).parents[1]
READY_S = 600.0
SIMULATED = {
    "h200-bf16": Profile.GPU_BF16,
    "h200-fp8": Profile.GPU_FP8,
    "h100-bf16": Profile.GPU_BF16,
}
# What experiments that compare engines compare; the others take the first.
USUAL = ("h200-bf16", "h200-fp8")
OTHERS = {"real": Profile.CPU_DEMO, "ours": Profile.GPU_BF16, "ours-fp8": Profile.GPU_FP8}
LABELS = {
    "real": "vLLM on this CPU",
    "ours": "our predictor, bf16",
    "ours-fp8": "our predictor, fp8",
    "raw": "vLLM's own server",
}


@dataclass(frozen=True)
class Engine:
    """What generates: `kind` is a simulator's profile or one of LABELS.

    `model` is a HuggingFace folder, needed by all but the simulator.
    """

    kind: str
    model: Path | None = None
    max_num_seqs: int | None = None
    flags: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        """As every table and plot names it."""
        if self.kind in SIMULATED:
            return f"simulated {self.kind} (no GPU)"
        return f"{LABELS[self.kind]}, {self.model.name if self.model else ''}"

    @property
    def places(self) -> tuple[str, ...]:
        """Flags: as many sequences as the predictor's profile for such an engine runs at a time."""
        profile = PROFILES[(SIMULATED | OTHERS)[self.kind]]
        return tuple(
            f"--{name}={profile[name]}" for name in ("max_num_seqs", "max_num_queued_reqs")
        )

    @property
    def speaks_v2(self) -> bool:
        """Whether our predictor serves it; vLLM's own server speaks OpenAI only."""
        return self.kind != "raw"

    def arguments(self, http: int, grpc: int) -> list[str]:
        """Of `python`: the server on these ports."""
        places = () if self.max_num_seqs is None else (self.max_num_seqs,)
        if self.kind == "raw":
            return [
                *("-m", "vllm.entrypoints.openai.api_server", f"--model={self.model}"),
                *(f"--served-model-name={MODEL}", f"--port={http}", "--host=127.0.0.1"),
                # A line for each request is nothing that production has.
                "--disable-uvicorn-access-log",
                *(f"--max-num-seqs={count}" for count in places),
                *self.flags,
            ]
        if self.kind in SIMULATED:
            program = [str(PERF / "simulated_predictor.py"), f"--profile={self.kind}"]
        else:
            program = ["-m", "vllm_predictor", f"--model_dir={self.model}"]
            program += [f"--profile={OTHERS[self.kind]}"]
        return [
            *(*program, f"--model_name={MODEL}", f"--http_port={http}", f"--grpc_port={grpc}"),
            *("--host=127.0.0.1", "--log_level=warning", "--drain_s=1"),
            *(f"--max_num_seqs={count}" for count in places),
            *self.flags,
        ]


@dataclass(frozen=True)
class Stack:
    """A way to serve: flags of the transformer, None for no transformer, and of the predictor.

    `bounded` is whether the engine has our places and not vLLM's, `warm` whether a cache is filled
    before a measurement.
    """

    name: str
    transformer: tuple[str, ...] | None = ()
    predictor: tuple[str, ...] = ()
    replicas: int = 1
    warm: bool = False
    bounded: bool = True


KEEPWARM = Stack("keepwarm", warm=True)
NO_CACHE = Stack("keepwarm, cache off", ("--cache=off",))
NO_BOUNDS = Stack(
    "keepwarm, cache and shedding off",
    ("--cache=off", *GATE_OPEN, f"--queue_most={OUT_OF_REACH}"),
    PREDICTOR_OPEN,
    bounded=False,
)
ALONE = Stack("engine alone", None, PREDICTOR_OPEN, bounded=False)


@dataclass(frozen=True)
class Served:
    """A stack that answers: the ports to call in turn, the protocol, process ids by name."""

    ports: tuple[int, ...]
    v2: bool
    pids: dict[str, int]


@dataclass(frozen=True)
class Running:
    """An engine that answers on these ports; vLLM's own server has no second one."""

    engine: Engine
    http: int
    grpc: int
    pid: int


@contextmanager
def started(engine: Engine, *flags: str) -> Iterator[Running]:
    """The engine's server, from when it answers; `flags` are our predictor's."""
    http, grpc = free_port(), free_port()
    given = flags if engine.speaks_v2 else ()
    server = PinnedServer("engine", [*engine.arguments(http, grpc), *given], port=http)
    try:
        wait_until_answering(server, v2=engine.speaks_v2)
        yield Running(engine, http, grpc, server.pid)
    finally:
        server.end()


@contextmanager
def in_front(stack: Stack, running: Running) -> Iterator[Served]:
    """The stack's transformers before an engine that runs, or the engine itself."""
    pids = {"engine": running.pid}
    if stack.transformer is None:
        yield Served((running.http,), running.engine.speaks_v2, pids)
        return
    ports = []
    with ExitStack() as ended:
        for number in range(stack.replicas):
            ports.append(free_port())
            name = "transformer" if number == 0 else f"transformer {number + 1}"
            command = [
                *("-m", "llm_transformer", f"--model_name={MODEL}", "--allow_anonymous"),
                *(f"--predictor_host=127.0.0.1:{running.grpc}", "--host=127.0.0.1"),
                *("--log_level=warning", "--drain_s=1"),
                *(f"--http_port={ports[-1]}", f"--grpc_port={free_port()}", *stack.transformer),
            ]
            server = PinnedServer(name, command, port=ports[-1])
            ended.callback(server.end)
            wait_until_answering(server, v2=True)
            pids[name] = server.pid
        yield Served(tuple(ports), True, pids)


@contextmanager
def serving(stack: Stack, engine: Engine) -> Iterator[Served]:
    """Both."""
    places = engine.places if stack.bounded else ()
    with started(engine, *places, *stack.predictor) as running, in_front(stack, running) as served:
        yield served


def wait_until_answering(server: PinnedServer, *, v2: bool) -> None:
    """Returns when the server says that it is ready; raises RuntimeError when it does not."""
    url = f"http://127.0.0.1:{server.port}{'/v2/health/ready' if v2 else '/health'}"

    def is_ready() -> bool:
        try:
            return httpx.get(url, timeout=5).status_code == 200
        except httpx.HTTPError:
            return False

    server.wait_until(is_ready, "answer", READY_S)
