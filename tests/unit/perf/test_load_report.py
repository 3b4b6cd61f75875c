"""A load run's figures: from when requests were due, of what was due, nothing left out."""

import pytest
from load_report import (
    Outcome,
    Slo,
    as_json,
    parse_slo,
    percentiles,
    summary,
    table,
    table_by_lengths,
)

from keepwarm.traces.latency import read


def outcome(due_s=0.0, end="ok", *, first_s=0.1, total_s=1.0, tokens=10):
    return Outcome(due_s, 30, tokens, end, 0.001, first_s, total_s, 0.2)


def test_percentiles_are_exact():
    found = percentiles([float(n) for n in range(1001)])
    assert [found[p] for p in ("p50", "p99", "p99.9", "max")] == pytest.approx(
        [500, 990, 999, 1000]
    )
    assert percentiles([]) is None


@pytest.mark.parametrize(
    ("slo", "holds"),
    [
        ("", True),
        ("ttft=0.1", True),
        ("ttft=0.09", False),
        ("itl=0.1", True),
        ("itl=0.0999", False),
        ("gap=0.2,e2e=1", True),
        ("gap=0.19,e2e=1", False),
        ("ttft=2,itl=0.2,e2e=0.9", False),
    ],
)
def test_an_answer_is_good_when_every_bound_holds(slo, holds):
    assert parse_slo(slo).holds(outcome()) is holds


@pytest.mark.parametrize("end", ["503", "hung", "cut", "error", "refused"])
def test_what_was_not_answered_is_never_good(end):
    assert not Slo().holds(outcome(end=end))


def test_a_whole_answer_has_no_first_token_to_hold_to():
    assert parse_slo("ttft=0.1,itl=0.01").holds(outcome(first_s=None))
    assert outcome(first_s=None).itl_s is None


@pytest.mark.parametrize("slo", ["ttft", "ttft=x", "p99=1"])
def test_what_is_no_bound_is_refused(slo):
    with pytest.raises(ValueError, match="'"):
        parse_slo(slo)


def test_late_answers_count_where_they_were_due_and_served_where_they_ended():
    outcomes = [
        outcome(0.5, total_s=1.0),  # due before, ends in the window
        outcome(1.5, total_s=0.2),
        outcome(1.9, total_s=5.0),  # due in it, ends after
        outcome(1.2, end="503", total_s=0.01),
        outcome(2.5, total_s=0.1),
    ]
    row = summary(outcomes, 1.0, 1.0, parse_slo("e2e=2"))
    assert (row["offered_per_s"], row["served_per_s"], row["good_per_s"]) == (3, 2, 1)
    assert row["tokens_per_s"] == 20
    assert row["ends"] == {"ok": 2, "503": 1}
    assert row["e2e_s"]["max"] == 5.0
    assert row["by_lengths"]["30:10"]["requests"] == 2


def test_the_table_names_what_was_not_answered():
    lines = table({"all": summary([outcome(), outcome(end="503")], 0.0, 1.0, Slo())})
    assert lines.splitlines()[-1].endswith("| 1 503 |")
    assert "nan" not in table({"all": summary([], 0.0, 1.0, Slo())})


def test_answers_are_told_by_their_lengths_too():
    outcomes = [
        outcome(tokens=50),
        outcome(tokens=200, total_s=2.0),
        outcome(tokens=200, end="cut"),
    ]
    row = summary(outcomes, 0.0, 1.0, Slo())
    lines = table_by_lengths(row["by_lengths"]).splitlines()[2:]
    assert [line.split(" | ")[:2] for line in lines] == [["| 30:50", "1"], ["| 30:200", "1"]]
    assert lines[1].endswith("| 2000.0 | 2000.0 |")


def test_the_requests_file_is_what_the_latency_fit_reads():
    import orjson

    lines = [orjson.dumps(as_json(outcome(due_s=n / 10, tokens=n + 1))) for n in range(50)]
    run = read(lines, "run")
    assert len(run.arrival_s) == 50
    assert run.duration_s[0] == pytest.approx(1.0)
