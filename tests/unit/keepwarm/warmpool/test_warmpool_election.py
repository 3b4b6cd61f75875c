"""Two candidates for one Lease, on clocks of their own."""

from copy import deepcopy

import httpx2
import pytest
from lightkube.core.exceptions import ApiError

from keepwarm.warmpool.election import Election, Terms
from keepwarm.warmpool.observed import Key

LEASE = Key("keepwarm-system", "keepwarm-warmpool")


def refused(code: int) -> ApiError:
    request = httpx2.Request("GET", "http://api")
    body = {"kind": "Status", "code": code, "message": "refused"}
    return ApiError(request, httpx2.Response(code, json=body, request=request))


class Leases:
    """The API server's one Lease, with its optimistic lock."""

    def __init__(self):
        self.lease = None
        self.version = 0
        self.down = False

    def _answer(self):
        if self.down:
            raise httpx2.ConnectError("down")

    async def get(self, kind, name, *, namespace):
        self._answer()
        if self.lease is None:
            raise refused(404)
        return deepcopy(self.lease)

    async def create(self, lease, *, namespace):
        self._answer()
        if self.lease is not None:
            raise refused(409)
        self._store(lease)

    async def replace(self, lease, name, *, namespace):
        self._answer()
        if lease["metadata"]["resourceVersion"] != str(self.version):
            raise refused(409)
        self._store(lease)

    def _store(self, lease):
        self.version += 1
        self.lease = deepcopy(dict(lease))
        self.lease["metadata"] = {**lease["metadata"], "resourceVersion": str(self.version)}


class Clock:
    now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def leases():
    return Leases()


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def candidate(leases, clock):
    return lambda name: Election(leases, LEASE, name, Terms(15, 10, 2), clock)


async def stand(election: Election, clock: Clock) -> bool:
    """One turn of the candidate's loop."""
    began = clock.now
    if await election._acquire():
        election._until = began + 10
    return election.leading


async def test_the_first_leads_and_the_second_waits(candidate, clock, leases):
    a, b = candidate("a"), candidate("b")
    assert await stand(a, clock)
    assert not await stand(b, clock)
    for _ in range(20):
        clock.now += 2
        assert await stand(a, clock)
        assert not await stand(b, clock)
    assert leases.lease["spec"]["holderIdentity"] == "a"
    assert leases.lease["spec"]["leaseTransitions"] == 0


async def test_a_silent_leader_is_replaced_after_the_lease_and_knows_it_before(candidate, clock):
    a, b = candidate("a"), candidate("b")
    await stand(a, clock)
    await stand(b, clock)
    clock.now += 10
    assert not a.leading, "it gives up 5 s before anybody else may lead"
    clock.now += 4
    assert not await stand(b, clock)
    clock.now += 1
    assert await stand(b, clock)
    assert not await stand(a, clock)


async def test_never_two_lead_however_the_turns_fall(candidate, clock):
    a, b = candidate("a"), candidate("b")
    for turn in range(200):
        clock.now += (turn * 7 % 13) / 3
        if turn % 17 < 9:
            await stand(a, clock)
        if turn % 23 < 11:
            await stand(b, clock)
        assert not (a.leading and b.leading)


async def test_a_race_for_a_free_lease_has_one_winner(candidate, clock, leases):
    a, b = candidate("a"), candidate("b")
    assert await a._create()
    assert not await b._create()


async def test_a_released_lease_is_taken_at_once(candidate, clock):
    a, b = candidate("a"), candidate("b")
    await stand(a, clock)
    await stand(b, clock)
    await a._release()
    assert not a.leading
    assert await stand(b, clock)


async def test_an_outage_longer_than_the_lead_ends_it(candidate, clock, leases):
    a = candidate("a")
    await stand(a, clock)
    leases.down = True
    clock.now += 11
    with pytest.raises(httpx2.ConnectError):
        await stand(a, clock)
    assert not a.leading
    leases.down = False
    assert await stand(a, clock)
