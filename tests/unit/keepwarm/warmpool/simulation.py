"""A small API server and a small Knative, enough to run the pure steps to their end.

It keeps raw objects, with managedFields as server-side apply keeps them; the real one is met in
tests/e2e. Time is the test's own.
"""

import itertools
from copy import deepcopy
from datetime import UTC, datetime, timedelta

from keepwarm.warmpool.api import WAKE
from keepwarm.warmpool.kinds import (
    DEPLOYMENT,
    INFERENCE_SERVICE,
    KNATIVE_SERVICE,
    POD_AUTOSCALER,
    POOL,
    REVISION,
)
from keepwarm.warmpool.observed import FINALIZER, MANAGER, Key, place
from keepwarm.warmpool.ownership import Apply, Restore
from keepwarm.warmpool.reconcile import Finalizer, Step, UseUp, reconcile
from keepwarm.warmpool.store import Store

MIN = "autoscaling.knative.dev/min-scale"
NAMESPACE = "llm"
KINDS = (POOL, INFERENCE_SERVICE, KNATIVE_SERVICE, REVISION, POD_AUTOSCALER, DEPLOYMENT)


class Stale(Exception):
    """The API server's 409."""


class Crashed(Exception):
    """The controller is gone in the middle of a step."""


class Simulation:
    """One InferenceService `chat` with a predictor, and WarmPools."""

    def __init__(self, *, least=1, most=9, propagates=True, standard=False):
        self.now = datetime(2026, 11, 25, 12, tzinfo=UTC)
        self.propagates = propagates
        self.starts = True
        self.events = []
        self._versions = itertools.count(1)
        self._uids = itertools.count(1)
        self.objects: dict[tuple[str, str], dict] = {}
        mode = "Standard" if standard else "Knative"
        self.create(
            INFERENCE_SERVICE,
            "chat",
            annotations={"serving.kserve.io/deploymentMode": mode},
            spec={"predictor": {"minReplicas": least, "maxReplicas": most}},
        )
        self._own(INFERENCE_SERVICE, "chat", "kubectl-apply", ["predictor.minReplicas"])
        if standard:
            self.create(DEPLOYMENT, "chat-predictor", status={"readyReplicas": least})
            return
        self.create(KNATIVE_SERVICE, "chat-predictor", spec={}, status={})
        self.template = {MIN: str(least), "autoscaling.knative.dev/max-scale": str(most)}
        self.revisions = 0
        self.roll_out()
        self.shift_traffic()

    # --- the API server

    def create(self, kind, name, *, annotations=None, labels=None, **parts):
        raw = {
            "metadata": {
                "namespace": NAMESPACE,
                "name": name,
                "uid": f"uid-{next(self._uids)}",
                "creationTimestamp": f"2026-11-25T00:00:{next(self._uids):02}Z",
                "annotations": dict(annotations or {}),
                "labels": dict(labels or {}),
                "managedFields": [],
            },
            **parts,
        }
        self.objects[kind.name, name] = raw
        return self.touch(kind, name)

    def touch(self, kind, name):
        raw = self.objects[kind.name, name]
        raw["metadata"]["resourceVersion"] = str(next(self._versions))
        return raw

    def get(self, kind, name):
        return self.objects[kind.name, name]

    def value(self, kind, name, field):
        part = self.get(kind, name)
        for step in place(kind.name, field):
            part = part.get(step, {})
        return part or None

    def _set(self, kind, name, field, value):
        *steps, last = place(kind.name, field)
        part = self.get(kind, name)
        for step in steps:
            part = part.setdefault(step, {})
        if value is None:
            part.pop(last, None)
        else:
            part[last] = int(value) if kind is INFERENCE_SERVICE else value

    def _own(self, kind, name, manager, fields, operation="Update"):
        """`manager` owns exactly `fields` in addition to nothing; others lose them."""
        meta = self.get(kind, name)["metadata"]
        for entry in meta["managedFields"]:
            for field in fields:
                part = entry["fieldsV1"]
                *steps, last = place(kind.name, field)
                for step in steps:
                    part = part.get(f"f:{step}", {})
                part.pop(f"f:{last}", None)
        fresh: dict = {}
        for field in fields:
            part = fresh
            for step in place(kind.name, field):
                part = part.setdefault(f"f:{step}", {})
        meta["managedFields"].append(
            {
                "manager": manager,
                "operation": operation,
                "time": self.now.strftime("%Y-%m-%dT%H:%M:%SZ"),
                "fieldsV1": fresh,
            }
        )

    def mine(self, kind, name):
        return kind.read(self.get(kind, name)).holder.owners.mine

    def annotate(self, name, field, value):
        """Somebody at a terminal edits a live Revision."""
        self._set(REVISION, name, field, value)
        self._own(REVISION, name, "kubectl-annotate", [field] if value is not None else [])
        if value is None:
            self._strip(REVISION, name, field)
        self.touch(REVISION, name)

    def _strip(self, kind, name, field):
        self._own(kind, name, "nobody", [field])
        self.get(kind, name)["metadata"]["managedFields"].pop()

    # --- Knative

    def roll_out(self, *, failed=False, template=None):
        """A new Revision as its template says; traffic stays where it is."""
        self.template |= template or {}
        self.revisions += 1
        name = f"chat-predictor-{self.revisions:05}"
        labels = {"serving.knative.dev/service": "chat-predictor"}
        ready = {"type": "Ready", "status": "False" if failed else "Unknown"}
        self.create(
            REVISION,
            name,
            annotations=self.template,
            labels=labels,
            status={"conditions": [ready]},
        )
        self._own(REVISION, name, "controller", list(self.template))
        self.create(POD_AUTOSCALER, name, annotations=self.template, labels=labels, status={})
        service = self.get(KNATIVE_SERVICE, "chat-predictor")
        service["status"]["latestCreatedRevisionName"] = name
        service["spec"]["template"] = {"metadata": {"annotations": dict(self.template)}}
        self.touch(KNATIVE_SERVICE, "chat-predictor")
        return name

    def shift_traffic(self, **percent):
        """Traffic goes to the newest Revision, or by number: `r1=90, r2=10`."""
        newest = {f"r{self.revisions}": 100}
        served = {f"chat-predictor-{int(k[1:]):05}": v for k, v in (percent or newest).items()}
        service = self.get(KNATIVE_SERVICE, "chat-predictor")
        service["status"]["traffic"] = [
            {"revisionName": name, "percent": share} for name, share in served.items()
        ]
        latest = service["status"]["latestCreatedRevisionName"]
        service["spec"]["traffic"] = [
            {"latestRevision": True, "percent": share}
            if name == latest
            else {"revisionName": name, "percent": share}
            for name, share in served.items()
        ]
        self.touch(KNATIVE_SERVICE, "chat-predictor")

    def knative(self):
        """PodAutoscalers follow their Revisions, and pods their PodAutoscalers."""
        for (kind, name), raw in list(self.objects.items()):
            if kind != REVISION.name:
                continue
            scaler = self.get(POD_AUTOSCALER, name)
            before = deepcopy(scaler)
            if self.propagates:
                scaler["metadata"]["annotations"] = dict(raw["metadata"]["annotations"])
            if self.starts:
                least = int(scaler["metadata"]["annotations"].get(MIN, 0))
                scaler["status"]["actualScale"] = least
            if scaler != before:
                self.touch(POD_AUTOSCALER, name)

    # --- the controller

    def pool(self, name="chat", **spec):
        spec = {"target": {"inferenceService": "chat"}, **spec}
        return self.create(POOL, name, spec=spec)

    def edit(self, name="chat", **spec):
        raw = self.touch(POOL, name)
        raw["spec"] |= spec
        raw["metadata"]["generation"] = raw["metadata"].get("generation", 1) + 1

    def wake(self, text, name="chat"):
        self.touch(POOL, name)["metadata"]["annotations"][WAKE] = text

    def delete(self, name="chat"):
        self.touch(POOL, name)["metadata"]["deletionTimestamp"] = "2026-11-25T12:00:00Z"
        self._collect(name)

    def _collect(self, name):
        meta = self.get(POOL, name)["metadata"]
        if meta.get("deletionTimestamp") and not meta.get("finalizers"):
            del self.objects[POOL.name, name]

    def status(self, name="chat"):
        return self.get(POOL, name).get("status") or {}

    def ready(self, name="chat"):
        return next(c for c in self.status(name)["conditions"] if c["type"] == "Ready")

    def condition(self, kind, name="chat"):
        return next(c for c in self.status(name)["conditions"] if c["type"] == kind)

    def look(self, name="chat") -> Step:
        """What the controller would do now; it sees everything as it is."""
        store = Store()
        for kind in KINDS:
            for (of, _), raw in self.objects.items():
                if of == kind.name:
                    store.put(kind, kind.read(deepcopy(raw)))
        world = store.world(Key(NAMESPACE, name))
        return reconcile(world, self.now) if world else Step()

    def step(self, name="chat", *, crash_after=None) -> Step:
        """One step, or its first writes."""
        step = self.look(name)
        writes = ([step.status] if step.status is not None else []) + list(step.actions)
        for number, write in enumerate(writes):
            if number == crash_after:
                raise Crashed
            self._write(name, write)
        self.events += step.events
        return step

    def settle(self, *names):
        """Steps of all WarmPools until none has anything to do."""
        for _ in range(30):
            idle = True
            for name in names or [name for kind, name in self.objects if kind == POOL.name]:
                step = self.step(name)
                idle &= step.status is None and not step.actions
            self.knative()
            if idle and all(self.look(name).status is None for name in names or ["chat"]):
                return
        raise AssertionError("does not come to rest")

    def wait(self, **time):
        self.now += timedelta(**time)
        self.settle()

    def _write(self, name, write):
        match write:
            case Finalizer(wanted=wanted):
                self.touch(POOL, name)["metadata"]["finalizers"] = [FINALIZER] if wanted else []
                self._collect(name)
            case UseUp(value=value):
                annotations = self.touch(POOL, name)["metadata"]["annotations"]
                if annotations.get(WAKE) == value:
                    del annotations[WAKE]
            case Apply():
                self._apply(write)
            case Restore():
                self._restore(write)
            case dict():
                self.touch(POOL, name)["status"] = deepcopy(write)

    def _apply(self, action):
        kind, name = self._fresh(action.holder), action.holder.key.name
        for field in self.mine(kind, name) - action.values.keys():
            raise AssertionError(f"{field} would be removed")
        for field, value in action.values.items():
            self._set(kind, name, field, value)
        self._forget(kind, name)
        self._own(kind, name, MANAGER, list(action.values), "Apply")
        self.touch(kind, name)

    def _restore(self, action):
        kind, name = self._fresh(action.holder), action.holder.key.name
        kept = self.mine(kind, name) - action.before.keys()
        for field, value in action.before.items():
            self._set(kind, name, field, value)
            self._strip(kind, name, field)
        self._forget(kind, name)
        if kept:
            self._own(kind, name, MANAGER, list(kept), "Apply")
        self.touch(kind, name)

    def _fresh(self, holder):
        kind = {"Revision": REVISION, "InferenceService": INFERENCE_SERVICE}[holder.kind]
        raw = self.get(kind, holder.key.name)
        if raw["metadata"]["resourceVersion"] != holder.resource_version:
            raise Stale
        return kind

    def _forget(self, kind, name):
        meta = self.get(kind, name)["metadata"]
        meta["managedFields"] = [
            entry
            for entry in meta["managedFields"]
            if entry["manager"] != MANAGER or entry["operation"] != "Apply"
        ]
