"""The kinds of objects that the controller watches: where they are, which, how to read one."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from lightkube.generic_resource import (
    GenericNamespacedResource,
    create_global_resource,
    create_namespaced_resource,
)
from lightkube.operators import exists, not_exists

from keepwarm.warmpool.api import GROUP, KIND
from keepwarm.warmpool.observed import (
    Deployment,
    InferenceService,
    KnativeService,
    Object,
    PodAutoscaler,
    Pool,
    Revision,
)

Seen = Pool | InferenceService | KnativeService | Revision | PodAutoscaler | Deployment
KSERVES = {"serving.kserve.io/inferenceservice": exists()}


@dataclass(frozen=True)
class Kind:
    """One list and one watch over all namespaces."""

    name: str
    resource: type[GenericNamespacedResource]
    read: Callable[[Object], Seen]
    labels: Mapping[str, Any] = field(default_factory=dict)


def _resource(group: str, version: str, kind: str, plural: str) -> type[GenericNamespacedResource]:
    return create_namespaced_resource(group, version, kind, plural)


POOL = Kind("WarmPool", _resource(GROUP, "v1alpha1", KIND, "warmpools"), Pool.read)
INFERENCE_SERVICE = Kind(
    "InferenceService",
    _resource("serving.kserve.io", "v1beta1", "InferenceService", "inferenceservices"),
    InferenceService.read,
)
KNATIVE_SERVICE = Kind(
    "Service",
    _resource("serving.knative.dev", "v1", "Service", "services"),
    KnativeService.read,
    KSERVES,
)
REVISION = Kind(
    "Revision",
    _resource("serving.knative.dev", "v1", "Revision", "revisions"),
    Revision.read,
    KSERVES,
)
POD_AUTOSCALER = Kind(
    "PodAutoscaler",
    _resource("autoscaling.internal.knative.dev", "v1alpha1", "PodAutoscaler", "podautoscalers"),
    PodAutoscaler.read,
    KSERVES,
)
DEPLOYMENT = Kind(
    "Deployment",
    _resource("apps", "v1", "Deployment", "deployments"),
    Deployment.read,
    {**KSERVES, "serving.knative.dev/revision": not_exists()},
)
WATCHED = (POOL, INFERENCE_SERVICE, KNATIVE_SERVICE, REVISION, POD_AUTOSCALER, DEPLOYMENT)

LEASE = _resource("coordination.k8s.io", "v1", "Lease", "leases")
EVENT = _resource("", "v1", "Event", "events")
TOKEN_REVIEW = create_global_resource("authentication.k8s.io", "v1", "TokenReview", "tokenreviews")
ACCESS_REVIEW = create_global_resource(
    "authorization.k8s.io", "v1", "SubjectAccessReview", "subjectaccessreviews"
)
