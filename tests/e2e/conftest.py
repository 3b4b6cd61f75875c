"""The overlays on a real cluster; `cpu-demo` is served once for the session.

KUBECONFIG names the cluster, KEEPWARM_GATEWAY the URL of its Knative ingress, KEEPWARM_IMAGES the
prefix and tag of the images (`dev.local/keepwarm-*:e2e`, say). `make e2e` sets all three.
"""

import functools
import json
import os
import re
import subprocess
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import httpx
import pytest

REPOSITORY = Path(__file__).parents[2]
OVERLAYS = REPOSITORY / "manifests/overlays"
COMPONENTS = REPOSITORY / "manifests/components"
REPORT = REPOSITORY / "build/e2e.txt"
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
    namespace: str
    host: str
    key: str = ""

    def client(self) -> httpx.Client:
        # Every answer comes from an engine: a kept one would wake and load nobody.
        headers = {"host": self.host, "cache-control": "no-store"}
        if self.key:
            headers["authorization"] = f"Bearer {self.key}"
        return httpx.Client(base_url=self.gateway, headers=headers, timeout=300, trust_env=False)

    def kubectl(self, *args: str, **options: bool) -> str:
        """`kubectl` in the service's namespace."""
        return kubectl("-n", self.namespace, *args, **options)

    def pods(self, component: str) -> list[dict]:
        """All pods of a component, those that end included."""
        label = f"serving.knative.dev/service={SERVICE}-{component}"
        return json.loads(self.kubectl("get", "pods", "-o", "json", "-l", label))["items"]


def is_ready(pod: dict) -> bool:
    """Whether it takes requests: ready, and not ending."""
    statuses = pod["status"].get("containerStatuses", [])
    return (
        "deletionTimestamp" not in pod["metadata"]
        and bool(statuses)
        and all(status["ready"] for status in statuses)
    )


@pytest.fixture(scope="session")
def eventually(eventually: Callable[..., None]) -> Callable[..., None]:
    """Asks a cluster, which has other work on few cores, less often."""
    return functools.partial(eventually, every_s=0.3)


@pytest.fixture(scope="session")
def measured() -> Iterator[Callable[..., None]]:
    """Collects figures for a report, at the end and in build/: none of them is asserted."""
    rows: list[str] = []

    def note(what: str, value: float, unit: str = "s") -> None:
        rows.append(f"{value:10.1f} {unit:9} {what}")

    yield note
    report = "\n".join(rows) + "\n"
    REPORT.parent.mkdir(exist_ok=True)
    REPORT.write_text(report)
    print(f"\nmeasured on this cluster:\n{report}")


def kustomized(*, resources: Sequence[Path] = (), components: Sequence[Path] = ()) -> str:
    """What a kustomization of these folders renders to."""
    with TemporaryDirectory() as folder:
        relative = {
            key: [os.path.relpath(path, Path(folder).resolve()) for path in paths]
            for key, paths in (("resources", resources), ("components", components))
        }
        (Path(folder) / "kustomization.yaml").write_text(json.dumps(relative))
        return kubectl("kustomize", folder)


def rendered(overlay: str, *components: str, images: int = 2) -> str:
    """The overlay with these components, with the images' names of this cluster."""
    prefix, _, rest = os.environ.get("KEEPWARM_IMAGES", "keepwarm/*:0.1.0").partition("*")
    text = kustomized(
        resources=[OVERLAYS / overlay], components=[COMPONENTS / name for name in components]
    )
    text, found = re.subn(
        r"image: keepwarm/([a-z-]+):0\.1\.0", lambda image: f"image: {prefix}{image[1]}{rest}", text
    )
    assert found == images, f"{overlay} has {found} images of keepwarm, not {images}"
    return text


# Namespaces that tests work in now.
_open: list[str] = []


@contextmanager
def fresh_namespace(name: str) -> Iterator[None]:
    """An empty namespace, deleted with all in it; printed when its set-up fails."""
    kubectl("delete", "namespace", name, "--ignore-not-found", "--timeout=400s")
    kubectl("create", "namespace", name)
    _open.append(name)
    try:
        yield
    except BaseException:
        _show(name)
        raise
    finally:
        _open.remove(name)
        kubectl("delete", "namespace", name, "--wait=false")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Prints what is in the namespaces when a test has failed."""
    report = yield
    if report.when == "call" and report.failed:
        for name in _open:
            _show(name)
    return report


def _show(namespace: str) -> None:
    print(f"\nin {namespace}:")
    print(kubectl("-n", namespace, "get", "pods,ksvc,isvc,revision", "-o", "wide", check=False))
    print(kubectl("-n", namespace, "get", "events", check=False))
    logs = ("logs", "--tail=60", "--prefix", "-c", "kserve-container", "-l")
    print(kubectl("-n", namespace, *logs, "serving.knative.dev/service", check=False))


@contextmanager
def served(manifest: str, namespace: str) -> Iterator[Chat]:
    """The manifest's InferenceService, Ready, in a namespace of its own."""
    with fresh_namespace(namespace):
        yield ready(manifest, namespace)


def ready(manifest: str, namespace: str) -> Chat:
    """Applies the manifest and waits for its InferenceService."""
    kubectl("-n", namespace, "apply", "-f", "-", stdin=manifest)
    kubectl(
        *("-n", namespace, "wait", f"inferenceservice/{SERVICE}", "--for=condition=Ready"),
        f"--timeout={READY_TIMEOUT_S}s",
    )
    url = kubectl(
        *("-n", namespace, "get", f"ksvc/{SERVICE}-transformer", "-o"), "jsonpath={.status.url}"
    )
    return Chat(os.environ["KEEPWARM_GATEWAY"], namespace, url.removeprefix("http://"))


@pytest.fixture(scope="session")
def chat(measured: Callable[..., None]) -> Iterator[Chat]:
    began = time.monotonic()
    with served(rendered("cpu-demo"), NAMESPACE) as chat:
        measured("apply to InferenceService Ready", time.monotonic() - began)
        yield chat


def pytest_addoption(parser: pytest.Parser) -> None:
    """The options of `make e2e ARGS=...`."""
    parser.addoption(
        "--twin-seconds",
        type=int,
        default=170,
        help="how long test_kpa_twin.py replays requests; from 300 on with more services",
    )
