"""A policy from a real manifest: InferenceService, Knative Service, Revision or PodAutoscaler.

For an InferenceService the fields become annotations as KServe's ksvc_reconciler.go and
SetAutoScalingAnnotations do it: minReplicas (default 1), maxReplicas, scaleTarget, scaleMetric.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import yaml

from keepwarm.kpa import golang
from keepwarm.kpa.annotations import CLASS, GROUP, PROGRESS_DEADLINE, UNREACHABLE, resolve
from keepwarm.kpa.config import KPA, AutoscalerConfig, parse_config
from keepwarm.kpa.errors import InputError
from keepwarm.kpa.model import Policy

KINDS = "InferenceService, Service (serving.knative.dev), Revision or PodAutoscaler"
TIMEOUT_DEFAULT_S = 300.0  # config-defaults: revision-timeout-seconds
DEPLOYMENT_MODE = "serving.kserve.io/deploymentMode"
_DROPPED = (f"{GROUP}/min-scale", f"{GROUP}/max-scale", f"{GROUP}/minScale", f"{GROUP}/maxScale")


class _Subject(NamedTuple):
    """What is scaled: the annotations and the spec that its Revision has."""

    annotations: dict[str, str]
    spec: Mapping[str, Any]


def policy_of(text: str, config: AutoscalerConfig, *, component: str = "predictor") -> Policy:
    """The policy of the first such object in a YAML text. Raises InputError."""
    return _resolved(_subject(text, component), config)


def timeout_s_of(text: str, *, component: str = "predictor") -> float:
    """How long a request may take in all: timeoutSeconds, KServe's timeout. Raises InputError."""
    spec = _subject(text, component).spec
    timeout = spec.get("timeoutSeconds", spec.get("timeout"))
    if timeout is None:
        return TIMEOUT_DEFAULT_S
    if isinstance(timeout, bool) or not isinstance(timeout, int) or timeout <= 0:
        raise InputError(f"The request timeout is {timeout}; it must be whole seconds above 0.")
    return float(timeout)


def _subject(text: str, component: str) -> _Subject:
    try:
        documents = [d for d in yaml.safe_load_all(text) if isinstance(d, Mapping)]
    except yaml.YAMLError as error:
        raise InputError(f"The manifest is no YAML: {error}") from None
    for document in documents:
        spec = document.get("spec") or {}
        annotations = _annotations(document)
        kind, group = document.get("kind"), str(document.get("apiVersion", ""))
        if kind == "InferenceService":
            return _inference_service(annotations, spec.get(component), component)
        if kind == "Service" and group.startswith("serving.knative.dev/"):
            _refuse_autoscaling(annotations)
            template = spec.get("template") or {}
            return _Subject(_annotations(template), template.get("spec") or {})
        if kind in {"Revision", "PodAutoscaler"}:
            return _Subject(annotations, spec | _reachability(document))
    raise InputError(f"There is no {KINDS} in the manifest.")


def _annotations(document: Mapping[str, Any]) -> dict[str, str]:
    found = (document.get("metadata") or {}).get("annotations") or {}
    return {str(key): str(value) for key, value in found.items()}


def _refuse_autoscaling(annotations: Mapping[str, str]) -> None:
    """As metadata_validation.go does: on the Service itself they would do nothing."""
    for key in annotations:
        if key.startswith(GROUP):
            raise InputError(
                f"invalid key name {key!r}: autoscaling annotations must be put under"
                ' "spec.template.metadata.annotations" to work'
            )


def _reachability(document: Mapping[str, Any]) -> dict[str, str]:
    """What a Revision's routing state makes of its PodAutoscaler (revision/resources/pa.go)."""
    labels = (document.get("metadata") or {}).get("labels") or {}
    state = labels.get("serving.knative.dev/routingState")
    return {"reachability": UNREACHABLE} if state == "reserve" else {}


def _inference_service(annotations: dict[str, str], part: Any, component: str) -> _Subject:
    if not isinstance(part, Mapping):
        raise InputError(f"The InferenceService has no {component}.")
    if annotations.get(DEPLOYMENT_MODE) in {"Standard", "RawDeployment"}:
        raise InputError(
            f"The InferenceService's {DEPLOYMENT_MODE} is {annotations[DEPLOYMENT_MODE]}: Knative's"
            " autoscaler does not scale it."
        )
    own = {str(key): str(value) for key, value in (part.get("annotations") or {}).items()}
    merged = {k: v for k, v in (annotations | own).items() if k not in _DROPPED}
    least = part.get("minReplicas")
    merged[f"{GROUP}/min-scale"] = str(1 if least is None else least)
    if part.get("maxReplicas"):
        merged[f"{GROUP}/max-scale"] = str(part["maxReplicas"])
    for field, name in (("scaleTarget", "target"), ("scaleMetric", "metric")):
        if part.get(field) is not None:
            merged[f"{GROUP}/{name}"] = str(part[field])
    return _Subject(merged, part)


def _resolved(subject: _Subject, config: AutoscalerConfig) -> Policy:
    annotations, spec = subject
    autoscaler = annotations.get(CLASS, config.pod_autoscaler_class)
    if autoscaler != KPA:
        raise InputError(f"The manifest's autoscaler is {autoscaler}; the twin is of {KPA}.")
    _check_progress_deadline(annotations)
    concurrency = spec.get("containerConcurrency") or 0
    if not isinstance(concurrency, int) or not 0 <= concurrency <= 1000:
        raise InputError(f"containerConcurrency is {concurrency}; it must be from 0 to 1000.")
    return resolve(
        annotations,
        config,
        container_concurrency=concurrency,
        reachability=str(spec.get("reachability", "Reachable")),
    )


def _check_progress_deadline(annotations: Mapping[str, str]) -> None:
    """Whole seconds, 0 or more (revision_validation.go)."""
    text = annotations.get(PROGRESS_DEADLINE)
    if not text:
        return
    try:
        deadline = golang.parse_duration(text)
    except ValueError:
        raise InputError(f"invalid value: {text}: {PROGRESS_DEADLINE}") from None
    if deadline % golang.NANOSECONDS:
        raise InputError(
            f"progress-deadline={text} is not at second precision: {PROGRESS_DEADLINE}"
        )
    if deadline < 0:
        raise InputError(f"progress-deadline={text} must be positive: {PROGRESS_DEADLINE}")


def config_of(text: str) -> AutoscalerConfig:
    """The settings in a config-autoscaler ConfigMap's YAML. Raises InputError."""
    try:
        document = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise InputError(f"The ConfigMap is no YAML: {error}") from None
    if not isinstance(document, Mapping) or document.get("kind") != "ConfigMap":
        raise InputError("This is no ConfigMap: kind must be ConfigMap.")
    data = document.get("data") or {}
    return parse_config({str(key): str(value) for key, value in data.items()})
