"""A policy from a real manifest: InferenceService, Knative Service, Revision or PodAutoscaler.

For an InferenceService the fields become annotations as KServe's ksvc_reconciler.go and
SetAutoScalingAnnotations do it: minReplicas (default 1), maxReplicas, scaleTarget, scaleMetric.
"""

from collections.abc import Mapping
from typing import Any

import yaml

from keepwarm.kpa.annotations import CLASS, GROUP, resolve
from keepwarm.kpa.config import KPA, AutoscalerConfig, parse_config
from keepwarm.kpa.errors import InputError
from keepwarm.kpa.model import Policy

KINDS = "InferenceService, Service (serving.knative.dev), Revision or PodAutoscaler"
_DROPPED = (f"{GROUP}/min-scale", f"{GROUP}/max-scale", f"{GROUP}/minScale", f"{GROUP}/maxScale")


def policy_of(text: str, config: AutoscalerConfig, *, component: str = "predictor") -> Policy:
    """The policy of the first such object in a YAML text. Raises InputError."""
    try:
        documents = [d for d in yaml.safe_load_all(text) if isinstance(d, Mapping)]
    except yaml.YAMLError as error:
        raise InputError(f"The manifest is no YAML: {error}") from None
    for document in documents:
        spec = document.get("spec") or {}
        annotations = _annotations(document)
        kind, group = document.get("kind"), str(document.get("apiVersion", ""))
        if kind == "InferenceService":
            return _inference_service(annotations, spec.get(component), component, config)
        if kind == "Service" and group.startswith("serving.knative.dev/"):
            template = spec.get("template") or {}
            return _resolved(_annotations(template), template.get("spec") or {}, config)
        if kind in {"Revision", "PodAutoscaler"}:
            return _resolved(annotations, spec, config)
    raise InputError(f"There is no {KINDS} in the manifest.")


def _annotations(document: Mapping[str, Any]) -> dict[str, str]:
    found = (document.get("metadata") or {}).get("annotations") or {}
    return {str(key): str(value) for key, value in found.items()}


def _inference_service(
    annotations: dict[str, str], part: Any, component: str, config: AutoscalerConfig
) -> Policy:
    if not isinstance(part, Mapping):
        raise InputError(f"The InferenceService has no {component}.")
    own = {str(key): str(value) for key, value in (part.get("annotations") or {}).items()}
    merged = {k: v for k, v in (annotations | own).items() if k not in _DROPPED}
    least = part.get("minReplicas")
    merged[f"{GROUP}/min-scale"] = str(1 if least is None else least)
    if part.get("maxReplicas"):
        merged[f"{GROUP}/max-scale"] = str(part["maxReplicas"])
    for field, name in (("scaleTarget", "target"), ("scaleMetric", "metric")):
        if part.get(field) is not None:
            merged[f"{GROUP}/{name}"] = str(part[field])
    return _resolved(merged, part, config)


def _resolved(
    annotations: dict[str, str], spec: Mapping[str, Any], config: AutoscalerConfig
) -> Policy:
    autoscaler = annotations.get(CLASS, config.pod_autoscaler_class)
    if autoscaler != KPA:
        raise InputError(f"The manifest's autoscaler is {autoscaler}; the twin is of {KPA}.")
    concurrency = spec.get("containerConcurrency") or 0
    if not isinstance(concurrency, int) or not 0 <= concurrency <= 1000:
        raise InputError(f"containerConcurrency is {concurrency}; it must be from 0 to 1000.")
    return resolve(
        annotations,
        config,
        container_concurrency=concurrency,
        reachability=str(spec.get("reachability", "Reachable")),
    )


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
