"""The connections to a predictor's name: found by DNS, shared by calls, made anew when they end.

A name may stand for several addresses (a headless Service's are its pods); calls go to them in
turn. A server that bounds the calls of one connection, as Go's do, gets more connections.
"""

import asyncio
import socket
import ssl
from collections import deque
from collections.abc import Iterable
from contextlib import suppress
from typing import Final

from grpc import StatusCode

from llm_transformer.h2 import headers, status
from llm_transformer.h2.call import Call
from llm_transformer.h2.connection import Connection
from llm_transformer.h2.link import Address, Link
from llm_transformer.h2.status import CallError, Headers
from openinference import clock, running

# A name is asked for again when a connection has ended, and now and then while it is in use, for a
# pod that was added ends no connection.
RESOLVE_AGAIN_S: Final = 1.0
RESOLVE_STALE_S: Final = 10.0
# How often a call is sent again that no server has looked at, and after how long.
MOST_RESENT: Final = 5
RESENT_AFTER_S: Final = 0.01


class Channel:
    """Safe for concurrent use on one event loop. Connects when it is first used."""

    def __init__(self, target: str, *, tls: bool) -> None:
        """`target` is HOST:PORT, or several of them with commas between."""
        self._targets = [_split(each) for each in target.split(",")]
        self._scheme = "https" if tls else "http"
        self._authority = target.split(",", maxsplit=1)[0]
        self._tls = _tls_context() if tls else None
        self._openings: dict[str, bytes] = {}
        self._links: dict[Address, Link] = {}
        self._turns: list[Link] = []
        self._turn = 0
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._resolving: asyncio.Task[None] | None = None
        self._resolve_due = 0.0
        self._resolved_at = -RESOLVE_STALE_S
        self._is_closed = False

    async def close(self) -> None:
        """Ends all connections; calls in flight fail."""
        self._is_closed = True
        if self._resolving is not None:
            self._resolving.cancel()
        for link in list(self._links.values()):
            link.close()
        self._links.clear()
        self._turns = []
        self._wake()

    async def unary(
        self,
        method: str,
        message: bytes,
        *,
        timeout_s: float | None = None,
        metadata: Iterable[tuple[str, str]] = (),
    ) -> tuple[bytes, Headers]:
        """The one message that answers, and its trailing metadata. Raises CallError."""
        call = await self.open(method, message, timeout_s=timeout_s, metadata=metadata)
        try:
            answers = []
            while messages := await call.read():
                answers += messages
        finally:
            call.close()
        if len(answers) != 1:
            what = f"{len(answers)} messages answer a call that has one"
            raise CallError(StatusCode.INTERNAL, what, call.trailing)
        return answers[0], call.trailing

    async def open(
        self,
        method: str,
        message: bytes,
        *,
        timeout_s: float | None = None,
        metadata: Iterable[tuple[str, str]] = (),
    ) -> Call:
        """Sends a call whose request is one message; `method` is /SERVICE/METHOD.

        The call has to be closed. Raises CallError when nobody can be reached.
        """
        opening = self._openings.get(method)
        if opening is None:
            opening = headers.opening(self._scheme, self._authority, method)
            self._openings[method] = opening
        now = clock.now()
        due = None if timeout_s is None else now + timeout_s
        call = Call(opening, headers.metadata(metadata), message, due, self._resend)
        self._send(call, self._next(now) or await self._room(due))
        return call

    def _send(self, call: Call, connection: Connection) -> None:
        due = call.due
        if due is None:
            connection.send(call, call.opening + call.metadata)
            return
        left_s = due - clock.now()
        if left_s <= 0:
            raise _late()
        connection.send(call, b"".join((call.opening, headers.timeout(left_s), call.metadata)))
        call.end_at(due)

    async def _resend(self, call: Call) -> bool:
        """Sends a call again that a server did not look at: it was full, or leaves."""
        call.refused += 1
        if call.refused > MOST_RESENT:
            return False
        # A server that is full frees a place when it has seen that another call has ended.
        await asyncio.sleep(RESENT_AFTER_S * call.refused)
        self._send(call, self._next(clock.now()) or await self._room(call.due))
        return True

    def _next(self, now: float) -> Connection | None:
        """One that takes a call; None if there may be one. Raises CallError if there will not."""
        if self._is_closed:
            raise status.lost("the channel is closed")
        is_stale = now >= self._resolved_at + RESOLVE_STALE_S
        if is_stale and self._resolving is None and now >= self._resolve_due:
            self._resolving = asyncio.create_task(self._resolve())
        links = self._turns
        for link in links:
            link.tend(now)
        for _ in links:
            self._turn = (self._turn + 1) % len(links)
            connection = links[self._turn].room()
            if connection is not None:
                return connection
        if not links:
            if self._resolving is None:
                raise status.lost("no address is known")
        elif not any(link.may_come for link in links):
            raise status.lost("no address can be reached")
        return None

    async def _room(self, due: float | None) -> Connection:
        """The next connection that takes a call; raises CallError at `due`, or if none will."""
        connection = None
        while connection is None:
            waiter: asyncio.Future[None] = running.loop().create_future()
            self._waiting.append(waiter)
            try:
                async with asyncio.timeout_at(due):
                    await waiter
            except TimeoutError:
                raise _late() from None
            finally:
                with suppress(ValueError):
                    self._waiting.remove(waiter)
            connection = self._next(clock.now())
        return connection

    def _wake(self) -> None:
        while self._waiting:
            waiter = self._waiting.popleft()
            if not waiter.done():
                waiter.set_result(None)

    def _changed(self) -> None:
        """A connection has opened, made room or ended."""
        for address, link in list(self._links.items()):
            if link.ask_again:
                link.ask_again = False
                self._resolved_at = -RESOLVE_STALE_S
            if link.is_retired and link.is_idle:
                del self._links[address]
        self._turns = list(self._links.values())
        self._wake()

    async def _resolve(self) -> None:
        found: dict[Address, str] = {}
        try:
            for host, port in self._targets:
                found |= dict.fromkeys(await _addresses(host, port), host)
        except OSError:
            # As it was: the old addresses may still answer.
            found = {}
        finally:
            self._resolving = None
            self._resolve_due = clock.now() + RESOLVE_AGAIN_S
        if found:
            self._resolved_at = clock.now()
            self._adopt(found)
        self._changed()

    def _adopt(self, found: dict[Address, str]) -> None:
        for address, link in list(self._links.items()):
            if address not in found:
                link.retire()
        for address, host in found.items():
            known = self._links.get(address)
            if known is None or known.is_retired:
                self._links[address] = Link(address, host, self._tls, self._changed)


def _late() -> CallError:
    return CallError(StatusCode.DEADLINE_EXCEEDED, "the deadline has passed")


def _split(target: str) -> tuple[str, int]:
    host, _, port = target.rpartition(":")
    return host.strip("[]"), int(port)


async def _addresses(host: str, port: int) -> list[Address]:
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [(str(address[0]), int(address[1])) for *_, address in found]


def _tls_context() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.set_alpn_protocols(["h2"])
    return context
