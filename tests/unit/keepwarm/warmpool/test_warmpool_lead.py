"""The lead: from the spec, or from the cold starts that PodAutoscalers told of."""

from datetime import UTC, datetime, timedelta

import pytest

from keepwarm.warmpool.api import Lead
from keepwarm.warmpool.lead import Activity, cold_start, lead, remembered

NOON = datetime(2026, 11, 25, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("what", "spec", "measured", "seconds"),
    [
        ("nothing known", {}, [], 300),
        ("nothing known, but guessed", {"initial": "2m"}, [], 120),
        ("measured, and a margin", {}, [40], 55),
        ("the slowest of few", {"margin": "0s"}, [40, 90, 50], 90),
        ("one in ten may be slower", {"margin": "0s"}, [40] * 9 + [600], 40),
        ("bounded", {"max": "1m"}, [90], 60),
        ("an image pulled for an hour", {}, [3600], 1800),
        ("fixed", {"fixed": "7m"}, [90], 420),
        ("none", {"fixed": "0s"}, [90], 0),
    ],
)
def test_the_lead(what, spec, measured, seconds):
    assert lead(Lead.model_validate(spec), measured) == timedelta(seconds=seconds), what


def test_the_latest_sixteen_are_remembered():
    assert remembered(range(15), [15, 16, 17]) == list(range(2, 18))


def seen(status: str, second: int) -> Activity:
    return Activity(status, NOON + timedelta(seconds=second))


@pytest.mark.parametrize(
    ("before", "after", "seconds"),
    [
        (seen("Unknown", 0), seen("True", 31), 31),
        (seen("Unknown", 0), seen("Unknown", 0), None),
        (seen("True", 0), seen("True", 5), None),
        (seen("False", 0), seen("True", 5), None),
        (seen("Unknown", 0), seen("False", 700), None),
        (None, seen("True", 5), None),
        (Activity("Unknown", None), seen("True", 5), None),
        (seen("Unknown", 9), seen("True", 5), None),
    ],
)
def test_a_cold_start_ends_when_activation_does(before, after, seconds):
    took = cold_start(before, after)
    assert (took and took.total_seconds()) == seconds
