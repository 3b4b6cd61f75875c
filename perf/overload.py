"""`python perf/overload.py`: goodput under more load than the engine can take, with and without us.

Callers come at random at a fixed mean rate, whether they are answered or not (open loop), and give
up after a while. The engine has a fixed number of slots. An answer is good when it is right, its
first token came soon enough and the caller was still there. "keepwarm" is the stack as it ships,
"unprotected" the same with every bound set out of reach.
"""

import argparse
import asyncio
import json
import statistics
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import uvloop
from fixed_predictor import answer
from open_loop import Reply, arrivals, ask, drive
from pinned import PinnedServer, free_port

from keepwarm import charts

MODEL = "model"
# Few tokens a second, so that a busy machine still has the time for all of them.
SLOTS, PREFILL_MS, TOKEN_MS, TOKENS = 8, 20.0, 80.0, 12
SERVICE_S = (PREFILL_MS + (TOKENS - 1) * TOKEN_MS) / 1e3
SATURATION_PER_S = SLOTS / SERVICE_S
LOADS = (0.5, 0.8, 1.0, 1.5, 2.0, 3.0, 4.0)
FIRST_TOKEN_S = 2.5
PATIENCE_S = 10.0
WARM_UP_S = 6.0
# More than ever waits, more than it ever takes.
OUT_OF_REACH = 100_000
PREDICTOR_OPEN = (f"--max_num_queued_reqs={OUT_OF_REACH}",)
GATE_OPEN = (
    "--predictor_concurrency=4096",
    f"--engine_queue_target_s={OUT_OF_REACH}",
    f"--queue_target_s={OUT_OF_REACH}",
)
# What each stack is told: the predictor, the transformer.
STACKS: dict[str, tuple[Sequence[str], Sequence[str]]] = {
    "keepwarm": ((), ()),
    "unprotected": (PREDICTOR_OPEN, GATE_OPEN),
}


@dataclass(frozen=True, slots=True)
class Sample:
    """One load on one stack; rates a second, of what ended within the measured time."""

    stack: str
    load: float
    offered: float
    good: float
    late: float
    refused: float
    other: float
    wrong: int
    first_p50_s: float | None
    refused_p50_s: float | None


@contextmanager
def _stack(predictor_flags: Sequence[str], transformer_flags: Sequence[str]) -> Iterator[int]:
    """The two servers; gives the transformer's REST port."""
    here = Path(__file__).parent
    with ExitStack() as stack:

        def start(name: str, program: Sequence[str], flags: Sequence[str]) -> PinnedServer:
            http, grpc = free_port(), free_port()
            common = (f"--model_name={MODEL}", "--host=127.0.0.1", "--log_level=warning")
            ports = (f"--http_port={http}", f"--grpc_port={grpc}", "--drain_s=1")
            server = PinnedServer(name, [*program, *common, *ports, *flags], port=http)
            stack.callback(server.end)
            server.wait_until_listening()
            return server

        grpc = free_port()
        engine = (f"--slots={SLOTS}", f"--prefill_ms={PREFILL_MS}", f"--token_ms={TOKEN_MS}")
        start(
            "predictor",
            [str(here / "fixed_predictor.py"), *engine],
            [*predictor_flags, f"--grpc_port={grpc}"],
        )
        in_front = [f"--predictor_host=127.0.0.1:{grpc}", *transformer_flags]
        yield start("transformer", ["-m", "llm_transformer", "--allow_anonymous"], in_front).port


async def _measure(name: str, port: int, load: float, seconds: float, seed: int) -> Sample:
    replies: list[Reply] = []
    offered = wrong = 0

    async def send(number: int, due: float) -> None:
        nonlocal offered, wrong
        prompt = f"{load} {number}"
        reply = await ask(
            port,
            f"/v2/models/{MODEL}/generate_stream",
            {"text_input": prompt, "parameters": {"max_tokens": TOKENS}},
            headers={"x-request-timeout": f"{PATIENCE_S:g}"},
            patience_s=2 * PATIENCE_S,
            due=due,
        )
        text = "".join(event.get("text_output", "") for event in reply.events)
        wrong += not answer(prompt, TOKENS).startswith(text)
        offered += WARM_UP_S <= due - began < WARM_UP_S + seconds
        # By its end: what still waits when the callers stop coming is nobody's goodput.
        if WARM_UP_S <= due + reply.total_s - began < WARM_UP_S + seconds:
            replies.append(reply)

    began = asyncio.get_running_loop().time()
    await drive(arrivals(load * SATURATION_PER_S, WARM_UP_S + seconds, seed), send)
    done = [reply for reply in replies if _is_done(reply)]
    good = [reply for reply in done if (reply.first_s or 0) <= FIRST_TOKEN_S]
    refused = [reply for reply in replies if reply.status == 503]
    return Sample(
        name,
        load,
        offered / seconds,
        len(good) / seconds,
        (len(done) - len(good)) / seconds,
        len(refused) / seconds,
        (len(replies) - len(done) - len(refused)) / seconds,
        wrong,
        _median([reply.first_s for reply in done if reply.first_s is not None]),
        _median([reply.total_s for reply in refused]),
    )


def _is_done(reply: Reply) -> bool:
    return bool(
        reply.ended
        and reply.status == 200
        and reply.events
        and reply.events[-1].get("finish_reason") == "length"
        and reply.total_s <= PATIENCE_S
    )


def _median(values: list[float]) -> float | None:
    return statistics.median(values) if values else None


def _markdown(samples: Sequence[Sample]) -> str:
    names = (
        *("stack", "load", "offered/s", "good/s", "late/s", "503/s", "given up/s"),
        *("first token p50 s", "503 after p50 s"),
    )
    lines = [f"| {' | '.join(names)} |", "|---" * len(names) + "|"]
    for each in samples:
        first, refused = (
            "" if seconds is None else f"{seconds:.2f}"
            for seconds in (each.first_p50_s, each.refused_p50_s)
        )
        lines.append(
            f"| {each.stack} | {each.load:g} | {each.offered:.1f} | {each.good:.1f}"
            f" | {each.late:.1f} | {each.refused:.1f} | {each.other:.1f} | {first} | {refused} |"
        )
    return "\n".join(lines)


def retained(samples: Sequence[Sample], stack: str, load: float = 3.0) -> float:
    """Goodput at `load` as a share of the stack's best."""
    own = [sample for sample in samples if sample.stack == stack]
    best = max(sample.good for sample in own)
    return next(sample.good for sample in own if sample.load == load) / best if best else 0.0


def _plot(samples: Sequence[Sample]) -> str:
    colours = dict(zip(STACKS, (charts.BLUE, charts.RED), strict=True))
    with charts.figure(7.6, 3.8) as (figure, axes):
        top = max(sample.load for sample in samples)
        axes.plot(
            [0, 1, top], [0, 1, 1], color=charts.GREY, lw=1, ls=":", label="what the engine can do"
        )
        for stack, colour in colours.items():
            own = [sample for sample in samples if sample.stack == stack]
            if own:
                axes.plot(
                    [sample.load for sample in own],
                    [sample.good / SATURATION_PER_S for sample in own],
                    color=colour,
                    marker="o",
                    ms=4,
                    label=stack,
                )
        axes.set(
            title=f"Right answers whose first token came within {FIRST_TOKEN_S:g} s",
            xlabel=f"offered load, in times the engine's {SATURATION_PER_S:.1f} requests/s",
            ylabel="goodput, same unit",
            xlim=(0, top),
            ylim=(0, 1.15),
        )
        axes.legend(loc="center right")
        return charts.svg(figure, "Goodput over offered load, with and without shedding")


async def _run(stack: str, loads: Sequence[float], seconds: float) -> list[Sample]:
    samples = []
    with _stack(*STACKS[stack]) as port:
        for number, load in enumerate(loads):
            samples.append(await _measure(stack, port, load, seconds, seed=number))
            print(f"{stack}: {samples[-1]}", file=sys.stderr)
    return samples


def main() -> None:
    """The command; its exit status is 1 when an answer was wrong or goodput falls at 3x."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=15.0, help="measured time of each load")
    parser.add_argument("--loads", type=float, nargs="+", default=LOADS, help="times saturation")
    parser.add_argument("--stacks", nargs="+", choices=STACKS, default=tuple(STACKS))
    parser.add_argument("--svg", type=Path, help="file for the plot")
    parser.add_argument("--json", type=Path, help="file for every sample")
    arguments = parser.parse_args()
    samples = [
        sample
        for stack in arguments.stacks
        for sample in uvloop.run(_run(stack, arguments.loads, arguments.seconds))
    ]
    print(_markdown(samples))
    if arguments.svg is not None:
        arguments.svg.write_text(_plot(samples))
    if arguments.json is not None:
        arguments.json.write_text(json.dumps([asdict(each) for each in samples], indent=2) + "\n")
    failed = any(sample.wrong for sample in samples)
    if "keepwarm" in arguments.stacks and 3.0 in arguments.loads:
        share = retained(samples, "keepwarm")
        print(f"\nGoodput at 3x the saturation load: {share:.0%} of the peak.")
        failed = failed or share < 0.9
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
