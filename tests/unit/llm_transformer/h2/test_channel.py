"""Calls over a channel, against gRPC's own server."""

import asyncio
from contextlib import AsyncExitStack, asynccontextmanager

import grpc
import pytest
from grpc import StatusCode

from llm_transformer.h2 import CallError, Channel, connection, frames, link

ECHO, STREAM, TELL, HOLD = (f"/test.Service/{name}" for name in ("Echo", "Stream", "Tell", "Hold"))
BOUND_S = 20


class Service:
    """What the tests call."""

    def __init__(self):
        self.calls = 0
        self.sent = 0
        self.metadata = {}
        self.remaining_s = None
        self.began = asyncio.Event()
        self.cancelled = asyncio.Event()
        self.go_on = asyncio.Event()

    async def echo(self, request, context):
        self.calls += 1
        self.metadata = dict(context.invocation_metadata())
        self.remaining_s = context.time_remaining()
        context.set_trailing_metadata((("x-said", "ä".encode().hex()),))
        return request

    async def stream(self, request, context):
        count, size = map(int, request.split())
        for number in range(count):
            await context.write(f"{number} ".encode().ljust(size, b"."))
            self.sent += 1

    async def tell(self, request, context):
        yield b"one"
        await context.abort(StatusCode.FAILED_PRECONDITION, "nicht möglich: 100%\n", (("k", "v"),))

    async def hold(self, request, context):
        self.began.set()
        yield b"begun"
        try:
            await self.go_on.wait()
        except asyncio.CancelledError:
            self.cancelled.set()
            raise
        yield b"ended"

    def service(self, details):
        """The handler of a method."""
        kinds = {
            ECHO: grpc.unary_unary_rpc_method_handler(self.echo),
            STREAM: grpc.unary_stream_rpc_method_handler(self.stream),
            TELL: grpc.unary_stream_rpc_method_handler(self.tell),
            HOLD: grpc.unary_stream_rpc_method_handler(self.hold),
        }
        return kinds.get(details.method)


class Handlers(grpc.GenericRpcHandler):
    """Bytes in, bytes out."""

    def __init__(self, service):
        self._service = service

    def service(self, handler_call_details):
        return self._service.service(handler_call_details)


@asynccontextmanager
async def serving(service, *options, port=0):
    """A server and its HOST:PORT."""
    server = grpc.aio.server(
        options=(("grpc.max_receive_message_length", -1), ("grpc.so_reuseport", 0), *options)
    )
    server.add_generic_rpc_handlers((Handlers(service),))
    port = server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    try:
        yield server, f"127.0.0.1:{port}"
    finally:
        await server.stop(None)


@pytest.fixture
async def service():
    return Service()


@pytest.fixture
async def channel(service):
    async with serving(service) as (_, target):
        channel = Channel(target, tls=False)
        async with asyncio.timeout(BOUND_S):
            yield channel
        await channel.close()


async def _all(channel, method, message=b"", **options):
    call = await channel.open(method, message, **options)
    got = []
    try:
        while messages := await call.read():
            got += messages
    finally:
        call.close()
    return got


async def _is_answered(channel):
    try:
        await channel.unary(ECHO, b"")
    except CallError as error:
        # gRPC's server cancels a call that has just begun when it stops.
        if error.code not in (StatusCode.UNAVAILABLE, StatusCode.CANCELLED):
            raise
        return False
    return True


async def _until(channel, *, answered):
    while await _is_answered(channel) is not answered:  # noqa: ASYNC110 (nobody tells)
        await asyncio.sleep(0.01)


async def _another_answers(stack, target, channel):
    """Another server at the same address gets the channel's next call."""
    other = Service()
    await stack.enter_async_context(serving(other, port=int(target.rpartition(":")[2])))
    await _until(channel, answered=True)
    assert other.calls == 1


@pytest.mark.parametrize("size", [0, 1, 16_379, 16_380, 70_000, 5_000_000])
async def test_a_message_of_any_size_goes_and_comes(channel, size):
    message = bytes(range(256)) * (size // 256) + bytes(size % 256)
    answer, trailing = await channel.unary(ECHO, message)
    assert answer == message
    assert ("x-said", "c3a4") in trailing


async def test_metadata_and_deadline_reach_the_server(channel, service):
    long = "x" * 20_000
    await channel.unary(ECHO, b"", timeout_s=50, metadata=[("a", "1"), ("b", long[:7000])])
    assert (service.metadata["a"], len(service.metadata["b"])) == ("1", 7000)
    assert 40 < service.remaining_s < 50.1


async def test_a_stream_comes_whole_and_in_order(channel):
    got = await _all(channel, STREAM, b"20000 20")
    assert [int(each.split()[0]) for each in got] == list(range(20_000))


async def test_a_status_comes_after_the_messages_before_it(channel):
    call = await channel.open(TELL, b"")
    assert await call.read() == [b"one"]
    with pytest.raises(CallError) as raised:
        await call.read()
    assert raised.value.code is StatusCode.FAILED_PRECONDITION
    assert raised.value.details == "nicht möglich: 100%\n"
    assert ("k", "v") in raised.value.trailing


async def test_an_unknown_method_is_unimplemented(channel):
    with pytest.raises(CallError) as raised:
        await channel.unary("/test.Service/None", b"")
    assert raised.value.code is StatusCode.UNIMPLEMENTED


async def test_hundreds_of_calls_at_once_get_each_its_own_answer(channel):
    async def one(number):
        answer, _ = await channel.unary(ECHO, b"%d" % number)
        return int(answer)

    assert await asyncio.gather(*map(one, range(500))) == list(range(500))


async def test_a_reader_that_does_not_read_holds_the_server_back(channel, service):
    call = await channel.open(STREAM, b"1000 10000")
    before = -1
    while service.sent != before or not service.sent:
        before = service.sent
        await asyncio.sleep(0.2)  # as long as nothing new comes
    assert service.sent < 500
    # Nobody else is held back by it.
    assert (await channel.unary(ECHO, bytes(100_000)))[0] == bytes(100_000)
    got = 0
    while messages := await call.read():
        got += len(messages)
    call.close()
    assert got == 1000


async def test_a_deadline_ends_the_call_on_both_sides(channel, service):
    with pytest.raises(CallError) as raised:
        await _all(channel, HOLD, timeout_s=0.2)
    assert raised.value.code is StatusCode.DEADLINE_EXCEEDED
    await service.cancelled.wait()


async def test_closing_a_call_ends_it_on_the_server(channel, service):
    call = await channel.open(HOLD, b"")
    assert await call.read() == [b"begun"]
    call.close()
    await service.cancelled.wait()
    assert (await channel.unary(ECHO, b"x"))[0] == b"x"


async def test_cancelling_who_waits_ends_the_call_on_the_server(channel, service):
    task = asyncio.create_task(_all(channel, HOLD))
    await service.began.wait()
    task.cancel()
    await service.cancelled.wait()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_server_that_bounds_its_streams_gets_more_connections(service):
    options = (("grpc.max_concurrent_streams", 3),)
    async with serving(service, *options) as (_, target), asyncio.timeout(BOUND_S):
        channel = Channel(target, tls=False)
        calls = [await channel.open(HOLD, b"") for _ in range(10)]
        for call in calls:
            assert await call.read() == [b"begun"]
        service.go_on.set()
        for call in calls:
            assert await call.read() == [b"ended"]
            assert await call.read() == []
        await channel.close()


async def test_when_no_more_connections_may_be_had_calls_wait_for_others_to_end(
    service, monkeypatch
):
    monkeypatch.setattr(link, "MOST_CONNECTIONS", 1)
    options = (("grpc.max_concurrent_streams", 2),)
    async with serving(service, *options) as (_, target), asyncio.timeout(BOUND_S):
        channel = Channel(target, tls=False)
        held = [await channel.open(HOLD, b"") for _ in range(2)]
        waiting = [asyncio.create_task(channel.unary(ECHO, b"%d" % n)) for n in range(20)]
        with pytest.raises(CallError) as raised:
            await channel.unary(ECHO, b"", timeout_s=0.1)
        assert raised.value.code is StatusCode.DEADLINE_EXCEEDED
        assert service.calls == 0
        for call in held:
            call.close()
        assert [answer for answer, _ in await asyncio.gather(*waiting)] == [
            b"%d" % n for n in range(20)
        ]
        await channel.close()


async def test_a_server_that_leaves_ends_what_it_has_begun_and_gets_nothing_new(service):
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(asyncio.timeout(BOUND_S))
        server, target = await stack.enter_async_context(serving(service))
        channel = Channel(target, tls=False)
        call = await channel.open(HOLD, b"")
        await call.read()
        stopping = asyncio.create_task(server.stop(2 * BOUND_S))
        await _until(channel, answered=False)
        await _another_answers(stack, target, channel)
        service.go_on.set()
        assert await call.read() == [b"ended"]
        assert await call.read() == []
        await stopping
        await channel.close()


async def test_a_connection_that_is_cut_fails_its_calls_and_is_made_anew(service):
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(asyncio.timeout(BOUND_S))
        server, target = await stack.enter_async_context(serving(service))
        channel = Channel(target, tls=False)
        call = await channel.open(HOLD, b"")
        await call.read()
        await server.stop(None)
        with pytest.raises(CallError) as raised:
            await call.read()
        assert raised.value.code is StatusCode.UNAVAILABLE
        await _another_answers(stack, target, channel)
        await channel.close()


@pytest.fixture
async def relay(service):
    """A way to the server that can fall silent without an end."""
    silent = asyncio.Event()
    passed = bytearray()
    tasks = set()

    async def pass_on(reader, writer):
        while data := await reader.read(65536):
            passed.extend(data)
            if not silent.is_set():
                writer.write(data)

    async def accept(reader, writer):
        other_reader, other_writer = await asyncio.open_connection(*target.split(":"))
        for each in (pass_on(reader, other_writer), pass_on(other_reader, writer)):
            tasks.add(asyncio.create_task(each))

    async with serving(service) as (_, target), asyncio.timeout(BOUND_S):
        server = await asyncio.start_server(accept, "127.0.0.1", 0)
        yield silent, passed, f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
        server.close()
        for task in tasks:
            task.cancel()


async def test_a_connection_that_falls_silent_is_found(relay, monkeypatch):
    monkeypatch.setattr(connection, "SILENCE_S", 0.2)
    monkeypatch.setattr(connection, "PONG_S", 0.2)
    silent, _, target = relay
    channel = Channel(target, tls=False)
    call = await channel.open(HOLD, b"")
    await call.read()
    silent.set()
    with pytest.raises(CallError) as raised:
        await call.read()
    assert (raised.value.code, raised.value.details) == (
        StatusCode.UNAVAILABLE,
        "the server is silent",
    )
    await channel.close()


async def test_a_long_silence_of_a_server_that_is_there_is_borne(relay, service, monkeypatch):
    monkeypatch.setattr(connection, "SILENCE_S", 0.05)
    monkeypatch.setattr(connection, "PONG_S", 1.0)
    _, passed, target = relay
    channel = Channel(target, tls=False)
    call = await channel.open(HOLD, b"")
    await call.read()
    answered = frames.frame(frames.PING, frames.ACK, 0, bytes(8))
    while passed.count(answered) < 2:  # noqa: ASYNC110 (the relay only passes on)
        await asyncio.sleep(0.01)
    service.go_on.set()
    assert await call.read() == [b"ended"]
    await channel.close()


async def test_a_closed_channel_fails_its_calls_and_takes_none(channel):
    call = await channel.open(HOLD, b"")
    await call.read()
    await channel.close()
    with pytest.raises(CallError) as raised:
        await call.read()
    assert raised.value.code is StatusCode.UNAVAILABLE
    with pytest.raises(CallError):
        await channel.unary(ECHO, b"")
