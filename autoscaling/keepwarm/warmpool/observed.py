"""Kubernetes objects as the few values that decisions need; the rest is dropped on arrival.

So a cache of thousands of Revisions stays small, and decisions are functions of plain values.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Self

from keepwarm.warmpool.api import WAKE, InvalidWarmPool, Spec
from keepwarm.warmpool.lead import Activity

MANAGER = "keepwarm-warmpool"
FINALIZER = "autoscaling.keepwarm.dev/restore"
AUTOSCALING = "autoscaling.knative.dev/"
COMPONENTS = ("predictor", "transformer", "explainer")
LATEST = ""
Object = Mapping[str, Any]


def moment(text: str | None) -> datetime | None:
    """An RFC 3339 time of the API, or None."""
    return datetime.fromisoformat(text) if text else None


@dataclass(frozen=True, slots=True)
class Key:
    """Where an object is."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"

    @classmethod
    def of(cls, raw: Object) -> Self:
        return cls(raw["metadata"]["namespace"], raw["metadata"]["name"])


def place(kind: str, name: str) -> tuple[str, ...]:
    """Where the value `name` is in an object: an annotation, or `predictor.minReplicas`."""
    if kind == "InferenceService":
        return ("spec", *name.split("."))
    return ("metadata", "annotations", name)


@dataclass(frozen=True, slots=True)
class Owners:
    """Who manages the values of an object that a WarmPool may set."""

    mine: frozenset[str] = frozenset()
    others: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    since: datetime | None = None
    """When this controller wrote last."""
    entry: int | None = None
    """Place of this controller's entry in managedFields."""

    @classmethod
    def read(cls, raw: Object, names: Mapping[str, tuple[str, ...]]) -> Self:
        """The owners of the values `names`, by their places."""
        mine: frozenset[str] = frozenset()
        others: dict[str, tuple[str, ...]] = {}
        since, entry = None, None
        for index, managed in enumerate(raw["metadata"].get("managedFields") or ()):
            fields = managed.get("fieldsV1") or {}
            held = [name for name, path in names.items() if _has(fields, path)]
            who = managed.get("manager", "")
            if who != MANAGER:
                for name in held:
                    others[name] = (*others.get(name, ()), who)
            elif managed.get("operation") == "Apply" and not managed.get("subresource"):
                mine, entry = frozenset(held), index
                since = moment(managed.get("time"))
        return cls(mine, others, since, entry)


def _has(fields: Any, path: tuple[str, ...]) -> bool:
    return all((fields := fields.get(f"f:{step}")) is not None for step in path)


@dataclass(frozen=True, slots=True)
class Holder:
    """An object of somebody else's on which values are set, and who set which."""

    kind: str
    key: Key
    uid: str
    resource_version: str
    values: Mapping[str, str]
    owners: Owners

    @classmethod
    def read(cls, kind: str, raw: Object, values: Mapping[str, str]) -> Self:
        meta = raw["metadata"]
        # A value that is gone may still be in managedFields, but nobody acts on it.
        owners = Owners.read(raw, {name: place(kind, name) for name in values})
        return cls(kind, Key.of(raw), meta["uid"], meta["resourceVersion"], values, owners)


@dataclass(frozen=True, slots=True)
class Pool:
    """A WarmPool; `spec` is None where `invalid` says why."""

    key: Key
    uid: str
    resource_version: str
    generation: int
    created: str
    deleting: bool
    finalizer: bool
    wake: str | None
    spec: Spec | None
    invalid: str | None
    status: Object

    @classmethod
    def read(cls, raw: Object) -> Self:
        meta = raw["metadata"]
        spec, invalid = None, None
        try:
            spec = Spec.of(raw.get("spec"))
        except InvalidWarmPool as error:
            invalid = str(error)
        return cls(
            key=Key.of(raw),
            uid=meta["uid"],
            resource_version=meta["resourceVersion"],
            generation=meta.get("generation", 0),
            created=meta.get("creationTimestamp", ""),
            deleting=bool(meta.get("deletionTimestamp")),
            finalizer=FINALIZER in (meta.get("finalizers") or ()),
            wake=(meta.get("annotations") or {}).get(WAKE),
            spec=spec,
            invalid=invalid,
            status=raw.get("status") or {},
        )

    @property
    def service(self) -> Key | None:
        """The InferenceService that it is about."""
        if self.spec is None:
            return None
        return Key(self.key.namespace, self.spec.target.inference_service)


@dataclass(frozen=True, slots=True)
class InferenceService:
    """An InferenceService: its mode, and each component's largest number of replicas, if any."""

    key: Key
    resource_version: str
    mode: str
    most: Mapping[str, int | None]
    holder: Holder

    @classmethod
    def read(cls, raw: Object) -> Self:
        meta, spec = raw["metadata"], raw.get("spec") or {}
        annotated = (meta.get("annotations") or {}).get("serving.kserve.io/deploymentMode")
        mode = annotated or (raw.get("status") or {}).get("deploymentMode") or ""
        parts = {name: spec[name] for name in COMPONENTS if spec.get(name) is not None}
        values = {
            f"{name}.minReplicas": str(part["minReplicas"])
            for name, part in parts.items()
            if part.get("minReplicas") is not None
        }
        most = {name: part.get("maxReplicas") or None for name, part in parts.items()}
        holder = Holder.read("InferenceService", raw, values)
        return cls(holder.key, meta["resourceVersion"], mode, most, holder)

    @property
    def standard(self) -> bool:
        """Whether KServe runs it without Knative."""
        return self.mode in {"Standard", "RawDeployment"}


@dataclass(frozen=True, slots=True)
class KnativeService:
    """A Knative Service: what its template says, and where traffic goes and shall go."""

    key: Key
    resource_version: str
    latest_created: str
    template: Mapping[str, str]
    wished: Mapping[str, int]
    """Percent by Revision; LATEST stands for the newest."""
    serving: Mapping[str, int]

    @classmethod
    def read(cls, raw: Object) -> Self:
        spec, status = raw.get("spec") or {}, raw.get("status") or {}
        template = (spec.get("template") or {}).get("metadata") or {}
        wished: dict[str, int] = {}
        default: list[dict[str, Any]] = [{"latestRevision": True, "percent": 100}]
        for part in spec.get("traffic") or default:
            name = LATEST if part.get("latestRevision") else part.get("revisionName", LATEST)
            wished[name] = wished.get(name, 0) + (part.get("percent") or 0)
        serving: dict[str, int] = {}
        for part in status.get("traffic") or ():
            name = part.get("revisionName", LATEST)
            serving[name] = serving.get(name, 0) + (part.get("percent") or 0)
        return cls(
            key=Key.of(raw),
            resource_version=raw["metadata"]["resourceVersion"],
            latest_created=status.get("latestCreatedRevisionName", ""),
            template=_autoscaling(template),
            wished=wished,
            serving=serving,
        )


@dataclass(frozen=True, slots=True)
class Revision:
    """A Revision: its live annotations, and whether it has failed."""

    key: Key
    resource_version: str
    service: str
    failed: bool
    holder: Holder

    @classmethod
    def read(cls, raw: Object) -> Self:
        meta = raw["metadata"]
        holder = Holder.read("Revision", raw, _autoscaling(meta))
        ready, _ = _condition(raw, "Ready")
        service = (meta.get("labels") or {}).get("serving.knative.dev/service", "")
        # Inactive is not failed: zero replicas leave Ready as it was.
        return cls(holder.key, holder.resource_version, service, ready == "False", holder)

    @property
    def most(self) -> int | None:
        """The largest minimum that Knative's webhook lets it have."""
        bounds = [
            int(self.holder.values.get(AUTOSCALING + name, "0"))
            for name in ("max-scale", "activation-scale")
        ]
        return min((bound for bound in bounds if bound), default=None)


@dataclass(frozen=True, slots=True)
class PodAutoscaler:
    """A PodAutoscaler: the annotations that it acts on, ready replicas, activity."""

    key: Key
    resource_version: str
    service: str
    annotations: Mapping[str, str]
    ready: int
    activity: Activity

    @classmethod
    def read(cls, raw: Object) -> Self:
        meta = raw["metadata"]
        return cls(
            key=Key.of(raw),
            resource_version=meta["resourceVersion"],
            service=(meta.get("labels") or {}).get("serving.knative.dev/service", ""),
            annotations=_autoscaling(meta),
            ready=max((raw.get("status") or {}).get("actualScale") or 0, 0),
            activity=Activity(*_condition(raw, "Active")),
        )


@dataclass(frozen=True, slots=True)
class Deployment:
    """A Standard-mode component's Deployment: its ready replicas."""

    key: Key
    resource_version: str
    ready: int

    @classmethod
    def read(cls, raw: Object) -> Self:
        ready = (raw.get("status") or {}).get("readyReplicas") or 0
        return cls(Key.of(raw), raw["metadata"]["resourceVersion"], ready)


def _autoscaling(meta: Object) -> dict[str, str]:
    annotations = meta.get("annotations") or {}
    return {name: value for name, value in annotations.items() if name.startswith(AUTOSCALING)}


def _condition(raw: Object, kind: str) -> tuple[str, datetime | None]:
    for condition in (raw.get("status") or {}).get("conditions") or ():
        if condition.get("type") == kind:
            return condition.get("status", ""), moment(condition.get("lastTransitionTime"))
    return "", None
