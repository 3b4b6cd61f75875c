"""Whether figures have become worse than those that landed: the rule, without a measurement.

A figure is a list of ratios to a floor, lower is better, one a repetition. It is worse when its
median lies above everything that was seen when it landed, by more than a margin: so what one run
can tell by chance never fails, and what is slower by the margin always does.
"""

import json
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path

Figures = Mapping[str, Sequence[float]]


def worse(now: Figures, landed: Figures, margin: float) -> list[str]:
    """A sentence for each figure that is worse, or that one of the two lacks.

    `margin` is a share: 0.15 allows 15 % above the highest value that landed. A landed figure that
    was not measured now fails too: else it would guard nothing.
    """
    sentences = []
    for name, before in landed.items():
        values = now.get(name)
        if not values:
            sentences.append(f"{name}: not measured now; it landed at {_told(before)}.")
            continue
        allowed = max(before) * (1 + margin)
        if not statistics.median(values) <= allowed:
            sentences.append(
                f"{name}: {_told(values)}, worse than the {_told(before)} that landed by more than"
                f" {margin:.0%}; at most {allowed:.2f} is allowed."
            )
    sentences += [
        f"{name}: {_told(values)}, of which nothing has landed; run make bench-land."
        for name, values in now.items()
        if name not in landed
    ]
    return sentences


def better(now: Figures, landed: Figures, margin: float) -> list[str]:
    """The names of figures that lie below everything that landed by more than `margin`.

    They do not fail; they should land, so that what was won is guarded.
    """
    return [
        name
        for name, values in now.items()
        if name in landed and statistics.median(values) < min(landed[name]) * (1 - margin)
    ]


def read(path: Path) -> dict[str, list[float]]:
    """The figures that landed."""
    kept: dict[str, dict[str, list[float]]] = json.loads(path.read_text(encoding="utf-8"))
    return kept["figures"]


def _told(values: Sequence[float]) -> str:
    return f"{statistics.median(values):.2f} ({min(values):.2f}..{max(values):.2f})"
