"""`python perf/fit_profile.py`: fits the simulated engine to what a GPU did, and judges the fit.

The table has few points, so the fit is told with its residual in every cell and with what a fit
that has not seen a row says of that row. A row is replayed in virtual time as its run was made:
Poisson arrivals for 8 s, then until the last answer. Which arrivals they were is not known, so a
prediction is the median over several draws.
"""

import argparse
import functools
import itertools
import math
import random
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import batching
from batching import Profile

# (prompt tokens, answer tokens); the seed's short, medium and long at 3:2:1.
MIX = [(30, 50)] * 3 + [(50, 100)] * 2 + [(200, 200)]
OFFERED_FOR_S = 8.0
DRAWS = 5
# Batch 1: 50 tokens.
ALONE_S = 0.290
# vLLM's defaults for its server on a GPU of this size: EngineArgs, OPENAI_API_SERVER.
LIMITS = {"max_num_seqs": 1024, "max_num_batched_tokens": 8192}
SOURCE = "one H200, vLLM 0.25.1, Llama-3-8B shape, made-up weights, {}; perf/fit_profile.py"
CELLS = ("served/s", "p50 ms", "p99 ms", "p99 of 50 tokens ms", "tokens/s")
FITTED = ("overhead_s", "step_s", "step_s_per_sequence", "step_s_per_prompt_token")
Arrival = tuple[float, int, int]


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table; None where nothing was written down. In the order of CELLS.

    Half of all answers have 50 tokens, so the median is the longest of them or the shortest of the
    others, as chance has it; `shorts_above_half` is what the row itself tells of its draw.
    """

    rate: float
    cells: tuple[float | None, ...]
    shorts_above_half: bool | None = None


BF16 = (
    Row(20, (18, 288, 1072, 298, None), shorts_above_half=True),
    Row(80, (73, 571, 1785, 565, None), shorts_above_half=False),
    Row(160, (145, 882, 3100, 1035, None)),
    Row(400, (203, 5493, 10660, 6614, 18_400)),
)
FP8 = (Row(560, (228, None, None, None, 21_100)),)


def arrivals(rate: float, seed: int) -> list[Arrival]:
    """When each request of a run was due, and its lengths."""
    rng = random.Random(seed)  # noqa: S311 (a workload, not a secret)
    at, drawn = 0.0, []
    while at < OFFERED_FOR_S:
        drawn.append((at, *rng.choice(MIX)))
        at += rng.expovariate(rate)
    return drawn


@functools.cache
def draws(row: Row, count: int = DRAWS) -> tuple[list[Arrival], ...]:
    """`count` runs that may have been the row's."""
    found = []
    for seed in itertools.count():
        drawn = arrivals(row.rate, seed)
        shorts = sum(answer == MIX[0][1] for _, _, answer in drawn) / len(drawn)
        if row.shorts_above_half in (None, shorts > 0.5):
            found.append(drawn)
        if len(found) == count:
            return tuple(found)
    raise AssertionError


def predicted(profile: Profile, requests: Sequence[Arrival]) -> tuple[float, ...]:
    """What the run would have written down, in the order of CELLS."""
    sequences = [
        batching.Sequence(at + profile.overhead_s, prompt, answer, caller=at)
        for at, prompt, answer in requests
    ]
    batching.replay(profile, sequences)
    return figures([(each.caller, each.ended, each.output_tokens) for each in sequences])


def figures(answers: Sequence[tuple[float, float, int]]) -> tuple[float, ...]:
    """CELLS of answers, each told by when it was due, when it ended, and its tokens."""
    elapsed = max(ended for _, ended, _ in answers)
    latencies = [(ended - due) * 1e3 for due, ended, _ in answers]
    short = [(ended - due) * 1e3 for due, ended, tokens in answers if tokens == MIX[0][1]]
    return (
        len(answers) / elapsed,
        _percentile(latencies, 50),
        _percentile(latencies, 99),
        _percentile(short, 99),
        sum(tokens for _, _, tokens in answers) / elapsed,
    )


def prediction(profile: Profile, row: Row) -> tuple[float, ...]:
    """`predicted`, cell by cell the median over the row's draws."""
    runs = [predicted(profile, drawn) for drawn in draws(row)]
    return tuple(statistics.median(values) for values in zip(*runs, strict=True))


def _percentile(values: list[float], percent: float) -> float:
    """By rank, as the run took it."""
    return sorted(values)[min(len(values) - 1, int(percent / 100 * len(values)))]


def errors(profile: Profile, row: Row) -> tuple[float | None, ...]:
    """Predicted over measured, less 1, for each cell that was measured."""
    got = prediction(profile, row)
    return tuple(
        None if cell is None else value / cell - 1
        for value, cell in zip(got, row.cells, strict=True)
    )


def _alone_s(profile: Profile) -> float:
    """50 tokens with the engine to themselves."""
    return profile.overhead_s + profile.duration_s(1, MIX[0][0]) + 49 * profile.step_s


def loss(profile: Profile, rows: Sequence[Row], *, alone_s: float | None) -> float:
    """The mean squared logarithm of predicted over measured, 50 tokens alone included."""
    terms = [] if alone_s is None else [math.log(_alone_s(profile) / alone_s) ** 2]
    for row in rows:
        terms += [math.log1p(each) ** 2 for each in errors(profile, row) if each is not None]
    return statistics.fmean(terms)


def fit(
    rows: Sequence[Row],
    start: Profile,
    names: Sequence[str],
    *,
    alone_s: float | None = ALONE_S,
) -> Profile:
    """The least loss over the named times: a pattern search, since percentiles have no slope."""

    def tried(values: Sequence[float]) -> tuple[float, Profile]:
        fitted: dict[str, Any] = dict(zip(names, map(math.exp, values), strict=True))
        profile = replace(start, **fitted)
        return loss(profile, rows, alone_s=alone_s), profile

    return _searched(tried, [math.log(getattr(start, name)) for name in names])


def _searched(
    tried: Callable[[Sequence[float]], tuple[float, Profile]], values: list[float]
) -> Profile:
    """Hooke and Jeeves: a step up and down along each axis, halved when none helps."""
    best, step = tried(values), 0.4
    while step > 0.004:
        before = best[0]
        for axis in range(len(values)):
            for change in (step, -step):
                moved = [*values]
                moved[axis] += change
                if (found := tried(moved))[0] < best[0]:
                    best, values = found, moved
                    break
        if best[0] > before - 1e-7:
            step /= 2
    return best[1]


def _scaled(profile: Profile, rows: Sequence[Row]) -> Profile:
    """The profile with all of the engine's times multiplied by the factor that fits `rows`."""
    names = ("step_s", "step_s_per_sequence", "step_s_per_prompt_token")

    def tried(values: Sequence[float]) -> tuple[float, Profile]:
        factor = math.exp(values[0])
        scaled = replace(profile, **{name: getattr(profile, name) * factor for name in names})
        return loss(scaled, rows, alone_s=None), scaled

    return _searched(tried, [0.0])


def _lines(profile: Profile, rows: Sequence[Row], unseen: Mapping[float, Profile]) -> list[str]:
    names = ("rate", "what", *CELLS)
    lines = [f"| {' | '.join(names)} |", "|---" * len(names) + "|"]
    for row in rows:
        told = {
            "measured": row.cells,
            "simulated": prediction(profile, row),
            "error": errors(profile, row),
            "error, row not seen": errors(unseen[row.rate], row) if row.rate in unseen else (),
        }
        for what, cells in told.items():
            if cells:
                form = "{:+.0%}" if what.startswith("error") else "{:.0f}"
                texts = ("" if cell is None else form.format(cell) for cell in cells)
                lines.append(f"| {row.rate:g} | {what} | {' | '.join(texts)} |")
    return lines


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help="write the profiles anew")
    arguments = parser.parse_args()
    # 8e9 weights in bfloat16 and the GPU's 4.8 TB/s make 3.4 ms; the rest is far from it too.
    start = Profile("h200-bf16", SOURCE.format("bfloat16"), 0.01, 0.005, 5e-5, 2e-5, **LIMITS)
    bf16 = fit(BF16, start, FITTED)
    unseen = {
        row.rate: fit([other for other in BF16 if other is not row], start, FITTED) for row in BF16
    }
    fp8 = replace(_scaled(bf16, FP8), name="h200-fp8", source=SOURCE.format("fp8"))
    for profile, rows, others in ((bf16, BF16, unseen), (fp8, FP8, {})):
        print(f"{profile}\n", *_lines(profile, rows, others), "", sep="\n")
        if arguments.write:
            batching.save(profile, batching.PROFILES / f"{profile.name}.json")
    alone_ms = _alone_s(bf16) * 1e3
    print(f"50 tokens alone: {alone_ms:.0f} ms, measured {ALONE_S * 1e3:.0f} ms")
    cells = [each for row in BF16 for each in errors(bf16, row) if each is not None]
    held = [each for row in BF16 for each in errors(unseen[row.rate], row) if each is not None]
    for what, found in (("seen", cells), ("not seen", held)):
        sizes = [abs(each) for each in found]
        typical, worst = statistics.median(sizes), max(sizes)
        print(f"rows {what}: {len(found)} cells, error {typical:.0%}, at worst {worst:.0%}")


if __name__ == "__main__":
    main()
