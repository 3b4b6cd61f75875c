"""What the dashboards show: rows of panels, each with its queries, unit and what it tells.

`OURS` in a query stands for the dashboard's choice of namespace and InferenceService.
"""

from dataclasses import dataclass
from typing import Final

RATE: Final = "[$__rate_interval]"
QUANTILES: Final = (0.5, 0.9, 0.99)


@dataclass(frozen=True, slots=True)
class Query:
    """PromQL, and the legend of its series."""

    expression: str
    legend: str


@dataclass(frozen=True, slots=True)
class Panel:
    """A graph."""

    title: str
    tells: str
    unit: str
    queries: tuple[Query, ...]


@dataclass(frozen=True, slots=True)
class Row:
    """Panels under one heading."""

    title: str
    panels: tuple[Panel, ...]


def _rates(metric: str, label: str, *, by: str = "", matching: str = "") -> tuple[Query, ...]:
    """A counter's rate, by a label."""
    selector = f"OURS,{matching}" if matching else "OURS"
    grouping = f" by ({by or label})" if by or label else ""
    legend = f"{{{{{label}}}}}" if label else "all"
    return (Query(f"sum{grouping} (rate({metric}{{{selector}}}{RATE}))", legend),)


def _quantiles(metric: str, *, matching: str = "") -> tuple[Query, ...]:
    """A histogram's quantiles."""
    selector = f"OURS,{matching}" if matching else "OURS"
    return tuple(
        Query(
            f"histogram_quantile({q}, sum by (le) (rate({metric}_bucket{{{selector}}}{RATE})))",
            f"p{q * 100:g}",
        )
        for q in QUANTILES
    )


def _values(metric: str, legend: str, *, how: str = "sum", by: str = "") -> Query:
    """A gauge."""
    grouping = f" by ({by})" if by else ""
    return Query(f"{how}{grouping} ({metric}{{OURS}})", legend)


SERVICE: Final = (
    Row(
        "Traffic",
        (
            Panel(
                "Generations by status",
                "Answers to callers with a valid key; cancelled ones were left by their caller.",
                "reqps",
                _rates("keepwarm_generations_total", "status"),
            ),
            Panel(
                "Generations by plan and model",
                "",
                "reqps",
                (
                    *_rates("keepwarm_generations_total", "plan"),
                    *_rates("keepwarm_generations_total", "model"),
                ),
            ),
            Panel(
                "Requests by endpoint",
                "Everything that the transformer is asked, health and metadata included.",
                "reqps",
                _rates("keepwarm_requests_total", "endpoint", matching='component="transformer"'),
            ),
            Panel(
                "Tokens",
                "In prompts and in answers.",
                "short",
                (
                    *_rates("keepwarm_prompt_tokens_total", ""),
                    *_rates("keepwarm_generation_tokens_total", "plan"),
                ),
            ),
            Panel(
                "In flight",
                "Requests at the transformer, in its queue, and sequences at the predictor.",
                "short",
                (
                    Query(
                        'sum (keepwarm_requests_in_flight{OURS,component="transformer"})',
                        "requests",
                    ),
                    _values("keepwarm_queue_requests", "queue"),
                    _values("keepwarm_predictor_sequences_in_flight", "at the predictor"),
                    _values("keepwarm_predictor_sequences_limit", "most at the predictor"),
                ),
            ),
            Panel(
                "Errors, and streams in time",
                "Share of 5xx; streams a second whose first token met the objective (goodput).",
                "short",
                (
                    Query("inferenceservice:keepwarm_generations:error_ratio_rate5m{OURS}", "5xx"),
                    Query("inferenceservice:keepwarm_streams:good_rate5m{OURS}", "goodput"),
                    Query(
                        "inferenceservice:keepwarm_time_to_first_token:slow_ratio_rate5m{OURS}",
                        "late first tokens",
                    ),
                ),
            ),
        ),
    ),
    Row(
        "Latency",
        (
            Panel(
                "Time to first token",
                "Streams, as callers see them.",
                "s",
                _quantiles("keepwarm_time_to_first_token_seconds"),
            ),
            Panel(
                "Time to first token, of the engine",
                "Without what the cache had.",
                "s",
                _quantiles(
                    "keepwarm_time_to_first_token_seconds", matching='cache!~"hit|coalesced"'
                ),
            ),
            Panel(
                "Inter-token latency", "", "s", _quantiles("keepwarm_inter_token_latency_seconds")
            ),
            Panel(
                "Whole answers",
                "From arrival to the end of the answer, chat completions.",
                "s",
                _quantiles("keepwarm_request_seconds", matching='endpoint="chat_completions"'),
            ),
            Panel(
                "Queue of the transformer",
                "Of requests that had to wait.",
                "s",
                _quantiles("keepwarm_queue_seconds"),
            ),
            Panel(
                "Queue of the engine",
                "As the predictor tells it with each answer.",
                "s",
                _quantiles("keepwarm_engine_queue_seconds"),
            ),
        ),
    ),
    Row(
        "Cold starts and faults",
        (
            Panel(
                "Waits for a start",
                "Requests held, by outcome.",
                "reqps",
                _rates("keepwarm_cold_start_wait_seconds_count", "outcome"),
            ),
            Panel(
                "Held now", "", "short", (_values("keepwarm_cold_start_waiting_requests", "held"),)
            ),
            Panel(
                "Start times",
                "From the first request to readiness.",
                "s",
                _quantiles("keepwarm_predictor_start_seconds"),
            ),
            Panel(
                "Start-up phases",
                "The longest of the predictor's pods.",
                "s",
                (_values("keepwarm_startup_phase_seconds", "{{phase}}", how="max", by="phase"),),
            ),
            Panel(
                "Predictor's state and breaker",
                "1 for the state that a transformer sees.",
                "short",
                (
                    _values("keepwarm_predictor_state", "{{state}}", how="max", by="state"),
                    _values("keepwarm_breaker_state", "breaker {{state}}", how="max", by="state"),
                ),
            ),
            Panel(
                "Refused and repeated",
                "Requests shed in overload; calls repeated before a first token.",
                "reqps",
                (
                    *_rates("keepwarm_shed_requests_total", "reason"),
                    *_rates("keepwarm_predictor_retries_total", "cause"),
                ),
            ),
        ),
    ),
    Row(
        "Cache, limits and store",
        (
            Panel(
                "Cache",
                "",
                "reqps",
                (
                    *_rates("keepwarm_cache_hits_total", "level"),
                    *_rates("keepwarm_cache_coalesced_total", "where"),
                    Query(f"sum (rate(keepwarm_cache_misses_total{{OURS}}{RATE}))", "miss"),
                    *_rates("keepwarm_cache_bypassed_total", "reason"),
                ),
            ),
            Panel(
                "Hit ratio",
                "",
                "percentunit",
                (
                    Query("inferenceservice:keepwarm_cache:hit_ratio_rate15m{OURS}", "15 min"),
                    Query("inferenceservice:keepwarm_cache:hit_ratio_rate1d{OURS}", "1 day"),
                ),
            ),
            Panel("Tokens saved", "", "short", _rates("keepwarm_cache_saved_tokens_total", "kind")),
            Panel(
                "Refused by limits",
                "And requests without a valid key, by status.",
                "reqps",
                (
                    *_rates("keepwarm_limited_requests_total", "limit"),
                    *_rates("keepwarm_auth_refused_total", "status"),
                ),
            ),
            Panel(
                "Limits without Redis",
                "1 while a replica keeps its own share; true-ups that wait.",
                "short",
                (
                    _values("keepwarm_limit_local", "local", how="max"),
                    _values("keepwarm_limit_owed_settlements", "owed"),
                ),
            ),
            Panel(
                "Redis",
                "",
                "s",
                _quantiles("keepwarm_redis_call_seconds"),
            ),
            Panel(
                "Redis failures",
                "",
                "ops",
                (
                    *_rates("keepwarm_redis_failures_total", "kind"),
                    Query(f"sum (rate(keepwarm_redis_skipped_total{{OURS}}{RATE}))", "skipped"),
                ),
            ),
        ),
    ),
)

ENGINE: Final = (
    Row(
        "Engine",
        (
            Panel(
                "Sequences",
                "",
                "short",
                (
                    _values("vllm:num_requests_running", "running {{pod}}", by="pod"),
                    _values("vllm:num_requests_waiting", "waiting {{pod}}", by="pod"),
                ),
            ),
            Panel(
                "KV cache in use",
                "",
                "percentunit",
                (_values("vllm:kv_cache_usage_perc", "{{pod}}", how="max", by="pod"),),
            ),
            Panel(
                "Tokens",
                "",
                "short",
                (
                    *_rates("vllm:prompt_tokens_total", ""),
                    *_rates("vllm:generation_tokens_total", "pod"),
                ),
            ),
            Panel(
                "Prefix cache hits",
                "",
                "percentunit",
                (
                    Query(
                        f"sum (rate(vllm:prefix_cache_hits_total{{OURS}}{RATE}))"
                        f" / sum (rate(vllm:prefix_cache_queries_total{{OURS}}{RATE}))",
                        "hits",
                    ),
                ),
            ),
            Panel("Queue", "", "s", _quantiles("vllm:request_queue_time_seconds")),
            Panel("Time to first token", "", "s", _quantiles("vllm:time_to_first_token_seconds")),
            Panel("Preemptions", "", "ops", _rates("vllm:num_preemptions_total", "pod")),
            Panel(
                "Sleep",
                "Level of sleep; 0 is awake.",
                "short",
                (_values("keepwarm_engine_asleep", "{{pod}}", how="max", by="pod"),),
            ),
            Panel(
                "Memory of the processes",
                "The server's own; the engine's process is beside it.",
                "bytes",
                (_values("process_resident_memory_bytes", "{{pod}}", by="pod"),),
            ),
        ),
    ),
    Row(
        "Warm pool",
        (
            Panel(
                "Replicas",
                "Wanted by the schedule, and ready.",
                "short",
                (
                    Query("keepwarm_warmpool_want_replicas", "want {{name}}"),
                    Query("keepwarm_warmpool_have_replicas", "have {{name}}"),
                ),
            ),
            Panel(
                "Cold starts and lead",
                "What was measured, and how early replicas are asked for.",
                "s",
                (
                    Query("keepwarm_warmpool_cold_start_seconds", "cold start {{name}}"),
                    Query("keepwarm_warmpool_lead_seconds", "lead {{name}}"),
                ),
            ),
            Panel(
                "Reconciles",
                "",
                "ops",
                (
                    Query(
                        f"sum by (result) (rate(keepwarm_warmpool_reconciles_total{RATE}))",
                        "{{result}}",
                    ),
                ),
            ),
        ),
    ),
    Row(
        "GPU",
        tuple(
            Panel(title, tells, unit, (Query(f"{metric}{scale}", "{{pod}} GPU {{gpu}}"),))
            for title, tells, unit, metric, scale in (
                (
                    "Use",
                    "Share of time in which a kernel ran: 100 % is not yet a full GPU.",
                    "percent",
                    "DCGM_FI_DEV_GPU_UTIL",
                    "",
                ),
                ("Memory", "", "bytes", "DCGM_FI_DEV_FB_USED", " * 2^20"),
                ("Memory bandwidth in use", "", "percent", "DCGM_FI_DEV_MEM_COPY_UTIL", ""),
                ("Power", "", "watt", "DCGM_FI_DEV_POWER_USAGE", ""),
                ("Temperature", "", "celsius", "DCGM_FI_DEV_GPU_TEMP", ""),
                ("XID errors", "The last one; 0 is none.", "short", "DCGM_FI_DEV_XID_ERRORS", ""),
            )
        ),
    ),
)
