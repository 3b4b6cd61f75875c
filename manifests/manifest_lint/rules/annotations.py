"""Knative annotations: dropped, overridden, refused."""

from collections.abc import Callable, Iterator
from typing import Any

from manifest_lint.cluster import ZERO_INITIAL_SCALE
from manifest_lint.documents import Path
from manifest_lint.inference_service import InferenceService, mapping
from manifest_lint.quantities import duration_s, number, whole
from manifest_lint.rule import Gate, Problem, Rule, Severity

PREFIX = "autoscaling.knative.dev/"
DEADLINE = "serving.knative.dev/progress-deadline"
RETENTION = f"{PREFIX}scale-to-zero-pod-retention-period"
WINDOW = f"{PREFIX}window"
INITIAL_SCALE = f"{PREFIX}initial-scale"
SOURCE = "knative serving pkg/apis/autoscaling/annotation_validation.go"
FIELD_OF_DROPPED = {f"{PREFIX}min-scale": "minReplicas", f"{PREFIX}max-scale": "maxReplicas"}
FIELD_OF_OVERRIDDEN = {f"{PREFIX}target": "scaleTarget", f"{PREFIX}metric": "scaleMetric"}
HOUR_S = 3600


def _duration(low_s: int, high_s: float, *, whole_seconds: bool) -> Callable[[str], bool]:
    def accepts(text: str) -> bool:
        found = duration_s(text)
        if found is None or not low_s <= found <= high_s:
            return False
        return found.denominator == 1 or not whole_seconds

    return accepts


def _between(low: float, high: float) -> Callable[[str], bool]:
    def accepts(text: str) -> bool:
        found = number(text)
        return found is not None and low <= found <= high

    return accepts


def _count(low: int) -> Callable[[str], bool]:
    def accepts(text: str) -> bool:
        found = whole(text)
        return found is not None and low <= found < 2**31

    return accepts


def _burst(text: str) -> bool:
    found = number(text)
    return found is not None and (found >= 0 or found == -1)


# What is accepted, in code and in words.
ACCEPTED: dict[str, tuple[Callable[[str], bool], str]] = {
    f"{PREFIX}activation-scale": (_count(2), "a whole number from 2"),
    INITIAL_SCALE: (_count(0), "a whole number from 0"),
    f"{PREFIX}panic-threshold-percentage": (_between(110, 1000), "a number from 110 to 1000"),
    f"{PREFIX}panic-window-percentage": (_between(1, 100), "a number from 1 to 100"),
    f"{PREFIX}scale-down-delay": (
        _duration(0, HOUR_S, whole_seconds=True),
        "a duration of whole seconds up to 1h",
    ),
    f"{PREFIX}target": (_between(0.01, float("inf")), "a number from 0.01"),
    f"{PREFIX}target-burst-capacity": (_burst, "-1, or a number from 0"),
    f"{PREFIX}target-utilization-percentage": (_between(1, 100), "a number from 1 to 100"),
    DEADLINE: (_duration(0, float("inf"), whole_seconds=True), "a duration of whole seconds"),
}


def _each(service: InferenceService) -> Iterator[tuple[str, Path, Any]]:
    """Every annotation that reaches a Knative component, once for each place it is written."""
    seen = set()
    for component in service.knative_components:
        for key, (path, value) in component.annotations.items():
            if path not in seen:
                seen.add(path)
                yield key, path, value


def _dropped(service: InferenceService) -> Iterator[Problem]:
    for key, path, _ in _each(service):
        if key in FIELD_OF_DROPPED:
            yield Problem(path, f"KServe drops {key}; {FIELD_OF_DROPPED[key]} counts.")
        elif key in service.cluster.dropped_annotations:
            yield Problem(
                path,
                f"KServe drops {key}: {service.cluster.who} lists it in inferenceservice-config,"
                " serviceAnnotationDisallowedList.",
            )


def _overridden(service: InferenceService) -> Iterator[Problem]:
    for component in service.knative_components:
        for key, field in FIELD_OF_OVERRIDDEN.items():
            if key in component.annotations and component.spec.get(field) is not None:
                yield Problem(
                    component.annotations[key].path,
                    f"The {component.role}'s {field}: {component.spec[field]} wins over {key}:"
                    f" {component.annotations[key].value}.",
                )


def _not_text(service: InferenceService) -> Iterator[Problem]:
    levels: list[tuple[Path, Any]] = [(("metadata",), service.metadata)]
    levels += [(component.path, component.spec) for component in service.components]
    for path, level in levels:
        for field in ("annotations", "labels"):
            for key, value in mapping(level.get(field)).items():
                if not isinstance(value, str):
                    shown = str(value).lower() if isinstance(value, bool) else value
                    yield Problem(
                        (*path, field, key),
                        f'{key} must be text: write "{shown}" in quotes.',
                        refusal="cannot unmarshal",
                    )


def _not_accepted(
    service: InferenceService, accepted: dict[str, tuple[Callable[[str], bool], str]]
) -> Iterator[Problem]:
    for key, path, value in _each(service):
        if key in accepted:
            accepts, words = accepted[key]
            if not accepts(str(value)):
                yield Problem(path, f"{key} must be {words}, not {value}.", refusal=key)


def _refused(service: InferenceService) -> Iterator[Problem]:
    yield from _not_accepted(service, ACCEPTED)
    for key, path, value in _each(service):
        if key == INITIAL_SCALE and whole(value) == 0:
            yield Problem(
                path,
                f"{key}: 0 is refused unless config-autoscaler sets {ZERO_INITIAL_SCALE}: true.",
                needs=ZERO_INITIAL_SCALE,
                refusal=f"invalid value: 0: spec.template.metadata.annotations[{key}]",
            )


def _window(service: InferenceService) -> Iterator[Problem]:
    accepts = _duration(6, HOUR_S, whole_seconds=True)
    return _not_accepted(service, {WINDOW: (accepts, "whole seconds from 6s to 1h")})


def _retention(service: InferenceService) -> Iterator[Problem]:
    accepts = _duration(0, HOUR_S, whole_seconds=False)
    return _not_accepted(service, {RETENTION: (accepts, "a duration from 0s to 1h")})


RULES = (
    Rule(
        id="KW020",
        severity=Severity.ERROR,
        title="A min-scale or max-scale annotation, which KServe drops",
        reason="KServe removes both without a word and writes the component's fields in their"
        " place: with neither, the scale is 1 and unbounded.",
        fix="Use minReplicas and maxReplicas.",
        source="kserve constants ServiceAnnotationDisallowedList",
        failing="""
predictor:
  annotations: {autoscaling.knative.dev/min-scale: "0"}
""",
        passing="predictor: {minReplicas: 0}",
        check=_dropped,
    ),
    Rule(
        id="KW021",
        severity=Severity.WARNING,
        title="An annotation that a field overrides",
        reason="KServe writes scaleTarget and scaleMetric over the annotations target and metric.",
        fix="Keep one of the two.",
        source="kserve pkg/controller/v1alpha1/utils SetAutoScalingAnnotations",
        failing="""
predictor:
  scaleTarget: 16
  annotations: {autoscaling.knative.dev/target: "8"}
""",
        passing="predictor: {scaleTarget: 8}",
        check=_overridden,
    ),
    Rule(
        id="KW022",
        severity=Severity.ERROR,
        title="An annotation or label that is not text",
        reason="YAML reads -1, 30 and true as numbers and booleans, and the API server refuses the"
        " object.",
        fix="Put the value in quotes.",
        source="Kubernetes ObjectMeta: map of string to string",
        gate=Gate.KSERVE,
        failing="""
predictor:
  annotations: {autoscaling.knative.dev/target-burst-capacity: -1}
""",
        passing="""
predictor:
  annotations: {autoscaling.knative.dev/target-burst-capacity: "-1"}
""",
        check=_not_text,
    ),
    Rule(
        id="KW023",
        severity=Severity.ERROR,
        title="An annotation value that Knative refuses",
        reason="Knative's webhook refuses the Service that KServe makes, after apply has"
        " succeeded.",
        fix="Use a value that the message allows.",
        source=SOURCE,
        gate=Gate.KNATIVE,
        failing="""
predictor:
  annotations: {autoscaling.knative.dev/activation-scale: "1"}
""",
        passing="""
predictor:
  annotations: {autoscaling.knative.dev/activation-scale: "2"}
""",
        check=_refused,
    ),
    Rule(
        id="KW024",
        severity=Severity.ERROR,
        title="A stable window outside 6 s to 1 h",
        reason="Knative refuses it, and fractions of a second too.",
        fix="Choose whole seconds from 6s to 1h; to keep a pod longer, keep minReplicas at 1.",
        source=SOURCE,
        gate=Gate.KNATIVE,
        failing="""
predictor:
  annotations: {autoscaling.knative.dev/window: 2h}
""",
        passing="""
predictor:
  annotations: {autoscaling.knative.dev/window: 10m}
""",
        check=_window,
    ),
    Rule(
        id="KW025",
        severity=Severity.ERROR,
        title="A pod retention over 1 h",
        reason="Knative refuses a scale-to-zero-pod-retention-period over one hour.",
        fix="Choose 1h or less; for longer, hold minReplicas at 1 while it pays.",
        source=f"{SOURCE}; knative/serving#13725",
        gate=Gate.KNATIVE,
        failing="""
predictor:
  annotations: {autoscaling.knative.dev/scale-to-zero-pod-retention-period: 2h}
""",
        passing="""
predictor:
  annotations: {autoscaling.knative.dev/scale-to-zero-pod-retention-period: 1h}
""",
        check=_retention,
    ),
)
