"""A prediction beside what a real Prometheus says happened."""

import json
import shutil
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import numpy as np
import pytest
from typer.testing import CliRunner

from keepwarm.cli import app
from keepwarm.kpa import simulate
from keepwarm.traces.prometheus import Series
from keepwarm.tuner.backtest import back_test
from keepwarm.tuner.errors import TuneError
from keepwarm.tuner.plan import as_json
from keepwarm.tuner.prices import Prices
from keepwarm.tuner.tune import Options, tune

DAY_S = 86_400.0
STEP_S = 15.0
SCRAPES = Path(shutil.which("prometheus") or "/none"), Path(shutil.which("promtool") or "/none")


@pytest.fixture(scope="module")
def plan(fortnight, space, rules):
    facts = {
        "service": "chat",
        "namespace": "llm",
        "component": "predictor",
        "time_zone": "UTC",
        "prices": {name: getattr(rules.prices, name) for name in Prices.__dataclass_fields__},
        "start_s": list(fortnight.pods.start_s),
        "slowdown": 0.0,
        "timeout_s": 300.0,
        "service_s": [5.0],
        "wake_s": [],
    }
    found = tune(fortnight, space, rules, Options(budget=80, seed=4), facts=facts)
    return json.loads(json.dumps(as_json(found)))


@pytest.fixture(scope="module")
def happened(fortnight, space):
    """The current policy on the held-out week, as a cluster would have shown it every 15 s."""
    (result,) = simulate([space.current.policy], fortnight.requests, fortnight.pods)
    at = np.arange(7 * DAY_S, 14 * DAY_S + 1, STEP_S)
    timeline = result.timeline
    pods = timeline.ready + timeline.starting + timeline.draining
    row = np.searchsorted(timeline.t_s, at, side="right") - 1
    arrival = fortnight.requests.arrival_s
    return {
        "t": at,
        "pods": pods[row],
        "requests": np.searchsorted(arrival, at, side="right"),
        "cold": np.searchsorted(arrival[result.verdict == 2], at, side="right"),
    }


def series(happened, name):
    t0 = datetime(2026, 1, 5, tzinfo=UTC).timestamp()
    if name == "pods":
        return Series(name, t0 + happened["t"], happened["pods"].astype(float), STEP_S)
    counted = np.diff(happened[name]).astype(float)
    return Series(name, t0 + happened["t"][1:], counted, STEP_S)


def test_what_the_twin_itself_did_is_found_as_predicted(plan, happened):
    found = back_test(
        plan,
        series(happened, "requests"),
        series(happened, "pods"),
        series(happened, "cold"),
        setting_name="current",
    )
    assert found.days == pytest.approx(7)
    for row in found.compared:
        assert row.replayed == pytest.approx(row.measured, rel=0.05), row.name
        assert row.predicted == pytest.approx(row.measured, rel=0.05), row.name
        assert row.within, row.name


def test_pods_that_stayed_longer_than_predicted_are_told(plan, happened):
    pods = series(happened, "pods")
    kept = Series("pods", pods.t_s, np.maximum(pods.value, 1.0), STEP_S)
    found = back_test(plan, series(happened, "requests"), kept, None, setting_name="current")
    hours, money, cold = found.compared
    assert hours.measured == pytest.approx(24, rel=0.01)
    assert money.measured == pytest.approx(60, rel=0.01)
    assert not hours.within
    assert not money.within
    assert (cold.measured, cold.within) == (None, None)


def test_a_series_of_pods_that_vanishes_at_zero_counts_as_none(plan, happened):
    pods = series(happened, "pods")
    there = pods.value > 0
    sparse = Series("pods", pods.t_s[there], pods.value[there], STEP_S)
    args = (plan, series(happened, "requests"))
    whole = back_test(*args, pods, None, setting_name="current").compared[0].measured
    holed = back_test(*args, sparse, None, setting_name="current").compared[0].measured
    assert holed == pytest.approx(whole, rel=0.02)


def test_a_policy_that_the_plan_has_not_is_told(plan, happened):
    with pytest.raises(TuneError, match="no policy 'mine'"):
        back_test(
            plan,
            series(happened, "requests"),
            series(happened, "pods"),
            None,
            setting_name="mine",
        )


@pytest.mark.skipif(
    not all(path.exists() for path in SCRAPES), reason="prometheus and promtool are not installed"
)
def test_keepwarm_backtest_reads_a_real_prometheus(
    plan, happened, tmp_path, free_ports, eventually
):
    # Recorded series of the last seven days, so that Prometheus' retention keeps them.
    now = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
    begin = now - timedelta(days=7)
    transformer = 'namespace="llm",pod="chat-transformer-0"'
    labels = {
        "requests": f'keepwarm_requests_total{{{transformer},status="200"}}',
        "cold": f"keepwarm_cold_start_wait_seconds_count{{{transformer}}}",
        "pods": 'pods_with_a_gpu{namespace="llm"}',
    }
    lines = []
    for name, label in labels.items():
        metric = label.split("{", 1)[0].removesuffix("_total")
        kind = "gauge" if name != "requests" else "counter"
        lines.append(f"# TYPE {metric} {kind}")
        for t, value in zip(happened["t"].tolist(), happened[name].tolist(), strict=True):
            lines.append(f"{label} {value} {begin.timestamp() + t - 7 * DAY_S:.0f}")
    recorded = tmp_path / "recorded.om"
    recorded.write_text("\n".join([*lines, "# EOF", ""]))
    data = tmp_path / "data"
    subprocess.run(
        [SCRAPES[1], "tsdb", "create-blocks-from", "openmetrics", recorded, data],
        check=True,
        capture_output=True,
    )
    (port,) = free_ports(1)
    config = tmp_path / "prometheus.yml"
    config.write_text("scrape_configs: []\n")
    log = (tmp_path / "log").open("wb")
    server = subprocess.Popen(
        [
            SCRAPES[0],
            f"--config.file={config}",
            f"--storage.tsdb.path={data}",
            "--storage.tsdb.retention.time=30d",
            f"--web.listen-address=127.0.0.1:{port}",
        ],
        stdout=log,
        stderr=log,
    )
    try:
        url = f"http://127.0.0.1:{port}"

        def ready():
            try:
                return httpx.get(f"{url}/-/ready").status_code == 200
            except httpx.TransportError:
                return False

        eventually(ready, "Prometheus is ready", timeout_s=60)
        path = tmp_path / "plan.json"
        path.write_text(json.dumps(plan))
        stamp = "%Y-%m-%dT%H:%M:%S+0000"
        command = [
            "backtest",
            f"--plan={path}",
            f"--prometheus={url}",
            f"--from={begin + timedelta(seconds=30):{stamp}}",
            f"--to={now:{stamp}}",
            "--policy=current",
            '--pods-query=sum(pods_with_a_gpu{namespace="NAMESPACE"})',
            "--step=30s",
        ]
        result = CliRunner().invoke(app, [*command, "--json"])
        assert result.exit_code == 0, result.output
        found = json.loads(result.stdout)
        by_name = {row["name"]: row for row in found["compared"]}
        week = happened["requests"][-1] - happened["requests"][0]
        assert found["requests"] == pytest.approx(week, abs=3)
        hours = by_name["pod-hours a day"]
        # It began on another weekday and at another hour than the plan's week: the same in sum.
        assert hours["measured"] == pytest.approx(hours["replayed"], rel=0.12)
        assert hours["within"]
        assert by_name["share of requests cold"]["measured"] > 0
        shown = CliRunner().invoke(app, command)
        assert "Replayed against measured is the model" in shown.stdout
    finally:
        server.terminate()
        server.wait(30)
        log.close()


def test_what_is_no_plan_is_told(tmp_path):
    path = tmp_path / "plan.json"
    path.write_text("[]")
    result = CliRunner().invoke(
        app,
        [
            "backtest",
            f"--plan={path}",
            "--prometheus=http://127.0.0.1:9",
            "--from=2026-01-05T00:00:00+0000",
            "--to=2026-01-06T00:00:00+0000",
        ],
    )
    assert result.exit_code == 2
    assert "is no plan.json" in result.stderr
