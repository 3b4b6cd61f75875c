"""What manifests/kind/simulate-gpus.sh does, on a real node and scheduler."""

import json
import os
import subprocess
from collections.abc import Callable, Iterator

import pytest

from .conftest import REPOSITORY, fresh_namespace, kubectl

NAMESPACE = "keepwarm-e2e-gpus"
SCRIPT = REPOSITORY / "manifests/kind/simulate-gpus.sh"
GPU = "nvidia.com/gpu"
IMAGE = os.environ.get("KEEPWARM_IMAGES", "keepwarm/*:0.1.0").replace("*", "transformer")


def gpus(node: str) -> str:
    status = json.loads(kubectl("get", "node", node, "-o", "json"))["status"]
    return status["allocatable"].get(GPU, "0")


@pytest.fixture
def node(eventually: Callable[..., None]) -> Iterator[str]:
    """A node that says it has one GPU."""
    name = kubectl("get", "nodes", "-o", "jsonpath={.items[0].metadata.name}")
    if gpus(name) != "0":
        pytest.skip(f"{name} has GPUs of its own")
    subprocess.run([SCRIPT, "1", name], check=True)
    try:
        eventually(lambda: gpus(name) == "1", "the node says that it has a GPU", timeout_s=60)
        with fresh_namespace(NAMESPACE):
            yield name
    finally:
        subprocess.run([SCRIPT, "0", name], check=True)


def test_of_two_pods_that_ask_for_the_only_gpu_one_waits(
    node: str, eventually: Callable[..., None]
) -> None:
    for name in ("first", "second"):
        container = {
            "name": "waits",
            "image": IMAGE,
            "command": ["sleep", "600"],
            "resources": {"limits": {GPU: "1"}},
        }
        pod = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name},
            "spec": {
                "containers": [container],
                "terminationGracePeriodSeconds": 1,
            },
        }
        kubectl("-n", NAMESPACE, "apply", "-f", "-", stdin=json.dumps(pod))

    def verdicts() -> list[str]:
        pods = json.loads(kubectl("-n", NAMESPACE, "get", "pods", "-o", "json"))["items"]
        scheduled = (
            condition
            for pod in pods
            for condition in pod["status"].get("conditions", [])
            if condition["type"] == "PodScheduled"
        )
        return sorted(condition.get("message", "scheduled") for condition in scheduled)

    eventually(lambda: len(verdicts()) == 2, "the scheduler has seen both", timeout_s=60)
    waits, runs = verdicts()
    assert f"Insufficient {GPU}" in waits
    assert runs == "scheduled"
