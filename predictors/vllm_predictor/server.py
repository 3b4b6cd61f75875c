"""The predictor's process: settings, vLLM's environment, KServe's registry and app, two ports."""

import asyncio
import logging
import multiprocessing
import os
import sys
import tempfile
from pathlib import Path

import kserve
from kserve.model_server import ModelServer, app, parser

from openinference.server import app as server_app
from openinference.server import lifecycle, spans
from vllm_predictor import baked, engine_events, preflight
from vllm_predictor.early_process import UNWANTED_WARNINGS, EarlyProcess
from vllm_predictor.service import EngineEnded, PredictorService
from vllm_predictor.settings import PredictorSettings
from vllm_predictor.startup import Startup, process_began

logger = logging.getLogger("vllm_predictor")


class PredictorModel(kserve.Model):  # type: ignore[misc]  # kserve is not typed
    """The model as KServe's registry knows it; our routes answer for it."""

    def __init__(self, name: str, service: PredictorService) -> None:
        super().__init__(name)
        self._service = service

    async def healthy(self) -> bool:
        return await self._service.is_ready()


async def run(settings: PredictorSettings, startup: Startup, early: EarlyProcess | None) -> None:
    """Serves until a signal, then drains."""
    life = lifecycle.Lifecycle()
    service = PredictorService(settings, startup, life, early)
    server = ModelServer(http_port=settings.http_port, workers=1, enable_grpc=False)
    server.register_model(PredictorModel(settings.model_name, service))
    logger.info(
        "starting model '%s' from %s, on ports %d (REST) and %d (gRPC)",
        settings.model_name,
        settings.model_dir,
        settings.http_port,
        settings.grpc_port,
    )
    with spans.tracer(settings, "keepwarm-predictor") as tracer:
        edge = spans.served(service, tracer, "engine")
        served = server_app.build(app, edge, max_body_bytes=settings.max_body_bytes, openai=False)
        await lifecycle.serve(served, edge, settings, life, background=service.run)


def set_environment(settings: PredictorSettings, folder: Path) -> None:
    """What vLLM and its children read from the environment; before vLLM is imported."""
    os.environ.update(
        {
            "HF_HUB_OFFLINE": "1",
            "VLLM_NO_USAGE_STATS": "1",
            "VLLM_CPU_KVCACHE_SPACE": str(settings.cpu_kv_cache_gib),
            # This process has threads (gRPC), so the engine's process must not be a fork of it.
            "VLLM_WORKER_MULTIPROC_METHOD": "spawn",
            # Its sockets, which else stay in /tmp for good when a process is killed.
            "VLLM_RPC_BASE_PATH": str(folder),
        }
    )
    # Children print these before they read any logging configuration, and Python's tracker of
    # shared memory when it cleans up after vLLM.
    os.environ.setdefault("PYTHONWARNINGS", UNWANTED_WARNINGS)
    engine_events.configure_logging(
        folder, settings.log_level, settings.engine_log_level, settings.log_format
    )


def with_baked(settings: PredictorSettings, scratch: Path) -> PredictorSettings:
    """`settings` with what was measured when the compile cache was baked; raises StaleBake."""
    folder = settings.compile_cache
    if folder is None:
        return settings
    found = baked.checked(settings, folder)
    baked.set_environment(baked.usable(folder, scratch))
    return settings.model_copy(update={"kv_cache_gib": settings.kv_cache_gib or found.kv_cache_gib})


def main(early: EarlyProcess | None = None) -> None:
    """Serves until SIGTERM; exits with status 1 when the engine fails to start or dies.

    `early` becomes the engine's process; without one the engine starts its own.
    """
    startup = Startup(process_began())
    settings = PredictorSettings.from_args(sys.argv[1:], parents=[parser])
    try:
        # A GPU's memory is asked for by the engine; the host's bounds what a CPU can serve.
        on_gpu = preflight.has_gpu()
        preflight.check(settings, None if on_gpu else preflight.host_memory_bytes())
    except preflight.UnusableModel as unusable:
        sys.exit(f"--model_dir: {unusable}")
    with tempfile.TemporaryDirectory(prefix="keepwarm-") as folder:
        try:
            settings = with_baked(settings, Path(folder))
        except baked.StaleBake as stale:
            sys.exit(str(stale))
        set_environment(settings, Path(folder))
        if early is not None:
            early.prepare(settings)
        try:
            status = _serve(settings, startup, early)
        except SystemExit as ended:
            status = ended.code if isinstance(ended.code, int) else 1
        # The engine's process, when the signal came before it was built.
        for child in multiprocessing.active_children():
            child.kill()
    # vLLM's objects end badly when the interpreter takes its modules apart, and a thread may still
    # be building one; all that must be closed is closed by now.
    logging.shutdown()
    os._exit(status)


def _serve(settings: PredictorSettings, startup: Startup, early: EarlyProcess | None) -> int:
    try:
        asyncio.run(run(settings, startup, early))
    except* EngineEnded as ended:
        logger.critical("%s; exiting so that it is started anew", ended.exceptions[0])
        status = 1
    except* Exception as errors:
        logger.exception("this went wrong:", exc_info=errors)
        logger.critical("cannot serve: %s", _first(errors))
        status = 1
    else:
        status = 0
    return status


def _first(problem: BaseException) -> str:
    """The first cause in a group of exceptions, in one line."""
    while isinstance(problem, BaseExceptionGroup):
        problem = problem.exceptions[0]
    return f"{type(problem).__name__}: {' '.join(str(problem).split())}"
