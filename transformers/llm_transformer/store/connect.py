"""Makes the client that an address asks for, without redis-py's own repeats."""

from typing import Any, Final

from redis import asyncio as redis
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel
from redis.backoff import NoBackoff

from llm_transformer.store.address import Kind, RedisAddress
from llm_transformer.store.guard import PROBE_S, Client, Cluster, Store

CONNECTIONS: Final = 128
# The longest wait for one of several nodes or Sentinels.
IN_TURN_S: Final = PROBE_S / 4


def connect(address: RedisAddress, *, timeout_s: float, connections: int = CONNECTIONS) -> Store:
    """A guarded store at `address`; connects when first used.

    `timeout_s` is the longest a request waits for an answer, in seconds; `connections` the most to
    each node.
    """
    client = _client(address, connections)
    return Store(client, str(address), timeout_s=timeout_s, connections=connections)


def _client(address: RedisAddress, connections: int) -> Client:
    # The guard bounds every call, so redis-py need not: its way costs a task for each command, and
    # may swallow a cancellation. But where it asks several in turn, a silent one must not take all
    # of a probe's time.
    socket: dict[str, Any] = {"socket_connect_timeout": IN_TURN_S, "protocol": 2}
    in_turn: dict[str, Any] = {**socket, "socket_timeout": IN_TURN_S}
    tls: dict[str, Any] = {"ssl": True, "ssl_ca_certs": address.ca_file} if address.tls else {}
    login: dict[str, Any] = {"username": address.username, "password": address.password}
    common: dict[str, Any] = {
        **(in_turn if address.kind is Kind.CLUSTER else {**socket, "socket_timeout": None}),
        **tls,
        **login,
        "max_connections": connections,
        # A second try is the guard's to decide.
        "retry": Retry(NoBackoff(), 0),
    }
    host, port = address.hosts[0]
    if address.kind is Kind.CLUSTER:
        nodes = [redis.cluster.ClusterNode(*node) for node in address.hosts]
        return Cluster(startup_nodes=nodes, require_full_coverage=False, **common)
    if address.kind is Kind.SENTINEL:
        sentinel = Sentinel(  # type: ignore[no-untyped-call]  # redis-py has no types there
            address.hosts,
            sentinel_kwargs={**in_turn, **tls, "password": address.sentinel_password},
        )
        client: redis.Redis = sentinel.master_for(address.master, db=address.db, **common)
        return client
    return redis.Redis(host=host, port=port, db=address.db, **common)
