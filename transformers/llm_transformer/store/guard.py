"""A guard around Redis: a call waits a bounded time, and for an ill node not at all.

Once a node has failed its calls raise StoreUnavailableError at once, while one task beside the
requests probes it until it takes writes again. In a Cluster each master has a circuit of its own,
so losing one does not stop the others.
"""

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final, TypeVar

from redis import asyncio as redis
from redis import exceptions

from llm_transformer.store import metrics
from llm_transformer.store.circuit import Circuit

logger = logging.getLogger("llm_transformer.store")

Answer = TypeVar("Answer")
Client = redis.Redis | redis.RedisCluster
# Longest time of a probe, which nobody waits for.
PROBE_S: Final = 2.0


class StoreUnavailableError(Exception):
    """Redis cannot be asked now; do without it."""


class StoreSkippedError(StoreUnavailableError):
    """Redis is known to be ill and has not been asked: nothing of the call has reached it."""


class Store:
    """A client and its health. `client` is for use inside `call` only."""

    def __init__(self, client: Client, name: str, *, timeout_s: float, connections: int) -> None:
        """`timeout_s` bounds a call, `connections` the calls at a time to each node."""
        self.client = client
        self._name = name
        self._timeout_s = timeout_s
        self._closed = False
        self._slots = asyncio.Semaphore(connections)
        self._circuits: dict[str, Circuit] = {}
        self._probers: set[asyncio.Task[None]] = set()
        self._listeners: list[Callable[[], None]] = []
        self._show()

    @property
    def is_up(self) -> bool:
        """Whether every node that has been asked is worth asking."""
        return not any(circuit.is_open for circuit in self._circuits.values())

    def on_recovery(self, listener: Callable[[], None]) -> None:
        """`listener` is called each time a node has been found well again."""
        self._listeners.append(listener)

    async def call(
        self,
        key: str,
        operation: Callable[[Client], Awaitable[Answer]],
        *,
        timeout_s: float | None = None,
    ) -> Answer:
        """What `operation` returns, whose keys are all in the slot of `key`.

        `timeout_s` is for an operation that waits in Redis on purpose. Raises
        StoreUnavailableError when the node of `key` is ill, fails or does not answer in time.
        """
        circuit = self._circuit(key)
        if circuit.is_open:
            metrics.SKIPPED.inc()
            raise StoreSkippedError
        loop = asyncio.get_running_loop()
        began = loop.time()
        try:
            async with asyncio.timeout(timeout_s or self._timeout_s), self._slots:
                answer = await operation(self.client)
        except (exceptions.RedisError, exceptions.RedisClusterException, OSError) as error:
            self._failed(circuit, key, error)
            raise StoreUnavailableError from error
        circuit.silences = 0
        metrics.CALLS.observe(loop.time() - began)
        return answer

    async def start(self) -> None:
        """Looks at Redis once, and goes on looking beside the requests when it is ill."""
        circuit = self._circuits.setdefault("", Circuit(""))
        if not await self._probe(circuit):
            circuit.failed("", silent=False)
            self._watch(circuit)

    async def close(self) -> None:
        """Ends the probes and the connections."""
        self._closed = True
        for prober in self._probers:
            prober.cancel()
        await asyncio.gather(*self._probers, return_exceptions=True)
        # A server that does not answer may keep a connection from ending in order.
        with suppress(exceptions.RedisError, OSError):
            async with asyncio.timeout(PROBE_S):
                await self.client.aclose()

    def _circuit(self, key: str) -> Circuit:
        """The circuit of the node that serves `key`."""
        node = ""
        if isinstance(self.client, Cluster):
            if not self.client.is_known:
                # Learning the layout takes longer than a request may wait: the prober does it.
                return self._unknown_layout(key)
            node = self.client.node_of(key)
        circuit = self._circuits.get(node)
        if circuit is None:
            circuit = self._circuits[node] = Circuit(key)
        return circuit

    def _unknown_layout(self, key: str) -> Circuit:
        circuit = self._circuits.setdefault("", Circuit(key))
        if circuit.failed(key, silent=False):
            self._watch(circuit)
        return circuit

    def _failed(self, circuit: Circuit, key: str, error: Exception) -> None:
        kind = _kind(error)
        metrics.FAILURES.labels(kind).inc()
        if kind is metrics.OTHER:
            logger.error("%s: refuses what it is asked", self._name, exc_info=error)
        elif not isinstance(error, exceptions.MaxConnectionsError) and circuit.failed(
            key, silent=kind is metrics.TIMEOUT
        ):
            logger.warning("%s: %s (%s); doing without", self._name, kind, type(error).__name__)
            self._watch(circuit)

    def _watch(self, circuit: Circuit) -> None:
        self._show()
        prober = asyncio.get_running_loop().create_task(self._probe_until_well(circuit))
        self._probers.add(prober)
        prober.add_done_callback(self._probers.discard)

    async def _probe_until_well(self, circuit: Circuit) -> None:
        # redis-py may swallow the cancellation of a probe.
        while circuit.is_open and not self._closed:
            # Not all replicas at once.
            await asyncio.sleep(circuit.probe_s * random.uniform(0.5, 1.5))  # noqa: S311
            if await self._probe(circuit):
                circuit.succeeded()
                self._recovered()
            else:
                circuit.probe_failed()

    async def _probe(self, circuit: Circuit) -> bool:
        """Whether the node takes a write: a replica, or a server without memory, does not."""
        try:
            async with asyncio.timeout(PROBE_S):
                if isinstance(self.client, redis.Redis):
                    # What was connected before may be another server's by now.
                    await self.client.connection_pool.disconnect(inuse_connections=False)
                await self.client.set(probe_key(circuit.key), b"", px=1000)
        except (exceptions.RedisError, exceptions.RedisClusterException, OSError):
            return False
        return True

    def _recovered(self) -> None:
        metrics.RECOVERIES.inc()
        self._show()
        if self.is_up:
            logger.info("%s: well again", self._name)
        for listener in self._listeners:
            listener()

    def _show(self) -> None:
        metrics.UP.set(self.is_up)


class Cluster(redis.RedisCluster):
    """A Cluster's client that tells where a key is."""

    async def initialize(
        self,
        additional_startup_nodes_info: list[tuple[str, int]] | None = None,
        last_failed_node_name: str | None = None,
    ) -> "Cluster":
        """Learns the layout; raises RedisClusterException while nobody serves a slot."""
        known = dict(self.nodes_manager.startup_nodes)
        try:
            await super().initialize(additional_startup_nodes_info, last_failed_node_name)
        except IndexError:
            # redis-py takes the first master without asking whether there is one, and has forgotten
            # by then whom it could ask again.
            self.nodes_manager.startup_nodes = known
            raise exceptions.RedisClusterException("no node serves a slot yet") from None
        return self

    @property
    def is_known(self) -> bool:
        """Whether the layout is known; until then a command first learns it."""
        return not self._initialize

    def node_of(self, key: str) -> str:
        """The name of the master that serves `key`; empty when nobody does."""
        try:
            node = self.nodes_manager.get_node_from_slot(self.keyslot(key))
        except exceptions.RedisClusterException:
            return ""
        return str(node.name)


def probe_key(key: str) -> str:
    """A key of our own in the slot of `key` (Redis Cluster specification, "Hash tags")."""
    _, _, rest = key.partition("{")
    tag, brace, _ = rest.partition("}")
    return f"keepwarm:probe:{{{tag if tag and brace else key or 'probe'}}}"


def _kind(error: Exception) -> str:
    # In this order: some of Redis's errors are connection errors too.
    kinds: tuple[tuple[tuple[type[Exception], ...], str], ...] = (
        ((exceptions.TimeoutError, TimeoutError), metrics.TIMEOUT),
        ((exceptions.ReadOnlyError,), metrics.READONLY),
        ((exceptions.OutOfMemoryError,), metrics.OOM),
        (
            (
                exceptions.ClusterError,
                exceptions.RedisClusterException,
                exceptions.AskError,
                exceptions.TryAgainError,
            ),
            metrics.CLUSTER,
        ),
        ((exceptions.ConnectionError, OSError), metrics.CONNECTION),
    )
    return next((kind for classes, kind in kinds if isinstance(error, classes)), metrics.OTHER)
