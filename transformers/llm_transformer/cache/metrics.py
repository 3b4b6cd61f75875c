"""Prometheus metrics of the cache; every label has a handful of values."""

from typing import Final

from prometheus_client import Gauge

from openinference.instruments import Counter

HITS: Final = Counter(
    "keepwarm_cache_hits",
    "Requests answered with a kept answer or error, by the level that had it (l1, l2).",
    ["level", "kind"],
)
# A hit has no time to look for its counter.
HITS_OF: Final = {
    (level, kind): HITS.labels(level, kind)
    for level in ("l1", "l2")
    for kind in ("answer", "error")
}
MISSES: Final = Counter("keepwarm_cache_misses", "Requests that the engine worked for.")
COALESCED: Final = Counter(
    "keepwarm_cache_coalesced",
    "Requests answered with another request's generation, by where that ran (process, replica).",
    ["where"],
)
BYPASSED: Final = Counter(
    "keepwarm_cache_bypassed",
    "Requests that the cache let pass, by reason (sampled, no_store).",
    ["reason"],
)
NOT_KEPT: Final = Counter(
    "keepwarm_cache_not_kept",
    "Finished generations that were not kept, by reason (size, incomplete, no_weights_id).",
    ["reason"],
)
NEGATIVE: Final = Counter(
    "keepwarm_cache_negative_entries", "Errors kept because the same request always gets them."
)
EVICTIONS: Final = Counter(
    "keepwarm_cache_evictions",
    "Records that left this process, by reason (size, expired, replaced).",
    ["reason"],
)
L1_BYTES: Final = Gauge("keepwarm_cache_bytes", "Bytes that this process's records take.")
L1_ENTRIES: Final = Gauge("keepwarm_cache_entries", "Records in this process.")
SAVED_TOKENS: Final = Counter(
    "keepwarm_cache_saved_tokens",
    "Tokens that the engine did not have to process, by kind (prompt, completion).",
    ["kind"],
)
SAVED_PROMPT: Final = SAVED_TOKENS.labels("prompt")
SAVED_COMPLETION: Final = SAVED_TOKENS.labels("completion")
HANDOVERS: Final = Counter(
    "keepwarm_cache_handovers",
    "Generations begun here because the replica that others waited for gave up or died.",
)
L2_ERRORS: Final = Counter(
    "keepwarm_cache_l2_errors",
    "Uses of Redis that failed and were skipped, by operation, and records that were broken.",
    ["operation"],
)
