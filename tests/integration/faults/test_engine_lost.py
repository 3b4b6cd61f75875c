"""The real engine's process is killed, as the kernel's out-of-memory killer does it."""

from collections.abc import Callable, Iterator

import psutil
import pytest

from . import servers
from .requests import Client
from .servers import Server

# More than the test takes; the model's context bounds an answer.
LONG = 1500


@pytest.fixture
def predictor() -> Iterator[Server]:
    with servers.real_predictor() as server:
        yield server


async def test_an_engine_killed_in_a_stream_ends_it_with_an_error_event_and_then_its_predictor(
    predictor: Server,
    start_transformer: Callable[..., Server],
    client_of: Callable[[Server], Client],
) -> None:
    client = client_of(start_transformer(predictor.target, "--unreachable_hold_s=0"))
    async with client.stream("generate_stream", "Once upon a time", LONG) as stream:
        await stream.next()
        engines = [
            child
            for child in psutil.Process(predictor.process.pid).children(recursive=True)
            if "spawn_main" in " ".join(child.cmdline())
        ]
        assert engines
        for engine in engines:
            engine.kill()
        broken = await stream.rest()
    assert broken.text
    assert broken.error is not None
    assert "internal" not in broken.error
    # Only a new process can answer again, so this one ends.
    assert predictor.drained() == 1
    later = await client.ask("generate", "Once upon a time", 1)
    assert later.status == 503
    assert int(later.headers["retry-after"]) >= 1
