"""Statistics of traces: the published figures come out, and the presets behave like them."""

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import numpy as np
import pytest

from keepwarm.traces import report, sources, statistics
from keepwarm.traces.generate import MONDAY, cv_of_weibull, generate, weibull_shape
from keepwarm.traces.presets import PRESETS
from keepwarm.traces.statistics import Statistics
from keepwarm.traces.trace import DAY_S, Trace

TRACES = Path(__file__).parents[3] / "data" / "traces"


def trace_of(arrival: list[float], duration: float, start: datetime | None = None) -> Trace:
    zeros = np.zeros(len(arrival), dtype=np.int64)
    return Trace("t", np.asarray(arrival, dtype=np.float64), zeros, zeros, duration, start)


@pytest.fixture(scope="module")
def azure_code() -> Statistics:
    return statistics.describe(sources.read(TRACES / "azure-llm-2023-code.jsonl.gz"))


def test_the_azure_code_trace_gives_the_published_figures(azure_code: Statistics) -> None:
    assert azure_code.mean_rps == pytest.approx(2.57, abs=0.01)
    assert azure_code.interarrival_cv == pytest.approx(13.15, abs=0.01)
    assert [round(b.dispersion) for b in azure_code.bins[:3]] == [13, 71, 160]
    assert [round(b.empty, 2) for b in azure_code.bins if b.width_s in {1, 60}] == [0.73, 0.21]
    assert azure_code.longest_gap_s == pytest.approx(217, abs=1)
    assert (azure_code.input_tokens.p50, azure_code.input_tokens.p99) == (1469, 7436)
    assert azure_code.output_tokens.p50 == 13
    assert azure_code.output_tokens.mean == pytest.approx(28, abs=0.5)


@pytest.mark.parametrize(
    ("name", "over_60", "over_600", "longest_h"),
    [("sporadic", 1510, 134, 16.7), ("office", 1305, None, 7.6)],
)
def test_the_servegen_traces_give_their_published_silences(
    name: str, over_60: int, over_600: int | None, longest_h: float
) -> None:
    found = statistics.describe(sources.read(TRACES / f"servegen-{name}-14d.jsonl.gz"))
    assert found.gaps_over[60] == over_60
    assert over_600 in {None, found.gaps_over[600]}
    assert found.longest_gap_s / 3600 == pytest.approx(longest_h, abs=0.05)


def test_poisson_traffic_has_cv_and_dispersion_one() -> None:
    random = np.random.default_rng(5)
    arrival = np.cumsum(random.exponential(0.5, 60_000))
    found = statistics.describe(trace_of(arrival.tolist(), float(arrival[-1]) + 0.1))
    assert found.interarrival_cv == pytest.approx(1, rel=0.03)
    assert all(b.dispersion == pytest.approx(1, rel=0.25) for b in found.bins[:3])


def test_the_week_is_that_of_the_time_zone_over_a_change_of_clocks() -> None:
    # 08:00 in Berlin on the Mondays before and after summer time ends on 2026-10-25.
    zone = ZoneInfo("Europe/Berlin")
    start = datetime(2026, 10, 19, tzinfo=zone)
    at = [
        (datetime(2026, 10, day, 8, 5, tzinfo=zone) - start.astimezone(UTC)).total_seconds()
        for day in (19, 26)
    ]
    week = statistics.describe(trace_of(at, 14 * DAY_S, start), zone).week_rps
    assert week[0, 8] * 3600 * 2 == pytest.approx(2)
    assert np.nansum(week) == week[0, 8]


def test_hours_never_observed_are_unknown_not_silent() -> None:
    found = statistics.describe(trace_of([10.0], 7200, MONDAY))
    assert found.week_rps[0, 1] == 0
    assert np.isnan(found.week_rps[0, 2])
    assert found.as_json()["week_rps"][0][2] is None


def test_silences_before_and_after_the_requests_count() -> None:
    found = statistics.describe(trace_of([5000.0], 12_000))
    assert found.gaps_over == {60: 2, 600: 2, 3600: 2}
    assert found.longest_gap_s == 7000


def test_a_day_that_was_not_recorded_is_suspected_and_a_quiet_night_is_not() -> None:
    every_minute = [
        day * DAY_S + 8 * 3600 + minute * 60.0 for day in range(10) for minute in range(600)
    ]
    assert statistics.suspicious_silences(trace_of(every_minute, 10 * DAY_S, MONDAY)) == []
    holed = [t for t in every_minute if not DAY_S <= t < 2 * DAY_S]
    (told,) = statistics.suspicious_silences(trace_of(holed, 10 * DAY_S, MONDAY))
    assert "from Mon 2026-01-05 17:59" in told
    assert "at least 601" in told


@pytest.mark.parametrize("cv", [0.5, 1.0, 2.0, 5.0, 13.0])
def test_a_weibull_shape_is_found_for_every_cv(cv: float) -> None:
    assert cv_of_weibull(weibull_shape(cv)) == pytest.approx(cv, rel=1e-6)


def medians(name: str, duration_s: float, seeds: int) -> dict[str, float]:
    found = [
        statistics.describe(generate(PRESETS[name], duration_s=duration_s, seed=seed))
        for seed in range(seeds)
    ]
    rows = [
        {
            "rps": s.mean_rps,
            "cv": s.interarrival_cv,
            "longest": s.longest_gap_s,
            "peak": s.peak_hour_over_mean,
            "input_p50": s.input_tokens.p50,
            "output_p50": s.output_tokens.p50,
            "output_mean": s.output_tokens.mean,
            **{f"dispersion_{b.width_s}": b.dispersion for b in s.bins},
            **{f"empty_{b.width_s}": b.empty for b in s.bins},
            **{f"gaps_{over}": n for over, n in s.gaps_over.items()},
        }
        for s in found
    ]
    return {key: float(np.median([row[key] for row in rows])) for key in rows[0]}


# Published: Azure's 2023 LLM traces, code (CV 13.15, dispersion 13/71/160, 73 % of seconds
# empty) and conv (CV 1.09, dispersion 1.4/4/20.6), and ServeGen's sporadic clients.
PUBLISHED: dict[str, tuple[float, int, dict[str, tuple[float, float]]]] = {
    # name: duration, seeds, {statistic: (published, factor within which the median must be)}
    "code-bursty": (
        8 * 3420,
        6,
        {
            "rps": (2.57, 1.3),
            "cv": (13.15, 1.5),
            "dispersion_10": (71, 1.7),
            "dispersion_60": (160, 1.7),
            "empty_1": (0.73, 1.2),
            "empty_60": (0.21, 1.6),
            "longest": (217, 2),
            "input_p50": (1469, 1.1),
            "output_p50": (13, 1.2),
            "output_mean": (28, 1.1),
        },
    ),
    "chat-steady": (
        3420,
        9,
        {
            "rps": (5.53, 1.4),
            "cv": (1.09, 1.2),
            "dispersion_1": (1.4, 1.4),
            "dispersion_10": (4, 1.6),
            "dispersion_60": (20.6, 1.8),
            "longest": (4.3, 2.2),
            "input_p50": (1020, 1.1),
            "output_mean": (211, 1.2),
        },
    ),
    "long-tail-idle": (
        14 * DAY_S,
        6,
        {
            "rps": (0.083, 1.5),
            "cv": (30.56, 1.7),
            "empty_60": (0.56, 1.3),
            "gaps_60": (1510, 2),
            "gaps_600": (134, 2),
            "longest": (60_052, 2.5),
        },
    ),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_preset_behaves_like_what_was_measured(name: str) -> None:
    duration, seeds, expected = PUBLISHED[name]
    found = medians(name, duration, seeds)
    far = {
        key: (found[key], value)
        for key, (value, factor) in expected.items()
        if not value / factor <= found[key] <= value * factor
    }
    assert far == {}


def test_office_hours_are_busy_on_weekdays_and_quiet_at_night_and_at_weekends() -> None:
    week = statistics.describe(
        generate(PRESETS["internal-office-hours"], duration_s=28 * DAY_S, seed=2)
    ).week_rps
    assert week[:5, 9:17].mean() > 20 * week[5:, 9:17].mean()
    assert week[:5, 9:17].mean() > 50 * week[:5, :6].mean()


def test_cron_batches_come_on_the_clock_and_leave_most_minutes_empty() -> None:
    trace = generate(PRESETS["cron-batch"], duration_s=7 * DAY_S, seed=2)
    found = statistics.describe(trace)
    assert found.mean_rps == pytest.approx(PRESETS["cron-batch"].mean_rps, rel=0.05)
    assert next(b.empty for b in found.bins if b.width_s == 60) > 0.9
    in_first_two_minutes = (trace.arrival_s % 3600 < 120).mean()
    assert in_first_two_minutes > 0.2


def test_a_flash_crowd_multiplies_the_load_within_a_minute() -> None:
    trace = generate(PRESETS["flash-crowd"], duration_s=14 * DAY_S, seed=2)
    per_minute = statistics.counts(trace, 60)
    jump = per_minute[2:] / np.maximum(20, per_minute[:-2])
    assert jump.max() > 5


def test_servegens_composition_holds_for_the_clients_of_chat() -> None:
    preset = PRESETS["chat-steady"]
    share = 1 / np.arange(1, preset.clients + 1) ** preset.zipf
    share /= share.sum()
    assert 0.14 <= share[0] <= 0.52
    assert 0.5 <= share[:10].sum() <= 0.93
    assert 0.53 <= 1 - preset.active <= 0.74


def test_a_seed_gives_the_same_trace_and_another_seed_another() -> None:
    make = PRESETS["internal-office-hours"]
    one, same, other = (generate(make, duration_s=DAY_S, seed=s) for s in (4, 4, 5))
    assert (one.arrival_s == same.arrival_s).all()
    assert (one.output_tokens == same.output_tokens).all()
    assert len(one) != len(other)


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_is_sorted_in_range_and_scales_with_its_rate(name: str) -> None:
    one = generate(PRESETS[name], duration_s=3 * DAY_S, seed=1, mean_rps=0.05)
    assert (np.diff(one.arrival_s) >= 0).all()
    assert one.arrival_s[0] >= 0
    assert one.arrival_s[-1] < one.duration_s
    more = generate(replace(PRESETS[name]), duration_s=3 * DAY_S, seed=1, mean_rps=0.5)
    assert 3 < len(more) / len(one) < 30


def test_the_text_tells_the_figures_in_words(azure_code: Statistics) -> None:
    text = report.text(azure_code)
    assert "8,819 in 57.3 min" in text
    assert "13.15 (Poisson 1)" in text
    assert "12 over 1 min" in text
