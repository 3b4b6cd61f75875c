"""Prometheus metrics of auth and limits; keys, tenants and addresses are never labels."""

from prometheus_client import Gauge

from openinference.instruments import Counter

REFUSED = Counter(
    "keepwarm_limited_requests",
    "Requests refused by a limit (requests, address, concurrent, tokens), by plan.",
    ["limit", "plan"],
)
RESERVED = Counter("keepwarm_limit_tokens_reserved", "Tokens reserved before work.")
CHARGED = Counter("keepwarm_limit_tokens_charged", "Tokens charged after it.")
UNDERRESERVED = Counter(
    "keepwarm_limit_underreserved",
    "Requests that used more tokens than the upper bound: raise --template_tokens.",
)
LOCAL = Gauge("keepwarm_limit_local", "1 while limits are this replica's share, without Redis.")
REPLICAS = Gauge("keepwarm_limit_replicas", "Replicas among which the limits are shared.")
OWED = Gauge("keepwarm_limit_owed_settlements", "True-ups that wait for Redis to come back.")
