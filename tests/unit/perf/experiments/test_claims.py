"""What of the promise is true, judged from rows."""

import pytest
from claims import least_hit_ratio, verdicts
from cost import Cost
from results import Burst, Result, Second, read, read_all

ENGINE = "simulated engine"


def _result(name, rows=(), **more):
    return Result(name, name, "?", ENGINE, {"date": "today", "commit": "1"}, tuple(rows), **more)


def _rows(row, *kept):
    ratios = (0.5, 0.9, 0.98, 1.0)
    return [
        row(ratio, p99_ms=400.0 if good else 900.0)
        for ratio, good in zip(ratios, kept, strict=True)
    ]


@pytest.mark.parametrize(
    ("kept", "least"),
    [
        ((False, False, True, True), 0.98),
        ((True, True, True, True), 0.5),
        # One that seems to keep it below one that does not is luck.
        ((True, False, False, True), 1.0),
        ((True, True, True, False), None),
    ],
)
def test_the_hit_ratio_needed_is_the_least_from_which_on_all_keep_the_promise(row, kept, least):
    found = least_hit_ratio(_rows(row, *kept), 1000.0)
    assert (found and found.figures.hit_target) == least


def test_every_term_of_the_promise_is_judged(row):
    told = verdicts([_result("hit-ratio", _rows(row, False, False, True, True))])
    by_promise = {verdict.promise: verdict for verdict in told}
    latency = by_promise[f"1000 requests/s, P99 under 500 ms, on {ENGINE}"]
    assert latency.holds
    assert "from a hit ratio of 98.0% on" in latency.measured
    assert "the engine answers 2.0%" in latency.measured
    assert not by_promise["1000 requests/s from one engine, no cache"].holds
    (cheap, dear) = [told for promise, told in by_promise.items() if "per RPS" in promise][::-1]
    # 3.6 dollars an hour, a thousand a second.
    for price in (cheap, dear):
        assert "$1e-06 for a second" in price.measured
        assert "$0.0036 for an hour" in price.measured
        assert (
            price.remark == "yes for a second (a request); no for an hour, for a day, for a month"
        )


def test_a_promise_that_no_hit_ratio_keeps_is_said_to_be_untrue(row):
    told = verdicts([_result("hit-ratio", _rows(row, False, False, False, False))])
    assert told[0].holds is False
    assert told[0].measured == "at no measured hit ratio, up to 100%"


def _burst(row, *, served, scale):
    seconds = tuple(Second(n, 100, served, 0, 0, 5.0, 2, 1 + n) for n in range(3))
    facts = {"scale": scale} if scale else {}
    found = row(0.0, rate=100.0, served=served)
    return Burst("from zero", facts, seconds, found.figures, found.cost)


@pytest.mark.parametrize(
    ("served", "scale", "holds"),
    [(100.0, "", True), (90.0, "", False), (100.0, "1/10 of load and engine", None)],
)
def test_a_burst_that_was_scaled_down_proves_nothing_of_a_thousand_a_second(
    row, served, scale, holds
):
    (verdict,) = verdicts([_result("burst", bursts=(_burst(row, served=served, scale=scale),))])
    assert verdict.holds is holds
    assert "3 predictors at most" in verdict.measured
    assert scale in verdict.measured


def test_a_result_that_is_kept_is_read_back_as_it_was(row, tmp_path):
    made = _result("hit-ratio", _rows(row, False, False, True, True))
    path = made.write(tmp_path)
    assert read(path) == made
    assert read_all(tmp_path, ["baseline", "hit-ratio"]) == [made]
    path.write_text('{"name": "hit-ratio"}')
    with pytest.raises(ValueError, match="holds no result of an experiment"):
        read(path)


def test_an_answer_costs_the_gpu_seconds_it_took_and_less_with_a_cache():
    cost = Cost(gpu_seconds=3600.0, per_gpu_hour=2.0, served=1_000_000.0, generated=100_000.0)
    assert cost.money == 2.0
    assert cost.per_1k_served == pytest.approx(0.002)
    assert cost.per_1k_generated == pytest.approx(0.02)
    assert cost.readings["for an hour"] == pytest.approx(0.0072)
    assert cost.readings["for a month"] == pytest.approx(0.0072 * 730)


def test_what_served_nobody_has_no_price():
    cost = Cost(10.0, 2.0, 0.0, 0.0)
    assert cost.per_1k_served is None
    assert cost.per_1k_generated is None
    assert cost.readings == {}
