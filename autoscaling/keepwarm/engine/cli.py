"""`keepwarm engine advise`: a sweep in, three settings and their reasons out."""

import json
import sys
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from keepwarm.engine.advise import ALLOWED, Advice, AdviceError, NothingKeepsItError, advise, terms
from keepwarm.engine.sweep import UnusableSweepError, read

app = typer.Typer(no_args_is_help=True, help="What a measured engine should be told.")


class Format(StrEnum):
    """How advice is printed."""

    TEXT = "text"
    JSON = "json"


@app.callback()
def engine() -> None:
    """What a measured engine should be told."""


@app.command("advise")
def advise_command(
    sweep: Annotated[
        Path, typer.Argument(help="A saturation sweep, as perf/gpu/parity.py --sweep writes it.")
    ],
    slo: Annotated[str, typer.Option(help=f"What must hold at every load: {ALLOWED}.")],
    output: Annotated[
        Format, typer.Option("--format", help="How advice is printed.")
    ] = Format.TEXT,
) -> None:
    """Propose max-num-seqs, containerConcurrency and the autoscaler's target for an SLO.

    Exit status 1: no measured load keeps it. 2: the file or the SLO cannot be used.
    """
    try:
        advice = advise(read(sweep), terms(slo))
    except NothingKeepsItError as error:
        typer.echo(f"keepwarm engine advise: {error}", err=True)
        sys.exit(1)
    except (AdviceError, UnusableSweepError) as error:
        typer.echo(f"keepwarm engine advise: {error}", err=True)
        sys.exit(2)
    typer.echo(json.dumps(asdict(advice), indent=2) if output is Format.JSON else _text(advice))


def _text(advice: Advice) -> str:
    settings = (
        f"--max_num_seqs={advice.max_num_seqs}",
        f"containerConcurrency: {advice.container_concurrency}",
        f"scaleTarget: {advice.scale_target}",
    )
    lines = [
        f"{setting:<28} {reason}" for setting, reason in zip(settings, advice.reasons, strict=True)
    ]
    return "\n".join(lines + [f"doubt: {doubt}" for doubt in advice.doubts])
