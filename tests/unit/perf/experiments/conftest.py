"""The experiments' own modules, which import each other by name."""

import sys
from pathlib import Path

import pytest

PERF = Path(__file__).parents[4] / "perf"
sys.path += [str(PERF / "experiments"), str(PERF)]


@pytest.fixture
def row():
    """Makes a row: what was offered, and what became of it."""
    from cost import Cost
    from figures import Figures, Usage
    from results import Row

    def make(hit_target=0.9, *, rate=1000.0, p99_ms=400.0, served=1000.0, part="", **changes):
        values = {
            "stack": "keepwarm",
            "hit_target": hit_target,
            "offered_rps": rate,
            "seconds": 8.0,
            "served_rps": served,
            "good_rps": served,
            "promised_rps": served,
            "refused_rps": rate - served,
            "limited_rps": 0.0,
            "failed_rps": 0.0,
            "p50_ms": 2.0,
            "p99_ms": p99_ms,
            "ttft_p50_ms": 20.0,
            "ttft_p99_ms": 30.0,
            "streams": 80,
            "hit_ratio": hit_target or 0.0,
            "engine_share": 1 - (hit_target or 0.0),
            "engine_rps": served * (1 - (hit_target or 0.0)),
            "tokens_per_s": 9000.0,
            "late_p99_ms": 1.0,
            "usage": Usage({"driver": 0.2, "engine": 0.3, "transformer": 0.4}, 1.0, 2),
            **changes,
        }
        seen = Figures(**values)
        cost = Cost(8.0, 3.6, seen.served_rps * 8.0, seen.engine_rps * 8.0)
        return Row(part, rate, seen, cost)

    return make
