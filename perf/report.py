"""What the benchmarks tell: medians with their range, tables in Markdown, where it was measured."""

import argparse
import datetime as dt
import json
import math
import os
import platform
import statistics
from collections.abc import Iterable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any


def quantile(values: Sequence[float], q: float) -> float:
    """The smallest value with at least `q` of all values at or below it; nan of none."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(q * len(ordered)))] if ordered else math.nan


def ratio(a: float, b: float) -> float:
    """`a` / `b`; nan of a server that gave no right answer."""
    return a / b if b else math.nan


def cell(values: Sequence[float], digits: int) -> str:
    """Median with its range: `12.3 (11.9..14.0)`; a dash of none."""
    if not values:
        return "-"
    low, middle, high = min(values), statistics.median(values), max(values)
    return f"{middle:.{digits}f} ({low:.{digits}f}..{high:.{digits}f})"


def table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A Markdown table."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(str(each) for each in line)} |" for line in lines)


def options(
    description: str | None, *, repetitions: int, seconds: float | None = 2.0
) -> argparse.ArgumentParser:
    """The flags that every table's command has; no `--seconds` where a measurement has its own."""
    parser = argparse.ArgumentParser(description=description)
    if seconds is not None:
        parser.add_argument(
            "--seconds", type=float, default=seconds, help="length of one measurement"
        )
    parser.add_argument(
        "--repetitions", type=int, default=repetitions, help="measurements of each kind"
    )
    parser.add_argument("--json", type=Path, help="file for every sample")
    return parser


def where() -> str:
    """Where and when this is measured, in one line."""
    packages = ", ".join(
        f"{name} {version(name)}" for name in ("kserve", "grpcio", "uvicorn", "uvloop")
    )
    now = dt.datetime.now(dt.UTC)
    return (
        f"{now:%-d %B %Y %H:%M} UTC, {os.cpu_count()} cores (load {os.getloadavg()[0]:.1f}), "
        f"Python {platform.python_version()}, {packages}"
    )


def keep(path: Path | None, **parts: Any) -> None:
    """Writes `parts` and where they were measured as JSON; nothing without a path."""
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"where": where(), **parts}, indent=2) + "\n")
