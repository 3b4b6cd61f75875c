"""Knative's recorded tables, asked of our functions: settings, bounds, activator, reports, samples.

Each function yields (what was asked, what we answer, what Knative answers).
"""

import math
from collections.abc import Iterator
from typing import Any

from keepwarm.kpa.activator import (
    ActivatorEntry,
    Balancer,
    RequestStats,
    assigned_pods,
    capacity,
)
from keepwarm.kpa.annotations import EXPONENTIAL, resolve, validation_error
from keepwarm.kpa.config import RPS_UTILIZATION, AutoscalerConfig, parse_config
from keepwarm.kpa.errors import InputError
from keepwarm.kpa.golang import format_float
from keepwarm.kpa.model import Policy
from keepwarm.kpa.revision import activators, apply_bounds
from keepwarm.kpa.scrape import sample_size

Answer = tuple[Any, Any, Any]
MS = 1000


def answers(content: dict[str, Any]) -> Iterator[Answer]:
    """Every row of a file of tables; nothing for other content."""
    for row in content.get("config_autoscaler", ()):
        yield row["in"], _config(row), row.get("config", row.get("error"))
    for row in content.get("annotations", ()):
        yield from _annotations(row)
    for least, most, scale, result in content.get("apply_bounds__min_max_x_result", ()):
        yield (least, most, scale), apply_bounds(least, most, scale), result
    for *asked, result in content.get("num_activators__ready_tbc_total_capacity_result", ()):
        yield asked, activators(*asked), result
    for *asked, result in content.get("assign_slice__pods_activators_index_result", ()):
        yield asked, list(assigned_pods(*asked)), result
    for *asked, result in content.get("capacity__cc_backends_trackers_activators_result", ()):
        yield asked, capacity(*asked), result
    for pods, result in content.get("sample_size__pods_result", ()):
        yield pods, sample_size(pods), result
    for number, row in enumerate(content.get("lb_sequences", ())):
        yield f"lb_sequences {number}", _balanced(row), [v for k, v in row["seq"] if k == "P"]
    for number, case in enumerate(content.get("cases", ())):
        pods = case["queue_proxy_reports"]
        yield from _rows(f"case {number} queue-proxy", _pod_reports(case), pods)
        activator = case["activator_messages"]
        yield from _rows(f"case {number} activator", _activator_messages(case), activator)


def _rows(name: str, ours: list[Any], theirs: list[Any]) -> Iterator[Answer]:
    for number in range(max(len(ours), len(theirs))):
        mine, knative = (r[number] if number < len(r) else None for r in (ours, theirs))
        yield f"{name} {number}", mine, knative


def _config(row: dict[str, Any]) -> Any:
    try:
        c = parse_config(row["in"])
    except InputError as error:
        return str(error)
    return {
        "EnableScaleToZero": c.enable_scale_to_zero,
        "ContainerConcurrencyTargetFraction": c.container_concurrency_target_percentage,
        "ContainerConcurrencyTargetDefault": c.container_concurrency_target_default,
        "TargetUtilization": RPS_UTILIZATION,
        "RPSTargetDefault": c.requests_per_second_target_default,
        "TargetBurstCapacity": c.target_burst_capacity,
        "ActivatorCapacity": c.activator_capacity,
        "AllowZeroInitialScale": c.allow_zero_initial_scale,
        "InitialScale": c.initial_scale,
        "MinScale": c.min_scale,
        "MaxScale": c.max_scale,
        "MaxScaleLimit": c.max_scale_limit,
        "MaxScaleUpRate": c.max_scale_up_rate,
        "MaxScaleDownRate": c.max_scale_down_rate,
        "StableWindow": c.stable_window_ns,
        "PanicWindowPercentage": c.panic_window_percentage,
        "PanicThresholdPercentage": c.panic_threshold_percentage,
        "ScaleToZeroGracePeriod": c.scale_to_zero_grace_period_ns,
        "ScaleToZeroPodRetentionPeriod": c.scale_to_zero_pod_retention_period_ns,
        "ScaleDownDelay": c.scale_down_delay_ns,
        "PodAutoscalerClass": c.pod_autoscaler_class,
    }


def _annotations(row: dict[str, Any]) -> Iterator[Answer]:
    config: AutoscalerConfig = parse_config(row.get("config_autoscaler") or {})
    asked = row["annotations"]
    yield asked, validation_error(asked, config), row.get("validation_error")
    if "resolved" in row and "validation_error" not in row:
        policy = resolve(
            asked,
            config,
            container_concurrency=row["container_concurrency"],
            reachability=row["reachability"],
        )
        # Any other word than these two means linear (collector.go).
        algorithm = (
            "weighted-exponential" if row["resolved"]["aggregation"] in EXPONENTIAL else "linear"
        )
        yield asked, resolved(policy), row["resolved"] | {"aggregation": algorithm}


def resolved(policy: Policy) -> dict[str, Any]:
    """A policy in the tables' words; unlimited and not-a-number floats as Go prints them."""
    return {
        "activation_scale": policy.activation_scale,
        "aggregation": policy.aggregation,
        "initial_scale": policy.initial_scale,
        "max_scale": policy.max_scale,
        "metric": policy.metric,
        "min_scale": policy.min_scale if policy.reachable else 0,
        "panic_threshold": policy.panic_threshold_percentage / 100,
        "panic_window_s": policy.panic_window_s,
        "pod_retention_s": policy.pod_retention_s,
        "reachable": policy.reachable,
        "scale_down_delay_s": policy.scale_down_delay_s,
        "stable_window_s": policy.stable_window_s,
        "target_value": format_float(policy.target_value),
        "tbc": format_float(policy.target_burst_capacity),
        "total_value": format_float(policy.total_value),
    }


def _balanced(row: dict[str, Any]) -> list[int]:
    limit, outstanding = row["cc"], [0] * row["pods"]
    balancer = Balancer(4 if row["policy"] == "roundRobin" else 1)
    given: list[int] = []
    picks: list[int] = []
    for kind, value in row["seq"]:
        if kind == "D":
            outstanding[given.pop(value)] -= 1
            continue
        pod = balancer.pick(
            row["pods"], lambda i: outstanding[i] < limit, lambda i: outstanding[i], 0
        )
        picks.append(pod)
        if pod >= 0:
            outstanding[pod] += 1
            given.append(pod)
    return picks


def _events(case: dict[str, Any]) -> list[tuple[int, int, bool]]:
    """(time, +1 in or -1 out or 0 report, proxied); a report comes first at its time."""
    events = [(row[0], 0, False) for row in case["queue_proxy_reports"]]
    for came, left, proxied in case["requests__in_out_proxied"]:
        events += [(came, 1, proxied), (left, -1, proxied)]
    return sorted(events, key=lambda event: (event[0], abs(event[1]), event[1]))


def _pod_reports(case: dict[str, Any]) -> list[list[float]]:
    reports: list[list[float]] = []
    everything, proxied_only = RequestStats(0), RequestStats(0)
    for now, kind, proxied in _events(case):
        counted = (everything, proxied_only) if proxied else (everything,)
        if kind == 0:
            total, part = everything.cut(now * MS), proxied_only.cut(now * MS)
            reports.append(
                [now, total.concurrency, part.concurrency, total.arrivals, part.arrivals]
            )
        for stats in counted if kind else ():
            (stats.enter if kind > 0 else stats.leave)(now * MS)
    return reports


def _activator_messages(case: dict[str, Any]) -> list[list[Any]]:
    messages: list[list[Any]] = []
    entry: ActivatorEntry | None = None
    for now, kind, _ in _events(case):
        if kind > 0:
            if entry is None:
                entry = ActivatorEntry(now * MS)
                messages.append([now, "first", *ActivatorEntry.FIRST])
            entry.enter(now * MS)
        elif entry and kind < 0:
            entry.leave(now * MS)
        elif entry:
            report, dropped = entry.report(now * MS)
            messages.append([now, "report", *report])
            entry = None if dropped else entry
    return messages


def same(ours: Any, theirs: Any) -> bool:
    """Equal, floats to a billionth."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        return ours.keys() == theirs.keys() and all(same(ours[k], theirs[k]) for k in ours)
    if isinstance(ours, list | tuple) and isinstance(theirs, list | tuple):
        return len(ours) == len(theirs) and all(map(same, ours, theirs))
    if isinstance(ours, float) or isinstance(theirs, float):
        numbers = isinstance(ours, int | float) and isinstance(theirs, int | float)
        return numbers and math.isclose(ours, theirs, rel_tol=1e-9, abs_tol=1e-9)
    return bool(ours == theirs)
