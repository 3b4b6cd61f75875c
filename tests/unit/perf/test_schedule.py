"""When a load driver's requests are due, and what they ask."""

import itertools
import statistics

import pytest
from protocols import PROTOCOLS, Ask, prompt
from schedule import MIX, Shape, Stage, parse_mix, parse_stages, plan, rate_at, replay, times

from keepwarm.traces.errors import TraceError


@pytest.mark.parametrize(
    ("text", "stages"),
    [
        ("20", (Stage(20, 20, 30),)),
        ("20x5", (Stage(20, 20, 5),)),
        ("50..200", (Stage(50, 200, 30),)),
        ("50x10, 50..1000x2.5,0..1", (Stage(50, 50, 10), Stage(50, 1000, 2.5), Stage(0, 1, 30))),
    ],
)
def test_stages_are_told_as_rates_and_seconds(text, stages):
    assert parse_stages(text, 30) == stages


@pytest.mark.parametrize("text", ["", "fast", "10x0", "0", "-1", "5..", "10xlong", "1,,2"])
def test_what_is_no_rate_is_refused_by_name(text):
    with pytest.raises(ValueError, match="'"):
        parse_stages(text, 30)


def test_a_constant_rate_spaces_requests_evenly():
    assert list(times([Stage(4, 4, 1)], seed=None)) == pytest.approx([0.25, 0.5, 0.75, 1.0])


def test_a_ramp_has_the_requests_that_lie_below_its_line():
    due = list(times([Stage(0, 100, 10)], seed=None))
    assert len(due) == 500
    # A quarter of a triangle's area lies in its first half.
    assert sum(at <= 5 for at in due) == 125
    assert due == sorted(due)
    assert due[-1] == pytest.approx(10)


def test_stages_follow_each_other_without_a_gap():
    due = list(times([Stage(10, 10, 2), Stage(100, 100, 1)], seed=None))
    assert [sum(begin < at <= begin + 1 for at in due) for begin in range(3)] == [10, 10, 100]


def test_a_poisson_process_has_its_rate_and_exponential_gaps_and_is_repeated_by_its_seed():
    due = list(times([Stage(200, 200, 50)], seed=3))
    gaps = [later - earlier for earlier, later in itertools.pairwise(due)]
    assert len(due) == pytest.approx(10_000, rel=0.05)
    assert statistics.stdev(gaps) == pytest.approx(statistics.mean(gaps), rel=0.05)
    assert due == list(times([Stage(200, 200, 50)], seed=3))


def test_the_mix_has_its_weights_and_new_prompts():
    planned = list(plan([0.0] * 12_000, MIX, seed=0, name="run"))
    lengths = [(each.prompt_tokens, each.output_tokens) for each in planned]
    shares = [lengths.count((s.prompt_tokens, s.output_tokens)) / len(lengths) for s in MIX]
    assert shares == pytest.approx([3 / 6, 2 / 6, 1 / 6], abs=0.02)
    assert len({prompt(each) for each in planned}) == len(planned)


def test_a_share_of_requests_repeats_popular_prompts_with_their_lengths():
    planned = list(plan([0.0] * 5_000, MIX, seed=0, name="run", repeat=0.6, pool=10))
    popular = [each for each in planned if "popular" in each.prompt]
    assert len(popular) / len(planned) == pytest.approx(0.6, abs=0.03)
    kinds = {(each.prompt, each.prompt_tokens, each.output_tokens) for each in popular}
    assert len(kinds) == 10


def test_a_scenario_goes_through_its_rates_and_ends():
    rates = [rate_at("peak", seconds, 10) for seconds in (0, 9.9, 10, 29.9, 30)]
    assert rates == [500, 500, 750, 1000, None]


def test_mixes_are_told_by_weight_and_lengths():
    assert parse_mix("3:30:50,0.5:50:100") == (Shape(3, 30, 50), Shape(0.5, 50, 100))
    for wrong in ("", "1:2", "1:2:x", "0:2:3", "1:0:3"):
        with pytest.raises(ValueError, match="'"):
            parse_mix(wrong)


def test_a_trace_is_replayed_as_it_came_or_faster(tmp_path):
    path = tmp_path / "trace.jsonl"
    rows = [(1000, 30, 50), (1500, 200, 200), (4000, 7, 0)]
    path.write_text(
        "".join(
            f'{{"timestamp": {t}, "input_length": {i}, "output_length": {o}, "hash_ids": []}}\n'
            for t, i, o in rows
        )
    )
    planned = replay(path, name="run")
    assert [each.due_s for each in planned] == pytest.approx([0, 0.5, 3])
    assert [each.prompt_tokens for each in planned] == [30, 200, 7]
    assert [each.output_tokens for each in planned] == [50, 200, 1]
    faster = replay(path, name="run", speed=10, most=2)
    assert [each.due_s for each in faster] == pytest.approx([0, 0.05])


def test_what_is_no_trace_is_refused_with_its_line(tmp_path):
    path = tmp_path / "trace.jsonl"
    path.write_text('{"timestamp": 1}\n')
    with pytest.raises(TraceError, match="line 1"):
        replay(path, name="run")


@pytest.mark.parametrize("protocol", PROTOCOLS.values(), ids=PROTOCOLS)
def test_every_protocol_asks_for_the_planned_lengths(protocol):
    (planned,) = plan([0.0], [Shape(1, 12, 34)], seed=0, name="run")
    body = protocol.body(Ask("model"), planned)
    sampling = body.get("parameters", body)
    assert (sampling["max_tokens"], sampling["ignore_eos"]) == (34, True)
    assert len(prompt(planned).split()) == 12
    assert prompt(planned) in str(body)


def test_an_event_that_only_names_the_role_is_no_first_token():
    has_text = PROTOCOLS["chat"].has_text
    assert not has_text({"choices": [{"delta": {"role": "assistant", "content": ""}}]})
    assert not has_text({"choices": [], "usage": {"completion_tokens": 1}})
    assert has_text({"choices": [{"delta": {"content": "Hi"}}]})
    assert PROTOCOLS["completions"].has_text({"choices": [{"text": "Hi"}]})
