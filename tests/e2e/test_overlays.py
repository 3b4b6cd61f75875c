"""Every overlay renders, is accepted by the admission gates, and becomes what its mode runs.

KServe's webhook answers `apply`. In Knative mode Knative's sees only the Services that KServe's
controller makes: a Revision is the proof that it took the pod. In Standard mode the controller
makes Deployments. What an overlay names besides, a claim with a model or a GPU, need not be in the
cluster: pods that wait for it are fine.
"""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml

from .conftest import OVERLAYS, SERVICE, fresh_namespace, kubectl, rendered

NAMESPACE = "keepwarm-e2e-overlays"
TWO_MODELS = "two-models"
# All that serve a model; what warm-pool does is in test_warmpool.py.
SERVING = sorted(
    folder.name for folder in OVERLAYS.iterdir() if folder.name not in ("warm-pool", TWO_MODELS)
)
NAMES = [*SERVING, "../kind/simulated-gpus"]
COMPONENTS = ("predictor", "transformer")
VISIBILITY = "networking.knative.dev/visibility"
MODE = "serving.kserve.io/deploymentMode"
AUTOSCALER = "serving.kserve.io/autoscalerClass"
NO_KEDA = 'no matches for kind "ScaledObject" in version "keda.sh/v1alpha1"'


def overlays(mode: str) -> pytest.MarkDecorator:
    """Parametrizes a test by the names of the overlays in this mode."""
    standard = [name for name in NAMES if "components/standard" in kustomization(name)]
    chosen = standard if mode == "Standard" else [name for name in NAMES if name not in standard]
    return pytest.mark.parametrize("overlay", chosen)


def kustomization(overlay: str) -> str:
    return (OVERLAYS / overlay / "kustomization.yaml").read_text()


def inference_service(manifest: str) -> dict:
    (service,) = (d for d in yaml.safe_load_all(manifest) if d["kind"] == "InferenceService")
    return service


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


@contextmanager
def applied(manifest: str, eventually: Callable[..., None]) -> Iterator[None]:
    """The manifest in the namespace; at the end it is gone with every Revision."""
    kubectl("-n", NAMESPACE, "apply", "-f", "-", stdin=manifest)
    try:
        yield
    finally:
        kubectl("-n", NAMESPACE, "delete", "-f", "-", "--timeout=60s", stdin=manifest)
        eventually(
            lambda: not in_cluster("revisions.serving.knative.dev"),
            "no Revision is left",
            timeout_s=120,
        )


@overlays("Knative")
def test_every_knative_overlay_renders_is_accepted_and_becomes_two_knative_services(
    overlay: str,
    namespace: str,
    eventually: Callable[..., None],
    measured: Callable[..., None],
) -> None:
    manifest = rendered(overlay)
    service = inference_service(manifest)
    assert service["metadata"]["annotations"][MODE] == "Knative"
    kubectl("-n", namespace, "apply", "--dry-run=server", "-f", "-", stdin=manifest)
    began = time.monotonic()
    with applied(manifest, eventually):
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
            is_as_asked(got, asked)
            has_a_pod(component, eventually)
        assert knative[f"{SERVICE}-predictor"]["metadata"]["labels"][VISIBILITY] == "cluster-local"
        assert VISIBILITY not in knative[f"{SERVICE}-transformer"]["metadata"]["labels"]


def test_two_models_become_one_transformer_with_its_table_and_two_predictors(
    namespace: str, eventually: Callable[..., None]
) -> None:
    manifest = rendered(TWO_MODELS, images=3)
    names = ("chat-predictor", "chat-transformer", "code-predictor")
    with applied(manifest, eventually):
        revisions = {f"{name}-00001" for name in names}
        eventually(
            lambda: set(in_cluster("revisions.serving.knative.dev")) == revisions,
            "all three components have a Revision",
            timeout_s=60,
        )
        taken = in_cluster("revisions.serving.knative.dev")["chat-transformer-00001"]["spec"]
        args = taken["containers"][0]["args"]
        assert "--models_file=/etc/keepwarm/models/models.yaml" in args
        # The host from which the table's `service: code` makes the other predictor's.
        assert args[args.index("--predictor_host") + 1] == f"chat-predictor.{namespace}"
        tables = {
            volume["configMap"]["name"] for volume in taken["volumes"] if "configMap" in volume
        }
        assert tables <= set(in_cluster("configmaps"))
        knative = in_cluster("services.serving.knative.dev")
        assert knative["code-predictor"]["metadata"]["labels"][VISIBILITY] == "cluster-local"
        assert VISIBILITY not in knative["chat-transformer"]["metadata"]["labels"]


def is_as_asked(got: dict, asked: dict) -> None:
    for field in ("image", "resources", "securityContext"):
        assert got[field] == asked.get(field, got[field]), field
    # KServe's controller appends its own.
    assert got["args"][: len(asked["args"])] == asked["args"]


def has_a_pod(component: str, eventually: Callable[..., None]) -> None:
    """Found by the labels that the policies and the disruption budget select."""
    labels = f"component={component},app.kubernetes.io/part-of=keepwarm"
    eventually(
        lambda: kubectl("-n", NAMESPACE, "get", "pods", "-l", labels, "-o", "name"),
        f"the {component} has a pod",
        timeout_s=60,
    )


@overlays("Standard")
def test_every_standard_overlay_renders_is_accepted_and_becomes_deployments(
    overlay: str,
    namespace: str,
    eventually: Callable[..., None],
    measured: Callable[..., None],
) -> None:
    """Without KEDA's resources KServe stops after the predictor's Deployment, and says so."""
    manifest = rendered(overlay)
    service = inference_service(manifest)
    assert service["metadata"]["annotations"][MODE] == "Standard"
    by_keda = service["spec"]["predictor"]["annotations"][AUTOSCALER] == "keda"
    has_keda = "scaledobjects.keda.sh" in kubectl("get", "crd", "-o", "name")
    stops = by_keda and not has_keda
    components = ("predictor",) if stops else COMPONENTS
    deployments = {f"{SERVICE}-{component}" for component in components}
    kubectl("-n", namespace, "apply", "--dry-run=server", "-f", "-", stdin=manifest)
    began = time.monotonic()
    kubectl("-n", namespace, "apply", "-f", "-", stdin=manifest)
    try:
        eventually(
            lambda: (
                deployments <= set(in_cluster("deployments.apps")) and bool(refusals()) == stops
            ),
            f"a Deployment for each of {', '.join(components)}",
            timeout_s=60,
        )
        measured(f"{overlay}: apply to its Deployments", time.monotonic() - began)
        assert all(NO_KEDA in refusal for refusal in refusals())
        made = in_cluster("deployments.apps")
        for component in components:
            pod = made[f"{SERVICE}-{component}"]["spec"]["template"]["spec"]
            asked = service["spec"][component]
            is_as_asked(pod["containers"][0], asked["containers"][0])
            # What Knative would have dropped.
            assert pod["containers"][0]["lifecycle"] == asked["containers"][0]["lifecycle"]
            grace = "terminationGracePeriodSeconds"
            assert pod[grace] == asked[grace]
            has_a_pod(component, eventually)
        autoscalers = in_cluster("horizontalpodautoscalers.autoscaling")
        for document in yaml.safe_load_all(manifest):
            if document["kind"] == "HorizontalPodAutoscaler":
                kept = autoscalers[document["metadata"]["name"]]["spec"]
                assert kept["metrics"] == document["spec"]["metrics"]
                assert kept["scaleTargetRef"]["name"] in made
        if not stops:
            assert autoscalers[f"{SERVICE}-transformer"]["spec"]["minReplicas"] == 2
        assert in_cluster("services.serving.knative.dev") == {}
    finally:
        kubectl("-n", namespace, "delete", "-f", "-", "--timeout=60s", stdin=manifest)
        eventually(
            lambda: not in_cluster("deployments.apps"),
            "no Deployment is left",
            timeout_s=120,
        )


@pytest.mark.parametrize("overlay", [*NAMES, TWO_MODELS])
def test_every_overlay_lints_without_a_warning(overlay: str) -> None:
    linted = lint(OVERLAYS / overlay)
    assert linted.returncode == 0, linted.stdout + linted.stderr
    read = "2 InferenceServices read" if overlay == TWO_MODELS else "1 InferenceService read"
    assert read in linted.stdout


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
