"""The controller's HTTP side: health, metrics, and who may ask for a wake, and how."""

import httpx2
import pytest
from lightkube.core.exceptions import ApiError
from prometheus_client.parser import text_string_to_metric_families
from starlette.testclient import TestClient

from keepwarm.warmpool import metrics
from keepwarm.warmpool.observed import Key, Pool
from keepwarm.warmpool.server import application

PATH = "/v1alpha1/namespaces/llm/warmpools/chat/wake"
GOOD = {"authorization": "Bearer good"}


class Cluster:
    """Knows one token and one WarmPool."""

    def __init__(self):
        self.woken = []
        self.down = False

    async def may_wake(self, token, audience, key):
        if self.down:
            raise httpx2.ConnectError("down")
        return "ci" if (token, audience, key.namespace) == ("good", "keepwarm", "llm") else None

    async def wake(self, key, text):
        if key.name != "chat":
            request = httpx2.Request("PATCH", "http://api")
            body = {"kind": "Status", "code": 404, "message": "not found"}
            raise ApiError(request, httpx2.Response(404, json=body, request=request))
        self.woken.append((key, text))


@pytest.fixture
def cluster():
    return Cluster()


@pytest.fixture
def client(cluster):
    with TestClient(application(cluster, lambda: True, "keepwarm")) as client:
        yield client


def test_a_wake_is_asked_for(client, cluster):
    answer = client.post(PATH, headers=GOOD, json={"replicas": 2, "for": "30m"})
    assert (answer.status_code, answer.json()) == (202, {"wake": "2/30m"})
    assert cluster.woken == [(Key("llm", "chat"), "2/30m")]


@pytest.mark.parametrize(
    ("what", "path", "headers", "body", "status", "said"),
    [
        ("no token", PATH, {}, b"{}", 401, "bearer token"),
        ("another scheme", PATH, {"authorization": "Basic good"}, b"{}", 401, "bearer token"),
        ("a token that may not", PATH, {"authorization": "Bearer bad"}, b"{}", 403, "may not"),
        (
            "another namespace",
            PATH.replace("llm", "prod"),
            GOOD,
            b'{"replicas": 1, "for": "5m"}',
            403,
            "may not",
        ),
        (
            "no such WarmPool",
            PATH.replace("chat", "none"),
            GOOD,
            b'{"replicas": 1, "for": "5m"}',
            404,
            "no WarmPool llm/none",
        ),
        ("no body", PATH, GOOD, b"", 400, '"replicas": 2'),
        ("a field too many", PATH, GOOD, b'{"replicas": 1, "for": "5m", "x": 1}', 400, "x: "),
        ("too many replicas", PATH, GOOD, b'{"replicas": 1001, "for": "5m"}', 400, "replicas: "),
        ("no duration", PATH, GOOD, b'{"replicas": 1, "for": "soon"}', 400, "is no wake"),
        ("a large body", PATH, GOOD, b" " * 2000, 413, "at most"),
    ],
    ids=lambda value: value if isinstance(value, str) and " " in value else "",
)
def test_what_is_no_wake_is_refused(client, cluster, what, path, headers, body, status, said):  # noqa: PLR0917 (a row)
    answer = client.post(path, headers=headers, content=body)
    assert answer.status_code == status, what
    assert said in answer.json()["error"]
    assert cluster.woken == []


def test_an_api_server_out_of_reach_is_a_bad_gateway(client, cluster):
    cluster.down = True
    answer = client.post(PATH, headers=GOOD, json={"replicas": 1, "for": "5m"})
    assert answer.status_code == 502


def test_without_an_audience_there_is_no_such_route(cluster):
    with TestClient(application(cluster, lambda: True, "")) as client:
        assert client.post(PATH, headers=GOOD, json={"replicas": 1, "for": "5m"}).status_code == 404


@pytest.mark.parametrize(("ready", "status"), [(True, 200), (False, 503)])
def test_it_is_healthy_at_once_and_ready_when_all_is_listed(cluster, ready, status):
    with TestClient(application(cluster, lambda: ready, "")) as client:
        assert client.get("/healthz").status_code == 200
        assert client.get("/readyz").status_code == status


def test_gauges_are_those_of_the_objects_that_are_there(client):
    conditions = [{"type": "Ready", "status": "True"}, {"type": "Conflict", "status": "False"}]
    status = {
        "want": 3,
        "have": 2,
        "leadSeconds": 45,
        "coldStartSeconds": [31, 30],
        "nextChange": {"at": "2026-11-25T18:00:00Z"},
        "conditions": conditions,
    }
    metadata = {"namespace": "llm", "name": "chat", "uid": "u", "resourceVersion": "1"}
    pool = Pool.read({"metadata": metadata, "spec": {}, "status": status})
    gauges = metrics.Pools(lambda: [pool], leading=lambda: True, waiting=lambda: 0)
    metrics.REGISTRY.register(gauges)
    try:
        text = client.get("/metrics").text
    finally:
        metrics.REGISTRY.unregister(gauges)
    samples = {
        sample.name: sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.labels.get("name") == "chat" or not sample.labels
    }
    expected = {
        "leader": 1,
        "want_replicas": 3,
        "have_replicas": 2,
        "lead_seconds": 45,
        "cold_start_seconds": 30,
        "next_change_timestamp_seconds": 1795629600,
        "ready": 1,
        "conflict": 0,
    }
    assert {name: samples[f"keepwarm_warmpool_{name}"] for name in expected} == expected
