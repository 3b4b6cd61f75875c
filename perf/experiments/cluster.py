"""An InferenceService with the simulated predictor on the cluster that KUBECONFIG names.

The overlay cpu-demo as it ships, with the image of the simulated predictor (Dockerfile) in place
of vLLM's: transformer, Knative's path, probes, start-up and drain are real. KEEPWARM_GATEWAY is the
URL of the ingress, KEEPWARM_IMAGES the images' prefix and tag (`dev.local/keepwarm-*:e2e`), as for
`make e2e`.
"""

import json
import os
import re
import shutil
import subprocess
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import batching
import httpx
import yaml
from pinned import free_port

from llm_transformer.settings import TransformerSettings

ROOT = Path(__file__).parents[2]
SERVICE = "chat"
PROFILE = "/profile"
READY_S = 300
HELD = int(TransformerSettings.model_fields["queue_most"].default)


def is_there() -> bool:
    """Whether the environment names a cluster."""
    return shutil.which("kubectl") is not None and {"KUBECONFIG", "KEEPWARM_GATEWAY"} <= {
        *os.environ
    }


def kubectl(*arguments: str, text: str | None = None) -> str:
    """What kubectl prints; raises RuntimeError with its error."""
    program = shutil.which("kubectl")
    if program is None or not is_there():
        raise RuntimeError("burst needs a cluster: kubectl, KUBECONFIG and KEEPWARM_GATEWAY")
    done = subprocess.run(  # noqa: S603 (the user's own cluster)
        [program, *arguments], input=text, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError(f"kubectl {' '.join(arguments)}: {done.stderr.strip()}")
    return done.stdout


@dataclass(frozen=True)
class Deployment:
    """How the predictor runs: a profile, 1 / `scale` of its speed, and how far it scales."""

    profile: str
    scale: float
    places: int
    least: int
    most: int
    start_s: float
    window_s: int
    flags: tuple[str, ...] = ()  # of the transformer

    @property
    def held(self) -> int:
        """Callers that the transformer holds during a start: of its default, the same part."""
        return max(1, round(HELD / self.scale))

    def scaled(self) -> batching.Profile:
        """An engine that takes as long over a batch as the whole one over `scale` times as many."""
        whole = batching.load(self.profile)
        return replace(
            whole,
            name=f"{whole.name}, 1/{self.scale:g}",
            step_s_per_sequence=whole.step_s_per_sequence * self.scale,
            step_s_per_prompt_token=whole.step_s_per_prompt_token * self.scale,
            max_num_seqs=self.places,
        )


def manifest(wanted: Deployment) -> str:
    """The overlay, changed as the module says."""
    prefix, _, rest = os.environ.get("KEEPWARM_IMAGES", "keepwarm/*:0.1.0").partition("*")
    text = kubectl("kustomize", str(ROOT / "manifests/overlays/cpu-demo"))
    text = text.replace("keepwarm/predictor-cpu-demo:", "keepwarm/simulated-predictor:")
    text = re.sub(r"image: keepwarm/([a-z-]+):\S+", rf"image: {prefix}\1{rest}", text)
    documents = list(yaml.safe_load_all(text))
    (service,) = (each for each in documents if each["kind"] == "InferenceService")
    predictor = service["spec"]["predictor"]
    predictor |= {
        "minReplicas": wanted.least,
        "maxReplicas": wanted.most,
        # As `keepwarm engine advise` says: what is over a pod's places waits where another pod can
        # take it, and where the transformer does not take it for an engine that is full.
        "scaleTarget": wanted.places,
        "containerConcurrency": wanted.places,
    }
    (transformer,) = service["spec"]["transformer"]["containers"]
    transformer["args"] += [f"--queue_most={wanted.held}", *wanted.flags]
    predictor["annotations"]["autoscaling.knative.dev/window"] = f"{wanted.window_s}s"
    (container,) = predictor["containers"]
    container["args"] = [
        *(f"--model_name={SERVICE}", f"--profile={PROFILE}/profile.json"),
        *(f"--start_s={wanted.start_s:g}", f"--max_num_seqs={wanted.places}"),
    ]
    container["resources"] = {
        "requests": {"cpu": "20m", "memory": "128Mi"},
        "limits": {"cpu": "1", "memory": "512Mi"},
    }
    container["volumeMounts"].append({"name": "profile", "mountPath": PROFILE})
    predictor["volumes"].append({"name": "profile", "configMap": {"name": "profile"}})
    profile = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "profile"},
        "data": {"profile.json": json.dumps(asdict(wanted.scaled()))},
    }
    return yaml.safe_dump_all([profile, *documents])


@dataclass(frozen=True)
class Pods:
    """Predictors that exist, and those of them that take requests."""

    existing: int
    ready: int


class Service:
    """The InferenceService, applied: where to call it and what its predictors do."""

    def __init__(self, api: str, namespace: str) -> None:
        """`api` is the URL of the API server, as `kubectl proxy` gives it."""
        self._pods = f"{api}/api/v1/namespaces/{namespace}/pods"
        self._client = httpx.Client(timeout=10, trust_env=False)
        told = kubectl("-n", namespace, "get", f"ksvc/{SERVICE}-transformer", "-o", "json")
        self.host = str(json.loads(told)["status"]["url"]).removeprefix("http://")
        self.gateway = os.environ["KEEPWARM_GATEWAY"]

    def pods(self) -> Pods:
        """The predictors now."""
        label = f"serving.knative.dev/service={SERVICE}-predictor"
        answer = self._client.get(self._pods, params={"labelSelector": label})
        pods = answer.raise_for_status().json()["items"]
        ready = [
            pod
            for pod in pods
            if "deletionTimestamp" not in pod["metadata"]
            and all(
                each["ready"] for each in pod["status"].get("containerStatuses", [{"ready": 0}])
            )
        ]
        return Pods(len(pods), len(ready))

    def wait_for(self, ready: int, most_s: float = READY_S) -> None:
        """Returns when just so many predictors exist and are ready; raises RuntimeError."""
        deadline = time.monotonic() + most_s
        while self.pods() != Pods(ready, ready):
            if time.monotonic() > deadline:
                raise RuntimeError(f"not {ready} predictors after {most_s:g} s: {self.pods()}")
            time.sleep(0.5)


@contextmanager
def applied(wanted: Deployment) -> Iterator[Service]:
    """The service, Ready, in a namespace of its own that is deleted afterwards."""
    # One of its own: a namespace takes a minute to go.
    namespace = f"keepwarm-bench-{uuid.uuid4().hex[:6]}"
    kubectl("create", "namespace", namespace)
    try:
        with _proxy() as api:
            kubectl("-n", namespace, "apply", "-f", "-", text=manifest(wanted))
            kubectl(
                *("-n", namespace, "wait", f"inferenceservice/{SERVICE}", "--for=condition=Ready"),
                f"--timeout={READY_S}s",
            )
            yield Service(api, namespace)
    finally:
        kubectl("delete", "namespace", namespace, "--wait=false")


@contextmanager
def _proxy() -> Iterator[str]:
    """The API server without certificates, on a loopback port of its own."""
    port = free_port()
    program = shutil.which("kubectl")
    assert program is not None
    proxy = subprocess.Popen(  # noqa: S603 (the user's own cluster)
        [program, "proxy", f"--port={port}"], stdout=subprocess.DEVNULL
    )
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        proxy.terminate()
        proxy.wait(10)
