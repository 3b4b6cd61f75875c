"""The connections to one address, and when it may be tried again."""

import asyncio
import random
import ssl
from collections.abc import Callable
from typing import Final

from llm_transformer.h2.connection import Connection
from llm_transformer.h2.status import CallError
from openinference import clock

Address = tuple[str, int]

# What one attempt may take, hello included (gRPC's connection-backoff.md has it so too); the pause
# after one that failed doubles from the first of these to the last.
CONNECT_S: Final = 2.0
FIRST_PAUSE_S: Final = 0.1
LONGEST_PAUSE_S: Final = 1.0
# A connection that ends sooner has failed too.
LASTING_S: Final = 1.0
# To one address, where it bounds the calls of a connection.
MOST_CONNECTIONS: Final = 32


class Link:
    """One address of a channel."""

    def __init__(
        self, address: Address, host: str, tls: ssl.SSLContext | None, changed: Callable[[], None]
    ) -> None:
        """`host` is the name that TLS asks for; `changed` as in Connection."""
        self._address = address
        self._host = host
        self._tls = tls
        self._changed = changed
        self._connections: list[Connection] = []
        self._attempt: asyncio.Task[None] | None = None
        self._pause_s = 0.0
        self._next_attempt = 0.0
        self._connected_at = 0.0
        # Its name does not lead here any more.
        self.is_retired = False
        # A connection has ended or failed: the name may lead elsewhere.
        self.ask_again = False

    def room(self) -> Connection | None:
        """The connection that a call may go to now: the one with the fewest."""
        found = None
        if not self.is_retired:
            for each in self._connections:
                if each.has_room and (found is None or each.in_flight < found.in_flight):
                    found = each
        return found

    @property
    def is_idle(self) -> bool:
        """Whether nothing is in flight."""
        return not any(each.in_flight for each in self._connections)

    @property
    def may_come(self) -> bool:
        """Whether there may be room later without another attempt, or by one that is going on."""
        return not self.is_retired and (
            self._attempt is not None or any(not each.is_leaving for each in self._connections)
        )

    def tend(self, now: float) -> None:
        """Begins another connection where one is wanted and may be tried."""
        if (
            self._attempt is None
            and not self.is_retired
            and now >= self._next_attempt
            and self.room() is None
            and sum(not each.is_leaving for each in self._connections) < MOST_CONNECTIONS
        ):
            self._attempt = asyncio.create_task(self._connect())

    def retire(self) -> None:
        """Takes no more calls."""
        self.is_retired = True
        if self._attempt is not None:
            self._attempt.cancel()
        for connection in list(self._connections):
            connection.leave()

    def close(self) -> None:
        """Ends everything at once."""
        self.is_retired = True
        if self._attempt is not None:
            self._attempt.cancel()
        for connection in list(self._connections):
            connection.abort("the channel is closed")

    async def _connect(self) -> None:
        loop = asyncio.get_running_loop()
        connection = Connection(self._on_change)
        try:
            async with asyncio.timeout(CONNECT_S):
                await loop.create_connection(
                    lambda: connection,
                    *self._address,
                    ssl=self._tls,
                    server_hostname=self._host if self._tls else None,
                )
                await connection.ready
        except (OSError, TimeoutError, CallError):
            connection.abort("no HTTP/2 server answers")
            self._pause(loop.time())
            self.ask_again = True
        except asyncio.CancelledError:
            connection.abort("the channel is closed")
            raise
        else:
            self._connections.append(connection)
            self._connected_at = loop.time()
            self._drop_lost()
        finally:
            self._attempt = None
        self._changed()

    def _on_change(self) -> None:
        self.ask_again |= any(each.is_leaving for each in self._connections)
        self._drop_lost()
        self._changed()

    def _drop_lost(self) -> None:
        kept = [each for each in self._connections if not each.is_lost]
        if len(kept) < len(self._connections):
            self._connections = kept
            now = clock.now()
            if now < self._connected_at + LASTING_S:
                self._pause(now)
            else:
                self._pause_s = 0.0

    def _pause(self, now: float) -> None:
        self._pause_s = min(max(FIRST_PAUSE_S, 2 * self._pause_s), LONGEST_PAUSE_S)
        pause_s = self._pause_s * random.uniform(0.8, 1.2)  # noqa: S311 (not a secret)
        self._next_attempt = now + pause_s
