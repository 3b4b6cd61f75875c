"""SIGTERM under streams: nobody new, everybody in flight to the end, then exit 0."""

import asyncio
import signal
from collections.abc import Awaitable, Callable

import grpc
import pytest
from fixed_predictor import answer
from grpc_health.v1 import health_pb2, health_pb2_grpc

from .requests import ENDLESS, Client, infer_message, stub, told_text
from .servers import Server

STREAMS = 64
TOKENS = 25
PACE = ("--slots=64", "--token_ms=100")

StartPredictor = Callable[..., Server]
StartTransformer = Callable[..., Server]
ClientOf = Callable[[Server], Client]


class Streams:
    """Half of them REST, half gRPC; `begun` when each has had its first token."""

    def __init__(self, server: Server, client: Client) -> None:
        self._server = server
        self._client = client
        self._begun = asyncio.Semaphore(0)
        asks: tuple[Callable[[str], Awaitable[str]], ...] = (self._rest, self._grpc)
        self._tasks = [
            asyncio.ensure_future(asks[number % 2](f"stream {number}")) for number in range(STREAMS)
        ]

    async def begun(self) -> None:
        for _ in self._tasks:
            await self._begun.acquire()

    async def texts(self) -> list[str]:
        return await asyncio.gather(*self._tasks)

    async def _rest(self, prompt: str) -> str:
        async with self._client.stream("generate_stream", prompt, TOKENS) as stream:
            await stream.next()
            self._begun.release()
            done = await stream.rest()
        assert done.error is None
        assert done.bodies[-1]["finish_reason"] == "length"
        return done.text

    async def _grpc(self, prompt: str) -> str:
        async with stub(self._server) as grpc_stub:
            told = []
            async for message in grpc_stub.ModelStreamInfer(iter([infer_message(prompt, TOKENS)])):
                if not told:
                    self._begun.release()
                told.append(message)
        return told_text(told)


@pytest.mark.parametrize("role", ["transformer", "predictor"])
async def test_sigterm_under_64_streams_lets_all_finish(
    start_predictor: StartPredictor,
    start_transformer: StartTransformer,
    client_of: ClientOf,
    role: str,
) -> None:
    server = predictor = start_predictor(*PACE)
    if role == "transformer":
        server = start_transformer(predictor.target)
    streams = Streams(server, client_of(server))
    async with grpc.aio.insecure_channel(server.target) as channel:
        health = health_pb2_grpc.HealthStub(channel)
        watch = health.Watch(health_pb2.HealthCheckRequest())
        while (await watch.read()).status != health_pb2.HealthCheckResponse.SERVING:
            pass
        await streams.begun()
        server.process.send_signal(signal.SIGTERM)
        assert (await watch.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING
        assert not server.is_ready()
        assert await streams.texts() == [answer(f"stream {n}", TOKENS) for n in range(STREAMS)]
    assert server.drained() == 0


async def test_a_predictor_that_drains_finishes_its_streams_and_the_next_one_gets_the_new_calls(
    start_predictor: StartPredictor, start_transformer: StartTransformer, client_of: ClientOf
) -> None:
    """A rollout on one address: what comes while the old one drains is held, not refused."""
    old = start_predictor(*PACE)
    transformer = start_transformer(
        old.target, f"--predictor_concurrency={2 * STREAMS}", "--unreachable_hold_s=60"
    )
    client = client_of(transformer)
    streams = Streams(transformer, client)
    await streams.begun()
    old.process.send_signal(signal.SIGTERM)
    late = [asyncio.create_task(client.ask("generate", f"late {n}", 2)) for n in range(8)]
    assert await streams.texts() == [answer(f"stream {n}", TOKENS) for n in range(STREAMS)]
    assert old.drained() == 0
    new = start_predictor(*PACE, grpc=old.grpc)
    answers = await asyncio.gather(*late)
    assert {(each.status, each.error) for each in answers} == {(200, None)}
    assert [each.text for each in answers] == [answer(f"late {n}", 2) for n in range(8)]
    assert new.metric("fixed_engine_sequences_total") == 8 + 1


async def test_a_drain_that_takes_too_long_is_cut_with_an_error_event(
    start_predictor: StartPredictor, start_transformer: StartTransformer, client_of: ClientOf
) -> None:
    predictor = start_predictor("--drain_s=1")
    client = client_of(start_transformer(predictor.target))
    async with client.stream("generate_stream", "Hi", ENDLESS) as stream:
        await stream.next()
        predictor.process.send_signal(signal.SIGTERM)
        cut = await stream.rest()
    assert cut.error is not None
    assert "was lost during the answer" in cut.error
    assert predictor.drained() == 0
