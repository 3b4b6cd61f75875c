"""L1: the answers of this process, bounded by their bytes; the least recently used leave.

Most are never asked for again, so an answer is kept packed until it is: as bytes, which cost the
garbage collector nothing. Objects it would walk through, every one, in pauses that callers notice.
"""

import sys
from collections import OrderedDict
from struct import Struct
from typing import Final

from llm_transformer.cache import metrics
from llm_transformer.cache.record import Record

# When an answer was made; its packed record follows.
_HEAD: Final = Struct("<d")
# What an entry of bytes takes beside them: its key, their place in the table.
_PLACE_BYTES: Final = 170


class LocalCache:
    """Not thread-safe: one event loop's. A key is any bytes; see `Shelf`."""

    def __init__(self, most_bytes: int) -> None:
        self._most = most_bytes
        self._entries: OrderedDict[bytes, bytes | Record] = OrderedDict()
        self.bytes = 0
        metrics.L1_BYTES.set_function(lambda: self.bytes)
        metrics.L1_ENTRIES.set_function(lambda: len(self._entries))

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: bytes, now: float) -> Record | None:
        """The record, unless it has expired at `now`."""
        entry = self._entries.get(key)
        if entry is None:
            return None
        record = self._read(key, entry) if isinstance(entry, bytes) else entry
        if record.expires_at <= now:
            self._drop(key, "expired")
            return None
        self._entries.move_to_end(key)
        self._shrink()
        return record

    def put(self, key: bytes, record: Record) -> None:
        """Keeps it, in place of an older one of this key, if it fits at all."""
        if key in self._entries:
            self._drop(key, "replaced")
        entry = _HEAD.pack(record.made_at) + record.packed()
        size = _size(entry)
        if size > self._most:
            return
        self._entries[key] = entry
        self.bytes += size
        self._shrink()

    def _read(self, key: bytes, entry: bytes) -> Record:
        """The record of an entry, which is kept in its place if it is not too large."""
        (made_at,) = _HEAD.unpack_from(entry)
        record = Record.read(entry[_HEAD.size :], made_at=made_at)
        if record.size <= self._most:
            self._entries[key] = record
            self.bytes += record.size - _size(entry)
        return record

    def _shrink(self) -> None:
        while self.bytes > self._most:
            self._drop(next(iter(self._entries)), "size")

    def _drop(self, key: bytes, reason: str) -> None:
        self.bytes -= _size(self._entries.pop(key))
        metrics.EVICTIONS.labels(reason).inc()


def _size(entry: bytes | Record) -> int:
    """What an entry takes in memory, in bytes."""
    return _PLACE_BYTES + sys.getsizeof(entry) if isinstance(entry, bytes) else entry.size
