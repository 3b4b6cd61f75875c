"""From single requests to the figures of a load."""

import pytest
from figures import LATE_MS, Outcome, Usage, figures

QUIET = Usage({"driver": 0.3, "engine": 0.4}, 0.9, 2)


def _figures(*outcomes, window=(1.0, 3.0), usage=QUIET):
    return figures("keepwarm", outcomes, window=window, hit_target=0.5, usage=usage)


def _ok(due, total, *, tokens=50, **more):
    return Outcome(due, due + total, 200, whole=True, tokens=tokens, **more)


def test_rates_are_of_what_ended_within_the_window():
    seen = _figures(
        _ok(0.5, 0.6),
        _ok(1.5, 0.2),
        _ok(2.9, 0.5),
        Outcome(1.0, 2.0, 503, whole=False, tokens=50),
        Outcome(1.0, 2.0, 429, whole=False, tokens=50),
        Outcome(1.0, 2.0, 200, whole=False, tokens=50),
        Outcome(1.0, 2.5, 0, whole=False, tokens=50),
    )
    assert (seen.served_rps, seen.refused_rps, seen.limited_rps, seen.failed_rps) == (
        1,
        0.5,
        0.5,
        1,
    )
    # Due within it: all but the first.
    assert seen.offered_rps == 3


def test_times_count_from_when_a_request_was_due_and_only_of_those_served():
    seen = _figures(
        *[_ok(1.0 + n / 100, 0.1) for n in range(99)],
        _ok(1.2, 0.7),
        Outcome(1.0, 2.9, 503, whole=False, tokens=50),
    )
    assert seen.p50_ms == pytest.approx(100)
    assert seen.p99_ms == pytest.approx(700)
    assert seen.promised_rps == 99 / 2


def test_the_engine_made_what_neither_a_cache_nor_another_ones_answer_gave():
    caches = ["hit"] * 5 + ["coalesced"] * 2 + ["miss"] * 2 + [""]
    seen = _figures(*[_ok(1.0, 0.5, cache=cache) for cache in caches])
    assert seen.hit_ratio == 0.5
    assert seen.engine_share == pytest.approx(0.3)
    assert seen.engine_rps == 1.5
    assert seen.tokens_per_s == 3 * 50 / 2


@pytest.mark.parametrize(
    ("outcome", "good"),
    [
        (_ok(1.0, 1.7, first_s=0.4), True),
        (_ok(1.0, 1.8, first_s=0.4), False),
        (_ok(1.0, 1.7, first_s=0.6), False),
        (_ok(1.0, 1.7), True),
        (Outcome(1.0, 1.1, 503, whole=False, tokens=50), False),
    ],
    ids=["as fast as one reads", "slower", "late to begin", "whole", "refused"],
)
def test_an_answer_is_good_when_it_begins_soon_and_keeps_pace(outcome, good):
    assert outcome.good is good


def test_nothing_served_has_no_times_and_no_hit_ratio():
    seen = _figures(Outcome(1.0, 2.0, 0, whole=False, tokens=50))
    assert (seen.p50_ms, seen.p99_ms, seen.ttft_p99_ms) == (None, None, None)
    assert seen.hit_ratio == seen.engine_share == 0
    assert not seen.keeps_promise


def test_the_promise_is_not_kept_by_refusing_those_who_would_be_slow(row):
    assert row(p99_ms=499.0).figures.keeps_promise
    assert not row(p99_ms=501.0).figures.keeps_promise
    assert row(served=995.0).figures.keeps_promise
    assert not row(served=980.0).figures.keeps_promise


@pytest.mark.parametrize(
    ("late_s", "usage", "said"),
    [
        (0.0, QUIET, []),
        (2 * LATE_MS / 1e3, QUIET, ["the driver sent one request in a hundred 40 ms late"]),
        (0.0, Usage({"driver": 0.97}, 1.2, 2), ["driver used 0.97 of the one core"]),
        (
            0.0,
            Usage({"driver": 0.9, "engine": 0.9}, 1.95, 2),
            ["the machine was full: 1.95 of 2 cores"],
        ),
        (
            0.0,
            Usage({"driver": 0.5, "engine": 0.1}, 1.3, 2),
            ["other work on the machine used 0.70 cores"],
        ),
        (0.0, Usage({"driver": 0.5}, 1.3, 2), []),
        (0.0, Usage({"driver": 0.5, "engine": 0.4, "engine's children": 1.1}, 2.1, 16), []),
    ],
    ids=[
        "none",
        "a late driver",
        "a full event loop",
        "a full machine",
        "other work",
        "a cluster",
        "an engine's own process",
    ],
)
def test_a_figure_that_something_else_bounded_says_so(late_s, usage, said):
    seen = _figures(_ok(1.0, 0.5, late_s=late_s), usage=usage)
    assert len(seen.doubts) == len(said)
    for doubt, begin in zip(seen.doubts, said, strict=True):
        assert doubt.startswith(begin)
