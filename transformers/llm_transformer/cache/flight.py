"""One generation in flight and everybody who follows it, each at his own pace.

It belongs to nobody: it runs in a task of its own, ends when its generation ends, and is given up
when the last follower has left. Who comes late begins with the first chunk.
"""

import asyncio
from typing import Final

from llm_transformer.cache.record import Record
from openinference.context import Cached, Reply
from openinference.errors import ServingError
from openinference.generation import Chunk

# Roughly what a chunk takes in memory beside its text.
CHUNK_BYTES: Final = 200
# Chunks of an answer too large to be kept that wait for the slowest follower.
BACKLOG: Final = 256


class Seat:
    """A follower: how far it is, and what its stages are told."""

    __slots__ = ("position", "reply")

    def __init__(self, reply: Reply) -> None:
        self.position = 0
        self.reply = reply


class Flight:
    """`came_by` is what brought its chunks: HIT, MISS or COALESCED, known with the first of them.

    `priority` is that of who began it, `ttl_s` how long its answer may be kept; `keeps_all` turns
    false when the answer is too large for that: nobody may join any more.
    """

    __slots__ = (
        "_bytes",
        "_done",
        "_dropped",
        "_error",
        "_loop",
        "_most_bytes",
        "_payer",
        "_room",
        "_seats",
        "_waiting",
        "came_by",
        "chunks",
        "keeps_all",
        "priority",
        "record",
        "reply",
        "task",
        "ttl_s",
    )

    def __init__(
        self, loop: asyncio.AbstractEventLoop, priority: int, ttl_s: float, most_bytes: int
    ) -> None:
        self._loop = loop
        self.priority = priority
        self.ttl_s = ttl_s
        self.keeps_all = True
        self.came_by: Cached | None = None
        # What the stages behind say, to all followers alike.
        self.reply = Reply()
        self.record: Record | None = None
        self.task: asyncio.Task[None] | None = None
        self.chunks: list[Chunk] = []
        self._most_bytes = most_bytes
        self._bytes = 0
        self._dropped = 0
        self._done = False
        self._error: ServingError | None = None
        self._seats: dict[Seat, None] = {}
        self._payer: Seat | None = None
        self._waiting: list[asyncio.Future[None]] = []
        self._room: asyncio.Future[None] | None = None

    @property
    def failed(self) -> bool:
        """Whether it has ended in an error."""
        return self._error is not None

    def add(self, chunk: Chunk) -> None:
        """The next chunk; await `room` after it where `keeps_all` is false."""
        self.chunks.append(chunk)
        self._bytes += CHUNK_BYTES + len(chunk.text)
        self._wake()
        if self._bytes > self._most_bytes:
            self.keeps_all = False
            self._trim()

    async def room(self) -> None:
        """Waits for the followers while there is too much that nobody has read."""
        while len(self.chunks) > BACKLOG:
            self._room = self._loop.create_future()
            await self._room
            self._trim()

    def finish(self, record: Record | None) -> None:
        """The generation is complete; `record` is what was kept of it."""
        self.record = record
        self._end()

    def replay(self, record: Record, came_by: Cached, *, stream: bool) -> None:
        """A kept answer in place of a generation."""
        self.came_by, self.record = came_by, record
        self.chunks.extend(record.chunks(stream=stream))
        self._error = record.error
        self._end()

    def fail(self, error: ServingError, record: Record | None = None) -> None:
        """The generation has failed, unless it has ended before."""
        if self._done:
            return
        self._error, self.record = error, record
        self._end()

    def enter(self, reply: Reply) -> Seat:
        """A place for a follower; the first one stands for the work."""
        seat = Seat(reply)
        self._seats[seat] = None
        if self._payer is None:
            self._payer = seat
        return seat

    def leave(self, seat: Seat) -> None:
        """Frees the place; the last one to leave ends the generation."""
        del self._seats[seat]
        self._make_room()
        seat.reply.weights_id = self.reply.weights_id
        seat.reply.queued_s = self.reply.queued_s
        seat.reply.sent = self.reply.sent
        if seat is self._payer:
            seat.reply.waited_s += self.reply.waited_s
        if self._done:
            return
        if not self._seats:
            if self.task is not None:
                self.task.cancel()
        elif seat is self._payer:
            # Somebody stands for the work that goes on, else leaving would make it free.
            self._payer = next(iter(self._seats))
            if self.came_by is Cached.MISS:
                seat.reply.cached = Cached.COALESCED
                self._payer.reply.cached = Cached.MISS

    def cached(self, seat: Seat) -> Cached:
        """What the cache did for this follower."""
        if self.came_by is Cached.MISS and seat is not self._payer:
            return Cached.COALESCED
        return self.came_by or Cached.MISS

    async def begun(self) -> None:
        """Returns with the first chunk or the end."""
        while not (self.chunks or self._dropped or self._done):
            await self._news()

    async def next(self, seat: Seat) -> Chunk | None:
        """The chunk after those that `seat` has had; None at the end.

        Raises what the generation failed with.
        """
        while seat.position - self._dropped >= len(self.chunks):
            if self._done:
                if self._error is not None:
                    # Many raise it, and each raise would add to its traceback.
                    raise self._error.with_traceback(None)
                return None
            await self._news()
        chunk = self.chunks[seat.position - self._dropped]
        seat.position += 1
        if not self.keeps_all:
            self._make_room()
        return chunk

    def _news(self) -> asyncio.Future[None]:
        """To be awaited for the next chunk or the end."""
        waiter = self._loop.create_future()
        self._waiting.append(waiter)
        return waiter

    def _wake(self) -> None:
        waiting, self._waiting = self._waiting, []
        for waiter in waiting:
            if not waiter.done():
                waiter.set_result(None)

    def _make_room(self) -> None:
        if self._room is not None and not self._room.done():
            self._room.set_result(None)

    def _end(self) -> None:
        self._done = True
        self._wake()

    def _trim(self) -> None:
        """Forgets what every follower has read."""
        read = min((seat.position for seat in self._seats), default=self._dropped) - self._dropped
        if read > 0:
            del self.chunks[:read]
            self._dropped += read
