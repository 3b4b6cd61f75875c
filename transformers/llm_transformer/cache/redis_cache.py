"""L2 in Redis: a record and a lease for each request, in one slot of a Cluster, and the weights.

One round trip looks for the record and else asks for the lease. Records are named by the digest of
their request, so no prompt is in Redis; answers are. Times are Redis's own: replicas' clocks need
not agree.
"""

import asyncio
from typing import Final

from llm_transformer.cache import metrics
from llm_transformer.cache.key import SCHEMA
from llm_transformer.cache.record import Broken, Record, from_wire, to_wire
from llm_transformer.cache.shared import Claim, Slot
from llm_transformer.store import Script, Store, StoreUnavailableError
from openinference import clock

# Compressing more than this takes milliseconds, which the event loop does not have.
ASIDE_BYTES: Final = 64 * 2**10
# How long a miss waits for Redis: longer than other requests do, for a busy event loop must not
# pass for a silent Redis, and the generation that this may spare takes longer still.
ASK_S: Final = 0.25
# How long what nobody waits for may take.
BESIDE_S: Final = 2.0
# Longer than any record lives.
WEIGHTS_TTL_S: Final = 3600

# KEYS: record. What it is, and how much of its life is left, which tells its age.
_GET: Final = Script("""
return {redis.call('GET', KEYS[1]), redis.call('PTTL', KEYS[1])}
""")
# KEYS: lease, record. ARGV: token, milliseconds. A claim whose answer got lost may be repeated.
_CLAIM: Final = Script("""
if KEYS[2] then
  local record = redis.call('GET', KEYS[2])
  if record then return {'record', record, redis.call('PTTL', KEYS[2])} end
end
local holder = redis.call('GET', KEYS[1])
if not holder then
  redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
  return {'lead'}
end
return {holder == ARGV[1] and 'lead' or 'wait'}
""")
# KEYS: lease. ARGV: token, milliseconds.
_RENEW: Final = Script("""
if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('PEXPIRE', KEYS[1], ARGV[2]) end
return 0
""")
# KEYS: lease, record. ARGV: token, record, milliseconds. The lease is the fence: who has lost it
# writes nothing.
_COMMIT: Final = Script("""
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[2], ARGV[2], 'PX', ARGV[3])
redis.call('DEL', KEYS[1])
return 1
""")
# KEYS: lease. ARGV: token.
_RELEASE: Final = Script("""
if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end
return 0
""")


class RedisCache:
    """A SharedCache. While Redis cannot be asked it has nothing and keeps nothing."""

    is_there = True

    def __init__(
        self,
        store: Store,
        *,
        predictor: str,
        lease_s: float,
        record_bytes: int,
        ask_s: float = ASK_S,
    ) -> None:
        """`predictor` tells services apart that share a Redis and name their models alike.

        `record_bytes` is the size of the largest record that is read or written, unpacked.
        """
        self._store = store
        self._lease_ms = round(lease_s * 1000)
        self._most = record_bytes
        self._prefix = f"keepwarm:cache:{SCHEMA}:{predictor}"
        self._ask_s = ask_s

    async def get(self, slot: Slot) -> Record | None:
        key = self._record_key(slot)
        if key is None:
            return None
        try:
            wire, ttl_ms = await self._store.call(
                key, lambda client: _GET(client, [key], []), timeout_s=self._ask_s
            )
        except StoreUnavailableError:
            metrics.L2_ERRORS.labels("get").inc()
            return None
        return None if wire is None else await self._record(slot, key, wire, ttl_ms)

    async def claim(self, slot: Slot, token: str) -> Record | Claim:
        lease, key = self._lease_key(slot), self._record_key(slot)
        keys = [lease] if key is None else [lease, key]
        try:
            answer = await self._store.call(
                lease,
                lambda client: _CLAIM(client, keys, [token, self._lease_ms]),
                timeout_s=self._ask_s,
            )
        except StoreUnavailableError:
            metrics.L2_ERRORS.labels("claim").inc()
            return Claim.ALONE
        if answer[0] == b"record" and key is not None:
            record = await self._record(slot, key, answer[1], answer[2])
            # A broken record is gone now, and the next claim gets the lease.
            return await self.claim(slot, token) if record is None else record
        return Claim(answer[0].decode())

    async def renew(self, slot: Slot, token: str) -> None:
        lease = self._lease_key(slot)
        try:
            await self._store.call(
                lease,
                lambda client: _RENEW(client, [lease], [token, self._lease_ms]),
                timeout_s=BESIDE_S,
            )
        except StoreUnavailableError:
            metrics.L2_ERRORS.labels("renew").inc()

    async def commit(self, slot: Slot, token: str | None, record: Record) -> None:
        # Under the weights that made it, whichever have answered since.
        slot = slot._replace(weights_id=record.weights_id)
        lease, key = self._lease_key(slot), self._record_key(slot)
        packed = record.packed()
        if key is None or len(packed) > self._most:
            return
        wire = (
            to_wire(packed)
            if len(packed) <= ASIDE_BYTES
            else await asyncio.to_thread(to_wire, packed)
        )
        ttl_ms = max(1, round(record.ttl_s * 1000))
        try:
            if token is None:
                await self._store.call(
                    key, lambda client: client.set(key, wire, px=ttl_ms), timeout_s=BESIDE_S
                )
            else:
                await self._store.call(
                    lease,
                    lambda client: _COMMIT(client, [lease, key], [token, wire, ttl_ms]),
                    timeout_s=BESIDE_S,
                )
        except StoreUnavailableError:
            metrics.L2_ERRORS.labels("commit").inc()

    async def release(self, slot: Slot, token: str) -> None:
        lease = self._lease_key(slot)
        try:
            await self._store.call(
                lease, lambda client: _RELEASE(client, [lease], [token]), timeout_s=BESIDE_S
            )
        except StoreUnavailableError:
            metrics.L2_ERRORS.labels("release").inc()

    async def weights_id(self, model: str) -> str | None:
        key = self._weights_key(model)
        try:
            told = await self._store.call(
                key, lambda client: client.get(key), timeout_s=self._ask_s
            )
        except StoreUnavailableError:
            metrics.L2_ERRORS.labels("weights").inc()
            return None
        return told.decode(errors="replace") if isinstance(told, bytes) else told

    async def tell_weights(self, model: str, weights_id: str) -> None:
        key = self._weights_key(model)
        try:
            await self._store.call(
                key,
                lambda client: client.set(key, weights_id, ex=WEIGHTS_TTL_S),
                timeout_s=BESIDE_S,
            )
        except StoreUnavailableError:
            metrics.L2_ERRORS.labels("weights").inc()

    async def _record(self, slot: Slot, key: str, wire: bytes, left_ms: int) -> Record | None:
        """The record in `wire`; one that cannot be read is removed."""
        try:
            packed = (
                from_wire(wire, most=self._most)
                if len(wire) <= ASIDE_BYTES
                else await asyncio.to_thread(from_wire, wire, most=self._most)
            )
            record = _of(slot, Record.read(packed, made_at=0.0))
        except Broken:
            metrics.L2_ERRORS.labels("broken").inc()
            try:
                await self._store.call(key, lambda client: client.delete(key))
            except StoreUnavailableError:
                metrics.L2_ERRORS.labels("broken").inc()
            return None
        now = clock.now()
        record.made_at = now - max(0.0, record.ttl_s - left_ms / 1000)
        return record

    def _lease_key(self, slot: Slot) -> str:
        return f"{self._prefix}:{{{slot.digest.hex()}}}:lease"

    def _record_key(self, slot: Slot) -> str | None:
        """None while nobody knows which weights would have to have answered."""
        if slot.weights_id is None:
            return None
        return f"{self._prefix}:{{{slot.digest.hex()}}}:of:{slot.weights_id}"

    def _weights_key(self, model: str) -> str:
        return f"{self._prefix}:weights:{model}"


def _of(slot: Slot, record: Record) -> Record:
    """`record`; raises Broken when it is of other weights than its name says."""
    if record.weights_id != slot.weights_id:
        raise Broken
    return record
