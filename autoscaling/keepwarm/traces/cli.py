"""`keepwarm trace`: describe, convert, fetch, generate, fit."""

import gzip
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import typer

from keepwarm.traces import generate as generating
from keepwarm.traces import latency, mooncake, prometheus, report, sources, statistics
from keepwarm.traces.errors import TraceError
from keepwarm.traces.histogram import duration_s
from keepwarm.traces.presets import PRESETS
from keepwarm.traces.trace import DAY_S, Trace

app = typer.Typer(no_args_is_help=True, help="Read, describe, convert and make request traces.")

PresetName = StrEnum("PresetName", {name: name for name in PRESETS})  # type: ignore[misc]

File = Annotated[
    Path,
    typer.Argument(help="Mooncake JSONL, Azure LLM CSV, access log or Prometheus JSON; .gz too."),
]
Form = Annotated[sources.Format, typer.Option("--format", help="What the file is.")]
Start = Annotated[
    datetime | None,
    typer.Option(
        help="The moment of time zero, when the file's times are relative.",
        formats=["%Y-%m-%dT%H:%M:%S%z", "%Y-%m-%dT%H:%M%z"],
    ),
]
Sort = Annotated[bool, typer.Option("--sort", help="Put the rows in order of arrival.")]
FillGaps = Annotated[
    bool, typer.Option("--fill-gaps", help="Count a series' missing samples as silence.")
]
From = Annotated[str | None, typer.Option("--from", help="Leave out what comes before: 36h, 2m.")]
To = Annotated[str | None, typer.Option("--to", help="Leave out what comes from then on.")]
Zone = Annotated[str, typer.Option("--time-zone", help="Whose days and hours: an IANA name.")]
Out = Annotated[Path, typer.Option("--out", "-o", help="Where to; .gz compresses, - is stdout.")]


@contextmanager
def told(command: str) -> Iterator[None]:
    """A TraceError ends the command with status 2 and its sentence on stderr."""
    try:
        yield
    except TraceError as error:
        typer.echo(f"keepwarm {command}: {error}", err=True)
        sys.exit(2)


def zone_of(name: str) -> ZoneInfo:
    """The time zone. Raises TraceError for a name that is none."""
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError):
        raise TraceError(name, "it is no IANA time zone such as Europe/Berlin.") from None


def cut(trace: Trace, begin: str | None, end: str | None) -> Trace:
    """The stretch between two times from the trace's zero."""
    if begin is None and end is None:
        return trace
    return trace.between(
        duration_s(begin) if begin else 0.0, duration_s(end) if end else trace.duration_s
    )


@app.command()
def describe(
    file: File,
    *,
    form: Form = sources.Format.AUTO,
    start: Start = None,
    sort: Sort = False,
    fill_gaps: FillGaps = False,
    begin: From = None,
    end: To = None,
    time_zone: Zone = "UTC",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    html: Annotated[Path | None, typer.Option(help="Write a page with plots here.")] = None,
) -> None:
    """Rates, burstiness, silences, weekly shape, lengths; with --html as one page with plots."""
    with told("trace describe"):
        zone = zone_of(time_zone)
        trace = sources.read(file, form=form, start=start, any_order=sort, fill_gaps=fill_gaps)
        trace = cut(trace, begin, end)
        found = statistics.describe(trace, zone)
        silences = statistics.suspicious_silences(trace, zone)
        if html is not None:
            html.write_text(report.page(trace, found, zone, silences))
    warnings = [*trace.warnings, *silences]
    if as_json:
        typer.echo(json.dumps(found.as_json() | {"warnings": warnings}, indent=2))
        return
    typer.echo(report.text(found))
    for warning in warnings:
        typer.echo(f"warning: {warning}", err=True)


@app.command()
def convert(
    file: File,
    *,
    out: Out,
    form: Form = sources.Format.AUTO,
    start: Start = None,
    sort: Sort = False,
    fill_gaps: FillGaps = False,
    begin: From = None,
    end: To = None,
) -> None:
    """Write any trace as Mooncake JSONL, which load generators replay."""
    with told("trace convert"):
        trace = sources.read(file, form=form, start=start, any_order=sort, fill_gaps=fill_gaps)
        _write(cut(trace, begin, end), out)


@app.command()
def fetch(
    *,
    url: Annotated[str, typer.Option("--prometheus", help="Prometheus' address.")],
    query: Annotated[
        str,
        typer.Option(
            help="Requests per step, as one series: sum(increase(requests_total[STEP]))."
            " STEP is replaced by --step."
        ),
    ],
    begin: Annotated[datetime, typer.Option("--from", formats=["%Y-%m-%dT%H:%M:%S%z"])],
    end: Annotated[datetime, typer.Option("--to", formats=["%Y-%m-%dT%H:%M:%S%z"])],
    out: Out,
    step: Annotated[
        str, typer.Option(help="Resolution; no burst or gap below it is seen.")
    ] = "15s",
    input_query: Annotated[
        str | None, typer.Option(help="The same for prompt tokens per step.")
    ] = None,
    output_query: Annotated[
        str | None, typer.Option(help="The same for generated tokens per step.")
    ] = None,
    fill_gaps: FillGaps = False,
    seed: Annotated[int, typer.Option(help="Places the requests inside each step.")] = 0,
) -> None:
    """Ask Prometheus how many requests came in each step, and write the trace."""
    with told("trace fetch"):
        step_s = duration_s(step)
        series = [
            None
            if text is None
            else prometheus.fetch(
                url,
                text.replace("STEP", f"{step_s:g}s"),
                start_s=begin.timestamp(),
                end_s=end.timestamp(),
                step_s=step_s,
            )
            for text in (query, input_query, output_query)
        ]
        assert series[0] is not None
        trace = prometheus.requests(
            series[0],
            seed=seed,
            fill_gaps=fill_gaps,
            input_tokens=series[1],
            output_tokens=series[2],
        )
        _write(trace, out)
    for warning in trace.warnings:
        typer.echo(f"warning: {warning}", err=True)


@app.command()
def generate(
    preset: Annotated[PresetName, typer.Argument(help="See `keepwarm trace presets`.")],
    out: Out,
    days: Annotated[float, typer.Option(min=0.001, help="How long.")] = 14,
    rps: Annotated[float | None, typer.Option(min=1e-6, help="Mean rate, if another.")] = None,
    start: Start = None,
    seed: Annotated[int, typer.Option(help="The same seed gives the same trace.")] = 0,
) -> None:
    """Make up a trace that behaves like measured ones, where none is at hand."""
    with told("trace generate"):
        trace = generating.generate(
            PRESETS[preset.value],
            duration_s=days * DAY_S,
            seed=seed,
            start=start or generating.MONDAY,
            mean_rps=rps,
        )
        if not len(trace):
            raise TraceError(preset.value, "this short, it holds no request; take more --days.")
        _write(trace, out)


@app.command()
def presets() -> None:
    """What `keepwarm trace generate` can make."""
    for preset in PRESETS.values():
        typer.echo(f"{preset.name:<24}{preset.mean_rps:>7g}/s  {preset.description}")


@app.command()
def fit_latency(
    run: Annotated[
        Path, typer.Argument(help=f"A perf run's requests: JSONL with {', '.join(latency.FIELDS)}.")
    ],
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Where to keep the model.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Which quarter of the requests judges the fit.")] = 0,
) -> None:
    """Fit prefill and decode against batch, judged on requests the fit has not seen."""
    with told("trace fit-latency"):
        try:
            lines = run.read_bytes().splitlines()
        except OSError as error:
            raise TraceError(str(run), f"it cannot be read: {error.strerror}.") from None
        model = latency.fit(latency.read(lines, run.name), seed)
    text = json.dumps(asdict(model), indent=2)
    if out is not None:
        out.write_text(text + "\n")
    typer.echo(text)
    typer.echo(
        f"first token {model.prefill_s * 1e3:.1f} ms + {model.prefill_s_per_token * 1e3:.3f} ms a"
        f" prompt token (median error {model.ttft_error:.0%}); each further token"
        f" {model.step_s * 1e3:.2f} ms + {model.step_s_per_request * 1e3:.3f} ms a request beside"
        f" it (whole answers: median error {model.duration_error:.0%})",
        err=True,
    )


def _write(trace: Trace, out: Path) -> None:
    lines = b"".join(mooncake.write(trace))
    if str(out) == "-":
        sys.stdout.buffer.write(lines)
        return
    try:
        out.write_bytes(gzip.compress(lines, mtime=0) if out.suffix == ".gz" else lines)
    except OSError as error:
        raise TraceError(str(out), f"it cannot be written: {error.strerror}.") from None
    typer.echo(f"{len(trace):,} requests in {report.period(trace.duration_s)} to {out}", err=True)
