"""The drain, in a process of its own that gets real signals."""

import asyncio
import signal
import socket
import sys
from pathlib import Path

import grpc
import httpx
import orjson
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from openinference import v2_grpc
from openinference.messages import InferRequest, bytes_tensor
from openinference.proto import inference_pb2 as pb
from openinference.proto.inference_pb2_grpc import GRPCInferenceServiceStub
from openinference.server.lifecycle import Lifecycle

SERVER = Path(__file__).with_name("draining_server.py")
SERVING, NOT_SERVING = (
    health_pb2.HealthCheckResponse.SERVING,
    health_pb2.HealthCheckResponse.NOT_SERVING,
)
INFER = v2_grpc.encode_request(InferRequest("m", [bytes_tensor("text_input", ["Hi"])]))


async def test_a_lifecycle_drains_after_it_is_stopped():
    life = Lifecycle()
    assert not life.draining
    life.stop()
    assert life.draining
    await life.stopped()


def _free_ports():
    listeners = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
    ports = [listener.getsockname()[1] for listener in listeners]
    for listener in listeners:
        listener.close()
    return ports


class Server:
    """A running draining_server.py; both of its ports answer."""

    def __init__(self, process, http_port, channel):
        self.process = process
        self.url = f"http://127.0.0.1:{http_port}"
        self.channel = channel
        self.stub = GRPCInferenceServiceStub(channel)
        self.health = health_pb2_grpc.HealthStub(channel)

    def stream(self, client):
        return client.stream(
            "POST", f"{self.url}/v2/models/m/generate_stream", json={"text_input": "Hi"}
        )

    def signal(self, number=signal.SIGTERM):
        self.process.send_signal(number)


@pytest.fixture
async def start():
    """Starts a server with this behaviour and these flags, once it answers."""
    processes, channels = [], []

    async def start(behaviour, *flags):
        http_port, grpc_port = _free_ports()
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            SERVER,
            f"--http_port={http_port}",
            f"--grpc_port={grpc_port}",
            "--host=127.0.0.1",
            *flags,
            behaviour,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        processes.append(process)
        channel = grpc.aio.insecure_channel(
            f"127.0.0.1:{grpc_port}", options=(("grpc.max_reconnect_backoff_ms", 200),)
        )
        channels.append(channel)
        server = Server(process, http_port, channel)
        check = health_pb2.HealthCheckRequest()
        while (await server.health.Check(check, wait_for_ready=True)).status != SERVING:
            pass
        async with httpx.AsyncClient(transport=httpx.AsyncHTTPTransport(retries=9)) as client:
            assert (await client.get(f"{server.url}/v2/health/ready")).status_code == 200
        return server

    yield start
    for channel in channels:
        await channel.close(None)
    for process in processes:
        if process.returncode is None:
            process.kill()
        await process.wait()


def _text(line):
    return orjson.loads(line.removeprefix("data: "))["text_output"]


@pytest.fixture
async def client():
    async with httpx.AsyncClient(timeout=30) as client:
        yield client


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_lets_a_rest_stream_finish_and_the_exit_status_is_0(start, client, number):
    server = await start("finish")
    async with server.stream(client) as response:
        lines = response.aiter_lines()
        assert _text(await anext(lines)) == "begun"
        server.signal(number)
        rest = [_text(line) async for line in lines if line]
    assert rest == ["ready=False", "done"]
    out, err = await server.process.communicate()
    assert (server.process.returncode, out) == (0, b"served\n"), err


async def test_a_signal_lets_a_grpc_stream_finish_and_the_exit_status_is_0(start):
    server = await start("finish")
    call = server.stub.ModelStreamInfer(iter([INFER]))
    answers = aiter(call)
    await anext(answers)
    server.signal()
    rest = [each.infer_response.raw_output_contents[0][4:] async for each in answers]
    assert rest == [b"ready=False", b"done"]
    assert await server.process.wait() == 0


async def test_an_old_grpc_connection_ends_and_its_stream_does_not(start):
    server = await start("finish", "--grpc_max_connection_age_s=0.2")
    answers = aiter(server.stub.ModelStreamInfer(iter([INFER])))
    await anext(answers)
    while (state := server.channel.get_state()) is grpc.ChannelConnectivity.READY:
        await server.channel.wait_for_state_change(state)
    server.signal()
    rest = [each.infer_response.raw_output_contents[0][4:] async for each in answers]
    assert rest == [b"ready=False", b"done"]


async def test_while_draining_health_is_not_serving_and_new_calls_are_refused(start, client):
    server = await start("hang", "--drain_s=60")
    watch = aiter(server.health.Watch(health_pb2.HealthCheckRequest()))
    assert (await anext(watch)).status == SERVING
    async with server.stream(client) as response:
        lines = response.aiter_lines()
        await anext(lines)
        server.signal()
        assert (await anext(watch)).status == NOT_SERVING
        await anext(lines)
        assert _text(await anext(lines)) == "ready=False"
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await server.stub.ModelInfer(INFER)
        assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
        server.signal()


async def test_an_idle_server_ends_at_once(start):
    server = await start("finish")
    server.signal()
    assert await server.process.wait() == 0


async def test_open_streams_with_nothing_in_flight_do_not_hold_the_drain(start):
    server = await start("finish", "--drain_s=600")
    watch = aiter(server.health.Watch(health_pb2.HealthCheckRequest()))
    await anext(watch)
    idle = server.stub.ModelStreamInfer()
    await idle.write(pb.ModelInferRequest(model_name="m"))
    assert (await idle.read()).error_message
    server.signal()
    async with asyncio.timeout(60):
        assert await server.process.wait() == 0


async def test_a_taken_port_is_said_in_one_sentence(start):
    taken = socket.create_server(("127.0.0.1", 0))
    port = taken.getsockname()[1]
    http_port, _ = _free_ports()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, SERVER, "--host=127.0.0.1", f"--http_port={http_port}"),
        *(f"--grpc_port={port}", "finish"),
        stderr=asyncio.subprocess.PIPE,
    )
    _, err = await process.communicate()
    taken.close()
    assert process.returncode == 1
    assert f"cannot listen on 127.0.0.1:{port} for gRPC: the port is taken" in err.decode()
    assert "Traceback" not in err.decode()


async def test_a_second_signal_ends_the_process_at_once(start, client):
    server = await start("hang", "--drain_s=60")
    async with server.stream(client) as response:
        lines = response.aiter_lines()
        await anext(lines)
        server.signal()
        await anext(lines)
        assert _text(await anext(lines)) == "ready=False"
        server.signal()
        with pytest.raises(httpx.RemoteProtocolError):
            await anext(lines), await anext(lines)
    assert await server.process.wait() == 128 + signal.SIGTERM


async def test_what_outlives_the_drain_is_cut_off(start, client):
    server = await start("hang", "--drain_s=0.1")
    async with server.stream(client) as response:
        lines = response.aiter_lines()
        await anext(lines)
        server.signal()
        assert await server.process.wait() == 0


async def test_a_failure_in_the_background_ends_the_server_with_an_error(start, client):
    server = await start("fail")
    async with server.stream(client) as response:
        await anext(response.aiter_lines())
        _, err = await server.process.communicate()
    assert server.process.returncode == 1
    assert b"RuntimeError: the background failed" in err


async def test_the_callers_address_is_the_sockets_whatever_a_header_says(start, client):
    server = await start("address")
    headers = {"x-forwarded-for": "203.0.113.7", "x-forwarded-proto": "https"}
    answer = await client.post(
        f"{server.url}/v2/models/m/generate", json={"text_input": "Hi"}, headers=headers
    )
    assert answer.json()["text_output"] == "127.0.0.1"
