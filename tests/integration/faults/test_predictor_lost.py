"""A predictor that dies, is replaced, moves or freezes under its callers."""

import asyncio
import shutil
import socket
import subprocess
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import grpc
import pytest
from fixed_predictor import answer

from openinference.grpc_servicer import STRICT_STREAM_ERRORS

from .requests import ENDLESS, STREAMS, Client, infer_message, stub
from .servers import MODEL, Server

LOST = (
    f"the predictor of model '{MODEL}' was lost during the answer, which is incomplete;"
    " send the request again"
)
CALLS = "fixed_engine_sequences_total"

StartPredictor = Callable[..., Server]
StartTransformer = Callable[..., Server]
ClientOf = Callable[[Server], Client]


async def _queued(predictor: Server, calls: int) -> None:
    """Returns when `calls` streams have reached the predictor's server."""
    name = 'keepwarm_requests_in_flight{endpoint="grpc_ModelStreamInfer"}'
    async with asyncio.timeout(20):
        while predictor.metric(name) < calls:  # noqa: ASYNC110 (another process)
            await asyncio.sleep(0.02)


@pytest.mark.parametrize("kind", STREAMS)
async def test_a_predictor_killed_in_a_stream_ends_it_with_an_error_event(
    start_predictor: StartPredictor,
    start_transformer: StartTransformer,
    client_of: ClientOf,
    kind: str,
) -> None:
    predictor = start_predictor()
    async with client_of(start_transformer(predictor.target)).stream(kind, "Hi", ENDLESS) as stream:
        await stream.next()
        predictor.kill()
        end = await stream.rest()
    assert end.error == LOST
    # All that came before is right, and nothing came after.
    assert answer("Hi", ENDLESS).startswith(end.text)
    assert "error" in end.bodies[-1]


async def test_a_predictor_killed_in_a_grpc_stream_ends_it_with_an_error_message_or_a_status(
    start_predictor: StartPredictor, start_transformer: StartTransformer
) -> None:
    predictor = start_predictor()
    transformer = start_transformer(predictor.target)
    async with stub(transformer) as grpc_stub:
        calls = [
            grpc_stub.ModelStreamInfer(iter([infer_message("Hi", ENDLESS)]), metadata=metadata)
            for metadata in ((), ((STRICT_STREAM_ERRORS, "true"),))
        ]
        for call in calls:
            assert not (await anext(aiter(call))).error_message
        predictor.kill()
        told = [message async for message in calls[0]]
        assert (told[-1].error_message, told[-1].infer_response.id) == (LOST, "abc")
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            async for _ in calls[1]:
                pass
    assert raised.value.code() is grpc.StatusCode.UNAVAILABLE
    assert raised.value.details() == LOST
    assert dict(raised.value.trailing_metadata())["retry-after"] == "1"


async def test_a_new_predictor_gets_what_had_no_token_yet_and_nothing_that_had(
    start_predictor: StartPredictor, start_transformer: StartTransformer, client_of: ClientOf
) -> None:
    first = start_predictor("--slots=1", "--max_num_queued_reqs=20")
    client = client_of(start_transformer(first.target))
    async with client.stream("generate_stream", "begun", ENDLESS) as begun:
        await begun.next()
        waiting = [
            asyncio.create_task(client.ask("generate_stream", f"waiting {number}", 3))
            for number in range(8)
        ]
        await _queued(first, 9)
        first.kill()
        assert (await begun.rest()).error == LOST
    second = start_predictor("--slots=8", "--token_ms=1", grpc=first.grpc)
    answers = await asyncio.gather(*waiting)
    assert [each.text for each in answers] == [
        answer(f"waiting {number}", 3) for number in range(8)
    ]
    # One more is the warm-up: what had begun is not among them.
    assert second.metric(CALLS) == 8 + 1


async def test_a_predictor_on_the_same_port_is_found_again(
    start_predictor: StartPredictor, start_transformer: StartTransformer, client_of: ClientOf
) -> None:
    first = start_predictor()
    client = client_of(start_transformer(first.target))
    for _ in range(2):
        assert (await client.ask("generate", "Hi", 2)).text == answer("Hi", 2)
        first.kill()
        first = start_predictor(grpc=first.grpc)
    assert (await client.ask("generate", "Hi", 2)).text == answer("Hi", 2)


class Hosts:
    """An /etc/hosts for processes started with its `wrapper`, in a mount namespace of theirs."""

    def __init__(self, file: Path) -> None:
        self._file = file
        mount = f'mount --bind "{file}" /etc/hosts && exec "$@"'
        self.wrapper = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", mount, "sh"]

    def point(self, address: str) -> None:
        """The predictor's name stands for `address` from now on."""
        self._file.write_text(f"127.0.0.1 localhost\n{address} predictor.test\n")


@pytest.fixture
def hosts(tmp_path: Path) -> Hosts:
    file = tmp_path / "hosts"
    file.touch()
    made = Hosts(file)
    tried = shutil.which("unshare") and subprocess.run(
        [*made.wrapper, "true"], check=False, capture_output=True
    )
    if not tried or tried.returncode != 0:
        pytest.skip("needs a mount namespace (unshare): this machine allows none")
    return made


async def test_a_predictor_at_a_new_address_of_its_name_is_found(
    start_predictor: StartPredictor,
    start_transformer: StartTransformer,
    client_of: ClientOf,
    hosts: Hosts,
) -> None:
    old = start_predictor(host="127.0.0.1")
    hosts.point(old.host)
    transformer = start_transformer(f"predictor.test:{old.grpc}", wrapper=hosts.wrapper)
    client = client_of(transformer)
    assert (await client.ask("generate", "Hi", 2)).text == answer("Hi", 2)
    new = start_predictor(host="127.0.0.2", grpc=old.grpc)
    hosts.point(new.host)
    old.kill()
    assert (await client.ask("generate", "Hi", 2)).text == answer("Hi", 2)
    assert new.metric(CALLS) == 1 + 1


class Swallower:
    """A TCP proxy that can stop passing bytes on without closing anything: half-open."""

    def __init__(self, port: int, target: int) -> None:
        self.port = port
        self._target = target
        self.swallowing = False

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection."""
        back, forth = await asyncio.open_connection("127.0.0.1", self._target)
        await asyncio.gather(self._pass(reader, forth), self._pass(back, writer))

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            while data := await reader.read(2**16):
                if not self.swallowing:
                    writer.write(data)
        writer.close()


@asynccontextmanager
async def _swallower(target: int) -> AsyncIterator[Swallower]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        proxy = Swallower(listener.getsockname()[1], target)
        server = await asyncio.start_server(proxy.serve, sock=listener.dup())
        yield proxy
        server.close()


async def test_a_connection_that_is_half_open_is_given_up_and_made_anew(
    start_predictor: StartPredictor, start_transformer: StartTransformer, client_of: ClientOf
) -> None:
    """Found by gRPC's keepalive in 15 s: a frozen predictor, a proxy that lost its state."""
    frozen, alive = start_predictor(), start_predictor()
    async with _swallower(alive.grpc) as proxy:
        clients = [
            # Not the watch over a silent stream: the connection itself is found dead.
            client_of(start_transformer(target, "--stream_stall_s=600"))
            for target in (frozen.target, f"127.0.0.1:{proxy.port}")
        ]

        async def lose(client: Client) -> None:
            async with client.stream("generate_stream", "Hi", ENDLESS) as stream:
                await stream.next()
                begun.release()
                assert (await stream.rest()).error == LOST

        begun = asyncio.Semaphore(0)
        losing = [asyncio.create_task(lose(client)) for client in clients]
        await begun.acquire()
        await begun.acquire()
        frozen.stop()
        proxy.swallowing = True
        await asyncio.gather(*losing)
        proxy.swallowing = False
        frozen.kill()
        start_predictor(grpc=frozen.grpc)
        for client in clients:
            assert (await client.ask("generate", "Hi", 2)).text == answer("Hi", 2)


async def test_a_kill_loses_only_what_was_in_flight_on_that_process(
    start_predictor: StartPredictor, start_transformer: StartTransformer, client_of: ClientOf
) -> None:
    predictor = start_predictor()
    killed, other = (start_transformer(predictor.target) for _ in range(2))

    async def stream(server: Server, number: int) -> str | None:
        try:
            async with client_of(server).stream("generate_stream", f"{number}", 50) as events:
                await events.next()
                begun.release()
                return (await events.rest()).text
        except Exception:  # noqa: BLE001 (what a caller of a killed process sees differs)
            return None

    begun = asyncio.Semaphore(0)
    streams = [
        asyncio.create_task(stream(server, number))
        for number in range(4)
        for server in (killed, other)
    ]
    for _ in streams:
        await begun.acquire()
    killed.kill()
    texts = await asyncio.gather(*streams)
    assert texts[1::2] == [answer(f"{number}", 50) for number in range(4)]
    assert texts[::2] == [None] * 4
    async with asyncio.timeout(20):
        # The engine does not work on for callers of a transformer that is gone.
        while predictor.metric('fixed_engine_sequences_total{end="aborted"}') < 4:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
