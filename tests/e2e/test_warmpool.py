"""The warm-pool controller as it is deployed: windows, rollouts, other writers, restarts, many."""

import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

import httpx
import pytest

from .conftest import fresh_namespace, kubectl
from .cut import Way
from .warm_pool import SYSTEM, Controller, Tiny, in_seconds, installed, ready_at, until

NAMESPACE = "keepwarm-e2e-warmpool"
MANAGER = "keepwarm-warmpool"
NAME = "tiny-predictor"
MANY = 200
HAPPENINGS = 12


@pytest.fixture(scope="module")
def controller(eventually: Callable[..., None]) -> Iterator[Controller]:
    with installed(), fresh_namespace(NAMESPACE):
        found = Controller(eventually)
        found.settled()
        yield found
        # While the controller is there: the finalizers want it.
        kubectl("-n", NAMESPACE, "delete", "warmpools", "--all", "--timeout=60s")


@pytest.fixture(scope="module")
def tiny(controller: Controller, eventually: Callable[..., None]) -> Tiny:
    service = Tiny(NAMESPACE, "tiny", eventually)
    service.apply()
    service.wait_ready()
    return service


@pytest.fixture(autouse=True)
def no_pool_is_left(request: pytest.FixtureRequest) -> Iterator[None]:
    yield
    if "tiny" in request.fixturenames:
        kubectl(
            "-n", NAMESPACE, "delete", "warmpool", "tiny", "--ignore-not-found", "--timeout=60s"
        )


def serving(tiny: Tiny) -> str:
    """The Revision that has all traffic."""
    (name,) = (name for name, percent in tiny.traffic().items() if percent)
    return name


def newest(tiny: Tiny) -> str:
    return max(tiny.revisions())


def test_a_schedule_is_followed_and_pods_are_ready_before_each_window_starts(
    tiny: Tiny, eventually: Callable[..., None], measured: Callable[..., None]
) -> None:
    before = tiny.revisions().keys()
    # A measured cold start, so that the lead is a measured one.
    tiny.pool(floor=2)
    tiny.wait_kept(2)
    lead = tiny.status()["leadSeconds"]
    first, second, end = (in_seconds(lead + after) for after in (8, 30, 50))
    tiny.pool(
        floor=1,
        once=[
            {"name": "two", "start": first, "end": end, "replicas": 2},
            {"name": "four", "start": second, "end": end, "replicas": 4},
        ],
    )
    tiny.wait_kept(1)
    eventually(lambda: len(tiny.ready_pods()) == 1, "one pod before", timeout_s=60)
    for start, replicas in ((first, 2), (second, 4)):
        eventually(
            lambda replicas=replicas: len(tiny.ready_pods()) == replicas,
            f"{replicas} pods",
            timeout_s=until(start) + 30,
        )
        latest = max(map(ready_at, tiny.ready_pods()))
        margin = (datetime.fromisoformat(start) - latest).total_seconds()
        measured(f"warm pool: {replicas} pods ready before the window's start", margin)
        assert margin >= 0
    eventually(lambda: len(tiny.ready_pods()) == 1, "one pod after", timeout_s=until(end) + 60)
    assert tiny.revisions().keys() == before
    assert {"Wanted", "Warm"} <= set(tiny.events())


def test_deletion_puts_back_what_was_there(tiny: Tiny) -> None:
    revision = newest(tiny)
    assert tiny.minimum(revision) == "1"
    tiny.pool(floor=2, knobs={"targetBurstCapacity": -1})
    tiny.wait_kept(2)
    assert MANAGER in tiny.owners(revision)
    changed = tiny.revisions()[revision]
    assert changed["autoscaling.knative.dev/target-burst-capacity"] == "-1"
    tiny.kubectl("delete", "warmpool", "tiny", "--timeout=30s")
    restored = tiny.revisions()[revision]
    assert tiny.minimum(revision) == "1"
    assert "autoscaling.knative.dev/target-burst-capacity" not in restored
    assert tiny.owners(revision) == set()


def test_a_rollout_keeps_the_floor(tiny: Tiny, eventually: Callable[..., None]) -> None:
    tiny.pool(floor=2)
    tiny.wait_kept(2)
    old = newest(tiny)
    tiny.apply(version="2")
    seen: dict[str, int] = {}

    def moved() -> bool:
        """Notes the fewest ready pods of what has traffic; looks twice, for it may move between."""
        before, ready, after = serving(tiny), tiny.ready_pods(), serving(tiny)
        if before == after:
            mine = [pod for pod in ready if pod["metadata"]["name"].startswith(f"{NAME}-{after}-")]
            seen[after] = min(seen.get(after, len(mine)), len(mine))
        return after != old and after in seen

    eventually(moved, "traffic moves", timeout_s=90)
    new = newest(tiny)
    assert seen == {old: 2, new: 2}, "every Revision that had traffic had its floor"
    eventually(
        lambda: (tiny.minimum(old), tiny.minimum(new)) == ("1", "2"),
        "the old Revision has lost the floor, the new one has it",
        timeout_s=60,
    )
    assert MANAGER not in tiny.owners(old)
    tiny.wait_kept(2)


def test_a_traffic_split_shares_the_floor(tiny: Tiny, eventually: Callable[..., None]) -> None:
    tiny.pool(floor=3)
    tiny.wait_kept(3)
    old = newest(tiny)
    tiny.apply(version="split", canaryTrafficPercent=10)
    eventually(
        lambda: tiny.traffic() == {old: 90, newest(tiny): 10}, "traffic is split", timeout_s=60
    )
    eventually(
        lambda: (tiny.minimum(old), tiny.minimum(newest(tiny))) == ("3", "1"),
        "nine tenths of three rounded up, and one",
        timeout_s=30,
    )
    tiny.apply(version="split")
    eventually(lambda: tiny.traffic() == {newest(tiny): 100}, "one again", timeout_s=60)
    tiny.wait_kept(3)


def test_somebody_elses_value_is_reported_and_left(
    tiny: Tiny, eventually: Callable[..., None]
) -> None:
    revision = newest(tiny)
    tiny.pool(floor=2)
    tiny.wait_kept(2)
    name = f"revision/tiny-predictor-{revision}"
    minimum = "autoscaling.knative.dev/min-scale"
    tiny.kubectl("annotate", name, f"{minimum}=1", "--overwrite")
    eventually(lambda: tiny.reason() == "Conflict", "the conflict is told", timeout_s=20)
    tiny.pool(floor=2, price={"perReplicaHour": 1})
    eventually(lambda: tiny.status()["observedGeneration"] == 2, "the edit is seen", timeout_s=20)
    assert tiny.minimum(revision) == "1"
    tiny.pool(floor=2, onConflict="Force")
    tiny.wait_kept(2)
    assert {"Conflict", "ConflictOver"} <= set(tiny.events())


def test_the_leaders_pod_goes_in_a_window_and_the_other_goes_on(
    controller: Controller,
    tiny: Tiny,
    eventually: Callable[..., None],
    measured: Callable[..., None],
) -> None:
    leader = controller.settled()
    end = in_seconds(25)
    window = {"name": "now", "start": in_seconds(-60), "end": end, "replicas": 2}
    tiny.pool(once=[window], floor=1)
    tiny.wait_kept(2)
    began = time.monotonic()
    controller.evict(leader)
    eventually(lambda: controller.leader() not in {leader, ""}, "another one leads", timeout_s=60)
    measured("warm pool: leader's pod deleted, until another leads", time.monotonic() - began)
    assert tiny.minimum(newest(tiny)) == "2"
    # The window's end is the new leader's work.
    tiny.wait_kept(1, timeout_s=until(end) + 30)
    assert controller.settled() != leader


def test_an_outage_of_the_api_server_and_a_killed_leader_are_survived(
    controller: Controller,
    tiny: Tiny,
    eventually: Callable[..., None],
    free_ports: Callable[[int], list[int]],
    tmp_path: Path,
) -> None:
    """Replicas outside of the cluster, with the same rights; the way in is cut for a while."""
    ports = free_ports(2)
    with (
        controller.away(),
        way_to_the_api_server(tmp_path) as (way, kubeconfig),
        outside("first", ports[0], kubeconfig) as first,
    ):
        tiny.pool(floor=2)
        tiny.wait_kept(2, timeout_s=90)
        way.cut()
        tiny.pool(floor=1)
        eventually(lambda: not leads(ports[0]), "it knows that it leads no more", timeout_s=60)
        assert httpx.get(f"http://127.0.0.1:{ports[0]}/healthz", trust_env=False).is_success
        assert tiny.minimum(newest(tiny)) == "2"
        way.mend()
        tiny.wait_kept(1, timeout_s=90)
        with outside("second", ports[1], kubeconfig) as second:
            first.kill()
            tiny.pool(floor=2)
            tiny.wait_kept(2, timeout_s=90)
            assert controller.leader() == "second"
            second.terminate()
            assert second.wait(20) == 0
            assert controller.leader() == "", "a lead is given up at an orderly end"
    controller.settled()


@contextmanager
def outside(name: str, port: int, kubeconfig: Path) -> Iterator[subprocess.Popen]:
    """A controller as a process here, with a short Lease."""
    command = [sys.executable, "-m", "keepwarm.warmpool", "--namespace", SYSTEM, "--lease-s", "6"]
    command += ["--identity", name, "--host", "127.0.0.1", "--port", str(port)]
    process = subprocess.Popen(command, env={**os.environ, "KUBECONFIG": str(kubeconfig)})
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def leads(port: int) -> bool:
    metrics = httpx.get(f"http://127.0.0.1:{port}/metrics", trust_env=False).text
    return "keepwarm_warmpool_leader 1.0" in metrics


@contextmanager
def way_to_the_api_server(folder: Path) -> Iterator[tuple[Way, Path]]:
    """A kubeconfig of the controller's account, by a way that can be cut."""
    config = json.loads(kubectl("config", "view", "--raw", "--minify", "--flatten", "-o", "json"))
    server = httpx.URL(config["clusters"][0]["cluster"]["server"])
    token = kubectl("-n", SYSTEM, "create", "token", "keepwarm-warm-pool", "--duration=30m").strip()
    with Way(server.host, server.port or 443).running() as way:
        config["clusters"][0]["cluster"]["server"] = f"https://127.0.0.1:{way.port}"
        config["users"][0]["user"] = {"token": token}
        file = folder / "kubeconfig"
        file.touch(mode=0o600)
        file.write_text(json.dumps(config))
        yield way, file


def test_a_wake_over_http_needs_a_token_that_may(
    controller: Controller, tiny: Tiny, eventually: Callable[..., None]
) -> None:
    tiny.pool(floor=1)
    tiny.wait_kept(1)
    tiny.kubectl("create", "serviceaccount", "ci")
    audience = ("--audience=keepwarm-warmpool", "--duration=10m")
    token = tiny.kubectl("create", "token", "ci", *audience).strip()
    path = f"/v1alpha1/namespaces/{NAMESPACE}/warmpools/tiny/wake"
    assert "may not create warmpools/wake" in asked(path, token)
    tiny.kubectl(
        *("create", "rolebinding", "ci", "--clusterrole=keepwarm-warm-pool-wake"),
        f"--serviceaccount={NAMESPACE}:ci",
    )
    wrong = tiny.kubectl("create", "token", "ci", "--duration=10m").strip()
    assert "may not create warmpools/wake" in asked(path, wrong), "made for the API server"
    assert json.loads(asked(path, token)) == {"wake": "2/12s"}
    eventually(lambda: tiny.status().get("activeWindow") == "wake", "it wakes", timeout_s=10)
    assert tiny.status()["want"] == 2
    tiny.wait_kept(1)


def asked(path: str, token: str) -> str:
    """What the controller answers to a wake, asked from inside of its own pod."""
    code = (
        "import sys, urllib.request as r, urllib.error as e\n"
        f"q = r.Request('http://127.0.0.1:8080{path}', method='POST',"
        ' data=b\'{"replicas": 2, "for": "12s"}\','
        " headers={'authorization': 'Bearer ' + sys.stdin.readline().strip()})\n"
        "try: print(r.urlopen(q).read().decode())\n"
        "except e.HTTPError as error: print(error.read().decode())\n"
    )
    pod = ("-n", SYSTEM, "exec", "-i", "deploy/keepwarm-warm-pool", "--")
    return kubectl(*pod, "/opt/keepwarm/bin/python", "-c", code, stdin=token + "\n").strip()


def test_a_tuners_forecast_is_applied_beside_the_rest_and_planned(
    tiny: Tiny, tmp_path: Path
) -> None:
    tiny.pool(floor=1, price={"perReplicaHour": 2})
    tiny.wait_kept(1)
    now = {"start": in_seconds(-60), "end": in_seconds(600), "replicas": 2}
    spec = {"target": {"inferenceService": "tiny"}, "prewarm": {"forecast": [now]}}
    head = {"apiVersion": "autoscaling.keepwarm.dev/v1alpha1", "kind": "WarmPool"}
    file = tmp_path / "warmpool.yaml"
    file.write_text(json.dumps({**head, "metadata": {"name": "tiny"}, "spec": spec}))
    assert "tiny patched" in keepwarm("apply", str(file), "-n", NAMESPACE)
    tiny.wait_kept(2)
    assert tiny.status()["activeWindow"] == "forecast"
    planned = json.loads(keepwarm("plan", "tiny", "-n", NAMESPACE, "--days", "1", "--json"))[0]
    assert planned["cost"] == pytest.approx(2 * planned["replicaHours"])
    assert tiny.kubectl("get", "warmpool/tiny", "-o", "jsonpath={.spec.floor}") == "1"
    tiny.kubectl("delete", "warmpool", "tiny", "--timeout=30s")
    assert "tiny created" in keepwarm("apply", str(file), "-n", NAMESPACE)
    assert "forecast" in [source for each in planned["changes"] for source in each["sources"]]


def keepwarm(*args: str) -> str:
    """What `keepwarm warmpool` prints."""
    command = [Path(sys.executable).with_name("keepwarm"), "warmpool", *args]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_standard_mode_edits_min_replicas_where_that_is_allowed(
    controller: Controller, eventually: Callable[..., None]
) -> None:
    service = Tiny(NAMESPACE, "plain", eventually)
    service.kubectl("apply", "-f", "-", stdin=standard("plain", 1, stopped=False))
    service.pool(floor=2)
    eventually(lambda: service.reason() == "NotLive", "it says so", timeout_s=30)
    service.pool(floor=2, whenNotLive="MinReplicas")
    minimum = ("get", "isvc/plain", "-o", "jsonpath={.spec.predictor.minReplicas}")
    eventually(lambda: service.kubectl(*minimum) == "2", "minReplicas is edited", timeout_s=30)
    service.kubectl("delete", "warmpool", "plain", "--timeout=30s")
    assert service.kubectl(*minimum) == "1"
    service.kubectl("delete", "isvc", "plain", "--wait=false")


def standard(name: str, least: int, *, stopped: bool) -> str:
    annotations = {
        "serving.kserve.io/deploymentMode": "Standard",
        "serving.kserve.io/autoscalerClass": "none",
    }
    if stopped:
        annotations["serving.kserve.io/stop"] = "true"
    container = {"name": "kserve-container", "image": "example.invalid/none:0"}
    return json.dumps(
        {
            "apiVersion": "serving.kserve.io/v1beta1",
            "kind": "InferenceService",
            "metadata": {"name": name, "annotations": annotations},
            "spec": {
                "predictor": {"minReplicas": least, "maxReplicas": 5, "containers": [container]}
            },
        }
    )


def test_whatever_happens_it_ends_in_the_declared_state(
    controller: Controller,
    tiny: Tiny,
    eventually: Callable[..., None],
    measured: Callable[..., None],
) -> None:
    dice = random.Random(9)
    tiny.pool(floor=1, onConflict="Force")

    def evict() -> None:
        if pods := controller.pods():
            controller.evict(dice.choice(pods))

    def evict_the_leader() -> None:
        if controller.leader() in controller.pods():
            controller.evict(controller.leader())

    def annotate() -> None:
        minimum = f"autoscaling.knative.dev/min-scale={dice.randint(1, 2)}"
        name = f"revision/tiny-predictor-{newest(tiny)}"
        tiny.kubectl("annotate", name, minimum, "--overwrite")

    happenings: list[Callable[[], object]] = [
        evict,
        evict_the_leader,
        annotate,
        lambda: tiny.apply(version=str(dice.random())),
        lambda: tiny.pool(floor=dice.randint(1, 2), onConflict="Force"),
        lambda: tiny.pool(floor=1, suspend=True),
        lambda: tiny.kubectl(
            *("annotate", "warmpool/tiny", "--overwrite"), "autoscaling.keepwarm.dev/wake=2/5s"
        ),
    ]
    for turn in range(2):
        for _ in range(HAPPENINGS):
            dice.choice(happenings)()
            time.sleep(dice.random())
        declared = 2 - turn % 2
        began = time.monotonic()
        tiny.pool(floor=declared, onConflict="Force", suspend=False)
        tiny.apply(version=f"final-{turn}")
        eventually(
            lambda declared=declared: (
                tiny.is_kept(declared)
                and tiny.traffic() == {newest(tiny): 100}
                and tiny.minimum(newest(tiny)) == str(declared)
                and all(
                    MANAGER not in tiny.owners(name)
                    for name in tiny.revisions()
                    if name != newest(tiny)
                )
            ),
            f"{declared} kept after {HAPPENINGS} happenings",
            timeout_s=120,
        )
        measured(
            f"warm pool: declared state after {HAPPENINGS} happenings", time.monotonic() - began
        )


def test_two_hundred_open_at_once_in_little_memory_on_one_watch_a_kind(
    controller: Controller, eventually: Callable[..., None], measured: Callable[..., None]
) -> None:
    """Stopped services in Standard mode: all of the controller's work, and no pods."""
    leader = controller.settled()
    create([standard(f"many-{n}", 1, stopped=True) for n in range(MANY)])
    start, end = in_seconds(60), in_seconds(3600)
    spec = {
        "floor": 2,
        "once": [{"name": "all", "start": start, "end": end, "replicas": 4}],
        "lead": {"fixed": "15s"},
        "whenNotLive": "MinReplicas",
    }
    create(
        [
            json.dumps(
                {
                    "apiVersion": "autoscaling.keepwarm.dev/v1alpha1",
                    "kind": "WarmPool",
                    "metadata": {"name": f"many-{n}", "labels": {"many": "yes"}},
                    "spec": {"target": {"inferenceService": f"many-{n}"}, **spec},
                }
            )
            for n in range(MANY)
        ]
    )

    def minima() -> list[int]:
        listed = json.loads(kubectl("-n", NAMESPACE, "get", "isvc", "-o", "json"))["items"]
        many = [item for item in listed if item["metadata"]["name"].startswith("many-")]
        return [item["spec"]["predictor"]["minReplicas"] for item in many]

    try:
        eventually(lambda: min(minima()) >= 2, "all floors are set", timeout_s=120)
        eventually(lambda: minima() == [4] * MANY, "all windows are open", timeout_s=120)
        measured(f"warm pool: {MANY} windows at once, all open before their start", until(start))
        metrics = controller.metrics(leader)
        memory = metrics["process_resident_memory_bytes"] / 2**20
        measured(f"warm pool: memory of the leader with {MANY} WarmPools", memory, "MiB")
        assert memory < 100
        for kind in ("WarmPool", "InferenceService", "Service", "Revision", "PodAutoscaler"):
            for verb in ("list", "watch"):
                sample = f'keepwarm_warmpool_api_requests_total{{kind="{kind}",verb="{verb}"}}'
                # More only where a watch was quiet for minutes and was begun anew.
                assert metrics[sample] == metrics[sample.replace("watch", "list")] <= 4, sample
        eventually(
            lambda: writes(controller.metrics(leader)) == writes(controller.metrics(leader)),
            "at rest nothing is written",
            timeout_s=60,
        )
    finally:
        kubectl("-n", NAMESPACE, "delete", "warmpools", "-l", "many=yes", "--wait=false")
    eventually(lambda: minima() == [1] * MANY, "all is put back", timeout_s=120)


def create(manifests: list[str]) -> None:
    """Creates many objects, a few at a time."""

    def some(part: list[str]) -> None:
        kubectl("-n", NAMESPACE, "create", "-f", "-", stdin="\n---\n".join(part))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(some, (manifests[n::8] for n in range(8))))


def writes(metrics: dict[str, float]) -> float:
    return sum(
        value
        for name, value in metrics.items()
        if name.startswith("keepwarm_warmpool_api_requests_total") and "list" not in name
    )
