"""The controller's process: `python -m keepwarm.warmpool`.

SIGTERM gives up the lead first, so that the other replica goes on within seconds.
"""

import asyncio
import contextlib
import logging
import signal
import sys
from collections.abc import Iterator

import uvicorn
from lightkube import AsyncClient
from pydantic import ValidationError
from pydantic_settings import CliApp

from keepwarm.warmpool import metrics
from keepwarm.warmpool.cluster import Cluster, Limiter
from keepwarm.warmpool.controller import Controller
from keepwarm.warmpool.election import Election, Terms
from keepwarm.warmpool.observed import Key
from keepwarm.warmpool.server import application
from keepwarm.warmpool.settings import ControllerSettings


class _Server(uvicorn.Server):
    """Leaves signals to this process."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


async def serve(settings: ControllerSettings) -> None:
    """Runs one replica until it is told to end."""
    client = AsyncClient(field_manager="keepwarm-warmpool")
    terms = Terms(settings.lease_s, settings.lease_s * 2 / 3, settings.lease_s / 7.5)
    lease = Key(settings.namespace, settings.lease_name)
    election = Election(client, lease, settings.identity, terms)
    limiter = Limiter(settings.writes_per_second, settings.write_burst)
    cluster = Cluster(client, limiter, lambda: election.leading, name=settings.identity)
    controller = Controller(cluster, election, workers=settings.workers)
    metrics.REGISTRY.register(
        metrics.Pools(
            controller.store.pools,
            leading=lambda: election.leading,
            waiting=lambda: len(controller.queue),
        )
    )
    app = application(cluster, lambda: controller.synced, settings.wake_audience)
    server = _Server(
        uvicorn.Config(
            app,
            host=settings.host,
            port=settings.port,
            log_config=None,
            access_log=False,
            lifespan="off",
            limit_concurrency=64,
        )
    )
    end = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, end.set)
    tasks = [asyncio.create_task(part) for part in (controller.run(), server.serve(), end.wait())]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        server.should_exit = True
        for task in (tasks[0], tasks[2]):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await client.close()
    for task in done:
        task.result()


def main() -> int:
    """Reads the settings and serves; the process's exit status."""
    try:
        settings = CliApp.run(ControllerSettings, cli_args=sys.argv[1:])
    except ValidationError as error:
        for problem in error.errors():
            flag = "-".join(map(str, problem["loc"])).replace("_", "-")
            sys.stderr.write(f"--{flag}: {problem['msg']}\n")
        return 2
    logging.basicConfig(
        level=settings.log_level.upper(),
        format="%(asctime)s %(levelname)-7s %(name)s: %(message)s",
        stream=sys.stdout,
    )
    logging.getLogger("httpx2").setLevel(logging.WARNING)
    asyncio.run(serve(settings))
    return 0


if __name__ == "__main__":
    sys.exit(main())
