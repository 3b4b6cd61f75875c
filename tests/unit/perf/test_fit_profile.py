"""The profiles that are shipped say what was measured, as far as the fit's report claims."""

import statistics
from dataclasses import replace

import pytest
from batching import Profile, load
from fit_profile import BF16, FITTED, FP8, Row, draws, errors, fit, loss, prediction


def cells(profile, rows):
    return [abs(each) for row in rows for each in errors(profile, row) if each is not None]


def test_the_bfloat16_profile_is_near_the_table():
    found = cells(load("h200-bf16"), BF16)
    assert len(found) == 17
    assert statistics.median(found) < 0.10
    assert max(found) < 0.25


def test_the_fp8_profile_has_the_measured_throughput():
    assert max(cells(load("h200-fp8"), FP8)) < 0.05


def test_a_fit_finds_the_times_that_made_a_table():
    true = Profile("true", "made up", 0.01, 0.02, 1e-4, 2e-5, 64, 2048)
    row = Row(10, (1.0,) * 5)
    table = [replace(row, cells=prediction(true, row))]
    names = ("step_s",)
    found = fit(table, replace(true, step_s=0.03), names, alone_s=None)
    assert found.step_s == pytest.approx(true.step_s, rel=0.02)
    assert loss(found, table, alone_s=None) < loss(replace(true, step_s=0.03), table, alone_s=None)
    assert set(names) < set(FITTED)


def test_a_rows_draws_lie_on_the_side_of_the_median_that_the_row_tells():
    for row, above in ((BF16[0], True), (BF16[1], False)):
        shares = [sum(a == 50 for _, _, a in drawn) / len(drawn) for drawn in draws(row)]
        assert [share > 0.5 for share in shares] == [above] * len(shares)
