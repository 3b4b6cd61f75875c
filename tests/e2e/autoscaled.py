"""Knative Services under a request log: the load, and what the cluster does meanwhile.

Times are Unix times; `Seen.zero` is the even second in which a service's decider was made, from
which the twin counts.
"""

import asyncio
import os
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import lightkube
import numpy as np
import yaml
from lightkube.generic_resource import create_namespaced_resource
from lightkube.resources.apps_v1 import Deployment
from lightkube.resources.core_v1 import Pod
from lightkube.types import on_error_retry

from tests.living_twin import TIMEOUT_S, Steps

SERVER = Path(__file__).with_name("fixed_service.py")
IMAGE = os.environ.get("KEEPWARM_IMAGES", "keepwarm/*:0.1.0").replace("*", "transformer")
LABEL = "serving.knative.dev/service"
SERVICE_S = 2.0
# Made in the moment in which the decider begins (kpa.go: reconcileDecider, ReconcileMetric).
Metric = create_namespaced_resource(
    "autoscaling.internal.knative.dev", "v1alpha1", "Metric", "metrics"
)


def manifest(name: str, concurrency: int, annotations: dict[str, str]) -> str:
    """A Knative Service of the fixed service under these autoscaling annotations."""
    container = {
        "image": IMAGE,
        "command": ["python3", "-c", SERVER.read_text()],
        "env": [{"name": "SERVICE_S", "value": str(SERVICE_S)}],
        "resources": {"requests": {"cpu": "10m", "memory": "32Mi"}},
    }
    template = {
        "metadata": {
            "annotations": {f"autoscaling.knative.dev/{k}": v for k, v in annotations.items()}
        },
        "spec": {
            "containerConcurrency": concurrency,
            "timeoutSeconds": TIMEOUT_S,
            "containers": [container],
        },
    }
    return yaml.safe_dump(
        {
            "apiVersion": "serving.knative.dev/v1",
            "kind": "Service",
            "metadata": {"name": name},
            "spec": {"template": template},
        }
    )


@dataclass
class Seen:
    """One service, as the API server showed it, and the requests that it was sent."""

    decided_from: float = 0.0  # its decider's creation
    replicas: Steps = field(default_factory=Steps)
    ready: Steps = field(default_factory=Steps)
    appeared: dict[str, float] = field(default_factory=dict)  # by pod
    became_ready: dict[str, float] = field(default_factory=dict)
    ready_pods: set[str] = field(default_factory=set)
    # When it was sent, seconds from the container's door to the end, status (0: no answer).
    requests: list[tuple[float, float, int]] = field(default_factory=list)

    @property
    def zero(self) -> float:
        """Where the twin's time begins."""
        return self.decided_from // 2 * 2

    @property
    def starts_s(self) -> tuple[float, ...]:
        """How long each pod took to be ready, in the order in which they were made."""
        return tuple(
            self.became_ready[pod] - appeared
            for pod, appeared in sorted(self.appeared.items(), key=lambda each: each[1])
            if pod in self.became_ready
        )


class Watcher:
    """Follows a namespace's autoscalers, Deployments and pods in threads."""

    def __init__(self, namespace: str) -> None:
        self.seen: dict[str, Seen] = {}
        self._namespace = namespace
        follows = {Metric: _metric, Deployment: _deployment, Pod: _pod}
        clients = [lightkube.Client() for _ in follows]
        for client, (kind, follow) in zip(clients, follows.items(), strict=True):
            threading.Thread(target=self._watch, args=(client, kind, follow), daemon=True).start()

    def _watch(self, client, kind, follow) -> None:
        # A watch that the API server ends after some minutes begins anew at once.
        for event, item in client.watch(kind, namespace=self._namespace, on_error=on_error_retry):
            if name := (item.metadata.labels or {}).get(LABEL):
                follow(time.time(), event, item, self.seen.setdefault(name, Seen()))


def _metric(now: float, _event, _item, seen: Seen) -> None:
    seen.decided_from = seen.decided_from or now


def _deployment(now: float, event, item, seen: Seen) -> None:
    seen.replicas.add(now, 0 if event == "DELETED" else item.spec.replicas)


def _pod(now: float, event, item, seen: Seen) -> None:
    name = item.metadata.name
    seen.appeared.setdefault(name, now)
    is_ready = any(
        condition.type == "Ready" and condition.status == "True"
        for condition in item.status.conditions or []
    )
    if is_ready:
        seen.became_ready.setdefault(name, now)
    if is_ready and event != "DELETED" and item.metadata.deletionTimestamp is None:
        seen.ready_pods.add(name)
    else:
        seen.ready_pods.discard(name)
    seen.ready.add(now, len(seen.ready_pods))


def bursts(seed: int, until_s: float, rates: tuple[float, ...], empties_s: float) -> list[float]:
    """Arrivals that come and go: some seconds at one rate, silence, another rate.

    Within a burst they are nearly even, so that what the autoscaler asks for does not hang on where
    in the second its loops beat. A silence is either short or, with `empties_s`, long enough for
    the last pod to go.
    """
    rng = np.random.default_rng(seed)
    arrivals: list[float] = []
    begin, short = float(rng.uniform(3, 6)), True
    while begin < until_s:
        length, apart_s = rng.uniform(14, 30), 1 / rng.choice(rates)
        times = begin + np.arange(0, length, apart_s)
        times += rng.uniform(0, 0.2 * apart_s, len(times))
        arrivals += times[times < until_s].tolist()
        begin += length + (rng.uniform(5, 9) if short else empties_s)
        short = not short
    return arrivals


async def load(gateway: str, host: str, at: list[float], seen: Seen) -> None:
    """Sends each request at its time, whatever became of the ones before."""
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
    async with httpx.AsyncClient(
        base_url=gateway, headers={"host": host}, timeout=TIMEOUT_S, limits=limits, trust_env=False
    ) as client:

        async def send(due: float) -> None:
            await asyncio.sleep(max(0.0, due - time.time()))
            sent = time.time()
            try:
                answer = await client.get("/")
            except httpx.TransportError:
                seen.requests.append((sent, 0.0, 0))
                return
            served_s = time.time() - float(answer.text) if answer.is_success else 0.0
            seen.requests.append((sent, served_s, answer.status_code))

        await asyncio.gather(*(send(due) for due in at))
