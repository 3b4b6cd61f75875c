"""`python perf/fit_sweep.py SWEEP --name NAME`: an engine profile of what `bench-batch` measured.

In a closed loop of N callers, each of which asks for answers of one length, a step computes a token
of each, and the prompts of those who begin. So an answer of n tokens takes

    overhead + its prompt + n * (step + per sequence * (N - 1) + prompts that begin in a step)

The sweep tells the median, which is an answer of 50 tokens (seven in ten answers are), and the 99th
percentile, one of 200 (one in seventeen). Overhead, step and time per sequence are the least
squares of the relative errors; a prompt token's time the sweep cannot tell, and it is another
profile's.
"""

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path

import batching
import numpy as np
from batching import Profile
from schedule import MIX, Shape

from keepwarm.engine.sweep import Point, Sweep, read

SHORT, *_, LONG = MIX
_CALLERS = sum(shape.weight for shape in MIX)
# Prompt tokens that begin in a step, for each caller.
BEGIN = sum(shape.weight / _CALLERS * shape.prompt_tokens / shape.output_tokens for shape in MIX)


def cells(points: Sequence[Point]) -> Iterator[tuple[int, Shape, float]]:
    """Callers, kind of answer, seconds that it took."""
    for point in points:
        for shape, seconds in ((SHORT, point.latency_p50_s), (LONG, point.latency_p99_s)):
            if seconds is not None:
                yield point.concurrency, shape, seconds


def answer_s(profile: Profile, callers: int, shape: Shape, *, cached: bool) -> float:
    """What an answer takes by the formula above; `cached` prompts cost nothing."""
    prompts = 0.0 if cached else profile.step_s_per_prompt_token
    step = profile.duration_s(callers, 0) + prompts * BEGIN * callers
    return profile.overhead_s + prompts * shape.prompt_tokens + shape.output_tokens * step


def fit(sweep: Sweep, like: Profile, *, name: str, source: str, most: int, cached: bool) -> Profile:
    """The profile of the sweep's points up to `most` callers; raises ValueError for too few."""
    found = list(cells([point for point in sweep.points if point.concurrency <= most]))
    if len({callers for callers, _, _ in found}) < 3:
        raise ValueError(f"three points with latencies are needed up to {most} callers")
    prompt = 0.0 if cached else like.step_s_per_prompt_token
    rows, rest = [], []
    for callers, shape, seconds in found:
        tokens = shape.output_tokens
        known = prompt * (shape.prompt_tokens + tokens * BEGIN * callers)
        rows.append([value / seconds for value in (1.0, tokens, tokens * (callers - 1))])
        rest.append((seconds - known) / seconds)
    overhead_s, step_s, per_sequence_s = np.linalg.lstsq(np.array(rows), np.array(rest))[0]
    return Profile(
        name,
        source,
        max(0.0, float(overhead_s)),
        float(step_s),
        float(per_sequence_s),
        like.step_s_per_prompt_token,
        max_num_seqs=most,
        max_num_batched_tokens=like.max_num_batched_tokens,
    )


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sweep", type=Path)
    parser.add_argument("--name", required=True)
    parser.add_argument("--source", default="", help="where it was measured")
    parser.add_argument("--like", default="h200-bf16", help="profile of a prompt token's time")
    parser.add_argument("--most", type=int, default=256, help="callers; the profile's places")
    parser.add_argument("--cached", action="store_true", help="the sweep asked the same again")
    parser.add_argument("--write", action="store_true", help="write the profile anew")
    given = parser.parse_args()
    profile = fit(
        read(given.sweep),
        batching.load(given.like),
        name=given.name,
        source=given.source,
        most=given.most,
        cached=given.cached,
    )
    print(profile)
    for callers, shape, seconds in cells(read(given.sweep).points):
        told = answer_s(profile, callers, shape, cached=given.cached)
        told_of = "" if callers <= given.most else " (not fitted)"
        print(
            f"{callers} callers, {shape.output_tokens} tokens: measured {seconds * 1e3:.0f} ms,"
            f" fitted {told * 1e3:.0f} ms, {told / seconds - 1:+.1%}{told_of}"
        )
    if given.write:
        batching.save(profile, batching.PROFILES / f"{profile.name}.json")


if __name__ == "__main__":
    main()
