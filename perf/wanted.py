"""`make bench`, at its end: each target of the request path, and whether that run met it.

The tables' own commands leave their ratios as JSON in a folder; this reads them, so a target is
judged by the same numbers that its table tells. A ratio counts by its median over the repetitions.
"""

import argparse
import json
import statistics
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from contenders import OURS, PROXY, STOCK_GRPC, STOCK_REST
from report import cell, table
from streams import LOADS, LONG

HIT: Final = "cache hit, {}: of the floor, by CPU"


@dataclass(frozen=True, slots=True)
class Target:
    """What is wanted of a figure: at least `least`, or at most `most`."""

    says: str
    figure: str
    least: float | None = None
    most: float | None = None

    def is_met(self, values: Sequence[float]) -> bool:
        """Whether the median is on the right side; nan is on neither."""
        middle = statistics.median(values)
        return (self.least is None or middle >= self.least) and (
            self.most is None or middle <= self.most
        )

    @property
    def wanted(self) -> str:
        """The bound in words."""
        return f"at least {self.least:g}" if self.least is not None else f"at most {self.most:g}"


TARGETS: Final = (
    *(
        Target(
            f"V2 infer, requests/s at 64 connections beside {stock}",
            f"V2 infer, c=64: requests/s, {OURS} / {stock}",
            least=5,
        )
        for stock in (STOCK_REST, STOCK_GRPC)
    ),
    Target(
        f"V2 infer, requests/s at 64 connections beside a {PROXY}",
        f"V2 infer, c=64: requests/s, {OURS} / {PROXY}",
        least=0.6,
    ),
    *(
        Target(
            f"the same beside {other} by CPU, which other work on the machine does not move",
            f"V2 infer, c=64: CPU, {OURS} / {other}",
            most=most,
        )
        for other, most in ((STOCK_REST, 0.2), (STOCK_GRPC, 0.2), (PROXY, 1.67))
    ),
    Target(
        f"V2 infer, p99 at 64 connections beside that {PROXY}'s",
        f"V2 infer, c=64: p99, {OURS} / {PROXY}",
        most=1.5,
    ),
    *(
        Target(
            f"CPU us of a V2 infer with keys, limits, a missed cache and metrics, c={connections}",
            f"V2 infer, c={connections}: CPU us",
            most=400,
        )
        for connections in (1, 16, 64)
    ),
    *(
        Target(f"cache hit beside a bare ASGI answer, by CPU: {request}", HIT.format(request), 0.6)
        for request in (
            "V2 infer",
            "OpenAI chat",
            "V2 infer, X-Request-ID",
            "V2 infer, traceparent",
        )
    ),
    *(
        Target(
            f"CPU us of a token, {load.route}, {load}",
            f"{load.route}, {load}: CPU us per token",
            most=15,
        )
        for load in LOADS
        if load.tokens == LONG
    ),
    Target("RSS MiB with 5,000 open streams", "5000 idle streams: RSS MiB", most=400),
)


def read(folder: Path) -> dict[str, list[float]]:
    """The figures of all tables there, each of which it tells; the experiments' are no tables."""
    figures: dict[str, list[float]] = {}
    for path in sorted(folder.glob("*.json")):
        kept = json.loads(path.read_text(encoding="utf-8"))
        if "where" in kept:
            figures |= kept.get("figures", {})
            print(f"{path.stem}: {kept['where']}")
    return figures


def judged(
    figures: Mapping[str, Sequence[float]], targets: Sequence[Target] = TARGETS
) -> list[tuple[str, str, str, str]]:
    """A row for each target: what, wanted, measured, verdict."""
    rows = []
    for target in targets:
        values = figures.get(target.figure, ())
        verdict = "not measured" if not values else "met" if target.is_met(values) else "missed"
        rows.append((target.says, target.wanted, cell(values, 2), verdict))
    return rows


def main() -> None:
    """The command; its exit status is 1 when a target was missed or not measured."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="where the tables' JSON is")
    folder = parser.parse_args().folder
    rows = judged(read(folder))
    print(f"\n{table(('target', 'wanted', 'measured', ''), rows)}")
    sys.exit(1 if any(row[-1] != "met" for row in rows) else 0)


if __name__ == "__main__":
    main()
