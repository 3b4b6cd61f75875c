"""Every overlay renders, is accepted by both admission gates, and becomes two Knative Services.

KServe's webhook answers `apply`. Knative's sees only the Services that KServe's controller makes: a
Revision is the proof that it took the pod. What an overlay names besides, a claim with a model or a
GPU, is not in the cluster: pods that wait for it are fine.
"""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from .conftest import OVERLAYS, SERVICE, fresh_namespace, kubectl, rendered

NAMESPACE = "keepwarm-e2e-overlays"
COMPONENTS = ("predictor", "transformer")
VISIBILITY = "networking.knative.dev/visibility"


@pytest.fixture(scope="module")
def namespace() -> Iterator[str]:
    with fresh_namespace(NAMESPACE):
        yield NAMESPACE


def in_cluster(resource: str) -> dict[str, dict]:
    items = json.loads(kubectl("-n", NAMESPACE, "get", resource, "-o", "json"))["items"]
    return {item["metadata"]["name"]: item for item in items}


def refusals() -> list[str]:
    """What KServe's controller was told when it made the Knative Services."""
    status = in_cluster("inferenceservices")[SERVICE].get("status", {})
    return [
        condition["message"]
        for condition in status.get("conditions", [])
        if condition.get("reason") == "ReconcileFailed"
    ]


@pytest.mark.parametrize("overlay", sorted(folder.name for folder in OVERLAYS.iterdir()))
def test_every_overlay_renders_is_accepted_and_becomes_two_knative_services(
    overlay: str,
    namespace: str,
    eventually: Callable[..., None],
    measured: Callable[[str, float], None],
) -> None:
    manifest = rendered(overlay)
    (service,) = (d for d in yaml.safe_load_all(manifest) if d["kind"] == "InferenceService")
    kubectl("-n", namespace, "apply", "--dry-run=server", "-f", "-", stdin=manifest)
    began = time.monotonic()
    kubectl("-n", namespace, "apply", "-f", "-", stdin=manifest)
    try:
        revisions = {f"{SERVICE}-{component}-00001" for component in COMPONENTS}
        eventually(
            lambda: refusals() or set(in_cluster("revisions.serving.knative.dev")) == revisions,
            "both components have a Revision",
            timeout_s=60,
        )
        measured(f"{overlay}: apply to both Revisions", time.monotonic() - began)
        assert refusals() == []
        taken = in_cluster("revisions.serving.knative.dev")
        knative = in_cluster("services.serving.knative.dev")
        for component in COMPONENTS:
            asked = service["spec"][component]["containers"][0]
            got = taken[f"{SERVICE}-{component}-00001"]["spec"]["containers"][0]
            for field in ("image", "resources", "securityContext"):
                assert got[field] == asked.get(field, got[field]), (component, field)
            # KServe's controller appends its own.
            assert got["args"][: len(asked["args"])] == asked["args"]
            # The policies and the disruption budget select pods by these labels.
            labels = f"component={component},app.kubernetes.io/part-of=keepwarm"
            eventually(
                lambda labels=labels: kubectl("-n", namespace, "get", "pods", "-l", labels),
                f"the {component} has a pod",
                timeout_s=60,
            )
        assert knative[f"{SERVICE}-predictor"]["metadata"]["labels"][VISIBILITY] == "cluster-local"
        assert VISIBILITY not in knative[f"{SERVICE}-transformer"]["metadata"]["labels"]
    finally:
        kubectl("-n", namespace, "delete", "-f", "-", "--timeout=60s", stdin=manifest)
        eventually(
            lambda: not in_cluster("revisions.serving.knative.dev"),
            "no Revision is left",
            timeout_s=120,
        )


@pytest.mark.parametrize("overlay", sorted(folder.name for folder in OVERLAYS.iterdir()))
def test_every_overlay_lints_without_a_warning(overlay: str) -> None:
    linted = lint(OVERLAYS / overlay)
    assert linted.returncode == 0, linted.stdout + linted.stderr
    assert "1 InferenceService read" in linted.stdout


def test_a_kustomization_that_does_not_render_is_an_input_error(tmp_path: Path) -> None:
    (tmp_path / "kustomization.yaml").write_text("resources: [missing.yaml]")
    linted = lint(tmp_path)
    assert linted.returncode == 2
    assert "kubectl cannot render" in linted.stderr


def lint(folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "keepwarm.cli", "lint", str(folder)],
        capture_output=True,
        text=True,
        check=False,
    )
