"""What a manifest tells the tuner: today's policy, the pod's GPUs, its time-out and its limits."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from keepwarm.kpa.config import AutoscalerConfig
from keepwarm.kpa.manifest import policy_of, timeout_s_of
from keepwarm.kpa.model import Policy

GPU = re.compile(r"^(nvidia\.com/(gpu|mig-.*)|amd\.com/gpu|gpu\.intel\.com/.*)$")
MAX_SEQUENCES = re.compile(r"^--max[-_]num[-_]seqs(?:=(\d+))?$")


@dataclass(frozen=True)
class Manifest:
    """The object that patches are for; `text` is all of it."""

    text: str
    kind: str
    name: str
    namespace: str | None
    component: str
    policy: Policy
    gpus: int | None  # of one pod; None: it asks for none
    timeout_s: float
    max_sequences: int | None  # vLLM's --max-num-seqs, where the manifest says it


def read(text: str, config: AutoscalerConfig, component: str = "predictor") -> Manifest:
    """The first InferenceService (or what else has a policy) in a YAML text.

    Raises InputError for one that Knative's autoscaler does not scale or take.
    """
    policy = policy_of(text, config, component=component)
    documents = [d for d in yaml.safe_load_all(text) if isinstance(d, Mapping)]
    kinds = ("InferenceService", "Service", "Revision", "PodAutoscaler")
    document = next(d for d in documents if d.get("kind") in kinds)
    metadata = document.get("metadata") or {}
    spec = document.get("spec") or {}
    match document.get("kind"):
        case "InferenceService":
            pod = spec.get(component) or {}
        case "Service":
            pod = (spec.get("template") or {}).get("spec") or {}
        case _:
            pod = spec
    containers = [*(pod.get("containers") or [])]
    if isinstance(pod.get("model"), Mapping):
        containers.append(pod["model"])
    gpus = sum(_gpus(container) for container in containers)
    return Manifest(
        text=text,
        kind=str(document["kind"]),
        name=str(metadata.get("name") or "NAME"),
        namespace=metadata.get("namespace"),
        component=component,
        policy=policy,
        gpus=gpus or None,
        timeout_s=timeout_s_of(text, component=component),
        max_sequences=next((n for c in containers if (n := _max_sequences(c))), None),
    )


def _gpus(container: Mapping[str, Any]) -> int:
    resources = container.get("resources") or {}
    asked = (resources.get("requests") or {}) | (resources.get("limits") or {})
    return sum(int(count) for name, count in asked.items() if GPU.match(str(name)))


def _max_sequences(container: Mapping[str, Any]) -> int | None:
    args = [str(a) for a in (container.get("command") or []) + (container.get("args") or [])]
    for at, arg in enumerate(args):
        if found := MAX_SEQUENCES.match(arg):
            value = found[1] or (args[at + 1] if at + 1 < len(args) else "")
            return int(value) if value.isdigit() else None
    return None
