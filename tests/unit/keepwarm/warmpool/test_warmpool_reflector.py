"""One list, then one watch; whatever ends it leads to a new list, and nothing else ends it."""

import asyncio
from contextlib import suppress

import httpx2
import pytest
from lightkube.core.exceptions import ApiError

from keepwarm.warmpool.kinds import POOL
from keepwarm.warmpool.observed import Key
from keepwarm.warmpool.reflector import Reflector
from keepwarm.warmpool.store import Store


def pool(name: str, version: int) -> dict:
    metadata = {"namespace": "llm", "name": name, "uid": name, "resourceVersion": str(version)}
    return {"metadata": metadata, "spec": {"target": {"inferenceService": name}}}


def refused(code: int) -> ApiError:
    request = httpx2.Request("GET", "http://api")
    body = {"kind": "Status", "code": code, "message": "refused"}
    return ApiError(request, httpx2.Response(code, json=body, request=request))


class Scripted:
    """Answers lists and watches from a script: objects, changes, or what goes wrong."""

    def __init__(self, *script):
        self.script = list(script)
        self.asked = []

    def _next(self, what):
        self.asked.append(what)
        if not self.script:
            raise asyncio.CancelledError
        answer = self.script.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def listed(self, kind):
        return self._next("list"), "7"

    async def watch(self, kind, version):
        assert version == "7"
        for change in self._next("watch"):
            if isinstance(change, Exception):
                raise change
            yield change


async def followed(monkeypatch, *script) -> tuple[set[str], list[str], list[float]]:
    """The names in the store at the script's end, what was asked, and the pauses between."""
    pauses = []

    async def sleep(seconds):
        pauses.append(seconds)

    monkeypatch.setattr("keepwarm.warmpool.reflector.asyncio.sleep", sleep)
    store, cluster = Store(), Scripted(*script)
    with suppress(asyncio.CancelledError):
        await Reflector(POOL, cluster, store).run()
    return {found.key.name for found in store.pools()}, cluster.asked, pauses


async def test_a_list_and_the_changes_since_make_the_store(monkeypatch):
    changes = [("ADDED", pool("b", 8)), ("DELETED", pool("a", 9)), ("BOOKMARK", pool("z", 10))]
    names, asked, _ = await followed(monkeypatch, [pool("a", 1)], changes)
    assert names == {"b"}
    assert asked == ["list", "watch", "list"]


@pytest.mark.parametrize(
    "trouble",
    [
        refused(410),
        refused(403),
        refused(500),
        httpx2.ConnectError("down"),
        httpx2.RemoteProtocolError("cut"),
        OSError("cut"),
        TimeoutError(),
    ],
    ids=repr,
)
async def test_whatever_ends_a_watch_a_new_list_mends(monkeypatch, trouble):
    names, asked, _ = await followed(
        monkeypatch, [pool("a", 1)], [("ADDED", pool("b", 8)), trouble], [pool("c", 9)], []
    )
    assert names == {"c"}, "what was deleted meanwhile is gone"
    assert asked == ["list", "watch", "list", "watch", "list"]


async def test_an_outage_is_asked_about_less_and_less_often(monkeypatch):
    down = httpx2.ConnectError("down")
    names, _, pauses = await followed(monkeypatch, [pool("a", 1)], [], *[down] * 9)
    assert names == {"a"}, "what was known stays"
    assert pauses[0] < 0.7
    assert pauses[5] > pauses[1] * 8
    assert max(pauses) <= 36


async def test_a_kind_that_the_cluster_does_not_have_is_no_object_of_it(monkeypatch):
    names, _, pauses = await followed(monkeypatch, refused(404), [pool("a", 1)], [])
    assert names == {"a"}
    assert pauses[0] == 60


async def test_an_object_that_nobody_foresaw_is_left_out(monkeypatch):
    odd = {"metadata": {"namespace": "llm", "name": "odd"}}
    names, _, _ = await followed(monkeypatch, [odd, pool("a", 1)], [("ADDED", odd)])
    assert names == {"a"}


def test_a_store_knows_nothing_before():
    assert Store().world(Key("llm", "a")) is None
