"""Keys and limits with components/redis-cluster behind them, all as real pods.

The Redis Cluster forms itself and outlives the loss of a master, and callers notice nothing.
KEEPWARM_REDIS_IMAGE names an image where the component's own cannot be pulled.
"""

import dataclasses
import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from . import fixed_engine
from .conftest import SERVICE, Chat, fresh_namespace, is_ready, kubectl, ready
from .streams import Streams

NAMESPACE = "keepwarm-e2e-redis"
PASSWORD = "0123456789abcdef"
PODS = [f"redis-{number}" for number in range(6)]
TOKENS = 10


def manifest() -> str:
    text = fixed_engine.manifest(
        "redis-cluster", "api-keys", slots=8, token_ms=100, target=8, most=1, window="60s"
    )
    documents = list(yaml.safe_load_all(text))
    (redis,) = (each for each in documents if each["kind"] == "StatefulSet")
    for container in redis["spec"]["template"]["spec"]["containers"]:
        container["image"] = os.environ.get("KEEPWARM_REDIS_IMAGE", container["image"])
    return yaml.safe_dump_all(documents)


def key_in_a_secret(folder: Path) -> str:
    """A key for the tenant `acme`; what recognises it is put into the cluster."""
    made = subprocess.run(
        [
            *(sys.executable, "-m", "keepwarm.cli", "keys", "create"),
            *(f"--file={folder / 'keys.yaml'}", "--secret=keepwarm-keys", "--tenant=acme"),
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    kubectl("-n", NAMESPACE, "apply", "-f", str(folder / "keys.yaml"))
    return next(word for word in made.stdout.split() if word.startswith("kw_"))


@pytest.fixture(scope="module")
def chat(
    tmp_path_factory: pytest.TempPathFactory,
    eventually: Callable[..., None],
    measured: Callable[..., None],
) -> Iterator[Chat]:
    with fresh_namespace(NAMESPACE):
        secret = ("create", "secret", "generic", "redis", f"--from-literal=password={PASSWORD}")
        kubectl("-n", NAMESPACE, *secret)
        key = key_in_a_secret(tmp_path_factory.mktemp("keys"))
        began = time.monotonic()
        chat = ready(manifest(), NAMESPACE)
        eventually(whole, "three masters, each with a replica", timeout_s=180, every_s=2)
        measured("redis-cluster: apply to three masters and replicas", time.monotonic() - began)
        yield dataclasses.replace(chat, key=key)


def cli(*words: str, pod: str = "redis-0", check: bool = True) -> str:
    asked = ("-n", NAMESPACE, "exec", pod, "-c", "redis", "--", "redis-cli", "-c", *words)
    return kubectl(*asked, check=check).strip()


def replicas() -> list[int]:
    """How many replicas each master with slots has, as one node sees it; failed nodes left out."""
    lines = (line.split() for line in cli("cluster", "nodes", check=False).splitlines())
    nodes = [node for node in lines if "fail" not in node[2]]
    followed = Counter(node[3] for node in nodes if "slave" in node[2])
    return [followed[node[0]] for node in nodes if "master" in node[2] and len(node) > 8]


def whole() -> bool:
    label = "app.kubernetes.io/component=keepwarm-limits-and-cache"
    pods = json.loads(kubectl("-n", NAMESPACE, "get", "pods", "-l", label, "-o", "json"))["items"]
    ready_pods = {pod["metadata"]["name"] for pod in pods if is_ready(pod)}
    return ready_pods == set(PODS) and replicas() == [1, 1, 1]


def write(keys: list[str]) -> None:
    """Each key with its own name as its value, held by a replica too.

    Replication is asynchronous: a master that is killed may take its last writes with it.
    """
    script = "".join(f"set {key} {key}\nwait 1 30000\n" for key in keys)
    asked = ("-n", NAMESPACE, "exec", "-i", "redis-0", "-c", "redis", "--", "redis-cli", "-c")
    lines = kubectl(*asked, stdin=script).splitlines()
    answers = [line for line in lines if not line.startswith("-> Redirected")]
    assert answers == ["OK", "1"] * len(keys)


def masters() -> list[str]:
    return [pod for pod in PODS if cli("role", pod=pod).startswith("master")]


def told_by_the_transformer(chat: Chat, metric: str) -> float:
    with chat.client() as client:
        lines = client.get("/metrics").text.splitlines()
    (line,) = (line for line in lines if line.startswith(f"{metric} "))
    return float(line.split()[1])


def test_a_key_is_asked_for_and_its_limits_are_kept_in_redis(chat: Chat) -> None:
    body = {"text_input": "Hello", "parameters": {"max_tokens": 4}}
    path = f"/v2/models/{SERVICE}/generate"
    with dataclasses.replace(chat, key="").client() as client:
        assert client.post(path, json=body).status_code == 401
    with dataclasses.replace(chat, key=chat.key[:-1] + "x").client() as client:
        assert client.post(path, json=body).status_code == 401
    with chat.client() as client:
        answer = client.post(path, json=body)
    assert answer.status_code == 200, answer.text
    assert answer.json()["text_output"] == fixed_engine.answer()("Hello", 4)
    assert '"requests";q=600;w=60' in answer.headers["ratelimit-policy"]
    assert told_by_the_transformer(chat, "keepwarm_redis_up") == 1
    assert told_by_the_transformer(chat, "keepwarm_limit_local") == 0
    assert sum(int(cli("dbsize", pod=pod)) for pod in masters()) > 0


def test_redis_serves_nobody_without_its_password(chat: Chat) -> None:
    assert cli("set", "capital", "Paris") == "OK"
    assert [cli("get", "capital", pod=pod) for pod in PODS] == ["Paris"] * 6
    asked = ("-n", NAMESPACE, "exec", "redis-0", "-c", "redis", "--", "env", "-u", "REDISCLI_AUTH")
    assert "NOAUTH" in kubectl(*asked, "redis-cli", "get", "capital")


@pytest.mark.parametrize("grace_s", [30, 1], ids=["asked to go", "killed"])
def test_a_master_that_goes_is_replaced_and_no_caller_notices(
    grace_s: int, chat: Chat, eventually: Callable[..., None], measured: Callable[..., None]
) -> None:
    keys = [f"key-{number}" for number in range(20)]
    write(keys)
    victim = masters()[0]
    asker = next(pod for pod in PODS if pod != victim)
    with Streams(chat, callers=2, tokens=TOKENS, answer=fixed_engine.answer()) as streams:
        eventually(lambda: len(streams.flowing) == 2, "streams flow", timeout_s=60)
        began = time.monotonic()
        gone = ("delete", "pod", victim, f"--grace-period={grace_s}", "--wait=false")
        kubectl("-n", NAMESPACE, *gone)
        eventually(
            lambda: [cli("get", key, pod=asker, check=False) for key in keys] == keys,
            "every key is served again",
            timeout_s=60,
        )
        named = f"redis-cluster: master deleted with {grace_s} s grace"
        measured(f"{named}, all keys served", time.monotonic() - began)
        eventually(whole, "three masters, each with a replica", timeout_s=120, every_s=2)
        measured(f"{named}, whole again", time.monotonic() - began)
    assert streams.broken == []
    assert [cli("get", key, pod=victim) for key in keys] == keys
    measured(f"{named}, streams meanwhile, all whole", len(streams.told), "streams")
