"""Prometheus metrics of the keys; no key and no tenant is a label."""

from prometheus_client import Counter, Gauge

KEYS = Gauge("keepwarm_keys", "API keys in use.")
LOADED = Gauge("keepwarm_keys_loaded_timestamp_seconds", "When the key file was last taken over.")
RELOADS = Counter(
    "keepwarm_keys_reloads",
    "Changes of the key file, by what came of them (used, refused).",
    ["result"],
)
REFUSED = Counter("keepwarm_auth_refused", "Requests without a valid key, by status.", ["status"])
