"""On measured traffic the recommendation beats every fixed window on days it did not see."""

from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from keepwarm.kpa import Policy
from keepwarm.traces import histogram, sources
from keepwarm.traces.latency import LatencyModel
from keepwarm.tuner import slo
from keepwarm.tuner.evaluate import Rules
from keepwarm.tuner.prices import Prices
from keepwarm.tuner.setting import Setting
from keepwarm.tuner.space import FIXED_WINDOWS_S, Space
from keepwarm.tuner.tune import Options, tune
from keepwarm.tuner.workload import Measured, workload

TRACES = Path(__file__).parents[3] / "data/traces"
# A made-up engine: 15 ms a token alone, 4 % more for each other request.
ENGINE = LatencyModel(0.02, 1e-5, 0.015, 0.0006, most_at_once=64)


@pytest.mark.parametrize("name", ["servegen-office-14d", "servegen-sporadic-14d"])
def test_cheaper_than_each_fixed_window_that_met_no_more_cold_starts(name):
    trace = sources.read(TRACES / f"{name}.jsonl.gz")
    measured = Measured(histogram.read("p50=38s,p95=61s"), latency=ENGINE)
    load = workload(trace, measured, zone=ZoneInfo("UTC"), timeout_s=330, seed=0)
    rules = Rules(slo.parse("cold<=1%,ttft_p99<=2s"), Prices(2.5), lead_s=61)
    current = Policy(target=16, target_burst_capacity=-1, max_scale=2)
    plan = tune(load, Space(Setting(current), ENGINE.most_at_once), rules, Options())
    recommended = plan.row("recommended")
    assert recommended is not None
    held = recommended.held
    assert held.meets
    assert 0 <= held.regret < 0.25
    today = plan.fixed[: len(FIXED_WINDOWS_S)]
    assert {p.setting.policy.target for p in today} == {16}
    as_good = [p for p in today if p.exposure <= held.exposure.value]
    assert as_good
    assert all(held.cost.value < p.cost for p in as_good)
