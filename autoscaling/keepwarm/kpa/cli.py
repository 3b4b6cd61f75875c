"""`keepwarm kpa`: verify the twin against recordings, simulate a request log."""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from keepwarm.kpa.config import AutoscalerConfig
from keepwarm.kpa.errors import InputError
from keepwarm.kpa.manifest import config_of, policy_of, timeout_s_of
from keepwarm.kpa.model import Pods, Requests, Result, Verdict
from keepwarm.kpa.simulate import simulate as run_policies
from keepwarm.kpa.twin import REFERENCE
from keepwarm.kpa.verify import verify as verify_folder
from keepwarm.traces import sources
from keepwarm.traces.errors import TraceError
from keepwarm.traces.histogram import duration_s

app = typer.Typer(no_args_is_help=True, help="The twin of Knative's autoscaler.")


@contextmanager
def told(command: str) -> Iterator[None]:
    """What cannot be used ends the command with status 2 and its sentence on stderr."""
    try:
        yield
    except (InputError, TraceError, OSError) as error:
        typer.echo(f"keepwarm kpa {command}: {error}", err=True)
        sys.exit(2)


@app.command()
def verify(
    folder: Annotated[Path, typer.Argument(help="Recordings: *.json or *.json.gz.")],
) -> None:
    """Replay recordings of Knative's autoscaler through both engines; tell what differs."""
    from keepwarm.kpa.fast_core import FAST

    compared = matched = 0
    with told("verify"):
        for tally in verify_folder(folder, [REFERENCE, FAST]):
            compared += tally.compared
            matched += tally.matched
            name = tally.path.relative_to(folder)
            if not tally.engine:
                typer.echo(f"{name}  no recording")
                continue
            typer.echo(f"{name}  {tally.engine}  {tally.matched} of {tally.compared} rows match")
            if tally.mismatch:
                typer.echo(f"  first mismatch: {tally.mismatch}")
    typer.echo(f"{matched} of {compared} rows match")
    sys.exit(matched != compared)


@app.command()
def simulate(
    trace: Annotated[Path, typer.Option(help="A trace, as keepwarm trace reads it.")],
    isvc: Annotated[
        Path, typer.Option(help="InferenceService, Knative Service, Revision or PodAutoscaler.")
    ],
    cold_start: Annotated[
        list[str], typer.Option(help="A measured start-up time such as 41s (repeatable).")
    ],
    service_time: Annotated[
        str | None, typer.Option(help="A request's time in the pod, when the trace has none.")
    ] = None,
    config: Annotated[
        Path | None, typer.Option(help="The cluster's config-autoscaler. Default: Knative's own.")
    ] = None,
    component: Annotated[str, typer.Option(help="predictor or transformer.")] = "predictor",
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Print the replicas over time and what the requests of a trace would have met."""
    with told("simulate"):
        settings = config_of(config.read_text()) if config else AutoscalerConfig()
        manifest = isvc.read_text()
        policy = policy_of(manifest, settings, component=component)
        timeout_s = timeout_s_of(manifest, component=component)
        log = sources.read(trace)
        service = log.service_s
        if service is None:
            if service_time is None:
                raise InputError("The trace has no service times: give --service-time.")
            service = np.full(len(log), duration_s(service_time))
        requests = Requests(log.arrival_s, service, log.duration_s)
        pods = Pods(
            tuple(duration_s(text) for text in cold_start),
            request_timeout_s=timeout_s,
            termination_grace_s=timeout_s,
        )
        result = next(run_policies([policy], requests, pods))
    typer.echo(json.dumps(as_dict(result)) if as_json else report(result))


def as_dict(result: Result) -> dict[str, object]:
    """The outcome as JSON; times in seconds."""
    timeline = result.timeline
    return {
        "duration_s": result.duration_s,
        "requests": len(result.wait_s),
        "cold_requests": int(np.sum(result.verdict == Verdict.COLD)),
        "queued_requests": int(np.sum(result.verdict == Verdict.QUEUED)),
        "longest_wait_s": float(result.wait_s.max(initial=0.0)),
        "ready_pod_seconds": result.ready_pod_seconds,
        "starting_pod_seconds": result.starting_pod_seconds,
        "draining_pod_seconds": result.draining_pod_seconds,
        "pods_started": result.pods_started,
        "timeline": [
            {"t_s": t, "ready": ready, "starting": starting, "draining": draining}
            for t, ready, starting, draining in zip(
                timeline.t_s.tolist(),
                timeline.ready.tolist(),
                timeline.starting.tolist(),
                timeline.draining.tolist(),
                strict=True,
            )
        ],
    }


def report(result: Result) -> str:
    """The outcome as text: the timeline, then the sums."""
    timeline = result.timeline
    lines = [f"{'seconds':>12} {'ready':>6} {'starting':>8} {'draining':>8}"]
    lines += [
        f"{t:12.1f} {ready:6d} {starting:8d} {draining:8d}"
        for t, ready, starting, draining in zip(
            timeline.t_s, timeline.ready, timeline.starting, timeline.draining, strict=True
        )
    ]
    cold = int(np.sum(result.verdict == Verdict.COLD))
    lines += [
        "",
        (
            f"requests          {len(result.wait_s)}, cold {cold} ({result.cold_fraction:.2%}),"
            f" longest wait {result.wait_s.max(initial=0.0):.1f} s"
        ),
        (
            f"pod-seconds       {result.pod_seconds:.0f}: ready {result.ready_pod_seconds:.0f},"
            f" starting {result.starting_pod_seconds:.0f},"
            f" draining {result.draining_pod_seconds:.0f}"
        ),
        f"pods started      {result.pods_started}",
    ]
    return "\n".join(lines)
