"""Runs REST and gRPC on two ports until SIGTERM, then drains both.

On the first SIGTERM or SIGINT: not ready, no new connections, requests in flight run to their end
(at most `drain_s`), exit 0. A second signal ends the process at once.
"""

import asyncio
import contextlib
import gc
import logging
import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from functools import partial
from typing import Any

import grpc
import uvicorn
from grpc_health.v1 import _async as health_aio
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2
from starlette.types import ASGIApp

from openinference.grpc_servicer import SERVICE_NAME, InferenceServicer, register
from openinference.proto import _pool
from openinference.repeats import Keeper, Repeats
from openinference.server.http_protocol import StrictHttpProtocol
from openinference.server.settings import ServerSettings
from openinference.service import InferenceService

logger = logging.getLogger("openinference.server")

READINESS_PERIOD_S = 1.0
DRAIN_POLL_S = 0.05
# Longer than the idle timeout of proxies, which else meet a closed connection.
KEEP_ALIVE_S = 65
# For the last answers to reach their readers.
FLUSH_S = 0.5
# Python's own default looks for garbage cycles after 700 new objects, which is every few requests.
# Looking at 10,000 takes up to 5 ms, in which nobody is answered; at 50,000, up to 40.
GC_THRESHOLD = 10_000
GRPC_OPTIONS = (
    ("grpc.so_reuseport", 0),
    # Clients may ping every 5 s to find half-open connections.
    ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
    ("grpc.keepalive_permit_without_calls", 1),
    # Callers who are gone without a word are found within 45 s, and their work ends.
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 15_000),
    ("grpc.http2.ping_timeout_ms", 15_000),
)


class Lifecycle:
    """Whether the process drains; the service asks it before it says that it is ready."""

    def __init__(self) -> None:
        self._stop = asyncio.Event()

    @property
    def draining(self) -> bool:
        """True after the first signal."""
        return self._stop.is_set()

    def stop(self) -> None:
        """Begins the drain."""
        self._stop.set()

    async def stopped(self) -> None:
        """Waits for the drain to begin."""
        await self._stop.wait()


async def serve(
    app: ASGIApp,
    service: InferenceService,
    settings: ServerSettings,
    lifecycle: Lifecycle,
    *,
    background: Callable[[], Awaitable[None]] | None = None,
) -> None:
    """Serves until a signal, then drains; returns when nothing is in flight any more.

    `background` runs beside the servers (an engine's start, say); when it raises, the servers end
    and the exception is raised here.
    """
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, _on_signal, lifecycle, number)
    repeats = Repeats() if isinstance(service, Keeper) and service.keeps else None
    rest = QuietUvicorn(
        uvicorn.Config(
            app,
            host=settings.host,
            port=settings.http_port,
            http=partial(StrictHttpProtocol, repeats=repeats),  # type: ignore[arg-type]
            ws="none",
            log_config=None,
            access_log=False,
            timeout_keep_alive=KEEP_ALIVE_S,
            timeout_graceful_shutdown=None,
            lifespan="off",
            server_header=False,
            # Whose X-Forwarded-For to believe is the stages' to say: uvicorn would believe whoever
            # calls from this machine, which in a pod is queue-proxy.
            proxy_headers=False,
        )
    )
    _settle_garbage_collector()
    async with (
        _generators_unwatched(),
        _grpc_server(service, settings) as drain_grpc,
        asyncio.TaskGroup() as group,
    ):
        rest_task = group.create_task(rest.serve())
        work = group.create_task(_run(background, lifecycle))
        await lifecycle.stopped()
        logger.info("draining: requests in flight have %g s", settings.drain_s)
        rest.should_exit = True
        grpc_task = group.create_task(drain_grpc())
        try:
            async with asyncio.timeout(settings.drain_s):
                await asyncio.gather(asyncio.shield(rest_task), asyncio.shield(grpc_task))
        except TimeoutError:
            logger.warning(
                "drain: cutting off what is still in flight after %g s", settings.drain_s
            )
            rest.force_exit = True
        work.cancel()
    logger.info("drained")


def _settle_garbage_collector() -> None:
    """Takes the modules out of the garbage collector's sight and calls it less often.

    Else it walks through every object of every import again and again: a tenth of a request's CPU
    time, and pauses of 0.04 s.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(GC_THRESHOLD)


@contextlib.asynccontextmanager
async def _generators_unwatched() -> AsyncIterator[None]:
    """Has the event loop note no asynchronous generator, of which a request makes seven.

    It notes them to close at its end those that nobody has closed. Ours are closed by who reads
    them, and one that is dropped by its finalizer, which stays.
    """
    before = sys.get_asyncgen_hooks()
    sys.set_asyncgen_hooks(firstiter=None)
    try:
        yield
    finally:
        sys.set_asyncgen_hooks(*before)


def _on_signal(lifecycle: Lifecycle, number: int) -> None:
    if lifecycle.draining:
        logger.warning("second signal: exiting at once")
        os._exit(128 + number)
    logger.info("received %s", signal.Signals(number).name)
    lifecycle.stop()


async def _run(background: Callable[[], Awaitable[None]] | None, lifecycle: Lifecycle) -> None:
    if background is not None:
        try:
            await background()
        except asyncio.CancelledError:
            raise
        except BaseException:
            lifecycle.stop()
            raise


class QuietUvicorn(uvicorn.Server):
    """Uvicorn without its signal handlers: ours decide when it ends."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@contextlib.asynccontextmanager
async def _grpc_server(
    service: InferenceService, settings: ServerSettings
) -> AsyncIterator[Callable[[], Coroutine[Any, Any, None]]]:
    """A started gRPC server with health and reflection; yields what drains it."""
    age_s = settings.grpc_max_connection_age_s
    server = grpc.aio.server(
        options=(
            *GRPC_OPTIONS,
            ("grpc.max_receive_message_length", settings.grpc_max_receive_message_length),
            ("grpc.max_send_message_length", settings.grpc_max_send_message_length),
            # Calls in flight end by themselves: gRPC's grace after that age has no bound.
            *([("grpc.max_connection_age_ms", round(age_s * 1000))] if age_s else ()),
        )
    )
    servicer = InferenceServicer(service)
    register(servicer, server)
    healths = health_aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(healths, server)
    names = (SERVICE_NAME, health.SERVICE_NAME, reflection.SERVICE_NAME)
    reflection.enable_server_reflection(names, server, pool=_reflection_pool())
    address = f"{settings.host}:{settings.grpc_port}"
    try:
        server.add_insecure_port(address)
    except RuntimeError:
        raise SystemExit(f"cannot listen on {address} for gRPC: the port is taken") from None
    await server.start()
    watch = asyncio.create_task(_publish_health(service, healths))

    async def drain() -> None:
        await healths.enter_graceful_shutdown()
        stopping = asyncio.ensure_future(server.stop(settings.drain_s))
        # A stream may be open with nothing in flight, a health watch or an idle client's; it would
        # hold the drain to its end.
        while servicer.in_flight and not stopping.done():  # noqa: ASYNC110 (a plain count)
            await asyncio.sleep(DRAIN_POLL_S)
        await server.stop(FLUSH_S)
        await stopping

    try:
        yield drain
    finally:
        watch.cancel()
        await server.stop(0)


async def _publish_health(service: InferenceService, healths: Any) -> None:
    """Keeps grpc.health.v1 in step with the service's readiness."""
    serving = health_pb2.HealthCheckResponse
    while True:
        ready = await service.is_ready()
        for name in ("", SERVICE_NAME):
            await healths.set(name, serving.SERVING if ready else serving.NOT_SERVING)
        await asyncio.sleep(READINESS_PERIOD_S)


def _reflection_pool() -> Any:
    """Our descriptor pool, which reflection answers from, with the other two services added."""
    pool = _pool.Default()
    for module in (health_pb2, reflection_pb2):
        pool.AddSerializedFile(module.DESCRIPTOR.serialized_pb)
    return pool
