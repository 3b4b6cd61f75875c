"""`python perf/experiments NAME ...`: the experiments of the performance promise, and their report.

Each writes NAME.json; `report` makes one HTML page of those that are there, and `all` runs every
one first. The engine is a calibrated simulator unless another one is named.
"""

import argparse
import signal
import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1]))

import batches
import burst
import caches
import cluster
import loads
import machine
import page
from loads import Window
from open_loop import allow_many_connections
from results import Result, read_all
from stacks import LABELS, SIMULATED, USUAL, Engine

LOADS = {each.name: each for each in loads.ALL}
ORDER = ("hit-ratio", "baseline", "peak", "limit", "cache", "batch", "burst")
FULL_S = 20.0


def main() -> None:
    """The command; its exit status is 1 when nothing was measured."""
    parser = argparse.ArgumentParser(description=__doc__, prog="perf/experiments")
    parser.add_argument(
        "names",
        nargs="+",
        choices=(*ORDER, "all", "report"),
        metavar="NAME",
        help=f"{', '.join(ORDER)}, all, or report",
    )
    parser.add_argument("--out", type=Path, default=Path("build/bench"), help="folder of results")
    parser.add_argument(
        "--engine",
        action="append",
        choices=(*SIMULATED, *LABELS),
        help="real: vLLM on this CPU, ours and ours-fp8: our predictor on a GPU, raw: vLLM's own"
        " server, alone; can be repeated",
    )
    parser.add_argument("--model", type=Path, help="HuggingFace folder for all but the simulated")
    parser.add_argument("--engine-flag", action="append", default=[], help="one more flag of it")
    parser.add_argument("--full", action="store_true", help="more rates, and longer at each")
    parser.add_argument("--rates", type=float, nargs="+", help="requests a second instead")
    parser.add_argument("--seconds", type=float, help="measured time of each load")
    parser.add_argument("--warm-up", type=float, default=Window.warm_up_s, help="seconds before")
    parser.add_argument("--stream-share", type=float, help="share of answers that are streamed")
    parser.add_argument("--lengths", type=int, nargs="+", default=caches.LENGTHS, help="of cache")
    parser.add_argument("--in-flight", type=int, nargs="+", default=batches.IN_FLIGHT)
    parser.add_argument("--slo", default=batches.SLO, help="what batch asks advice for")
    parser.add_argument("--gpu-price", type=float, default=2.50, help="dollars a GPU and hour")
    burst.add_flags(parser)
    given = parser.parse_args()
    # Each request in flight is a connection, in the driver and in the servers, who inherit this.
    allow_many_connections()
    # So that whoever ends us ends the servers and the namespace too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    names = [name for name in ORDER if name in given.names or "all" in given.names]
    if "all" in given.names and not cluster.is_there():
        print(
            "no cluster (kubectl, KUBECONFIG, KEEPWARM_GATEWAY): burst is left out", file=sys.stderr
        )
        names.remove("burst")
    for name in names:
        print(f"{name}:", file=sys.stderr, flush=True)
        try:
            print(run(name, given).write(given.out))
        except RuntimeError as error:
            sys.exit(f"{name}: {error}")
    found = read_all(given.out, ORDER)
    if not found:
        sys.exit(f"{given.out} holds no results")
    report = given.out / "report.html"
    report.write_text(page.render(found), encoding="utf-8")
    print(report)


def run(name: str, given: argparse.Namespace) -> Result:
    """One experiment."""
    engines = engines_of(name, given)
    window = Window(
        warm_up_s=given.warm_up,
        seconds=given.seconds or (FULL_S if given.full else Window.seconds),
        stream_share=Window.stream_share if given.stream_share is None else given.stream_share,
    )
    environment = machine.environment()
    label = "; ".join(engine.label for engine in engines)
    if name in LOADS:
        rates = given.rates or (LOADS[name].full if given.full else LOADS[name].short)
        rows = tuple(loads.run(LOADS[name], engines, rates, window, given.gpu_price))
        if not rows:
            sys.exit(f"{name} has no stack that {label} can serve alone")
        is_real = any(engine.kind not in SIMULATED for engine in engines)
        has_uncached = any(not stack.warm for stack, _ in LOADS[name].runs)
        notes = (window.told, *([loads.PREFIXES] if is_real and has_uncached else []))
        title, question = LOADS[name].title, LOADS[name].question
        return Result(name, title, question, label, environment, rows, notes=notes)
    if name == "cache":
        rows = tuple(caches.run(engines[0], given.lengths, window, given.gpu_price))
        notes = (f"{window.told} (Not here, where caches begin empty.)",)
        return Result(name, caches.TITLE, caches.QUESTION, label, environment, rows, notes=notes)
    if name == "batch":
        seconds = given.seconds or (FULL_S if given.full else batches.SECONDS)
        made = tuple(
            batches.run(each, given.in_flight, given.slo, seconds=seconds, folder=given.out)
            for each in engines
        )
        return Result(name, batches.TITLE, batches.QUESTION, label, environment, batches=made)
    return burst.run(engines[0], environment, given)


def engines_of(name: str, given: argparse.Namespace) -> list[Engine]:
    """Those named, or the simulated ones: both where an experiment compares engines."""
    both = name in {"hit-ratio", "batch"}
    kinds = given.engine or (USUAL if both else USUAL[:1])
    for kind in kinds:
        if kind not in SIMULATED and given.model is None:
            sys.exit(f"--engine {kind} needs --model FOLDER")
        if kind == "raw" and name == "cache":
            sys.exit("cache needs our predictor: vLLM's own server speaks no V2")
        if kind not in SIMULATED and name == "burst":
            sys.exit("burst deploys the simulated predictor, no other")
    return [Engine(kind, given.model, flags=tuple(given.engine_flag)) for kind in kinds]


if __name__ == "__main__":
    main()
