"""What goes over the wire to the API server: bodies, preconditions, field managers, the rate."""

from types import SimpleNamespace

import pytest
from lightkube.types import PatchType

from keepwarm.warmpool.cluster import Cluster, Limiter, NotLeading
from keepwarm.warmpool.kinds import INFERENCE_SERVICE, POOL, REVISION
from keepwarm.warmpool.observed import MANAGER
from keepwarm.warmpool.ownership import Apply, Restore
from keepwarm.warmpool.status import Event

from .simulation import MIN, Simulation

TARGET = "autoscaling.knative.dev/target"
FIRST = "chat-predictor-00001"


class Client:
    """Remembers what it was asked."""

    def __init__(self):
        self.asked = []
        self.answers = {}

    async def patch(self, resource, name, body, **options):
        self.asked.append(SimpleNamespace(resource=resource, name=name, body=body, **options))
        return {"metadata": {}}

    async def create(self, body, **options):
        self.asked.append(SimpleNamespace(body=dict(body), **options))
        return self.answers.get(type(body).__name__, {})


@pytest.fixture
def client():
    return Client()


@pytest.fixture
def cluster(client):
    return Cluster(client, Limiter(1000, 1000), lambda: True, name="replica")


def holder(kind=REVISION, name=FIRST, **spec):
    world = Simulation()
    world.pool(floor=3, **spec)
    world.settle()
    return kind.read(world.get(kind, name)).holder


async def test_values_are_applied_as_its_own_manager_to_this_very_version(client, cluster):
    to = holder()
    await cluster.apply(Apply(to, {MIN: "4"}))
    (asked,) = client.asked
    assert asked.body == {
        "apiVersion": "serving.knative.dev/v1",
        "kind": "Revision",
        "metadata": {
            "name": FIRST,
            "namespace": "llm",
            "uid": to.uid,
            "resourceVersion": to.resource_version,
            "annotations": {MIN: "4"},
        },
    }
    assert (asked.patch_type, asked.field_manager) == (PatchType.APPLY, MANAGER)
    assert asked.namespace == "llm"


async def test_min_replicas_is_a_number(client, cluster):
    to = holder(INFERENCE_SERVICE, "chat")
    await cluster.apply(Apply(to, {"predictor.minReplicas": "2"}))
    assert client.asked[0].body["spec"] == {"predictor": {"minReplicas": 2}}


async def test_all_is_put_back_in_one_patch_that_gives_up_ownership(client, cluster):
    to = holder(knobs={"target": 8})
    await cluster.restore(Restore(to, {MIN: "1", TARGET: None}))
    (asked,) = client.asked
    annotation = "/metadata/annotations/autoscaling.knative.dev~1"
    assert asked.patch_type is PatchType.JSON
    assert asked.body == [
        {"op": "replace", "path": "/metadata/resourceVersion", "value": to.resource_version},
        {"op": "add", "path": f"{annotation}min-scale", "value": "1"},
        {"op": "remove", "path": f"{annotation}target"},
        {"op": "remove", "path": f"/metadata/managedFields/{to.owners.entry}"},
    ]


async def test_what_is_kept_stays_owned_when_the_rest_is_put_back(client, cluster):
    to = holder(knobs={"target": 8})
    await cluster.restore(Restore(to, {TARGET: None}))
    owned = f"/metadata/managedFields/{to.owners.entry}/fieldsV1/f:metadata/f:annotations"
    assert client.asked[0].body[1:] == [
        {"op": "remove", "path": "/metadata/annotations/autoscaling.knative.dev~1target"},
        {"op": "remove", "path": f"{owned}/f:autoscaling.knative.dev~1target"},
    ]


async def test_a_replica_that_does_not_lead_writes_nothing(client):
    cluster = Cluster(client, Limiter(1000, 1000), lambda: False, name="replica")
    pool = POOL.read(Simulation().pool())
    with pytest.raises(NotLeading):
        await cluster.write_status(pool, {})
    with pytest.raises(NotLeading):
        await cluster.tell(pool, Event("Normal", "Warm", "said"))
    assert client.asked == []


async def test_a_status_is_for_the_version_that_was_looked_at(client, cluster):
    pool = POOL.read(Simulation().pool())
    await cluster.write_status(pool, {"want": 1})
    body = client.asked[0].body
    assert body["metadata"]["resourceVersion"] == pool.resource_version
    assert body["status"] == {"want": 1}


@pytest.mark.parametrize(
    ("review", "access", "user"),
    [
        ({"authenticated": True, "audiences": ["kw"], "user": {"username": "ci"}}, True, "ci"),
        ({"authenticated": True, "audiences": ["kw"], "user": {"username": "ci"}}, False, None),
        ({"authenticated": True, "audiences": ["api"], "user": {"username": "ci"}}, True, None),
        ({"authenticated": True, "user": {"username": "ci"}}, True, None),
        ({"authenticated": False}, True, None),
    ],
)
async def test_a_wake_needs_a_token_for_the_audience_and_the_right(
    client, cluster, review, access, user
):
    client.answers["TokenReview"] = {"status": review}
    client.answers["SubjectAccessReview"] = {"status": {"allowed": access}}
    key = POOL.read(Simulation().pool()).key
    assert await cluster.may_wake("token", "kw", key) == user
    if len(client.asked) > 1:
        asked = client.asked[1].body["spec"]["resourceAttributes"]
        assert (asked["resource"], asked["subresource"]) == ("warmpools", "wake")
        assert (asked["verb"], asked["namespace"], asked["name"]) == ("create", "llm", "chat")


async def test_the_rate_is_a_burst_and_then_so_many_a_second(monkeypatch):
    slept = []

    async def sleep(seconds):
        slept.append(seconds)

    monkeypatch.setattr("keepwarm.warmpool.cluster.asyncio.sleep", sleep)
    monkeypatch.setattr("keepwarm.warmpool.cluster.time.monotonic", lambda: 5.0)
    limiter = Limiter(10, 3)
    for _ in range(5):
        await limiter.take()
    assert slept == pytest.approx([0.1, 0.2])
