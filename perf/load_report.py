"""What a load run came to: exact percentiles, goodput under an SLO, how answers ended."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

PERCENTILES = (50, 90, 95, 99, 99.9)


@dataclass(frozen=True, slots=True)
class Outcome:
    """One request and what became of it; seconds from when it was due. `due_s` is the run's time.

    `end` is "ok", an HTTP status, or how it failed: refused, reset, cut, hung, error.
    """

    due_s: float
    prompt_tokens: int
    output_tokens: int
    end: str
    late_s: float
    first_s: float | None
    total_s: float
    gap_s: float

    @property
    def itl_s(self) -> float | None:
        """Mean time between tokens, the first and the last being known."""
        if self.first_s is None or self.output_tokens < 2 or self.first_s == self.total_s:
            return None
        return (self.total_s - self.first_s) / (self.output_tokens - 1)


# What an SLO may bound, in seconds: the longest allowed.
BOUNDS: Mapping[str, Callable[[Outcome], float | None]] = {
    "ttft": lambda each: each.first_s,
    "itl": lambda each: each.itl_s,
    "gap": lambda each: each.gap_s,
    "e2e": lambda each: each.total_s,
}


@dataclass(frozen=True, slots=True)
class Slo:
    """Bounds by name; see BOUNDS. Without any, every whole right answer is good."""

    bounds: dict[str, float] = field(default_factory=dict)

    def holds(self, outcome: Outcome) -> bool:
        """Whether an answer came, and as soon as wanted."""
        if outcome.end != "ok":
            return False
        measured = ((BOUNDS[name](outcome), most) for name, most in self.bounds.items())
        return all(value is None or value <= most for value, most in measured)

    def __str__(self) -> str:
        return ", ".join(f"{name} ≤ {most:g} s" for name, most in self.bounds.items()) or "none"


def parse_slo(text: str) -> Slo:
    """`ttft=2,itl=0.2`. Raises ValueError naming what is allowed."""
    bounds = {}
    for part in filter(None, text.split(",")):
        name, _, seconds = part.partition("=")
        try:
            bounds[name.strip()] = float(seconds)
        except ValueError:
            raise ValueError(f"{part!r} must be NAME=SECONDS") from None
        if name.strip() not in BOUNDS:
            raise ValueError(f"{name!r} is no bound: {', '.join(BOUNDS)}")
    return Slo(bounds)


def percentiles(values: ArrayLike) -> dict[str, float] | None:
    """The percentiles of all values, none left out; None without any."""
    array = np.asarray(values, dtype=np.float64)
    if not array.size:
        return None
    points = np.percentile(array, PERCENTILES)
    named = {f"p{p:g}": float(v) for p, v in zip(PERCENTILES, points, strict=True)}
    return {"mean": float(array.mean()), **named, "max": float(array.max())}


def summary(
    outcomes: Iterable[Outcome], begin_s: float, seconds: float, slo: Slo
) -> dict[str, Any]:
    """The figures of a window of the run.

    Offered, good and latencies are of what was due in the window, whenever it ended; served and
    tokens of what ended in it, whenever it was due. Latencies are those of right answers.
    """
    everything = list(outcomes)
    due = [each for each in everything if begin_s <= each.due_s < begin_s + seconds]
    ended = [
        each
        for each in everything
        if each.end == "ok" and begin_s <= each.due_s + each.total_s < begin_s + seconds
    ]
    done = [each for each in due if each.end == "ok"]
    good = sum(map(slo.holds, due))
    return {
        "seconds": seconds,
        "requests": len(due),
        "offered_per_s": len(due) / seconds,
        "served_per_s": len(ended) / seconds,
        "tokens_per_s": sum(each.output_tokens for each in ended) / seconds,
        "good_per_s": good / seconds,
        "good_share": good / len(due) if due else None,
        "ends": dict(Counter(each.end for each in due)),
        **_latencies(done),
        "late_s": percentiles([each.late_s for each in due]),
        "by_lengths": {
            f"{prompt}:{output}": {"requests": len(own), **_latencies(own)}
            for prompt, output in sorted({(o.prompt_tokens, o.output_tokens) for o in done})[:12]
            for own in [[o for o in done if (o.prompt_tokens, o.output_tokens) == (prompt, output)]]
        },
    }


def _latencies(done: Sequence[Outcome]) -> dict[str, Any]:
    return {
        f"{name}_s": percentiles([value for each in done if (value := of(each)) is not None])
        for name, of in BOUNDS.items()
    }


_LATENCIES = ("TTFT p50", "p99", "ITL p50", "p99", "E2E p50", "p99")


def table(rows: Mapping[str, dict[str, Any]]) -> str:
    """Summaries as Markdown, one a line, milliseconds."""
    lines = []
    for what, row in rows.items():
        measured = (
            f"{row[f'{name}_per_s']:.1f}" for name in ("offered", "served", "good", "tokens")
        )
        failed = ", ".join(f"{n} {end}" for end, n in sorted(row["ends"].items()) if end != "ok")
        lines.append((what, *measured, *_cells(row), failed or "0"))
    rates = ("offered/s", "served/s", "good/s", "tokens/s")
    return _markdown(("what", *rates, *_LATENCIES, "not answered"), lines)


def table_by_lengths(rows: Mapping[str, dict[str, Any]]) -> str:
    """A summary's `by_lengths` as Markdown, milliseconds."""
    lines = [(what, str(row["requests"]), *_cells(row)) for what, row in rows.items()]
    return _markdown(("prompt:answer tokens", "answered", *_LATENCIES), lines)


def _cells(row: dict[str, Any]) -> list[str]:
    return [
        f"{row[name][point] * 1e3:.1f}" if row[name] else ""
        for name in ("ttft_s", "itl_s", "e2e_s")
        for point in ("p50", "p99")
    ]


def _markdown(names: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    head = [f"| {' | '.join(names)} |", "|---" * len(names) + "|"]
    return "\n".join([*head, *(f"| {' | '.join(line)} |" for line in lines)])


def as_json(outcome: Outcome) -> dict[str, Any]:
    """A request as `keepwarm trace fit-latency` reads it, and how it ended."""
    return {
        "timestamp": outcome.due_s * 1e3,
        "input_length": outcome.prompt_tokens,
        "output_length": outcome.output_tokens,
        "ttft_ms": None if outcome.first_s is None else outcome.first_s * 1e3,
        "duration_ms": outcome.total_s * 1e3,
        **asdict(outcome),
    }
