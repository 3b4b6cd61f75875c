"""Prometheus metrics of the shared Redis; every label has a handful of values."""

from typing import Final

from prometheus_client import Counter, Gauge, Histogram

UP = Gauge("keepwarm_redis_up", "1 while every Redis node that has been asked is worth asking.")
CALLS = Histogram(
    "keepwarm_redis_call_seconds",
    "Seconds of calls that Redis answered.",
    buckets=(0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25),
)
FAILURES = Counter(
    "keepwarm_redis_failures",
    "Calls that failed (timeout, connection, readonly, oom, cluster, other).",
    ["kind"],
)
SKIPPED = Counter(
    "keepwarm_redis_skipped", "Calls not made because their Redis node was known to be ill."
)
RECOVERIES = Counter("keepwarm_redis_recoveries", "Redis nodes found well again by a probe.")

TIMEOUT: Final = "timeout"
CONNECTION: Final = "connection"
READONLY: Final = "readonly"
OOM: Final = "oom"
CLUSTER: Final = "cluster"
OTHER: Final = "other"
