"""The recording and alert rules, run by promtool over made-up series."""

import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

MONITORING = Path(__file__).parents[3] / "manifests" / "monitoring"
RULES = MONITORING / "rules.yaml"
OURS = 'namespace="a",inferenceservice="chat"'
FIRING = 'count by (alertname, severity) (ALERTS{alertstate="firing"})'
HELD = "keepwarm_cold_start_wait_seconds_count"
FIRST = "keepwarm_time_to_first_token_seconds"
BURNS = {"page": 2, "ticket": 2}

pytestmark = pytest.mark.skipif(
    shutil.which("promtool") is None, reason="needs promtool (Debian: prometheus)"
)


def _series(name, values, labels=""):
    return {"series": f"{name}{{{OURS}{',' if labels else ''}{labels}}}", "values": values}


def _generations(ok, failed, minutes=300):
    """A minute's generations by how they end."""
    return [
        _series("keepwarm_generations_total", f"0+{ok}x{minutes}", 'status="200"'),
        _series("keepwarm_generations_total", f"0+{failed}x{minutes}", 'status="503"'),
    ]


def _streams(in_time, late):
    return [
        _series(f"{FIRST}_bucket", f"0+{in_time}x300", 'le="2.0"'),
        _series(f"{FIRST}_count", f"0+{in_time + late}x300"),
    ]


def _tool(*args):
    return subprocess.run(["promtool", *args], capture_output=True, text=True, check=False)


def _check(tmp_path, series, queries):
    """Evaluates queries at an age of four hours; each has {labels: value}."""
    test = {
        "rule_files": [str(RULES)],
        "evaluation_interval": "1m",
        "tests": [
            {
                "interval": "1m",
                "input_series": series,
                "promql_expr_test": [
                    {
                        "expr": query,
                        "eval_time": "4h",
                        "exp_samples": [
                            {"labels": labels, "value": value} for labels, value in found.items()
                        ],
                    }
                    for query, found in queries.items()
                ],
            }
        ],
    }
    (tmp_path / "test.yaml").write_text(yaml.safe_dump(test))
    done = _tool("test", "rules", str(tmp_path / "test.yaml"))
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_rules_are_good_rules():
    done = _tool("check", "rules", "--lint-fatal", str(RULES))
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_operators_rules_are_the_same_rules():
    rules = yaml.safe_load(RULES.read_text())
    assert yaml.safe_load((MONITORING / "prometheusrule.yaml").read_text())["spec"] == rules


@pytest.mark.parametrize(
    ("series", "alerts"),
    [
        pytest.param(_generations(990, 1), {}, id="a thousandth fails"),
        pytest.param(_generations(99, 1), {"ErrorBudgetBurn": {"ticket": 1}}, id="a hundredth"),
        pytest.param(_generations(90, 10), {"ErrorBudgetBurn": BURNS}, id="a tenth"),
        pytest.param(_generations(0, 0), {}, id="nobody calls"),
        pytest.param(
            # Failed for an hour until ten minutes ago: the short window of 5 m is clean again.
            [
                _series("keepwarm_generations_total", "0+60x300", 'status="200"'),
                _series("keepwarm_generations_total", "0x170 0+30x60 1800x60", 'status="500"'),
            ],
            {"ErrorBudgetBurn": {"page": 1, "ticket": 2}},
            id="it is over",
        ),
        pytest.param(_streams(96, 4), {}, id="first tokens in time"),
        pytest.param(_streams(10, 90), {"FirstTokenBudgetBurn": BURNS}, id="late"),
        pytest.param(
            [_series("keepwarm_predictor_start_seconds_count", "0x200 0+1x100")],
            {"ColdStartStorm": {"ticket": 1}},
            id="a start a minute",
        ),
        pytest.param(
            [_series("keepwarm_predictor_start_seconds_count", "0+1x5 5x300")], {}, id="few starts"
        ),
        pytest.param(
            [
                _series(HELD, "0+8x300", 'outcome="served"'),
                _series(HELD, "0+2x300", 'outcome="timeout"'),
            ],
            {"ColdStartsTooSlow": {"page": 1}},
            id="who waits gives up",
        ),
        pytest.param(
            [
                _series("keepwarm_cache_hits_total", "0+5x190 950x110", 'level="l1"'),
                _series("keepwarm_cache_misses_total", "0+5x300"),
            ],
            {"CacheCollapse": {"ticket": 1}},
            id="hits end",
        ),
        pytest.param(
            [
                _series("keepwarm_cache_hits_total", "0+5x300", 'level="l1"'),
                _series("keepwarm_cache_misses_total", "0+5x300"),
            ],
            {},
            id="hits go on",
        ),
        pytest.param(
            [_series("keepwarm_limit_local", "0x230 1x70")],
            {"LimitsWithoutStore": {"ticket": 1}},
            id="limits of their own",
        ),
        pytest.param(
            [_series("keepwarm_redis_failures_total", "0+60x300", 'kind="timeout"')],
            {"StoreFailing": {"ticket": 1}},
            id="Redis fails",
        ),
        pytest.param(
            # Open at every other look only.
            [_series("keepwarm_breaker_state", "1 0 " * 140, 'state="open"')],
            {"BreakerOpen": {"page": 1}},
            id="a breaker opens again and again",
        ),
        pytest.param(
            [_series("process_start_time_seconds", "1x220 2x5 3x5 4x60", 'component="predictor"')],
            {"PredictorRestarts": {"page": 1}},
            id="a predictor restarts",
        ),
        pytest.param(
            [_series("process_start_time_seconds", "1x220 2x80", 'component="predictor"')],
            {},
            id="one restart",
        ),
        pytest.param(
            [
                *_generations(60, 0),
                _series("keepwarm_shed_requests_total", "0+6x300", 'reason="queue_time"'),
            ],
            {"Shedding": {"ticket": 1}},
            id="overload",
        ),
        pytest.param(
            [{"series": 'up{job="keepwarm",pod="x"}', "values": "1x230 0x70"}],
            {"TargetDown": {"ticket": 1}},
            id="no metrics",
        ),
        pytest.param(
            [_series("keepwarm_warmpool_ready", "0x300", 'name="chat"')],
            {"WarmPoolNotReady": {"ticket": 1}},
            id="a warm pool is cold",
        ),
        pytest.param(
            [{"series": 'DCGM_FI_DEV_XID_ERRORS{gpu="0"}', "values": "0x230 79x70"}],
            {"GpuError": {"ticket": 1}},
            id="a GPU falls off the bus",
        ),
    ],
)
def test_these_series_fire_these_alerts_and_no_others(tmp_path, series, alerts):
    fired = {
        f'{{alertname="Keepwarm{name}",severity="{severity}"}}': count
        for name, severities in alerts.items()
        for severity, count in severities.items()
    }
    _check(tmp_path, series, {FIRING: fired})


def test_ratios_and_goodput_are_recorded(tmp_path):
    _check(
        tmp_path,
        [*_generations(90, 10), *_streams(45, 15)],
        {
            f"{name}": {f"{name}{{{OURS}}}": value}
            for name, value in (
                ("inferenceservice:keepwarm_generations:error_ratio_rate5m", 0.1),
                ("inferenceservice:keepwarm_time_to_first_token:slow_ratio_rate1h", 0.25),
                ("inferenceservice:keepwarm_streams:good_rate5m", 0.75),
            )
        },
    )


def test_without_an_error_yet_the_ratio_is_zero_and_not_absent(tmp_path):
    name = "inferenceservice:keepwarm_generations:error_ratio_rate5m"
    _check(tmp_path, _generations(60, 0)[:1], {name: {f"{name}{{{OURS}}}": 0}})
