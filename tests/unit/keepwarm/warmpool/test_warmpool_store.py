"""The cache: newest wins, lists replace, and who has to look when something changed."""

import pytest

from keepwarm.warmpool.kinds import (
    INFERENCE_SERVICE,
    KNATIVE_SERVICE,
    POD_AUTOSCALER,
    POOL,
    REVISION,
)
from keepwarm.warmpool.observed import Key
from keepwarm.warmpool.store import Store

from .simulation import KINDS, Simulation

CHAT = Key("llm", "chat")


@pytest.fixture
def world():
    made = Simulation()
    made.pool()
    made.pool("other", target={"inferenceService": "other"})
    return made


@pytest.fixture
def store(world):
    made = Store()
    for kind in KINDS:
        made.replace(kind, listed(world, kind))
    return made


def listed(world, kind):
    return [kind.read(raw) for (name, _), raw in world.objects.items() if name == kind.name]


def test_what_is_older_than_what_is_there_has_no_effect(store, world):
    told = []
    store.listen(lambda *change: told.append(change))
    old = POOL.read(world.get(POOL, "chat"))
    world.edit(floor=3)
    new = POOL.read(world.get(POOL, "chat"))
    store.put(POOL, new)
    store.put(POOL, old)
    store.put(POOL, new)
    assert store.world(CHAT).pool.spec.floor == 3
    assert told == [(POOL, old, new)]


def test_a_list_drops_what_is_not_in_it(store, world):
    told = []
    store.listen(lambda kind, before, after: told.append((before.key.name, after)))
    store.replace(POOL, [])
    assert sorted(told) == [("chat", None), ("other", None)]
    assert store.world(CHAT) is None


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        (INFERENCE_SERVICE, "chat"),
        (KNATIVE_SERVICE, "chat-predictor"),
        (REVISION, "chat-predictor-00001"),
        (POD_AUTOSCALER, "chat-predictor-00001"),
        (POOL, "chat"),
    ],
)
def test_a_change_concerns_those_whose_target_it_is(store, world, kind, name):
    item = kind.read(world.get(kind, name))
    assert list(store.about(kind, item)) == [CHAT]


def test_a_change_concerns_those_that_wrote_there_whatever_their_target_is_now(store, world):
    world.edit(target={"inferenceService": "gone"})
    owned = {"kind": "Revision", "name": "chat-predictor-00001", "uid": "u", "values": {"a": "1"}}
    world.get(POOL, "chat")["status"] = {"owned": [owned]}
    store.put(POOL, POOL.read(world.touch(POOL, "chat")))
    item = REVISION.read(world.get(REVISION, "chat-predictor-00001"))
    assert list(store.about(REVISION, item)) == [CHAT]


def test_the_world_of_a_warm_pool_is_its_target_and_its_neighbours(store):
    seen = store.world(CHAT)
    assert seen.service.key == CHAT
    assert seen.knative.key.name == "chat-predictor"
    assert [revision.key.name for revision in seen.revisions] == ["chat-predictor-00001"]
    assert set(seen.autoscalers) == {"chat-predictor-00001"}
    assert [pool.key.name for pool in seen.neighbours] == ["other"]
    assert {holder.kind for holder in seen.holders.values()} == {"Revision", "InferenceService"}
