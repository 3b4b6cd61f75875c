"""The simulated engine's steps: what runs together, who waits, how long it takes."""

import json
import math
from dataclasses import replace

import pytest
from batching import PROFILES, Batch, Profile, Sequence, from_latency_model, load, replay, save
from hypothesis import given
from hypothesis import strategies as st

from keepwarm.traces.latency import LatencyModel

# Powers of two: sums of them are exact.
STEP, EACH, PROMPT = 0.25, 0.0625, 0.0078125
PROFILE = Profile("test", "made up", 0.0, STEP, EACH, PROMPT, 4, 64)


def told(batch: Batch, until: float = math.inf) -> list[tuple[Sequence, int]]:
    return batch.advance(until)


def test_alone_a_sequence_takes_its_prefill_and_a_step_a_token():
    one = Sequence(0.0, 8, 5)
    replay(PROFILE, [one])
    assert one.first == STEP + 8 * PROMPT
    assert one.ended == one.first + 4 * STEP


def test_a_stream_is_told_of_each_token_and_a_whole_answer_at_its_end():
    stream, whole = Sequence(0.0, 8, 3, 1), Sequence(0.0, 8, 3)
    batch = Batch(PROFILE)
    batch.add(stream)
    batch.add(whole)
    *pieces, last, end = told(batch)
    assert pieces == [(stream, 1), (stream, 2)]
    assert {last, end} == {(stream, 3), (whole, 3)}
    assert stream.ended == whole.ended


def test_several_tokens_an_event_leave_the_first_and_the_last_where_they_are():
    each, several = Sequence(0.0, 8, 8, 1), Sequence(0.0, 8, 8, 3)
    batch = Batch(PROFILE)
    batch.add(several)
    assert [tokens for _, tokens in told(batch)] == [1, 4, 7, 8]
    replay(PROFILE, [each])
    assert (each.first, each.ended) == (several.first, several.ended)


def test_a_step_takes_longer_the_more_it_computes():
    both = [Sequence(0.0, 8, 2), Sequence(0.0, 16, 2)]
    replay(PROFILE, both)
    assert both[0].first == both[1].first == STEP + EACH + 24 * PROMPT
    assert both[0].ended == both[0].first + STEP + EACH


def test_who_comes_during_a_step_joins_the_next():
    first, second = Sequence(0.0, 8, 3), Sequence(0.1, 8, 1)
    replay(PROFILE, [first, second])
    assert second.scheduled == first.first
    assert second.ended == first.first + STEP + EACH + 8 * PROMPT


def test_no_more_than_max_num_seqs_run_and_the_next_in_line_takes_a_free_place():
    sequences = [Sequence(0.0, 1, 2) for _ in range(6)]
    batch = Batch(PROFILE)
    for each in sequences:
        batch.add(each)
    told(batch, 0.0)
    assert (batch.running, batch.waiting) == (4, 2)
    told(batch)
    assert {each.scheduled for each in sequences[:4]} == {0.0}
    assert {each.scheduled for each in sequences[4:]} == {sequences[0].ended}


def test_a_prompt_beyond_the_budget_is_computed_in_pieces_beside_what_decodes():
    short, long = Sequence(0.0, 1, 10, 1), Sequence(0.0, 150, 1)
    replay(PROFILE, [short, long])
    # 63 and the other's prompt; then two times 63 beside a token of the other's.
    first = STEP + EACH + 64 * PROMPT
    assert short.first == first
    assert long.first == first + (STEP + EACH + 63 * PROMPT) + (STEP + EACH + 24 * PROMPT)


def test_time_alone_passes_without_load():
    late = Sequence(100.0, 8, 1)
    batch = Batch(PROFILE)
    batch.add(late)
    assert batch.next_s == 100.0
    assert told(batch, 99.0) == []
    told(batch)
    assert late.ended == 100.0 + STEP + 8 * PROMPT
    assert batch.next_s is None


def test_an_abort_frees_its_place_and_is_told_of_nothing_more():
    runs, waits = [Sequence(0.0, 1, 100) for _ in range(4)], Sequence(0.0, 1, 1)
    batch = Batch(PROFILE)
    for each in (*runs, waits):
        batch.add(each)
    told(batch, 2.0)
    assert waits.scheduled == 0.0
    assert batch.waiting == 1
    batch.drop(runs[0])
    batch.drop(runs[0])
    assert batch.running == 3
    assert told(batch) == [(waits, 1), *[(each, 100) for each in runs[1:]]]
    assert batch.running == batch.waiting == 0


def test_an_abort_in_the_queue_is_passed_over():
    runs = [Sequence(0.0, 1, 2) for _ in range(4)]
    leaves, stays = Sequence(0.0, 1, 1), Sequence(0.0, 1, 1)
    batch = Batch(PROFILE)
    for each in (*runs, leaves, stays):
        batch.add(each)
    told(batch, 0.0)
    batch.drop(leaves)
    told(batch)
    assert not leaves.ended
    assert stays.scheduled == runs[0].ended


requests = st.lists(
    st.tuples(st.floats(0, 5), st.integers(0, 200), st.integers(1, 20), st.integers(0, 4)),
    min_size=1,
    max_size=25,
)


@given(requests, st.lists(st.floats(0, 60), max_size=20), st.lists(st.integers(0, 24), max_size=5))
def test_whoever_comes_late_sees_the_same_steps(drawn, wakes, leave):
    """Advanced at any times, with aborts or without: every answer whole, no place lost."""

    def run(times: list[float]) -> tuple[list[Sequence], Batch]:
        batch = Batch(PROFILE)
        sequences = [Sequence(*each) for each in sorted(drawn)]
        for each in sequences:
            batch.add(each)
        for at in times:
            batch.advance(at)
        return sequences, batch

    at_once, _ = run([math.inf])
    by_and_by, batch = run([*sorted(wakes), math.inf])
    assert [each.ended for each in at_once] == [each.ended for each in by_and_by]
    assert batch.generated == sum(each.output_tokens for each in at_once)
    assert batch.running == batch.waiting == 0

    aborted, batch = run(sorted(wakes))
    for number in leave:
        batch.drop(aborted[number % len(aborted)])
    batch.advance(math.inf)
    assert batch.running == batch.waiting == 0
    assert all(each.ended or each.dropped for each in aborted)


@pytest.mark.parametrize("name", ["h200-bf16", "h200-fp8", "h100-bf16"])
def test_the_profiles_here_can_be_loaded_and_say_where_they_are_from(name):
    profile = load(name)
    assert profile.name == name
    assert f"one {name[:4].upper()}" in profile.source


def test_a_profile_is_kept_in_a_file(tmp_path):
    path = tmp_path / "own.json"
    save(PROFILE, path)
    assert load(str(path)) == PROFILE


@pytest.mark.parametrize("text", ["{", "[]", "{}", json.dumps({"name": "x"}), "null"])
def test_what_is_no_profile_is_refused(tmp_path, text):
    path = tmp_path / "own.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"own\.json"):
        load(str(path))


@pytest.mark.parametrize(
    "change",
    [{"step_s": 0.0}, {"step_s": math.nan}, {"overhead_s": -1.0}, {"max_num_seqs": 65}],
)
def test_what_no_engine_can_be_is_refused(change):
    with pytest.raises(ValueError, match="must be"):
        replace(PROFILE, **change)


def test_a_fitted_latency_model_gives_an_engine_with_its_latencies():
    model = LatencyModel(0.02, 1e-4, 0.005, 1e-4, fitted_on=99)
    profile = from_latency_model(model, "fitted")
    one = Sequence(profile.overhead_s, 100, 50)
    replay(profile, [one])
    assert one.first == pytest.approx(float(model.ttft_s(100)))
    assert one.ended == pytest.approx(float(model.duration_s(100, 50)))
    assert load(str(PROFILES / "h200-bf16.json")).max_num_seqs == 1024
