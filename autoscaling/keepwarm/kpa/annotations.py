"""Autoscaling annotations: validated as Knative's webhook does, resolved as its autoscaler does.

Knative `pkg/apis/autoscaling/annotation_validation.go`, `register.go` (legacy names),
`pkg/reconciler/autoscaling/resources/target.go` and `kpa/resources/decider.go`. What the webhook
lets pass (NaN, unknown keys) passes here.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from typing import TypeVar

from keepwarm.kpa import golang
from keepwarm.kpa.config import (
    HPA,
    KPA,
    RPS_UTILIZATION,
    TARGET_MIN,
    WINDOW_MAX_NS,
    WINDOW_MIN_NS,
    AutoscalerConfig,
)
from keepwarm.kpa.errors import InputError
from keepwarm.kpa.golang import INT32_MAX, NANOSECONDS, format_duration
from keepwarm.kpa.model import Policy

GROUP = "autoscaling.knative.dev"
PROGRESS_DEADLINE = "serving.knative.dev/progress-deadline"
PROGRESS_DEADLINE_DEFAULT_S = 600.0
CLASS = f"{GROUP}/class"
EXPONENTIAL = ("weighted-exponential", "weightedExponential")
UNREACHABLE = "Unreachable"

# Names that also have a camelCase form; the new name is read first.
_LEGACY = {
    "initial-scale": "initialScale",
    "max-scale": "maxScale",
    "metric-aggregation-algorithm": "metricAggregationAlgorithm",
    "min-scale": "minScale",
    "panic-threshold-percentage": "panicThresholdPercentage",
    "panic-window-percentage": "panicWindowPercentage",
    "scale-down-delay": "scaleDownDelay",
    "scale-to-zero-pod-retention-period": "scaleToZeroPodRetentionPeriod",
    "target-burst-capacity": "targetBurstCapacity",
    "target-utilization-percentage": "targetUtilizationPercentage",
}

T = TypeVar("T")
Found = Iterator[tuple[str, str]]  # (message, the annotations it is about)


class _Annotations:
    """Lookup by short name, legacy names included."""

    def __init__(self, annotations: Mapping[str, str]) -> None:
        self._annotations = annotations

    def get(self, name: str) -> tuple[str, str | None]:
        """The key that is set (else the new one) and its value."""
        for key in (name, _LEGACY.get(name)):
            if key and (value := self._annotations.get(f"{GROUP}/{key}")) is not None:
                return f"{GROUP}/{key}", value
        return f"{GROUP}/{name}", None

    def number(self, name: str, read: Callable[[str], T]) -> T | None:
        """The value as read; None when it is absent or malformed."""
        _, text = self.get(name)
        try:
            return None if text is None else read(text)
        except ValueError:
            return None


def validation_error(annotations: Mapping[str, str], config: AutoscalerConfig) -> str | None:
    """What Knative's webhook answers, or None when it accepts them."""
    found = _Annotations(annotations)
    messages: dict[str, set[str]] = defaultdict(set)
    for check in (_class, _floats, _durations, _algorithm):
        for message, path in check(found):
            messages[message].add(path)
    for limited in (_scales, _metric, _initial_scale):
        for message, path in limited(found, config):
            messages[message].add(path)
    return (
        "\n".join(
            f"{message}: {', '.join(sorted(paths))}" for message, paths in sorted(messages.items())
        )
        or None
    )


def _class(found: _Annotations) -> Found:
    key, value = found.get("class")
    if value is not None and value.endswith(".knative.dev") and value not in {KPA, HPA}:
        yield f"invalid value: {value}", key


def _int_at_least_0(found: _Annotations, name: str) -> tuple[int, Found]:
    key, text = found.get(name)
    if text is None:
        return 0, iter(())
    outside = iter(((f"expected 0 <= {text} <= {INT32_MAX}", key),))
    try:
        value = golang.parse_int32(text)
    except ValueError as error:
        if "out of range" in str(error):
            return 0, outside
        return 0, iter(((f"invalid value: {text}", key),))
    return (value, iter(())) if value >= 0 else (0, outside)


def _scales(found: _Annotations, config: AutoscalerConfig) -> Found:
    least, errors = _int_at_least_0(found, "min-scale")
    yield from errors
    most, errors = _int_at_least_0(found, "max-scale")
    yield from errors
    if 0 != most < least:
        message = f"max-scale={most} is less than min-scale={least}"
        yield message, f"{GROUP}/max-scale"
        yield message, f"{GROUP}/min-scale"
    key, text = found.get("max-scale")
    if text is not None and (limit := config.max_scale_limit):
        if most > limit:
            yield f"expected 1 <= {most} <= {limit}", key
        if most == 0:
            yield f"max-scale=0 (unlimited), must be less than {limit}", key
    key, text = found.get("activation-scale")
    if text is None:
        return
    try:
        activation = golang.parse_int32(text)
    except ValueError:
        yield f"invalid value: {text}", key
        return
    if least > activation:
        yield f"min-scale={least} is greater than activation-scale={activation}", key
    elif 0 != most < activation:
        yield f"max-scale={most} is less than activation-scale={activation}", key
    elif activation < 2:
        yield f"activation-scale={activation} must be greater than 1", key


def _floats(found: _Annotations) -> Found:
    for name, low, high in (
        ("panic-window-percentage", 1, 100),
        ("panic-threshold-percentage", 110, 1000),
        ("target-utilization-percentage", 1, 100),
    ):
        key, text = found.get(name)
        if text is None:
            continue
        try:
            value = golang.parse_float(text)
        except ValueError:
            yield f"invalid value: {text}", key
            continue
        if value < low or value > high:
            yield f"expected {low} <= {text} <= {high}", key
    key, text = found.get("target")
    if text is not None:
        try:
            if golang.parse_float(text) < TARGET_MIN:
                yield f"target {text} should be at least {TARGET_MIN}", key
        except ValueError:
            yield f"invalid value: {text}", key
    key, text = found.get("target-burst-capacity")
    if text is not None:
        burst = found.number("target-burst-capacity", golang.parse_float)
        if burst is None or (burst < 0 and burst != -1):
            yield f"invalid value: {text}", key


def _durations(found: _Annotations) -> Found:
    for name, low, whole in (
        ("window", WINDOW_MIN_NS, True),
        ("scale-to-zero-pod-retention-period", 0, False),
        ("scale-down-delay", 0, True),
    ):
        key, text = found.get(name)
        if text is None:
            continue
        value = found.number(name, golang.parse_duration)
        if value is None:
            yield f"invalid value: {text}", key
        elif not low <= value <= WINDOW_MAX_NS:
            bounds = format_duration(low), format_duration(WINDOW_MAX_NS)
            yield f"expected {bounds[0]} <= {text} <= {bounds[1]}", key
        elif whole and value % NANOSECONDS:
            yield "must be specified with at most second precision", key


def _metric(found: _Annotations, config: AutoscalerConfig) -> Found:
    key, metric = found.get("metric")
    if metric is None:
        return
    _, autoscaler = found.get("class")
    autoscaler = config.pod_autoscaler_class if autoscaler is None else autoscaler
    if (autoscaler == KPA and metric not in {"concurrency", "rps"}) or (
        autoscaler == HPA and not metric
    ):
        yield f"invalid value: {metric}", key


def _algorithm(found: _Annotations) -> Found:
    if found.get("class")[1] != KPA:
        return
    key, value = found.get("metric-aggregation-algorithm")
    if value and value not in {"linear", *EXPONENTIAL}:
        yield f"invalid value: {value}", key


def _initial_scale(found: _Annotations, config: AutoscalerConfig) -> Found:
    key, text = found.get("initial-scale")
    if text is None:
        return
    try:
        value = golang.parse_int(text)
    except ValueError:
        yield f"invalid value: {text}", key
        return
    if value < 0:
        yield f"invalid value: {text}", f"{key} must be greater than 0"
    elif value == 0 and not config.allow_zero_initial_scale:
        yield f"invalid value: {text}", f"{key}=0 not allowed by cluster"


def resolve(
    annotations: Mapping[str, str],
    config: AutoscalerConfig,
    *,
    container_concurrency: int = 0,
    reachability: str = "Reachable",
    progress_deadline_s: float = PROGRESS_DEADLINE_DEFAULT_S,
) -> Policy:
    """The policy that Knative runs with. Raises InputError with the webhook's words."""
    if error := validation_error(annotations, config):
        raise InputError(error)
    return resolve_unchecked(
        annotations,
        config,
        container_concurrency=container_concurrency,
        reachability=reachability,
        progress_deadline_s=progress_deadline_s,
    )


def resolve_unchecked(
    annotations: Mapping[str, str],
    config: AutoscalerConfig,
    *,
    container_concurrency: int,
    reachability: str,
    progress_deadline_s: float,
) -> Policy:
    """The policy of annotations that were not validated: what is malformed counts as absent."""
    found = _Annotations(annotations)

    def number(name: str, default: float) -> float:
        value = found.number(name, golang.parse_float)
        return default if value is None else value

    def integer(name: str, default: int) -> int:
        value = found.number(name, golang.parse_int32)
        return default if value is None else value

    def seconds(name: str, default_ns: int) -> float:
        value = found.number(name, golang.parse_duration)
        return (default_ns if value is None else value) / NANOSECONDS

    is_rps = found.get("metric")[1] == "rps"
    if is_rps:
        target, utilization = config.requests_per_second_target_default, RPS_UTILIZATION
    else:
        target = float(container_concurrency or config.container_concurrency_target_default)
        utilization = config.container_concurrency_target_percentage
    initial_scale = integer("initial-scale", config.initial_scale)
    if initial_scale == 0 and not config.allow_zero_initial_scale:
        initial_scale = config.initial_scale
    percentage = found.number("target-utilization-percentage", golang.parse_float)
    algorithm = found.get("metric-aggregation-algorithm")[1]
    return Policy(
        metric="rps" if is_rps else "concurrency",
        target=number("target", target),
        utilization=utilization if percentage is None else percentage / 100,
        container_concurrency=container_concurrency,
        target_burst_capacity=number("target-burst-capacity", config.target_burst_capacity),
        stable_window_s=int(seconds("window", config.stable_window_ns)),
        panic_window_percentage=number("panic-window-percentage", config.panic_window_percentage),
        panic_threshold_percentage=number(
            "panic-threshold-percentage", config.panic_threshold_percentage
        ),
        max_scale_up_rate=config.max_scale_up_rate,
        max_scale_down_rate=config.max_scale_down_rate,
        scale_down_delay_s=int(seconds("scale-down-delay", config.scale_down_delay_ns)),
        scale_to_zero_grace_s=config.scale_to_zero_grace_period_ns / NANOSECONDS,
        pod_retention_s=seconds(
            "scale-to-zero-pod-retention-period", config.scale_to_zero_pod_retention_period_ns
        ),
        enable_scale_to_zero=config.enable_scale_to_zero,
        initial_scale=initial_scale,
        activation_scale=integer("activation-scale", 0),
        min_scale=integer("min-scale", config.min_scale),
        max_scale=integer("max-scale", config.max_scale),
        aggregation="weighted-exponential" if algorithm in EXPONENTIAL else "linear",
        activator_capacity=config.activator_capacity,
        progress_deadline_s=_progress_deadline_s(annotations, progress_deadline_s),
        reachable=reachability != UNREACHABLE,
    )


def _progress_deadline_s(annotations: Mapping[str, str], default: float) -> float:
    try:
        return golang.parse_duration(annotations[PROGRESS_DEADLINE]) / NANOSECONDS
    except (KeyError, ValueError):
        return default
