"""Prometheus metrics of the last stage; every label has a handful of values.

`model` stands for a predictor: the first of the names that it answers for.
"""

from typing import Final

from prometheus_client import Counter, Gauge, Histogram

_SECONDS: Final = (0.01, 0.05, 0.1, 0.25, 0.5, 1, 2, 5, 10, 30, 60, 120, 300)

_QUEUE_SECONDS = Histogram(
    "keepwarm_queue_seconds",
    "Seconds in the transformer's queue of requests that were let through after waiting.",
    ["priority"],
    buckets=_SECONDS,
)
QUEUED = Gauge("keepwarm_queue_requests", "Requests waiting in the transformer's queue.", ["model"])
SHED = Counter(
    "keepwarm_shed_requests",
    "Requests refused because of overload, by reason (queue_time, backlog_full, held_full).",
    ["reason", "priority"],
)
IN_FLIGHT = Gauge(
    "keepwarm_predictor_sequences_in_flight", "Sequences at the predictor.", ["model"]
)
LIMIT = Gauge(
    "keepwarm_predictor_sequences_limit", "Most sequences at the predictor, as learned.", ["model"]
)
BREAKER = Gauge(
    "keepwarm_breaker_state", "1 for the state that the circuit breaker is in.", ["model", "state"]
)
RETRIES = Counter(
    "keepwarm_predictor_retries",
    "Calls repeated before their first token, by cause, and those the budget refused.",
    ["model", "cause", "allowed"],
)
HELD = Gauge(
    "keepwarm_cold_start_waiting_requests", "Requests held for a predictor's start.", ["model"]
)
HELD_SECONDS = Histogram(
    "keepwarm_cold_start_wait_seconds",
    "Seconds that a request was held, by outcome (served, timeout, unreachable, cancelled).",
    ["outcome"],
    buckets=_SECONDS,
)
STARTS = Histogram(
    "keepwarm_predictor_start_seconds",
    "Seconds from the first request for an absent predictor to its readiness.",
    ["model"],
    buckets=_SECONDS,
)
STATE = Gauge(
    "keepwarm_predictor_state", "1 for the predictor's state as last seen.", ["model", "state"]
)


def priority_class(priority: int) -> str:
    """A priority as a label."""
    return "interactive" if priority >= 0 else "batch"


def queue_seconds(priority: int) -> Histogram:
    """The queue's histogram for a priority."""
    return _QUEUE_SECONDS.labels(priority_class(priority))
