"""What all tests share: free ports, waiting for a condition, tests that must come last."""

import socket
import time
from collections.abc import Callable

import pytest


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

    def wait(condition: Callable[[], bool], what: str, *, timeout_s: float = 20) -> None:
        end = time.monotonic() + timeout_s
        while not condition():
            assert time.monotonic() < end, f"not within {timeout_s} s: {what}"
            time.sleep(0.05)

    return wait
