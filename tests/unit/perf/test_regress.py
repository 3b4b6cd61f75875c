"""When a benchmark's figure counts as worse than the one that landed."""

import json

import pytest
from regress import better, read, worse

LANDED = {"CPU of a request": [2.0, 2.2, 2.1]}

CASES = {
    "the same": ([2.1, 2.0, 2.2], False),
    "better": ([1.0, 1.1, 1.2], False),
    "above its median, within its spread": ([2.2, 2.2, 2.2], False),
    "above its spread, within the margin": ([2.4, 2.4, 2.4], False),
    "above its spread by more than the margin": ([2.43, 2.43, 2.43], True),
    "one repetition met other work": ([2.1, 9.0, 2.1], False),
    "most repetitions are slow": ([2.1, 9.0, 9.0], True),
    "no right answer at all": ([float("nan")] * 3, True),
}


@pytest.mark.parametrize(("values", "is_worse"), CASES.values(), ids=CASES)
def test_a_figure_is_worse_above_all_that_landed_by_more_than_the_margin(values, is_worse):
    assert bool(worse({"CPU of a request": values}, LANDED, 0.1)) is is_worse


def test_the_sentence_names_the_figure_what_it_is_was_and_may_be():
    (sentence,) = worse({"CPU of a request": [3.0, 2.9, 3.1]}, LANDED, 0.1)
    assert sentence == (
        "CPU of a request: 3.00 (2.90..3.10), worse than the 2.10 (2.00..2.20) that landed by more"
        " than 10%; at most 2.42 is allowed."
    )


@pytest.mark.parametrize("now", [{}, {"CPU of a request": []}], ids=["gone", "empty"])
def test_a_figure_that_is_no_longer_measured_fails(now):
    (sentence,) = worse(now, LANDED, 0.1)
    assert sentence.startswith("CPU of a request: not measured now")


def test_a_figure_of_which_nothing_landed_fails():
    (sentence,) = worse({**LANDED, "CPU of a token": [1.0]}, LANDED, 0.1)
    assert sentence.startswith("CPU of a token: 1.00")


def test_what_is_better_than_all_that_landed_by_the_margin_is_told_and_does_not_fail():
    now = {"CPU of a request": [1.0, 1.7, 1.8]}
    assert better(now, LANDED, 0.1) == ["CPU of a request"]
    assert worse(now, LANDED, 0.1) == []
    assert better({"CPU of a request": [1.9]}, LANDED, 0.1) == []


def test_what_landed_is_read_as_it_is_kept(tmp_path):
    path = tmp_path / "landed.json"
    path.write_text(json.dumps({"where": "here", "figures": LANDED}))
    assert read(path) == LANDED
