"""What a plan rests on: told on the page, and kept for the back-test."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from keepwarm.traces import report
from keepwarm.traces.histogram import Distribution
from keepwarm.tuner.evaluate import Rules
from keepwarm.tuner.manifest import Manifest
from keepwarm.tuner.prices import Prices
from keepwarm.tuner.workload import Measured, Workload

SERVICE_QUANTILES = 401


def doubts_of(manifest: Manifest, measured: Measured, prices: Prices) -> Iterator[str]:
    """What makes the plan less sure than it looks, as sentences."""
    if manifest.gpus is None:
        yield "The manifest asks for no GPU: a pod is priced as one (--gpus)."
    if measured.latency is None:
        yield (
            "No latency model: what more requests in a pod do to each other was not measured, so"
            " targets above today's were not searched, and requests were not slowed by others."
        )
    if not measured.cold_start.count:
        yield (
            "Cold starts are quantiles with a lognormal through them; a measured histogram says"
            " more about the slow ones."
        )
    if prices.asleep_per_pod_hour is not None:
        yield (
            "With an asleep tier the bound prices every second as asleep, far below what anyone"
            " reaches: regret says little here."
        )


def told_facts(
    manifest: Manifest,
    load: Workload,
    measured: Measured,
    rules: Rules,
    *,
    concurrency: int,
    zone: str,
    waking: Distribution | None,
) -> dict[str, Any]:
    """What the plan rests on, as told on the page and needed by the back-test."""
    prices = rules.prices
    service = load.requests.service_s
    told = [
        ("price", f"{prices.per_gpu_hour:g} {prices.currency} a GPU-hour"),
        (
            "node",
            (
                f"{prices.gpus_per_node} GPUs, {prices.pods_per_node} pods of"
                f" {prices.gpus_per_pod}; paid until {report.period(prices.node_linger_s)} after"
                " it is unneeded"
                + (f"; {prices.reserved_nodes} reserved" if prices.reserved_nodes else "")
            ),
        ),
        ("cold start", f"{measured.cold_start} ({measured.cold_start.source})"),
        (
            "time in a pod",
            (
                f"p50 {np.quantile(service, 0.5):.3g} s, p95 {np.quantile(service, 0.95):.3g} s,"
                f" alone; {load.pods.slowdown:.2%} more for each other request there"
            ),
        ),
        ("time-out", f"{load.pods.request_timeout_s:g} s"),
        ("drain", f"at least {load.pods.drain_quiet_s:g} s, as queue-proxy does"),
        ("most requests in a pod searched", str(concurrency)),
        ("warm pool asks", f"{rules.lead_s:g} s before its hours"),
    ]
    if waking is not None:
        told.append(
            (
                "asleep",
                f"{prices.asleep_per_pod_hour:g} {prices.currency} an hour, wakes in {waking}",
            )
        )
    return {
        "service": manifest.name,
        "namespace": manifest.namespace,
        "component": manifest.component,
        "trace": load.name,
        "time_zone": zone,
        "currency": prices.currency,
        "gpu_price": prices.per_gpu_hour,
        "prices": {f: getattr(prices, f) for f in Prices.__dataclass_fields__},
        "start_s": list(load.pods.start_s),
        "slowdown": load.pods.slowdown,
        "timeout_s": load.pods.request_timeout_s,
        "service_s": np.quantile(service, np.linspace(0, 1, SERVICE_QUANTILES)).tolist(),
        "wake_s": list(rules.wake_s),
        "wake": waking is not None,
        "told": told,
    }
