"""What the rules know of the cluster: a stock one, or one whose ConfigMaps were read.

Defaults are those of Knative Serving 1.21 (pkg/apis/config, pkg/autoscaler/config, pkg/deployment)
and KServe 0.17 (config/configmap/inferenceservice.yaml). A value that cannot be read counts as
unsaid: the controllers refuse such a ConfigMap and go on with what they had.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from manifest_lint.quantities import duration_s, number, whole

FEATURES = "config-features"
AUTOSCALER = "config-autoscaler"
DEFAULTS = "config-defaults"
DEPLOYMENT = "config-deployment"
KSERVE = "inferenceservice-config"
NAMESPACES = {
    "knative-serving": (FEATURES, AUTOSCALER, DEFAULTS, DEPLOYMENT),
    "kserve": (KSERVE,),
}
# Features that a stock Knative has on; the others that rules know of are off.
ON = frozenset({"multi-container", "kubernetes.podspec-volumes-emptydir"})
# For these `allowed` is as good as off, for the others as good as on (k8s_validation.go).
STRICT = re.compile(
    r"multi-container.*|kubernetes\.containerspec-addcapabilities"
    r"|kubernetes\.podspec-(volumes-.*|persistent-volume-.*|init-containers)"
)
ZERO_INITIAL_SCALE = "allow-zero-initial-scale"
DROPPED = frozenset(f"autoscaling.knative.dev/{side}-scale" for side in ("min", "max"))

ConfigMaps = Mapping[str, Mapping[str, str]]


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """The settings that rules look at; times are in seconds.

    `name` is empty for the stock cluster. `enabled` are keys of config-features, and
    allow-zero-initial-scale of config-autoscaler.
    """

    name: str = ""
    enabled: frozenset[str] = ON
    timeout_s: float = 300
    max_timeout_s: float = 600
    container_concurrency: int = 0
    max_container_concurrency: int = 1000
    zero_container_concurrency: bool = True
    target: float = 100
    utilisation: float = 0.7
    burst_capacity: float = 211
    scale_to_zero: bool = True
    max_scale_limit: int = 0
    progress_deadline_s: float = 600
    deployment_mode: str | None = None
    dropped_annotations: frozenset[str] = DROPPED
    resources: Mapping[str, str] = field(
        default_factory=lambda: {
            "cpuRequest": "1",
            "cpuLimit": "1",
            "memoryRequest": "2Gi",
            "memoryLimit": "2Gi",
        }
    )

    @property
    def who(self) -> str:
        """How messages name it."""
        return f"the cluster {self.name}" if self.name else "a stock Knative"


STOCK = Cluster()


def from_config_maps(name: str, maps: ConfigMaps) -> Cluster:
    """The cluster whose ConfigMaps, by name, hold these keys; what is missing is the default."""
    scaler, defaults = maps.get(AUTOSCALER, {}), maps.get(DEFAULTS, {})
    inference, deploy = (_json(maps.get(KSERVE, {}), key) for key in ("inferenceService", "deploy"))
    share = _number(scaler, "container-concurrency-target-percentage", STOCK.utilisation * 100)
    deadline = duration_s(maps.get(DEPLOYMENT, {}).get("progress-deadline", ""))
    said_resources = inference.get("resource")
    return Cluster(
        name=name,
        enabled=_enabled(maps.get(FEATURES, {}), scaler),
        timeout_s=_number(defaults, "revision-timeout-seconds", STOCK.timeout_s),
        max_timeout_s=_number(defaults, "max-revision-timeout-seconds", STOCK.max_timeout_s),
        container_concurrency=_whole(defaults, "container-concurrency", 0),
        max_container_concurrency=_whole(
            defaults, "container-concurrency-max-limit", STOCK.max_container_concurrency
        ),
        zero_container_concurrency=_bool(
            defaults, "allow-container-concurrency-zero", default=True
        ),
        target=_number(scaler, "container-concurrency-target-default", STOCK.target),
        # For legacy reasons Knative takes 0.7 for 70 % too.
        utilisation=share / 100 if share > 1 else share,
        burst_capacity=_number(scaler, "target-burst-capacity", STOCK.burst_capacity),
        scale_to_zero=_bool(scaler, "enable-scale-to-zero", default=True),
        max_scale_limit=_whole(scaler, "max-scale-limit", 0),
        progress_deadline_s=STOCK.progress_deadline_s if deadline is None else float(deadline),
        deployment_mode=_text(deploy.get("defaultDeploymentMode")),
        dropped_annotations=DROPPED | _texts(inference.get("serviceAnnotationDisallowedList")),
        resources={
            **STOCK.resources,
            **(said_resources if isinstance(said_resources, Mapping) else {}),
        },
    )


def _enabled(features: Mapping[str, str], scaler: Mapping[str, str]) -> frozenset[str]:
    on = set(ON)
    for key, value in features.items():
        match value.lower():
            case "enabled":
                on.add(key)
            case "allowed" if not STRICT.fullmatch(key):
                on.add(key)
            case "allowed" | "disabled":
                on.discard(key)
    if _bool(scaler, ZERO_INITIAL_SCALE, default=False):
        on.add(ZERO_INITIAL_SCALE)
    return frozenset(on)


def _number(data: Mapping[str, str], key: str, default: float) -> float:
    found = number(data.get(key))
    return default if found is None else found


def _whole(data: Mapping[str, str], key: str, default: int) -> int:
    found = whole(data.get(key))
    return default if found is None else found


def _bool(data: Mapping[str, str], key: str, *, default: bool) -> bool:
    # Go's strconv.ParseBool.
    spelled = {"1": True, "t": True, "true": True, "0": False, "f": False, "false": False}
    return spelled.get(data.get(key, "").lower(), default)


def _json(data: Mapping[str, str], key: str) -> Mapping[str, Any]:
    try:
        found = json.loads(data.get(key, "{}"))
    except ValueError:
        return {}
    return found if isinstance(found, Mapping) else {}


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _texts(value: object) -> frozenset[str]:
    found = value if isinstance(value, list) else []
    return frozenset(item for item in found if isinstance(item, str))
