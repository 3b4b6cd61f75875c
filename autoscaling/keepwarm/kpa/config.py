"""config-autoscaler: the cluster's defaults and limits, read and refused as Knative does.

Knative `pkg/autoscaler/config/config.go`; the values' meaning is in
`config/core/configmaps/autoscaler.yaml` there. Unknown keys are ignored, as the ConfigMap carries
an `_example`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any

from keepwarm.kpa import golang
from keepwarm.kpa.errors import InputError
from keepwarm.kpa.golang import NANOSECONDS, format_duration, format_fixed, format_float

KPA = "kpa.autoscaling.knative.dev"
HPA = "hpa.autoscaling.knative.dev"
TARGET_MIN = 0.01
WINDOW_MIN_NS = 6 * NANOSECONDS
WINDOW_MAX_NS = 3600 * NANOSECONDS


@dataclass(frozen=True, slots=True)
class AutoscalerConfig:
    """The ConfigMap with defaults. `_ns` are nanoseconds; fractions are in (0, 1]."""

    pod_autoscaler_class: str = KPA
    enable_scale_to_zero: bool = True
    allow_zero_initial_scale: bool = False
    max_scale_up_rate: float = 1000.0
    max_scale_down_rate: float = 2.0
    container_concurrency_target_percentage: float = 0.7
    container_concurrency_target_default: float = 100.0
    requests_per_second_target_default: float = 200.0
    target_burst_capacity: float = 211.0
    panic_window_percentage: float = 10.0
    activator_capacity: float = 100.0
    panic_threshold_percentage: float = 200.0
    initial_scale: int = 1
    min_scale: int = 0
    max_scale: int = 0
    max_scale_limit: int = 0
    stable_window_ns: int = 60 * NANOSECONDS
    scale_down_delay_ns: int = 0
    scale_to_zero_grace_period_ns: int = 30 * NANOSECONDS
    scale_to_zero_pod_retention_period_ns: int = 0


RPS_UTILIZATION = 0.7  # config.go:48; no key sets it

_READERS: dict[Any, Callable[[str], Any]] = {
    str: str.strip,
    bool: golang.parse_bool,
    float: golang.parse_float,
    int: golang.parse_int32,
}


def parse_config(data: Mapping[str, str]) -> AutoscalerConfig:
    """The ConfigMap's `data`. Raises InputError in Knative's words."""
    values: dict[str, Any] = {}
    for field in fields(AutoscalerConfig):  # in the order Knative reads them
        key = field.name.removesuffix("_ns").replace("_", "-")
        if key not in data:
            continue
        is_duration = field.name.endswith("_ns")
        reader = golang.parse_duration if is_duration else _READERS[field.type]
        try:
            values[field.name] = reader(data[key])
        except ValueError as error:
            raise InputError(
                f"failed to parse data: failed to parse {golang.quoted(key)}: {error}"
            ) from None
    percentage = values.get("container_concurrency_target_percentage", 0.7)
    if percentage > 1:  # up to 1 it is taken for a fraction
        values["container_concurrency_target_percentage"] = percentage / 100
    config = AutoscalerConfig(**values)
    for wrong, message in _rules(config):
        if wrong:
            raise InputError(message)
    return config


def _rules(c: AutoscalerConfig) -> tuple[tuple[bool, str], ...]:
    """Knative's rules in its order: whether each is broken, and its words (config.go:103-205)."""
    fraction = c.container_concurrency_target_percentage
    target = fraction * c.container_concurrency_target_default
    least_max = 1 if c.max_scale_limit > 0 else 0
    delay, window = format_duration(c.scale_down_delay_ns), format_duration(c.stable_window_ns)
    number, whole = format_float, "must be specified with at most second precision"
    return (
        (
            c.scale_to_zero_grace_period_ns <= 0,
            "scale-to-zero-grace-period must be positive, was: "
            + format_duration(c.scale_to_zero_grace_period_ns),
        ),
        (c.scale_down_delay_ns < 0, f"scale-down-delay cannot be negative, was: {delay}"),
        (c.scale_down_delay_ns % NANOSECONDS != 0, f"scale-down-delay = {delay}, {whole}"),
        (
            c.scale_to_zero_pod_retention_period_ns < 0,
            "scale-to-zero-pod-retention-period cannot be negative, was: "
            + format_duration(c.scale_to_zero_pod_retention_period_ns),
        ),
        (
            c.target_burst_capacity < 0 and c.target_burst_capacity != -1,
            (
                "target-burst-capacity must be either non-negative or -1 (for unlimited), was: "
                + format_fixed(c.target_burst_capacity)
            ),
        ),
        (
            fraction <= 0 or fraction > 1,
            (
                f"container-concurrency-target-percentage = {format_fixed(fraction)} is outside of"
                " valid range of (0, 100]"
            ),
        ),
        (
            target < TARGET_MIN,
            (
                "container-concurrency-target-percentage and container-concurrency-target-default"
                f" yield target concurrency of {number(target)}, can't be less than {TARGET_MIN}"
            ),
        ),
        (
            c.requests_per_second_target_default < TARGET_MIN,
            f"requests-per-second-target-default must be at least {TARGET_MIN}, was: "
            + number(c.requests_per_second_target_default),
        ),
        (
            c.activator_capacity < 1,
            f"activator-capacity = {number(c.activator_capacity)}, must be at least 1",
        ),
        (
            c.max_scale_up_rate <= 1,
            f"max-scale-up-rate = {number(c.max_scale_up_rate)}, must be greater than 1.0",
        ),
        (
            c.max_scale_down_rate <= 1,
            f"max-scale-down-rate = {number(c.max_scale_down_rate)}, must be greater than 1.0",
        ),
        (
            not WINDOW_MIN_NS <= c.stable_window_ns <= WINDOW_MAX_NS,
            f"stable-window = {window}, must be in [6s; 1h0m0s] range",
        ),
        (c.stable_window_ns % NANOSECONDS != 0, f"stable-window = {window}, {whole}"),
        (
            c.panic_window_percentage < 1 or c.panic_window_percentage > 100,
            (
                f"panic-window-percentage = {number(c.panic_window_percentage)},"
                " must be in [1, 100] interval"
            ),
        ),
        (
            c.initial_scale < 0 or (c.initial_scale == 0 and not c.allow_zero_initial_scale),
            (
                f"initial-scale = {c.initial_scale}, must be at least 0 (or at least 1 when"
                " allow-zero-initial-scale is false)"
            ),
        ),
        (c.min_scale < 0, f"min-scale = {c.min_scale}, must be at least 0"),
        (
            c.max_scale < least_max or (0 < c.max_scale_limit < c.max_scale),
            (
                f"max-scale = {c.max_scale}, must be in"
                f" [{least_max}, max-scale-limit({c.max_scale_limit})] range"
            ),
        ),
        (c.max_scale_limit < 0, f"max-scale-limit = {c.max_scale_limit}, must be at least 0"),
        (
            c.min_scale > c.max_scale > 0,
            f"min-scale ({c.min_scale}) must be less than max-scale ({c.max_scale})",
        ),
    )
