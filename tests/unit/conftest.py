"""The fake service, and the REST and gRPC servers that the unit tests put in front of it."""

import asyncio
import socket
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import grpc
import httpx
import pytest
import uvicorn
from hypothesis import HealthCheck, settings
from starlette.applications import Starlette

from openinference import text_tensors
from openinference.errors import ServingError
from openinference.generation import Chunk, FinishReason
from openinference.grpc_servicer import InferenceServicer, register
from openinference.messages import ModelState, ModelStatus, ServerMetadata
from openinference.proto.inference_pb2_grpc import GRPCInferenceServiceStub
from openinference.server import app as server_app
from openinference.server.http_protocol import StrictHttpProtocol
from openinference.service import check_model
from tests.browser import chromium

MAX_BODY_BYTES = 4096

settings.register_profile(
    "unit", deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("unit")


class FakeService:
    """An InferenceService that plays `script`: yields chunks, raises errors, awaits events.

    Without a script every sequence is answered by "Hel" and "lo", or by "Hello" when not streamed.
    """

    def __init__(self):
        self.metadata = ServerMetadata("fake", "1.2", ("generate", "binary_tensor_data"))
        self.models = ("m",)
        self.max_timeout_s = None
        self.live = True
        self.ready = True
        self.status = ModelStatus(ModelState.READY)
        self.script = None
        self.reply_headers = {}
        self.calls = []
        self.began = asyncio.Event()
        self.ended = asyncio.Event()

    @property
    def request(self):
        """The only request so far."""
        ((request, _, _),) = self.calls
        return request

    @property
    def context(self):
        """The context of the only request so far."""
        ((_, _, context),) = self.calls
        return context

    async def until_ended(self):
        """Waits for the generation to be closed; fails rather than hang when nobody closes it."""
        async with asyncio.timeout(30):
            await self.ended.wait()

    async def is_live(self):
        return self.live

    async def is_ready(self):
        return self.ready

    async def is_model_ready(self, model, version):
        check_model(self.models, model, version)
        return self.ready

    async def model_metadata(self, model, version):
        check_model(self.models, model, version)
        return text_tensors.model_metadata(model, platform="fake")

    async def model_status(self, model, version):
        check_model(self.models, model, version)
        return self.status

    def generate(self, request, version, context) -> AsyncGenerator[Chunk, None]:
        self.calls.append((request, version, context))
        context.reply.headers.update(self.reply_headers)
        check_model(self.models, request.model, version)
        return self._play(request)

    async def _play(self, request):
        self.began.set()
        try:
            for step in _hello(request) if self.script is None else self.script:
                if isinstance(step, asyncio.Event):
                    await step.wait()
                elif isinstance(step, Exception):
                    raise step
                else:
                    yield step
        finally:
            self.ended.set()


def _hello(request):
    for index in range(request.sequences):
        if request.stream:
            yield Chunk(index, "Hel", 3, 1)
            yield Chunk(index, "lo", 3, 2, FinishReason.LENGTH)
        else:
            yield Chunk(index, "Hello", 3, 2, FinishReason.LENGTH)


@pytest.fixture(scope="module")
def browser():
    """A Chromium without a window."""
    with chromium() as driver:
        yield driver


@pytest.fixture
def service():
    return FakeService()


@pytest.fixture
def app(service):
    """An app with all our routes over the fake service."""
    return server_app.build(Starlette(), service, max_body_bytes=MAX_BODY_BYTES, openai=True)


@pytest.fixture
async def rest(app):
    """An HTTP client that calls the app without a socket."""
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        yield client


@pytest.fixture
async def rest_address(app):
    """Host and port of a uvicorn that serves the app."""
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(
        uvicorn.Config(app, http=StrictHttpProtocol, ws="none", log_config=None, lifespan="off")
    )
    task = asyncio.create_task(server.serve(sockets=[listener]))
    yield listener.getsockname()
    server.should_exit = server.force_exit = True
    await task


@pytest.fixture
def grpc_server():
    """Starts a gRPC server over a service; an async context manager that gives HOST:PORT.

    At its end, calls in flight get `grace_s` seconds.
    """

    @asynccontextmanager
    async def start(service, grace_s=None):
        server = grpc.aio.server()
        register(InferenceServicer(service), server)
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        try:
            yield f"127.0.0.1:{port}"
        finally:
            await server.stop(grace_s)

    return start


@pytest.fixture
async def grpc_target(service, grpc_server):
    """HOST:PORT of a gRPC server over the fake service."""
    async with grpc_server(service) as target:
        yield target


@pytest.fixture
async def channel(grpc_target):
    async with grpc.aio.insecure_channel(grpc_target) as channel:
        yield channel


@pytest.fixture
def stub(channel):
    return GRPCInferenceServiceStub(channel)


def _subclasses(kind):
    return {kind}.union(*(_subclasses(child) for child in kind.__subclasses__()))


@pytest.fixture(scope="session")
def every_error():
    """One error of each class, with a retry time where it takes one."""
    errors = []
    for kind in sorted(_subclasses(ServingError) - {ServingError}, key=lambda kind: kind.__name__):
        try:
            errors.append(kind("what was wrong", retry_after_s=2.5))
        except TypeError:
            errors.append(kind())
    return errors
