"""`python perf/load.py --url URL --rate 200 --seconds 60 --slo ttft=2,itl=0.2`: load on any server.

Open loop: requests leave when they are due, answered or not, and latencies count from then. Speaks
V2, generate and OpenAI, to ours or anybody's server; the plan is a rate, a ramp, steps, or a trace
that `keepwarm trace` has written. Prints a table, and JSON where asked.
"""

import argparse
import gc
import json
import os
import sys
import time
from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import uvloop
from load_report import (
    Outcome,
    Slo,
    as_json,
    parse_slo,
    percentiles,
    summary,
    table,
    table_by_lengths,
)
from open_loop import Callers, Reply, allow_many_connections, drive
from protocols import PROTOCOLS, Ask, Protocol, encoded
from schedule import MIX, Planned, Stage, parse_mix, parse_stages, plan, replay, times

from keepwarm.traces.errors import TraceError


@dataclass(slots=True)
class Run:
    """What came of a plan; `gaps` are the times between two reads of a stream, seconds."""

    outcomes: list[Outcome] = field(default_factory=list)
    gaps: "array[float]" = field(default_factory=lambda: array("d"))
    most_in_flight: int = 0
    seconds: float = 0.0
    driver_cpu_s: float = 0.0


async def run(
    url: str,
    protocol: Protocol,
    asked: Ask,
    planned: Sequence[Planned],
    *,
    headers: dict[str, str] | None = None,
    patience_s: float = 60.0,
) -> Run:
    """Makes all requests when they are due; ends when the last has ended."""
    done = Run()
    callers = Callers(url, headers=headers, has_text=protocol.has_text, gaps=done.gaps)
    wire = [encoded(protocol, asked, each) for each in planned]
    gc.collect()
    gc.freeze()
    began, cpu = time.monotonic(), time.process_time()

    async def send(number: int, due: float) -> None:
        reply = await callers.post(*wire[number], due=due, patience_s=patience_s)
        wire[number] = ("", b"")
        done.outcomes.append(outcome(planned[number], reply, streams=protocol.streams))

    try:
        await drive((each.due_s for each in planned), send)
    finally:
        callers.close()
    done.most_in_flight = callers.most_in_flight
    done.seconds = time.monotonic() - began
    done.driver_cpu_s = time.process_time() - cpu
    return done


def outcome(planned: Planned, reply: Reply, *, streams: bool) -> Outcome:
    """What a reply means for what was asked; only a stream has a first token."""
    tokens = planned.output_tokens
    end = reply.failure or ("hung" if reply.hung else str(reply.status))
    if reply.status == 200 and reply.ended:
        end = "error" if any("error" in event for event in reply.events) else "ok"
        for event in reply.events:
            if usage := event.get("usage"):
                tokens = int(usage.get("completion_tokens", tokens))
        if reply.first_s is None:
            end = "empty" if end == "ok" else end
    return Outcome(
        planned.due_s,
        planned.prompt_tokens,
        tokens,
        end,
        reply.late_s,
        reply.first_s if streams else None,
        reply.total_s,
        reply.gap_s,
    )


def report(
    done: Run, stages: Sequence[Stage], slo: Slo, *, warm_up_s: float = 0.0
) -> dict[str, Any]:
    """The figures of each stage and of all, the first `warm_up_s` left out."""
    whole = sum(stage.seconds for stage in stages) - warm_up_s
    rows = {"all": summary(done.outcomes, warm_up_s, whole, slo)}
    if len(stages) > 1:
        began = 0.0
        for stage in stages:
            rows[str(stage)] = summary(done.outcomes, began, stage.seconds, slo)
            began += stage.seconds
    return {
        "slo": slo.bounds,
        "rows": rows,
        "gaps_s": percentiles(done.gaps),
        "most_in_flight": done.most_in_flight,
        "run_s": done.seconds,
        "driver_core": done.driver_cpu_s / done.seconds if done.seconds else 0.0,
    }


def _planned(arguments: argparse.Namespace) -> tuple[list[Planned], tuple[Stage, ...]]:
    if arguments.trace is not None:
        found = replay(
            arguments.trace, name=arguments.name, speed=arguments.speed, most=arguments.requests
        )
        lasts = found[-1].due_s + 1e-3
        return found, (Stage(len(found) / lasts, len(found) / lasts, lasts),)
    stages = parse_stages(arguments.rate, arguments.seconds)
    due = times(stages, seed=None if arguments.arrivals == "constant" else arguments.seed)
    mix = parse_mix(arguments.mix) if arguments.mix else MIX
    share, pool = arguments.repeat, arguments.pool
    requests = plan(due, mix, seed=arguments.seed, name=arguments.name, repeat=share, pool=pool)
    return list(requests), stages


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    add = parser.add_argument
    add("--url", required=True, help="http://HOST:PORT, with a prefix if the server has one")
    add("--protocol", choices=PROTOCOLS, default="chat")
    add("--model", default="model")
    add("--rate", default="10", help="RATE[..RATE][xSECONDS], several with commas")
    add("--seconds", type=float, default=30.0, help="how long a stage lasts that does not say")
    add("--arrivals", choices=("poisson", "constant"), default="poisson")
    add(
        "--mix",
        help="WEIGHT:PROMPT:OUTPUT tokens, several with commas; else 3:2:1 of 30:50,"
        " 50:100, 200:200",
    )
    add("--repeat", type=float, default=0.0, help="share of requests that ask a popular prompt")
    add("--pool", type=int, default=100, help="how many popular prompts there are")
    add("--trace", type=Path, help="Mooncake JSONL to replay instead")
    add("--speed", type=float, default=1.0, help="how many times as fast the trace is replayed")
    add("--requests", type=int, help="how many of the trace's requests")
    add(
        "--slo",
        default="",
        help="bounds in seconds: ttft, itl (a request's mean), gap (its longest), e2e",
    )
    add("--warm-up", type=float, default=0.0, help="seconds that are not counted")
    add("--patience", type=float, default=60.0, help="seconds after which a caller gives up")
    add("--header", action="append", default=[], help="NAME: VALUE, as often as needed")
    add("--temperature", type=float, default=0.0)
    add("--honour-eos", action="store_true", help="let answers end early; ignore_eos is not sent")
    add("--seed", type=int, default=0)
    add(
        "--name",
        default=f"{time.time_ns():x}",
        help="what prompts begin with: the same name asks"
        " the same again, which a cache may know; by default a new one",
    )
    add("--json", type=Path, help="file for the figures")
    add("--outcomes", type=Path, help="file for every request, as keepwarm trace fit-latency reads")
    arguments = parser.parse_args()
    try:
        arguments.bounds = parse_slo(arguments.slo)
        arguments.plan = _planned(arguments)
    except (ValueError, TraceError, OSError) as error:
        parser.error(str(error))
    arguments.headers = {
        name.strip(): value.strip()
        for name, _, value in (header.partition(":") for header in arguments.header)
    }
    return arguments


def main() -> None:
    """The command; its exit status is 1 when nothing was answered."""
    arguments = _arguments()
    planned, stages = arguments.plan
    allow_many_connections()
    # A cycle search over the plan would show in the latencies; there are no cycles to speak of.
    gc.set_threshold(100_000, 50, 50)
    done = uvloop.run(
        run(
            arguments.url,
            PROTOCOLS[arguments.protocol],
            Ask(arguments.model, not arguments.honour_eos, arguments.temperature),
            planned,
            headers=arguments.headers,
            patience_s=arguments.patience,
        )
    )
    figures = report(done, stages, arguments.bounds, warm_up_s=arguments.warm_up)
    print(f"SLO: {arguments.bounds}; milliseconds from when a request was due\n")
    rows = dict(figures["rows"])
    print(table(rows))
    if len(rows["all"]["by_lengths"]) > 1:
        print(f"\n{table_by_lengths(rows['all']['by_lengths'])}")
    late = rows["all"]["late_s"] or {"p99": 0.0}
    print(
        f"\nIn flight at most {figures['most_in_flight']}; the driver used"
        f" {figures['driver_core']:.2f} of a core and was at most {late['p99'] * 1e3:.1f} ms late"
        " with 99 % of the requests."
    )
    if arguments.json is not None:
        about = {"command": sys.argv[1:], "cores": os.cpu_count(), **figures}
        arguments.json.write_text(json.dumps(about, indent=2) + "\n")
    if arguments.outcomes is not None:
        lines = (json.dumps(as_json(each)) for each in done.outcomes)
        arguments.outcomes.write_text("\n".join(lines) + "\n")
    sys.exit(0 if rows["all"]["ends"].get("ok") else 1)


if __name__ == "__main__":
    main()
