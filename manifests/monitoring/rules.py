"""The recording and alert rules, which only differ by window and objective where they repeat.

The objectives are the constants; edit them and run `make generate`. Burn-rate windows: Google, The
Site Reliability Workbook, chapter 5, table 5-8.
"""

from dataclasses import dataclass
from typing import Any, Final

import yaml

AVAILABILITY: Final = 0.995
# Of streams that have their first token within this; one of the histogram's bounds.
FIRST_TOKEN: Final = 0.95
FIRST_TOKEN_S: Final = 2.0

BY: Final = "by (namespace, inferenceservice)"
WINDOWS: Final = ("5m", "30m", "1h", "2h", "6h", "1d", "3d")


@dataclass(frozen=True, slots=True)
class Burn:
    """The budget of 30 days is spent `rate` times too fast, over both windows."""

    rate: float
    long: str
    short: str
    severity: str


BURNS: Final = (
    Burn(14.4, "1h", "5m", "page"),
    Burn(6, "6h", "30m", "page"),
    Burn(3, "1d", "2h", "ticket"),
    Burn(1, "3d", "6h", "ticket"),
)


def groups() -> list[dict[str, Any]]:
    """All rule groups."""
    return [
        {"name": "keepwarm-slo", "rules": [*_recordings(), *_burn_alerts()]},
        {"name": "keepwarm-symptoms", "rules": _alerts()},
    ]


def rules_file() -> str:
    """Prometheus' own rules file."""
    return _note() + _yaml({"groups": groups()})


def prometheus_rule() -> str:
    """The same for the Prometheus operator."""
    return _note() + _yaml(
        {
            "apiVersion": "monitoring.coreos.com/v1",
            "kind": "PrometheusRule",
            "metadata": {
                "name": "keepwarm",
                "labels": {"app.kubernetes.io/part-of": "keepwarm", "release": "prometheus"},
            },
            "spec": {"groups": groups()},
        }
    )


def _note() -> str:
    return "# Made by `make generate` from rules.py, where the objectives are.\n"


def _yaml(value: dict[str, Any]) -> str:
    text: str = yaml.safe_dump(value, sort_keys=False, width=110)
    return text


def _recordings() -> list[dict[str, Any]]:
    rules = []
    for window in WINDOWS:
        answered = f'sum {BY} (rate(keepwarm_generations_total{{status!="cancelled"}}[{window}]))'
        failed = f'sum {BY} (rate(keepwarm_generations_total{{status=~"5.."}}[{window}]))'
        rules.append(
            _record("keepwarm_generations", "error_ratio", window, _ratio(failed, answered))
        )
    for window in WINDOWS:
        streams = f"sum {BY} (rate(keepwarm_time_to_first_token_seconds_count[{window}]))"
        ratio = f"1 - {_in_time(window)} / {streams}"
        rules.append(_record("keepwarm_time_to_first_token", "slow_ratio", window, ratio))
    rules.append(_record("keepwarm_streams", "good", "5m", _in_time("5m")))
    for window in ("15m", "1d"):
        hits = f"sum {BY} (rate(keepwarm_cache_hits_total[{window}]))"
        misses = f"sum {BY} (rate(keepwarm_cache_misses_total[{window}]))"
        rules.append(
            _record("keepwarm_cache", "hit_ratio", window, f"{hits} / ({hits} + {misses})")
        )
    return rules


def _in_time(window: str) -> str:
    bucket = f'keepwarm_time_to_first_token_seconds_bucket{{le="{FIRST_TOKEN_S}"}}'
    return f"sum {BY} (rate({bucket}[{window}]))"


def _ratio(part: str, whole: str) -> str:
    """0, not nothing, while `part` has no series yet."""
    return f"({part} or 0 * {whole}) / {whole}"


def _record(metric: str, what: str, window: str, expression: str) -> dict[str, Any]:
    return {"record": f"inferenceservice:{metric}:{what}_rate{window}", "expr": expression}


def _burn_alerts() -> list[dict[str, Any]]:
    alerts = []
    for name, series, objective, text in (
        (
            "KeepwarmErrorBudgetBurn",
            "inferenceservice:keepwarm_generations:error_ratio",
            AVAILABILITY,
            f"of {AVAILABILITY:.1%} available",
        ),
        (
            "KeepwarmFirstTokenBudgetBurn",
            "inferenceservice:keepwarm_time_to_first_token:slow_ratio",
            FIRST_TOKEN,
            f"of {FIRST_TOKEN:.0%} first tokens within {FIRST_TOKEN_S:g} s",
        ),
    ):
        for burn in BURNS:
            most = f"{burn.rate:g} * {1 - objective:.3g}"
            alerts.append(
                _alert(
                    name,
                    f"{series}_rate{burn.long} > {most} and {series}_rate{burn.short} > {most}",
                    burn.severity,
                    f"{{{{ $labels.inferenceservice }}}} spends its budget {text} "
                    f"{burn.rate:g} times too fast (over {burn.long} and {burn.short}).",
                    labels={"window": burn.long},
                )
            )
    return alerts


def _alert(
    name: str,
    expression: str,
    severity: str,
    summary: str,
    *,
    for_: str | None = None,
    labels: dict[str, str] | None = None,
) -> dict[str, Any]:
    return {
        "alert": name,
        "expr": expression,
        **({"for": for_} if for_ else {}),
        "labels": {"severity": severity, **(labels or {})},
        "annotations": {"summary": summary},
    }


def _alerts() -> list[dict[str, Any]]:
    service = "{{ $labels.inferenceservice }}"
    held = "keepwarm_cold_start_wait_seconds_count"
    cache = "inferenceservice:keepwarm_cache:hit_ratio"
    generations = f"sum {BY} (rate(keepwarm_generations_total[10m]))"
    return [
        _alert(
            "KeepwarmColdStartStorm",
            # Each transformer sees each start.
            f"max {BY} (increase(keepwarm_predictor_start_seconds_count[30m])) > 5",
            "ticket",
            f"{service}'s predictor was started more than five times in half an hour: a longer "
            "scale-to-zero grace or a warm pool is cheaper.",
        ),
        _alert(
            "KeepwarmColdStartsTooSlow",
            f'sum {BY} (increase({held}{{outcome=~"timeout|unreachable"}}[15m])) '
            f"/ sum {BY} (increase({held}[15m])) > 0.1",
            "page",
            f"More than a tenth of {service}'s callers gave up waiting for its predictor.",
            for_="5m",
        ),
        _alert(
            "KeepwarmCacheCollapse",
            f"{cache}_rate15m < 0.5 * {cache}_rate1d and {cache}_rate1d > 0.1",
            "ticket",
            f"{service}'s cache answers less than half of what it did over the day: Redis lost "
            "its records, the weights changed, or the prompts did.",
            for_="15m",
        ),
        _alert(
            "KeepwarmLimitsWithoutStore",
            f"max {BY} (keepwarm_limit_local) == 1",
            "ticket",
            f"Transformers of {service} keep limits by their own share: Redis is out of reach.",
            for_="2m",
        ),
        _alert(
            "KeepwarmStoreFailing",
            f"sum {BY} (rate(keepwarm_redis_failures_total[5m])) > 0.1 "
            f"or sum {BY} (rate(keepwarm_redis_skipped_total[5m])) > 0.1",
            "ticket",
            f"Calls to Redis of {service} fail or are not made.",
            for_="5m",
        ),
        _alert(
            "KeepwarmBreakerOpen",
            # A breaker opens for seconds at a time; one look in between would miss it.
            f'max {BY} (max_over_time(keepwarm_breaker_state{{state="open"}}[2m])) == 1',
            "page",
            f"{service}'s predictor keeps failing and is not called.",
            for_="1m",
        ),
        _alert(
            "KeepwarmPredictorRestarts",
            f'sum {BY} (changes(process_start_time_seconds{{component="predictor"}}[30m])) > 2',
            "page",
            f"{service}'s predictor was restarted in place more than twice in half an hour: out "
            "of memory, an engine that dies, or a liveness probe.",
        ),
        _alert(
            "KeepwarmShedding",
            f"sum {BY} (rate(keepwarm_shed_requests_total[10m])) / {generations} > 0.05",
            "ticket",
            f"More than a twentieth of {service}'s requests are refused because of overload.",
            for_="10m",
        ),
        _alert(
            "KeepwarmTargetDown",
            # The operator puts the namespace before a job's name.
            'up{job=~"(.+/)?keepwarm"} == 0',
            "ticket",
            "{{ $labels.pod }} tells no metrics.",
            for_="5m",
        ),
        _alert(
            "KeepwarmWarmPoolNotReady",
            "keepwarm_warmpool_ready == 0",
            "ticket",
            "WarmPool {{ $labels.name }} has fewer replicas than it shall have.",
            for_="15m",
        ),
        _alert(
            "KeepwarmGpuError",
            "max_over_time(DCGM_FI_DEV_XID_ERRORS[5m]) > 0",
            "ticket",
            "GPU {{ $labels.gpu }} of {{ $labels.Hostname }} reports an XID error.",
        ),
    ]
