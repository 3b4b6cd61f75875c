"""A request ends at its deadline, or when its caller leaves, and the engine stops working on it."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator

import grpc
import pytest

from openinference.grpc_servicer import STRICT_STREAM_ERRORS

from . import servers
from .requests import ENDLESS, REST, STREAMS, Client, infer_message, stub
from .servers import Server

LATE = "the request's deadline has passed"
ABORTED = 'fixed_engine_sequences_total{end="aborted"}'
TOKENS = "fixed_engine_tokens_total"
TOKEN_MS = 20
# The engine stops well within a second; a busy machine gets more time here.
SOON_S = 5
PATIENCE_S = 20


@pytest.fixture(scope="module")
def predictor() -> Iterator[Server]:
    with servers.predictor("--slots=64", f"--token_ms={TOKEN_MS}") as server:
        yield server


@pytest.fixture(scope="module")
def transformer(predictor: Server) -> Iterator[Server]:
    with servers.transformer(predictor.target) as server:
        yield server


@pytest.fixture(scope="module")
def hasty_transformer(predictor: Server) -> Iterator[Server]:
    """One that gives no request more than half a second."""
    with servers.transformer(predictor.target, "--max_timeout_s=0.5") as server:
        yield server


@pytest.fixture
def client(client_of: Callable[[Server], Client], transformer: Server) -> Client:
    return client_of(transformer)


@pytest.fixture
async def engine_stops(predictor: Server) -> AsyncIterator[None]:
    """After the test, the engine has aborted a sequence and does nothing."""
    engine = EngineAtWork(predictor)
    yield
    engine.leave()
    await engine.stops_soon()


@pytest.mark.parametrize("kind", REST)
@pytest.mark.usefixtures("engine_stops")
async def test_at_the_header_s_deadline_the_caller_is_told_and_the_engine_stops(
    client: Client, kind: str
) -> None:
    answer = await client.ask(kind, "Hi", ENDLESS, {"x-request-timeout": "0.6"})
    assert answer.error == LATE
    # What has begun to stream can only end with an event.
    assert answer.status == (200 if kind in STREAMS else 504)
    assert (answer.text != "") == (kind in STREAMS)


@pytest.mark.usefixtures("engine_stops")
async def test_triton_s_timeout_is_in_microseconds(client: Client) -> None:
    answer = await client.ask("infer", "Hi", ENDLESS, timeout=600_000)
    assert (answer.status, answer.error) == (504, LATE)


@pytest.mark.parametrize("kind", ["infer", "generate_stream"])
@pytest.mark.usefixtures("engine_stops")
async def test_the_server_s_own_maximum_ends_what_has_no_deadline(
    client_of: Callable[[Server], Client], hasty_transformer: Server, kind: str
) -> None:
    answer = await client_of(hasty_transformer).ask(kind, "Hi", ENDLESS)
    assert answer.error == LATE
    assert answer.status == (504 if kind == "infer" else 200)


@pytest.mark.usefixtures("engine_stops")
async def test_a_grpc_deadline_ends_a_call(transformer: Server) -> None:
    async with stub(transformer) as grpc_stub:
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await grpc_stub.ModelInfer(infer_message("Hi", ENDLESS), timeout=0.6)
    assert raised.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED


@pytest.mark.usefixtures("engine_stops")
async def test_a_timeout_parameter_ends_one_request_of_a_grpc_stream_and_not_the_stream(
    transformer: Server,
) -> None:
    messages = [infer_message("Hi", ENDLESS, timeout=300_000), infer_message("Hi", 2)]
    async with stub(transformer) as grpc_stub:
        answers = [answer async for answer in grpc_stub.ModelStreamInfer(iter(messages))]
    assert [answer.error_message for answer in answers if answer.error_message] == [LATE]
    assert answers[-1].error_message == LATE
    assert len([answer for answer in answers if not answer.error_message]) > 2


@pytest.mark.usefixtures("engine_stops")
async def test_a_grpc_stream_that_asks_for_statuses_gets_one(transformer: Server) -> None:
    async with stub(transformer) as grpc_stub:
        call = grpc_stub.ModelStreamInfer(
            iter([infer_message("Hi", ENDLESS, timeout=300_000)]),
            metadata=((STRICT_STREAM_ERRORS, "true"),),
        )
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            async for _ in call:
                pass
    assert (raised.value.code(), raised.value.details()) == (
        grpc.StatusCode.DEADLINE_EXCEEDED,
        LATE,
    )


async def test_a_deadline_that_passes_in_the_queue_calls_no_engine(
    start_predictor: Callable[..., Server],
    start_transformer: Callable[..., Server],
    client_of: Callable[[Server], Client],
) -> None:
    predictor = start_predictor("--slots=1")
    client = client_of(start_transformer(predictor.target, "--predictor_concurrency=1"))
    async with client.stream("generate_stream", "first", ENDLESS) as first:
        await first.next()
        late = await client.ask("generate", "second", 1, {"x-request-timeout": "0.3"})
    assert (late.status, late.error) == (504, LATE)
    calls = 'keepwarm_requests_total{endpoint="grpc_ModelInfer"'
    assert predictor.metric(calls + ',status="OK"}') == 0


@pytest.mark.parametrize("kind", STREAMS)
async def test_a_caller_who_leaves_a_stream_frees_the_engine(
    client: Client, predictor: Server, kind: str
) -> None:
    engine = EngineAtWork(predictor)
    async with client.stream(kind, "Hi", ENDLESS) as stream:
        await stream.next()
        engine.leave()
    await engine.stops_soon()


@pytest.mark.parametrize("kind", [kind for kind in REST if kind not in STREAMS])
async def test_a_caller_who_leaves_before_its_answer_frees_the_engine(
    client: Client, predictor: Server, kind: str
) -> None:
    engine = EngineAtWork(predictor)
    asking = asyncio.create_task(client.ask(kind, "Hi", ENDLESS))
    await engine.begins()
    engine.leave()
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)
    await engine.stops_soon()


@pytest.mark.parametrize("method", ["ModelInfer", "ModelStreamInfer"])
async def test_a_grpc_caller_who_cancels_frees_the_engine(
    transformer: Server, predictor: Server, method: str
) -> None:
    engine = EngineAtWork(predictor)
    message = infer_message("Hi", ENDLESS)
    async with stub(transformer) as grpc_stub:
        call = getattr(grpc_stub, method)(message if method == "ModelInfer" else iter([message]))
        await engine.begins()
        engine.leave()
        call.cancel()
        await engine.stops_soon()


class EngineAtWork:
    """What the engine has done since the test began."""

    def __init__(self, predictor: Server) -> None:
        self._predictor = predictor
        self._aborted = predictor.metric(ABORTED)
        self._tokens = predictor.metric(TOKENS)

    async def begins(self) -> None:
        """Returns when it generates."""
        async with asyncio.timeout(PATIENCE_S):
            while self._predictor.metric(TOKENS) == self._tokens:  # noqa: ASYNC110
                await asyncio.sleep(0.02)

    def leave(self) -> None:
        """The caller leaves now."""
        self._tokens = self._predictor.metric(TOKENS)

    async def stops_soon(self) -> None:
        """Returns when one more sequence was aborted, soon after the caller had left."""
        async with asyncio.timeout(PATIENCE_S):
            while self._predictor.metric(ABORTED) <= self._aborted:  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        done = self._predictor.metric(TOKENS)
        assert done - self._tokens <= SOON_S * 1000 / TOKEN_MS
        await asyncio.sleep(5 * TOKEN_MS / 1e3)
        assert self._predictor.metric(TOKENS) == done
