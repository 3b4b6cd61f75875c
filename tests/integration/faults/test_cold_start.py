"""A predictor that is not there yet: who waits, how long, what they hear, who wakes it."""

import asyncio
from collections.abc import Callable

import grpc
import pytest
from fixed_predictor import answer
from grpc_health.v1 import health_pb2, health_pb2_grpc

from tests.redis_servers import RedisServer

from .requests import STREAMS, Client, infer_message, stub, told_text
from .servers import MODEL, Server

STATUS = f"/v2/models/{MODEL}/status"
SEQUENCES = "fixed_engine_sequences_total"
GRPC_CALLS = 'keepwarm_request_seconds_count{endpoint="grpc_other"}'
EXPECTED_S = 100
# How long a stream stays silent before a comment.
QUIET_S = 10

StartPredictor = Callable[..., Server]
StartTransformer = Callable[..., Server]
ClientOf = Callable[[Server], Client]


async def _until_state(client: Client, state: str) -> dict[str, object]:
    async with asyncio.timeout(30):
        while True:
            status: dict[str, object] = (await client.get(STATUS)).json()
            if status["state"] == state:
                return status
            await asyncio.sleep(0.05)


async def test_health_and_status_ask_nobody_so_they_wake_nobody(
    start_predictor: StartPredictor, start_transformer: StartTransformer, client_of: ClientOf
) -> None:
    predictor = start_predictor()
    transformer = start_transformer(predictor.target, f"--expected_start_s={EXPECTED_S}")
    client = client_of(transformer)
    for path in ("/v2/health/live", "/v2/health/ready", f"/v2/models/{MODEL}/ready", STATUS):
        assert (await client.get(path)).status_code == 200
    with grpc.insecure_channel(transformer.target) as channel:
        health = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest())
    assert health.status == health_pb2.HealthCheckResponse.SERVING
    status = (await client.get(STATUS)).json()
    assert (status["state"], status["expected_s"]) == ("asleep", EXPECTED_S)
    assert predictor.metric(GRPC_CALLS) == 0


async def test_while_a_predictor_loads_each_caller_is_told_how_long_it_takes(
    start_predictor: StartPredictor, start_transformer: StartTransformer, client_of: ClientOf
) -> None:
    predictor = start_predictor("--start_s=6", ready=False)
    transformer = start_transformer(predictor.target, f"--expected_start_s={EXPECTED_S}")
    client = client_of(transformer)

    # One who does not wait begins the start and is told at once.
    nowait = await client.ask("generate", "Hi", 2, {"x-wake": "nowait"})
    assert nowait.status == 202
    (body,) = nowait.bodies
    assert (body["name"], body["state"], body["expected_s"]) == (MODEL, "starting", EXPECTED_S)
    assert 80 <= int(nowait.headers["retry-after"]) <= EXPECTED_S
    status = await _until_state(client, "starting")
    assert status["phase"] == "engine"
    assert 0 < float(str(status["elapsed_s"])) < EXPECTED_S

    # Past its deadline: 503, and how much longer it should take.
    impatient = await client.ask("generate", "Hi", 2, {"x-request-timeout": "0.5"})
    assert impatient.status == 503
    assert impatient.error is not None
    assert impatient.error.startswith(f"model '{MODEL}' is starting (phase engine), for ")
    assert 80 <= int(impatient.headers["retry-after"]) <= EXPECTED_S
    async with stub(transformer) as grpc_stub:
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await grpc_stub.ModelInfer(infer_message("Hi", 2), timeout=1)
    # A margin is left to the answer, so it is ours and not the channel's own.
    assert raised.value.code() is grpc.StatusCode.UNAVAILABLE
    assert float(dict(raised.value.trailing_metadata())["retry-after"]) > 80

    assert (await client.ask("generate", "Hi", 2)).text == answer("Hi", 2)
    assert (await client.get(STATUS)).json()["state"] == "ready"

    # What it took is what is now expected.
    measured = transformer.metric("keepwarm_predictor_start_seconds_sum")
    assert 1 < measured < EXPECTED_S
    predictor.kill()
    again = await client.ask("generate", "Hi", 2, {"x-request-timeout": "0.5"})
    assert again.status == 503
    assert 1 <= int(again.headers["retry-after"]) <= measured + 1
    status = (await client.get(STATUS)).json()
    assert status["expected_s"] == pytest.approx(measured, abs=0.1)


async def test_a_new_transformer_expects_what_another_has_measured(
    start_predictor: StartPredictor,
    start_transformer: StartTransformer,
    client_of: ClientOf,
    redis_server: RedisServer,
    free_ports: Callable[[int], list[int]],
) -> None:
    (port,) = free_ports(1)
    target, shared = f"127.0.0.1:{port}", f"--redis_url={redis_server.url}"
    first = start_transformer(target, shared, "--unreachable_hold_s=60")
    held = asyncio.create_task(client_of(first).ask("generate", "Hi", 2))
    await _until_state(client_of(first), "starting")
    start_predictor("--start_s=2", grpc=port, ready=False)
    assert (await held).text == answer("Hi", 2)
    measured = first.metric("keepwarm_predictor_start_seconds_sum")
    assert measured > 2
    first.kill()
    second = start_transformer(target, shared, "--redis_timeout_s=5")
    status = (await client_of(second).get(STATUS)).json()
    assert status["expected_s"] == pytest.approx(measured, abs=0.1)


async def test_all_who_wait_are_served_after_one_wake_up_and_streams_hear_comments(
    start_predictor: StartPredictor,
    start_transformer: StartTransformer,
    client_of: ClientOf,
    free_ports: Callable[[int], list[int]],
) -> None:
    (port,) = free_ports(1)
    transformer = start_transformer(f"127.0.0.1:{port}", "--unreachable_hold_s=60")
    client = client_of(transformer)
    streams = {kind: asyncio.create_task(client.ask(kind, f"{kind} held", 3)) for kind in STREAMS}
    late = asyncio.create_task(
        client.ask("generate_stream", "late", 3, {"x-request-timeout": f"{QUIET_S + 1}"})
    )
    held = [asyncio.create_task(client.ask("infer", f"held {n}", 3)) for n in range(50)]
    grpc_held = asyncio.create_task(_grpc_answer(transformer))
    await _until_state(client, "starting")
    predictor = start_predictor(f"--start_s={QUIET_S + 2}", grpc=port, ready=False)

    for kind, stream in streams.items():
        done = await stream
        assert done.text == answer(f"{kind} held", 3)
        assert done.comments
        assert done.comments[0].startswith(f"model '{MODEL}' is starting")
    ended = await late
    # Its stream had begun with a comment: what follows can only be an event.
    assert (ended.status, ended.text) == (200, "")
    assert ended.comments
    assert ended.error is not None
    assert ended.error.startswith(f"model '{MODEL}' is starting")
    assert [(await each).text for each in held] == [answer(f"held {n}", 3) for n in range(50)]
    assert await grpc_held == answer("grpc held", 3)

    # One probe, repeated with pauses up to a second, however many waited; one call for each.
    assert predictor.metric(GRPC_CALLS) < len(held)
    assert predictor.metric(SEQUENCES) == len(held) + len(streams) + 1 + 1


async def _grpc_answer(transformer: Server) -> str:
    async with stub(transformer) as grpc_stub:
        call = grpc_stub.ModelStreamInfer(iter([infer_message("grpc held", 3)]))
        return told_text([each async for each in call])


async def test_where_nothing_listens_callers_are_held_until_something_does(
    start_predictor: StartPredictor,
    start_transformer: StartTransformer,
    client_of: ClientOf,
    free_ports: Callable[[int], list[int]],
) -> None:
    (port,) = free_ports(1)
    client = client_of(start_transformer(f"127.0.0.1:{port}", "--unreachable_hold_s=60"))
    held = [asyncio.create_task(client.ask("generate", f"{n}", 2)) for n in range(10)]
    await _until_state(client, "starting")
    leaver = asyncio.create_task(client.ask("generate", "leaver", 2))
    await asyncio.sleep(0.2)
    leaver.cancel()
    predictor = start_predictor(grpc=port, ready=False)
    assert [(await each).text for each in held] == [answer(f"{n}", 2) for n in range(10)]
    # Who left while held has cost nothing.
    assert predictor.metric(SEQUENCES) == 10 + 1


async def test_where_nothing_ever_listens_callers_are_let_go(
    start_transformer: StartTransformer,
    client_of: ClientOf,
    free_ports: Callable[[int], list[int]],
) -> None:
    (port,) = free_ports(1)
    client = client_of(start_transformer(f"127.0.0.1:{port}", "--unreachable_hold_s=1"))
    for kind in ("infer", *STREAMS):
        refused = await client.ask(kind, "Hi", 2)
        assert (refused.status, refused.headers["retry-after"]) == (503, "1")
        assert refused.error == f"the predictor of model '{MODEL}' cannot be reached"
