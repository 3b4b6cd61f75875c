"""What is refused before it costs anything: a full engine, a broken one, a spent retry budget."""

import asyncio
import time
from collections.abc import Callable
from contextlib import AsyncExitStack

import grpc
import pytest
from fixed_predictor import POISON, answer

from .requests import ENDLESS, REST, Client, infer_message, stub
from .servers import Server

SEQUENCES = "fixed_engine_sequences_total"
RETRIES = 'keepwarm_predictor_retries_total{allowed="%s",cause="full",model="model"}'


class FullEngine:
    """A stack whose engine has one sequence running and one waiting, and takes no more."""

    def __init__(self, predictor: Server, transformer: Server, client: Client) -> None:
        self.predictor = predictor
        self.transformer = transformer
        self.client = client

    async def fill(self, stack: AsyncExitStack) -> None:
        """Fills it until `stack` ends."""
        running = await stack.enter_async_context(
            self.client.stream("generate_stream", "a", ENDLESS)
        )
        await running.next()
        waiting = asyncio.create_task(self.client.ask("generate", "b", 1))
        stack.callback(waiting.cancel)
        calls = 'keepwarm_requests_in_flight{endpoint="grpc_ModelInfer"}'
        async with asyncio.timeout(20):
            while self.predictor.metric(calls) < 1:  # noqa: ASYNC110 (another process)
                await asyncio.sleep(0.02)


@pytest.fixture
def full(
    start_predictor: Callable[..., Server],
    start_transformer: Callable[..., Server],
    client_of: Callable[[Server], Client],
) -> FullEngine:
    predictor = start_predictor("--slots=1", "--max_num_queued_reqs=2")
    transformer = start_transformer(predictor.target)
    return FullEngine(predictor, transformer, client_of(transformer))


async def test_a_full_engine_is_503_with_a_time_before_any_stream_begins(full: FullEngine) -> None:
    message = "the engine is full: 2 sequences are in it, 2 may be; try again in "
    async with AsyncExitStack() as stack:
        await full.fill(stack)
        for kind in REST:
            refused = await full.client.ask(kind, "c", 1)
            assert refused.status == 503
            assert refused.error is not None
            assert refused.error.startswith(message)
            assert 1 <= int(refused.headers["retry-after"]) <= 30
        async with stub(full.transformer) as grpc_stub:
            with pytest.raises(grpc.aio.AioRpcError) as raised:
                await grpc_stub.ModelInfer(infer_message("c", 1))
            told = [
                each async for each in grpc_stub.ModelStreamInfer(iter([infer_message("c", 1)]))
            ]
        assert raised.value.code() is grpc.StatusCode.UNAVAILABLE
        assert float(dict(raised.value.trailing_metadata())["retry-after"]) >= 1
        assert [each.error_message.startswith(message) for each in told] == [True]
        # Nothing of it has reached the engine: the warm-up is all that has ended.
        assert full.predictor.metric(SEQUENCES) == 1
    assert (await full.client.ask("generate", "d", 2)).text == answer("d", 2)


async def test_repeats_of_what_was_refused_are_bounded_by_the_budget(full: FullEngine) -> None:
    asked = 60
    began = time.monotonic()
    async with AsyncExitStack() as stack:
        await full.fill(stack)
        answers = await asyncio.gather(
            *(full.client.ask("generate", f"{number}", 1) for number in range(asked))
        )
    assert {each.status for each in answers} == {503}
    allowed, refused = (full.transformer.metric(RETRIES % value) for value in ("true", "false"))
    # Fifty saved up, a fifth of a repeat for each request, one a second.
    assert allowed <= 50 + 0.2 * (asked + 2) + (time.monotonic() - began) + 1
    assert refused > 0
    calls = 'keepwarm_requests_total{endpoint="grpc_ModelInfer",status="UNAVAILABLE"}'
    assert full.predictor.metric(calls) == asked + allowed


async def test_a_predictor_that_keeps_failing_is_left_alone_until_a_trial_succeeds(
    start_predictor: Callable[..., Server],
    start_transformer: Callable[..., Server],
    client_of: Callable[[Server], Client],
) -> None:
    predictor = start_predictor()
    client = client_of(start_transformer(predictor.target))
    failed = [await client.ask("generate", POISON, 1) for _ in range(10)]
    assert {(each.status, each.error) for each in failed} == {(500, "internal error")}
    refused = await client.ask("generate", "Hi", 1)
    assert (refused.status, refused.headers["retry-after"]) == (503, "1")
    assert refused.error is not None
    assert refused.error.startswith("the predictor of model 'model' keeps failing")
    calls = 'keepwarm_requests_total{endpoint="grpc_ModelInfer",status="%s"}'
    assert predictor.metric(calls % "INTERNAL") == 10
    assert predictor.metric(calls % "OK") == 0
    async with asyncio.timeout(20):
        while (await client.ask("generate", "Hi", 1)).status != 200:  # noqa: ASYNC110
            await asyncio.sleep(0.1)
    # One good trial and everybody is served again.
    answers = await asyncio.gather(*(client.ask("generate", "Hi", 1) for _ in range(8)))
    assert {each.status for each in answers} == {200}
