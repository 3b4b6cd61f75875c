"""L1: the records of this process, bounded by their bytes; the least recently used leave."""

from collections import OrderedDict

from llm_transformer.cache import metrics
from llm_transformer.cache.record import Record

# A request's digest and the weights that answered it.
Key = tuple[bytes, str]


class LocalCache:
    """Not thread-safe: one event loop's."""

    def __init__(self, most_bytes: int) -> None:
        self._most = most_bytes
        self._records: OrderedDict[Key, Record] = OrderedDict()
        self.bytes = 0

    def __len__(self) -> int:
        return len(self._records)

    def get(self, key: Key, now: float) -> Record | None:
        """The record, unless it has expired at `now`."""
        record = self._records.get(key)
        if record is None:
            return None
        if record.expires_at <= now:
            self._drop(key, "expired")
            return None
        self._records.move_to_end(key)
        return record

    def put(self, key: Key, record: Record) -> None:
        """Keeps it, in place of an older one of this key, if it fits at all."""
        if key in self._records:
            self._drop(key, "replaced")
        if record.size > self._most:
            return
        self._records[key] = record
        self.bytes += record.size
        while self.bytes > self._most:
            self._drop(next(iter(self._records)), "size")
        metrics.L1_BYTES.set(self.bytes)
        metrics.L1_ENTRIES.set(len(self._records))

    def _drop(self, key: Key, reason: str) -> None:
        self.bytes -= self._records.pop(key).size
        metrics.EVICTIONS.labels(reason).inc()
        metrics.L1_BYTES.set(self.bytes)
        metrics.L1_ENTRIES.set(len(self._records))
