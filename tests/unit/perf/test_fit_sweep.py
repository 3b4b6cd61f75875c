"""A profile of what a sweep told."""

import heapq
import itertools

import batching
import fit_sweep
import pytest
from batching import Profile
from schedule import MIX

from keepwarm.engine.sweep import Point, Sweep

KNOWN = Profile("known", "here", 0.012, 0.006, 2e-5, 3e-5)
LIKE = Profile("like", "there", 0.1, 0.1, 0.1, 3e-5)


def _closed_loop(profile, callers, seconds=20.0):
    """Median and 99th percentile of what so many callers see who ask again when answered."""
    batch = batching.Batch(profile)
    shapes = [shape for shape in MIX for _ in range(int(shape.weight))]
    pending = []

    def ask(at, shape):
        came = at + profile.overhead_s
        heapq.heappush(pending, (came, next(numbers), at, shape))

    numbers, took = itertools.count(), []
    for number in range(callers):
        ask(number * 0.7 / callers, shapes[number % len(shapes)])
    now = 0.0
    while now < seconds:
        due = [
            each for each in (batch.next_s, pending[0][0] if pending else None) if each is not None
        ]
        now = min(due)
        while pending and pending[0][0] <= now:
            came, _, at, shape = heapq.heappop(pending)
            batch.add(
                batching.Sequence(
                    came, shape.prompt_tokens, shape.output_tokens, caller=(at, shape)
                )
            )
        for sequence, tokens in batch.advance(now):
            at, shape = sequence.caller
            if tokens == shape.output_tokens:
                if at > seconds / 4:
                    took.append(sequence.ended - at)
                ask(sequence.ended, shape)
    took.sort()
    return took[len(took) // 2], took[int(0.99 * len(took))]


def _sweep(profile, *counts, cached):
    points = [
        Point(
            concurrency=count,
            tokens_per_s=1.0,
            latency_p50_s=fit_sweep.answer_s(profile, count, MIX[0], cached=cached),
            latency_p99_s=fit_sweep.answer_s(profile, count, MIX[-1], cached=cached),
        )
        for count in counts
    ]
    return Sweep(max_num_seqs=max(counts), points=tuple(points))


@pytest.mark.parametrize("cached", [True, False])
def test_the_times_that_made_a_sweep_are_found_in_it(cached):
    sweep = _sweep(KNOWN, 6, 24, 96, 192, cached=cached)
    found = fit_sweep.fit(sweep, LIKE, name="x", source="y", most=256, cached=cached)
    assert (found.name, found.source, found.max_num_seqs) == ("x", "y", 256)
    for time in ("overhead_s", "step_s", "step_s_per_sequence", "step_s_per_prompt_token"):
        assert getattr(found, time) == pytest.approx(getattr(KNOWN, time), rel=1e-6)


def test_what_the_formula_says_of_an_answer_is_what_the_batch_does():
    # Callers who begin in one step wait for each other's prompts, which the formula spreads.
    for count in (6, 48, 192):
        median_s, p99_s = _closed_loop(KNOWN, count)
        for shape, seconds in ((MIX[0], median_s), (MIX[-1], p99_s)):
            told = fit_sweep.answer_s(KNOWN, count, shape, cached=False)
            assert seconds == pytest.approx(told, rel=0.08)


def test_points_over_the_places_are_left_out_and_two_are_too_few():
    sweep = _sweep(KNOWN, 6, 24, 96, cached=True)
    odd = Point(concurrency=384, tokens_per_s=1.0, latency_p50_s=9.0, latency_p99_s=9.0)
    more = sweep.model_copy(update={"points": (*sweep.points, odd)})
    fits = [
        fit_sweep.fit(each, LIKE, name="x", source="y", most=256, cached=True)
        for each in (sweep, more)
    ]
    assert fits[0] == fits[1]
    with pytest.raises(ValueError, match="three points"):
        fit_sweep.fit(sweep, LIKE, name="x", source="y", most=24, cached=True)


def test_the_h100_profile_is_what_its_sweep_gives():
    kept = batching.load("h100-bf16")
    sweep = fit_sweep.read(fit_sweep.Path(fit_sweep.__file__).parent / "gpu/h100-bf16.sweep.json")
    made = fit_sweep.fit(
        sweep,
        batching.load("h200-bf16"),
        name=kept.name,
        source=kept.source,
        most=kept.max_num_seqs,
        cached=True,
    )
    for time in ("overhead_s", "step_s", "step_s_per_sequence"):
        assert getattr(kept, time) == pytest.approx(getattr(made, time), rel=1e-6)
