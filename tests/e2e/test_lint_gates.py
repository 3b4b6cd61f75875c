"""The linter's words against the real webhooks: each rule's examples, sent to KServe and Knative.

Examples are fragments; what only makes them whole (a predictor with a container, an image that
this cluster resolves) is added here.
"""

import copy
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from manifest_lint import Document, read_cluster
from manifest_lint.examples import document
from manifest_lint.linter import lint
from manifest_lint.rule import Gate, Rule
from manifest_lint.rules import RULES

from .conftest import fresh_namespace, kubectl

NAMESPACE = "keepwarm-e2e-gates"
# Any image that pods of this cluster can have; nothing here waits for a pod.
IMAGE = os.environ.get("KEEPWARM_IMAGES", "keepwarm/*:0.1.0").replace(
    "keepwarm-*", "keepwarm-transformer"
)
CONTAINER = {"name": "kserve-container", "image": IMAGE}
# Those of a stock cluster: the others need a ConfigMap that this one has not.
GATED = [rule for rule in RULES if rule.gate and not rule.config]
RULE = pytest.mark.parametrize("rule", GATED, ids=lambda rule: rule.id)


@pytest.fixture(scope="module", autouse=True)
def namespace() -> Iterator[None]:
    with fresh_namespace(NAMESPACE):
        yield


class Gates:
    """Sends InferenceServices through the webhooks, each under a name of its own.

    An example whose name is what it is about keeps it.
    """

    def __init__(self, eventually: Callable[..., None]) -> None:
        self._eventually = eventually
        self._count = 0
        self.name = ""
        self.revisions: dict[str, dict[str, Any]] = {}

    def take(self, service: dict[str, Any]) -> str:
        """Applies it; gives what refused it, or "" when it was taken."""
        self._count += 1
        if service["metadata"]["name"] == "chat":
            service["metadata"]["name"] = f"gate-{self._count}"
        self.name = service["metadata"]["name"]
        done = subprocess.run(
            ["kubectl", "-n", NAMESPACE, "apply", "-f", "-"],
            input=json.dumps(service),
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            return done.stderr
        try:
            return self._reconciled(service)
        finally:
            # Its pods and Services end while the next one is tried.
            gone = ("delete", "inferenceservice", self.name, "--wait=false")
            kubectl("-n", NAMESPACE, *gone)

    def _reconciled(self, service: dict[str, Any]) -> str:
        mode = service["metadata"].get("annotations", {}).get("serving.kserve.io/deploymentMode")
        if mode == "Standard":
            kind, suffix = "deployments.apps", ""
        else:
            kind, suffix = "revisions.serving.knative.dev", "-00001"
        wanted = {f"{self.name}-{part}{suffix}" for part in service["spec"]}
        self._eventually(
            lambda: refusals(self.name) or wanted <= set(names(kind)),
            "every component is refused or has what its mode makes of it",
            timeout_s=60,
        )
        self.revisions = {} if refusals(self.name) or suffix == "" else self._revisions()
        return "\n".join(refusals(self.name))

    def _revisions(self) -> dict[str, dict[str, Any]]:
        found = kubectl("-n", NAMESPACE, "get", "revisions.serving.knative.dev", "-o", "json")
        prefix = f"{self.name}-"
        return {
            item["metadata"]["name"].removeprefix(prefix).removesuffix("-00001"): item
            for item in json.loads(found)["items"]
            if item["metadata"]["name"].startswith(prefix)
        }


@pytest.fixture(scope="module")
def gates(namespace: None, eventually: Callable[..., None]) -> Gates:
    return Gates(eventually)


def names(resource: str) -> list[str]:
    return kubectl("-n", NAMESPACE, "get", resource, "-o", "name").replace("/", " ").split()[1::2]


def refusals(name: str) -> list[str]:
    service = json.loads(kubectl("-n", NAMESPACE, "get", "inferenceservice", name, "-o", "json"))
    return [
        condition["message"]
        for condition in service.get("status", {}).get("conditions", [])
        if condition.get("reason") == "ReconcileFailed"
    ]


def whole(example: str) -> dict[str, Any]:
    """The example with all that a webhook asks for besides."""
    value = copy.deepcopy(dict(document(example).value))
    for component in value["spec"].values():
        for container in component.setdefault("containers", [CONTAINER]):
            container["image"] = IMAGE
    value["spec"].setdefault("predictor", {"containers": [CONTAINER]})
    return value


@RULE
def test_what_a_rule_finds_is_refused_in_the_words_that_it_predicts(
    rule: Rule, gates: Gates
) -> None:
    service = whole(rule.failing)
    found = lint([Document("e2e", service)], rules=[rule]).findings
    answer = gates.take(service)
    assert found
    for finding in found:
        assert finding.refusal is not None
        assert finding.refusal in answer, answer
    webhook = "kserve-webhook-server" if rule.gate is Gate.KSERVE else "serving.knative.dev"
    assert webhook in answer


@RULE
def test_what_a_rule_passes_is_taken(rule: Rule, gates: Gates) -> None:
    service = whole(rule.passing)
    assert lint([Document("e2e", service)], rules=[rule]).findings == []
    assert gates.take(service) == ""


def example(rule_id: str, side: str = "failing") -> dict[str, Any]:
    (rule,) = (rule for rule in RULES if rule.id == rule_id)
    return whole(getattr(rule, side))


def test_kw001_what_knative_drops_is_gone_without_a_word(gates: Gates) -> None:
    assert gates.take(example("KW001")) == ""
    spec = gates.revisions["predictor"]["spec"]
    assert "terminationGracePeriodSeconds" not in spec
    assert "lifecycle" not in spec["containers"][0]


def test_kw018_concurrency_becomes_workers_unless_the_manifest_says_one(
    gates: Gates,
) -> None:
    assert gates.take(example("KW018")) == ""
    args = gates.revisions["transformer"]["spec"]["containers"][0]["args"]
    assert args[args.index("--workers") + 1] == "8"


def test_kw020_a_min_scale_annotation_does_not_arrive(gates: Gates) -> None:
    assert gates.take(example("KW020")) == ""
    assert (
        gates.revisions["predictor"]["metadata"]["annotations"]["autoscaling.knative.dev/min-scale"]
        == "1"
    )


def test_kw021_the_field_wins_over_the_annotation(gates: Gates) -> None:
    assert gates.take(example("KW021")) == ""
    assert (
        gates.revisions["predictor"]["metadata"]["annotations"]["autoscaling.knative.dev/target"]
        == "16"
    )


def test_the_linter_reads_this_clusters_config_maps(tmp_path: Path) -> None:
    held = json.loads(
        kubectl("-n", "kserve", "get", "configmap", "inferenceservice-config", "-o", "json")
    )["data"]
    cluster = read_cluster(context=kubectl("config", "current-context").strip())
    said = json.loads(held.get("inferenceService", "{}")).get("resource", {})
    assert {key: cluster.resources[key] for key in said} == said
    assert cluster.deployment_mode == json.loads(held["deploy"])["defaultDeploymentMode"]
    manifest = tmp_path / "chat.yaml"
    service = example("KW040")
    del service["spec"]["predictor"]["containers"][0]["image"]
    manifest.write_text(yaml.safe_dump(service))
    linted = subprocess.run(
        [sys.executable, "-m", "keepwarm.cli", "lint", str(manifest), "--context", cluster.name],
        capture_output=True,
        text=True,
        check=False,
    )
    assert f"KServe will say cpu {cluster.resources['cpuRequest']} to" in linted.stdout


def test_a_cluster_that_cannot_be_read_is_an_input_error(tmp_path: Path) -> None:
    (tmp_path / "chat.yaml").write_text(yaml.safe_dump(example("KW040")))
    linted = subprocess.run(
        [sys.executable, "-m", "keepwarm.cli", "lint", str(tmp_path), "--context", "nowhere"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert linted.returncode == 2
    assert 'context "nowhere" does not exist' in linted.stderr
