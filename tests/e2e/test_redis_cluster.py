"""components/redis-cluster as real pods: it forms itself, and outlives the loss of a master.

KEEPWARM_REDIS_IMAGE names an image where the component's own cannot be pulled.
"""

import json
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from .conftest import REPOSITORY, fresh_namespace, is_ready, kubectl

NAMESPACE = "keepwarm-e2e-redis"
COMPONENT = REPOSITORY / "manifests/components/redis-cluster"
PASSWORD = "only-in-this-test"
PODS = [f"redis-{number}" for number in range(6)]


def manifest(folder: Path) -> str:
    component = os.path.relpath(COMPONENT, folder)
    (folder / "kustomization.yaml").write_text(yaml.safe_dump({"components": [component]}))
    documents = list(yaml.safe_load_all(kubectl("kustomize", str(folder))))
    (redis,) = (each for each in documents if each["kind"] == "StatefulSet")
    for container in redis["spec"]["template"]["spec"]["containers"]:
        container["image"] = os.environ.get("KEEPWARM_REDIS_IMAGE", container["image"])
    return yaml.safe_dump_all(documents)


def cli(*words: str, pod: str = "redis-0", check: bool = True) -> str:
    asked = ("-n", NAMESPACE, "exec", pod, "-c", "redis", "--", "redis-cli", "-c", *words)
    return kubectl(*asked, check=check).strip()


def roles() -> Counter[str]:
    """How many nodes a node sees as master or slave, those that failed left out."""
    nodes = [line.split() for line in cli("cluster", "nodes", check=False).splitlines()]
    return Counter(
        "master" if "master" in node[2] else "slave" for node in nodes if "fail" not in node[2]
    )


def ready() -> set[str]:
    pods = json.loads(kubectl("-n", NAMESPACE, "get", "pods", "-o", "json"))["items"]
    return {pod["metadata"]["name"] for pod in pods if is_ready(pod)}


def whole() -> bool:
    return ready() == set(PODS) and roles() == {"master": 3, "slave": 3}


@pytest.fixture(scope="module", autouse=True)
def redis(
    tmp_path_factory: pytest.TempPathFactory,
    eventually: Callable[..., None],
    measured: Callable[..., None],
) -> Iterator[None]:
    with fresh_namespace(NAMESPACE):
        secret = ("create", "secret", "generic", "redis", f"--from-literal=password={PASSWORD}")
        kubectl("-n", NAMESPACE, *secret)
        began = time.monotonic()
        text = manifest(tmp_path_factory.mktemp("redis"))
        kubectl("-n", NAMESPACE, "apply", "-f", "-", stdin=text)
        eventually(whole, "three masters, each with a replica", timeout_s=180, every_s=2)
        measured(
            "redis-cluster: apply to three masters and three replicas", time.monotonic() - began
        )
        yield


def masters() -> list[str]:
    return [pod for pod in PODS if cli("role", pod=pod).startswith("master")]


def other_than(pod: str) -> str:
    return next(name for name in PODS if name != pod)


def test_a_key_is_found_from_every_node() -> None:
    assert cli("set", "capital", "Paris") == "OK"
    assert [cli("get", "capital", pod=pod) for pod in PODS] == ["Paris"] * 6


def test_without_the_password_nobody_is_served() -> None:
    asked = ("-n", NAMESPACE, "exec", "redis-0", "-c", "redis", "--", "env", "-u", "REDISCLI_AUTH")
    assert "NOAUTH" in kubectl(*asked, "redis-cli", "get", "capital")


@pytest.mark.parametrize("grace_s", [30, 1], ids=["asked to go", "killed"])
def test_a_master_that_goes_is_replaced_and_nothing_is_lost(
    grace_s: int, eventually: Callable[..., None], measured: Callable[..., None]
) -> None:
    keys = [f"key-{number}" for number in range(20)]
    for key in keys:
        assert cli("set", key, key) == "OK"
    # Asynchronous replication: a master that is killed may take its last writes with it.
    eventually(
        lambda: all(cli("wait", "1", "1000", pod=pod) == "1" for pod in masters()), "written"
    )
    victim = masters()[0]
    asker = other_than(victim)
    began = time.monotonic()
    kubectl("-n", NAMESPACE, "delete", "pod", victim, f"--grace-period={grace_s}", "--wait=false")
    eventually(
        lambda: [cli("get", key, pod=asker, check=False) for key in keys] == keys,
        "every key is served again",
        timeout_s=60,
    )
    measured(
        f"redis-cluster: master deleted (grace {grace_s} s), all keys", time.monotonic() - began
    )
    eventually(whole, "three masters, each with a replica", timeout_s=120, every_s=2)
    measured(f"redis-cluster: master deleted (grace {grace_s} s), whole", time.monotonic() - began)
    assert [cli("get", key, pod=victim) for key in keys] == keys
