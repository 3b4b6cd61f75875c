"""Prometheus metrics of the last stage; every label has a handful of values."""

from typing import Final

from prometheus_client import Counter, Gauge, Histogram

_SECONDS: Final = (0.01, 0.05, 0.1, 0.25, 0.5, 1, 2, 5, 10, 30, 60, 120, 300)

_QUEUE_SECONDS = Histogram(
    "keepwarm_queue_seconds",
    "Seconds in the transformer's queue of requests that were let through after waiting.",
    ["priority"],
    buckets=_SECONDS,
)
QUEUED = Gauge("keepwarm_queue_requests", "Requests waiting in the transformer's queue.")
SHED = Counter(
    "keepwarm_shed_requests",
    "Requests refused because of overload, by reason (queue_time, backlog_full, held_full).",
    ["reason", "priority"],
)
IN_FLIGHT = Gauge("keepwarm_predictor_sequences_in_flight", "Sequences at the predictor.")
LIMIT = Gauge("keepwarm_predictor_sequences_limit", "Most sequences at the predictor, as learned.")
BREAKER = Gauge(
    "keepwarm_breaker_state", "1 for the state that the circuit breaker is in.", ["state"]
)
RETRIES = Counter(
    "keepwarm_predictor_retries",
    "Calls repeated before their first token, by cause, and those the budget refused.",
    ["cause", "allowed"],
)
HELD = Gauge("keepwarm_cold_start_waiting_requests", "Requests held for a predictor's start.")
HELD_SECONDS = Histogram(
    "keepwarm_cold_start_wait_seconds",
    "Seconds that a request was held, by outcome (served, timeout, unreachable, cancelled).",
    ["outcome"],
    buckets=_SECONDS,
)
STARTS = Histogram(
    "keepwarm_predictor_start_seconds",
    "Seconds from the first request for an absent predictor to its readiness.",
    buckets=_SECONDS,
)
STATE = Gauge("keepwarm_predictor_state", "1 for the predictor's state as last seen.", ["state"])


def priority_class(priority: int) -> str:
    """A priority as a label."""
    return "interactive" if priority >= 0 else "batch"


def queue_seconds(priority: int) -> Histogram:
    """The queue's histogram for a priority."""
    return _QUEUE_SECONDS.labels(priority_class(priority))
