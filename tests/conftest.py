"""What all tests share: free ports, waiting for a condition, real Redis, tests that come last."""

import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from .redis_servers import (
    CLUSTER_NODES,
    SENTINELS,
    ClusterGroup,
    RedisServer,
    SentinelGroup,
    start_cluster,
    start_sentinels,
    start_single,
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    # What ends the session's engine runs when nobody else needs it any more.
    items.sort(key=lambda item: item.get_closest_marker("last") is not None)


@pytest.fixture(scope="session")
def free_ports() -> Callable[[int], list[int]]:
    """N loopback ports that nobody listens on."""

    def take(count: int) -> list[int]:
        probes = [socket.socket() for _ in range(count)]
        try:
            for probe in probes:
                probe.bind(("127.0.0.1", 0))
            return [probe.getsockname()[1] for probe in probes]
        finally:
            for probe in probes:
                probe.close()

    return take


@pytest.fixture(scope="session")
def eventually() -> Callable[..., None]:
    """Waits until a condition holds; fails with its name when it does not in time."""

    def wait(
        condition: Callable[[], bool], what: str, *, timeout_s: float = 20, every_s: float = 0.05
    ) -> None:
        end = time.monotonic() + timeout_s
        while not condition():
            assert time.monotonic() < end, f"not within {timeout_s} s: {what}"
            time.sleep(every_s)

    return wait


@pytest.fixture(scope="module")
def redis_server(
    free_ports: Callable[[int], list[int]], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RedisServer]:
    """One redis-server for the module."""
    with ExitStack() as stack:
        (port,) = free_ports(1)
        yield start_single(stack, port, tmp_path_factory.mktemp("redis"))


@pytest.fixture
def fresh_redis(
    free_ports: Callable[[int], list[int]], tmp_path: Path
) -> Iterator[Callable[..., RedisServer]]:
    """Starts a redis-server for this test alone: to kill, freeze or fill. Takes its flags."""
    with ExitStack() as stack:

        def start(*flags: str) -> RedisServer:
            (port,) = free_ports(1)
            return start_single(stack, port, tmp_path / f"redis{port}", *flags)

        yield start


@pytest.fixture
def redis_sentinels(
    free_ports: Callable[[int], list[int]], tmp_path: Path
) -> Iterator[SentinelGroup]:
    """A master, a replica and three Sentinels."""
    with ExitStack() as stack:
        yield start_sentinels(stack, free_ports(2 + SENTINELS), tmp_path)


@pytest.fixture
def redis_cluster(free_ports: Callable[[int], list[int]], tmp_path: Path) -> Iterator[ClusterGroup]:
    """A Cluster of three masters and three replicas."""
    with ExitStack() as stack:
        yield start_cluster(stack, free_ports(2 * CLUSTER_NODES), tmp_path)
