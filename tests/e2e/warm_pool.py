"""The warm-pool controller on a real cluster, and the smallest InferenceServices to keep warm."""

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from .conftest import is_ready, kubectl, rendered

SYSTEM = "keepwarm-system"
CONTROLLER = "app.kubernetes.io/name=keepwarm-warm-pool"
MIN_SCALE = "autoscaling.knative.dev/min-scale"
# A process 1 ends by SIGTERM only if it says so.
SERVER = """
import http.server, signal, sys
signal.signal(signal.SIGTERM, lambda *_: sys.exit())
http.server.HTTPServer(("", 8080), http.server.SimpleHTTPRequestHandler).serve_forever()
"""
Eventually = Callable[..., None]


def image() -> str:
    """The controller's own image; its Python serves files, which is all that a target must do."""
    prefix, _, rest = os.environ.get("KEEPWARM_IMAGES", "keepwarm/*:0.1.0").partition("*")
    return f"{prefix}warm-pool{rest}"


def in_seconds(seconds: float) -> str:
    """A moment from now, as the API writes it."""
    at = datetime.now(UTC) + timedelta(seconds=seconds)
    return at.strftime("%Y-%m-%dT%H:%M:%SZ")


@contextmanager
def installed() -> Iterator[None]:
    """overlays/warm-pool, ready; taken away after all WarmPools, while it can still restore."""
    kubectl("apply", "-f", "-", stdin=rendered("warm-pool", images=1))
    try:
        kubectl("-n", SYSTEM, "rollout", "restart", "deployment/keepwarm-warm-pool")
        kubectl("-n", SYSTEM, "rollout", "status", "deployment/keepwarm-warm-pool", "--timeout=90s")
        yield
    except BaseException:
        print(kubectl("-n", SYSTEM, "logs", "--tail=80", "--prefix", "-l", CONTROLLER, check=False))
        raise
    finally:
        kubectl("delete", "warmpools", "--all", "--all-namespaces", "--timeout=60s", check=False)
        rest = ("--ignore-not-found", "--timeout=90s")
        kubectl("delete", *rest, "-f", "-", stdin=rendered("warm-pool", images=1))


@dataclass
class Controller:
    """The controller's two pods."""

    eventually: Eventually

    def pods(self) -> list[str]:
        listed = kubectl("-n", SYSTEM, "get", "pods", "-l", CONTROLLER, "-o", "json")
        return [pod["metadata"]["name"] for pod in json.loads(listed)["items"] if is_ready(pod)]

    def leader(self) -> str:
        lease = kubectl("-n", SYSTEM, "get", "lease", "keepwarm-warmpool", "-o", "json")
        return json.loads(lease)["spec"].get("holderIdentity", "")

    def evict(self, pod: str) -> None:
        """Deletes a pod at once; it gets a SIGTERM, and a moment."""
        kubectl("-n", SYSTEM, "delete", "pod", pod, "--grace-period=0", "--force")

    @contextmanager
    def away(self) -> Iterator[None]:
        """No controller in the cluster for a while."""
        scale = ("-n", SYSTEM, "scale", "deployment/keepwarm-warm-pool")
        kubectl(*scale, "--replicas=0")
        self.eventually(lambda: not self.pods(), "no controller is left", timeout_s=60)
        try:
            yield
        finally:
            kubectl(*scale, "--replicas=2")

    def settled(self) -> str:
        """The leader, once two pods are ready and it is one of them."""
        self.eventually(
            lambda: len(self.pods()) == 2 and self.leader() in self.pods(),
            "two controllers are ready and one of them leads",
            timeout_s=60,
        )
        return self.leader()

    def metrics(self, pod: str) -> dict[str, float]:
        """Samples by name and labels."""
        path = f"/api/v1/namespaces/{SYSTEM}/pods/{pod}:8080/proxy/metrics"
        lines = kubectl("get", "--raw", path).splitlines()
        pairs = (line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
        return {name: float(value) for name, value in pairs}


@dataclass
class Tiny:
    """An InferenceService of almost nothing, in a namespace; ready in a second or two."""

    namespace: str
    name: str
    eventually: Eventually

    def kubectl(self, *args: str, **options) -> str:
        return kubectl("-n", self.namespace, *args, **options)

    def apply(self, **predictor) -> None:
        container = {
            "name": "kserve-container",
            "image": image(),
            "command": ["/opt/keepwarm/bin/python", "-c", SERVER],
            "env": [{"name": "VERSION", "value": predictor.pop("version", "1")}],
            "ports": [{"containerPort": 8080}],
            "resources": {
                "requests": {"cpu": "10m", "memory": "32Mi"},
                "limits": {"cpu": "1", "memory": "128Mi"},
            },
        }
        spec = {
            "minReplicas": 1,
            "maxReplicas": 5,
            # Also how long a pod may take to end.
            "timeout": 10,
            "annotations": {"autoscaling.knative.dev/window": "6s"},
            "containers": [container],
            **predictor,
        }
        manifest = {
            "apiVersion": "serving.kserve.io/v1beta1",
            "kind": "InferenceService",
            "metadata": {
                "name": self.name,
                "annotations": {"serving.kserve.io/deploymentMode": "Knative"},
            },
            "spec": {"predictor": spec},
        }
        self._apply(manifest)

    def _apply(self, manifest: dict) -> None:
        """Again while a webhook does not answer in time, as one of a busy cluster may."""
        command = ("apply", "-f", "-", "-o", "name")
        self.eventually(
            lambda: self.kubectl(*command, stdin=json.dumps(manifest), check=False) != "",
            f"{manifest['kind']} {self.name} is applied",
            timeout_s=60,
        )

    def wait_ready(self) -> None:
        self.kubectl("wait", f"isvc/{self.name}", "--for=condition=Ready", "--timeout=120s")

    def pool(self, **spec) -> None:
        """Creates the WarmPool of the same name, or makes it this."""
        manifest = {
            "apiVersion": "autoscaling.keepwarm.dev/v1alpha1",
            "kind": "WarmPool",
            "metadata": {"name": self.name},
            "spec": {"target": {"inferenceService": self.name}, **spec},
        }
        self._apply(manifest)

    def status(self) -> dict:
        found = self.kubectl("get", f"warmpool/{self.name}", "-o", "json", check=False)
        return json.loads(found).get("status", {}) if found else {}

    def reason(self) -> str:
        """Why its condition Ready is what it is."""
        conditions = self.status().get("conditions", [])
        return next((each["reason"] for each in conditions if each["type"] == "Ready"), "")

    def is_kept(self, replicas: int) -> bool:
        return self.reason() == "Kept" and self.status().get("want") == replicas

    def wait_kept(self, replicas: int, *, timeout_s: float = 60) -> None:
        self.eventually(
            lambda: self.is_kept(replicas),
            f"{self.name} has {replicas} kept",
            timeout_s=timeout_s,
        )

    def revisions(self) -> dict[str, dict]:
        """The Revisions by the end of their name: 00001, 00002."""
        label = f"serving.knative.dev/service={self.name}-predictor"
        listed = self.kubectl("get", "revisions", "-l", label, "-o", "json")
        return {
            item["metadata"]["name"].rpartition("-")[2]: item["metadata"]["annotations"]
            for item in json.loads(listed)["items"]
        }

    def minimum(self, revision: str) -> str | None:
        return self.revisions()[revision].get(MIN_SCALE)

    def traffic(self) -> dict[str, int]:
        """Percent by the end of the Revision's name."""
        service = self.kubectl("get", f"ksvc/{self.name}-predictor", "-o", "json")
        return {
            part["revisionName"].rpartition("-")[2]: part.get("percent", 0)
            for part in json.loads(service)["status"].get("traffic", [])
        }

    def ready_pods(self) -> list[dict]:
        """Pods that take requests, whichever Revision's they are."""
        label = f"serving.knative.dev/service={self.name}-predictor"
        listed = self.kubectl("get", "pods", "-l", label, "-o", "json")
        return [pod for pod in json.loads(listed)["items"] if is_ready(pod)]

    def events(self) -> list[str]:
        about = f"involvedObject.kind=WarmPool,involvedObject.name={self.name}"
        listed = self.kubectl("get", "events", "--field-selector", about, "-o", "json")
        return [item["reason"] for item in json.loads(listed)["items"]]

    def owners(self, revision: str) -> set[str]:
        """The field managers that have applied something to the Revision."""
        name = f"revision/{self.name}-predictor-{revision}"
        found = json.loads(self.kubectl("get", name, "-o", "json", "--show-managed-fields"))
        entries = found["metadata"]["managedFields"]
        return {entry["manager"] for entry in entries if entry["operation"] == "Apply"}


def ready_at(pod: dict) -> datetime:
    """When the pod got ready."""
    for condition in pod["status"]["conditions"]:
        if condition["type"] == "Ready":
            return datetime.fromisoformat(condition["lastTransitionTime"])
    raise AssertionError(f"{pod['metadata']['name']} has no condition Ready")


def until(moment: str) -> float:
    """Seconds until then, for a bound of a wait."""
    return (datetime.fromisoformat(moment) - datetime.now(UTC)).total_seconds()
