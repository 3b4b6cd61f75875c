"""Processes of the fault tests, ended when their test is, and clients of them."""

import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack

import httpx
import pytest

from . import servers
from .requests import Client
from .servers import Server

PATIENCE_S = 60.0

# What the fixed engine answers is known to its module alone.
sys.path.append(str(servers.FIXED_PREDICTOR.parent))


@pytest.fixture
def processes() -> Iterator[ExitStack]:
    """Ends what a test has started."""
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def start_predictor(processes: ExitStack) -> Callable[..., Server]:
    """Starts a predictor; see servers.predictor."""
    return lambda *flags, **options: processes.enter_context(servers.predictor(*flags, **options))


@pytest.fixture
def start_transformer(processes: ExitStack) -> Callable[..., Server]:
    """Starts a transformer in front of HOST:PORT; see servers.transformer."""

    def start(target: str, *flags: str, **options: object) -> Server:
        return processes.enter_context(servers.transformer(target, *flags, **options))

    return start


@pytest.fixture
async def client_of() -> AsyncIterator[Callable[[Server], Client]]:
    """Makes clients of servers."""
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(timeout=PATIENCE_S, limits=limits) as http:
        yield lambda server: Client(http, server)
