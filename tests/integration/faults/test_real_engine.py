"""What only vLLM's own engine can show: its bound on waiting tokens, and its process's death."""

import asyncio
from collections.abc import Callable, Iterator

import psutil
import pytest

from . import servers
from .requests import Client
from .servers import Server

# More than the test takes; the model's context bounds an answer.
LONG = 1500


@pytest.fixture(scope="module")
def predictor() -> Iterator[Server]:
    with servers.real_predictor(
        "--max_num_seqs=2", "--max_num_queued_reqs=20", "--max_num_queued_tokens=500"
    ) as server:
        yield server


async def test_too_many_prompt_tokens_in_the_engine_are_503_before_a_stream_begins(
    predictor: Server,
    start_transformer: Callable[..., Server],
    client_of: Callable[[Server], Client],
) -> None:
    client = client_of(start_transformer(predictor.target))
    async with (
        client.stream("generate_stream", "Once upon a time", LONG) as one,
        client.stream("generate_stream", "In the beginning", LONG) as other,
    ):
        await one.next()
        await other.next()
        # Both places are taken, so these wait with all their tokens: two, then it is too many.
        waiting = [
            asyncio.create_task(client.ask("generate_stream", f"{number} " + "word " * 400, 1))
            for number in range(6)
        ]
        done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        refused = done.pop().result()
        assert (refused.status, refused.headers["retry-after"]) == (503, "1")
        assert refused.error == "the engine has too many prompt tokens waiting; try again in 1 s"
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)


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
