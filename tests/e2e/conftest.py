"""The overlays on a real cluster; `cpu-demo` is served once for the session.

KUBECONFIG names the cluster, KEEPWARM_GATEWAY the URL of its Knative ingress, KEEPWARM_IMAGES the
prefix and tag of the images (`dev.local/keepwarm-*:e2e`, say). `make e2e` sets all three.
"""

import json
import os
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

REPOSITORY = Path(__file__).parents[2]
OVERLAYS = REPOSITORY / "manifests/overlays"
NAMESPACE = "keepwarm-e2e"
SERVICE = "chat"
READY_TIMEOUT_S = 600


def kubectl(*args: str, stdin: str | None = None, check: bool = True) -> str:
    """What kubectl prints; fails with its error when it does not succeed."""
    done = subprocess.run(
        ["kubectl", *args], input=stdin, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0 or not check, done.stderr
    return done.stdout


@dataclass
class Chat:
    """The InferenceService: how to call it, and what its pods do."""

    gateway: str
    host: str

    def client(self) -> httpx.Client:
        return httpx.Client(
            base_url=self.gateway, headers={"host": self.host}, timeout=300, trust_env=False
        )

    def pods(self, component: str) -> list[dict]:
        listed = kubectl(
            *("-n", NAMESPACE, "get", "pods", "-o", "json"),
            *("-l", f"serving.knative.dev/service={SERVICE}-{component}"),
        )
        return json.loads(listed)["items"]


@pytest.fixture(scope="session")
def measured() -> Iterator[Callable[[str, float], None]]:
    """Collects timings and prints them at the end: they are a report, not assertions."""
    rows: list[tuple[str, float]] = []
    yield lambda what, seconds: rows.append((what, seconds))
    print("\nmeasured on this cluster:")
    for what, seconds in rows:
        print(f"  {seconds:8.1f} s  {what}")


def rendered(overlay: str) -> str:
    """The overlay as it is, with the images' names of this cluster."""
    prefix, _, rest = os.environ.get("KEEPWARM_IMAGES", "keepwarm/*:0.1.0").partition("*")
    text = kubectl("kustomize", str(OVERLAYS / overlay))
    text, found = re.subn(
        r"image: keepwarm/([a-z-]+):0\.1\.0", lambda image: f"image: {prefix}{image[1]}{rest}", text
    )
    assert found == 2, (
        f"{overlay} has {found} images of keepwarm, not a transformer and a predictor"
    )
    return text


@contextmanager
def fresh_namespace(name: str) -> Iterator[None]:
    """An empty namespace, deleted with all in it; prints what is there when a test fails."""
    kubectl("delete", "namespace", name, "--ignore-not-found", "--timeout=400s")
    kubectl("create", "namespace", name)
    try:
        yield
    except BaseException:
        print(kubectl("-n", name, "get", "pods,ksvc,isvc,revision", "-o", "wide", check=False))
        print(kubectl("-n", name, "get", "events", check=False))
        logs = ("logs", "--tail=60", "--prefix", "-c", "kserve-container", "-l")
        print(kubectl("-n", name, *logs, "serving.knative.dev/service", check=False))
        raise
    finally:
        kubectl("delete", "namespace", name, "--wait=false")


@pytest.fixture(scope="session")
def chat(measured: Callable[[str, float], None]) -> Iterator[Chat]:
    with fresh_namespace(NAMESPACE):
        began = time.monotonic()
        kubectl("-n", NAMESPACE, "apply", "-f", "-", stdin=rendered("cpu-demo"))
        kubectl(
            *("-n", NAMESPACE, "wait", f"inferenceservice/{SERVICE}", "--for=condition=Ready"),
            f"--timeout={READY_TIMEOUT_S}s",
        )
        measured("apply to InferenceService Ready", time.monotonic() - began)
        url = kubectl(
            *("-n", NAMESPACE, "get", f"ksvc/{SERVICE}-transformer", "-o"), "jsonpath={.status.url}"
        )
        yield Chat(os.environ["KEEPWARM_GATEWAY"], url.removeprefix("http://"))
