"""Where the recordings of Knative's own autoscaler are."""

from pathlib import Path

import pytest

ORACLE = Path(__file__).parents[3] / "kpa_oracle"


@pytest.fixture
def oracle() -> Path:
    return ORACLE
