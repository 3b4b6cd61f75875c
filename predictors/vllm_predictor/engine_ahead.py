"""Builds the model in the engine's process before the front end is there to ask for it.

vLLM's front end imports everything, reads the model's configuration and its tokenizer, and only
then tells an engine to load the model. Both make their configuration of the same settings, so the
engine's process need not wait: it loads the model, and hands it over when vLLM's call comes.
"""

import gc
import importlib
import os
import threading
from collections.abc import Callable, Mapping
from typing import Any, Final

from vllm_predictor import deferred, preflight
from vllm_predictor.settings import PredictorSettings
from vllm_predictor.weights import read_ahead

Arguments = Mapping[str, Any]
# Where vLLM's call comes in; imported while there is nothing else to do.
_ENTRANCE: Final = "vllm.v1.engine.core"


def begin(settings: PredictorSettings) -> Callable[[Arguments], Arguments]:
    """Loads the model; what it returns puts it into the arguments of vLLM's call.

    A model that cannot be loaded raises when the call asks for it, where vLLM expects that.
    """
    if settings.load_format != "dummy":
        threading.Thread(target=read_ahead, args=(settings.model_dir,), daemon=True).start()
    opening = threading.Thread(target=_open_gpu, daemon=True)
    if preflight.has_gpu():
        opening.start()
    defer_imports(settings)
    built: Callable[[Any], Any]
    try:
        from vllm.v1.executor import Executor

        from vllm_predictor import engine_config

        config = engine_config.create(settings)
        # A fork keeps what it finds: neither a search for garbage in modules, nor none for ever.
        gc.freeze()
        gc.enable()
        if engine_config.is_cpu():
            # On a CPU vLLM computes in a child of this process: a fork need not import again.
            os.environ["VLLM_WORKER_MULTIPROC_METHOD"] = "fork"
        elif opening.ident is not None:
            opening.join()
        executor = Executor.get_class(config)(config)
    except Exception as error:  # noqa: BLE001 (raised where vLLM asks for the executor)
        failed = error

        def built(_: Any) -> Any:
            raise failed

        return lambda arguments: {**arguments, "executor_class": built}
    importlib.import_module(_ENTRANCE)

    return lambda arguments: {
        **arguments,
        "vllm_config": config,
        "executor_class": lambda _: executor,
    }


def defer_imports(settings: PredictorSettings) -> None:
    """Puts off, in this process, what these settings leave unused."""
    if settings.deferred_imports:
        on_cpu = not preflight.has_gpu()
        deferred.install(compiler=on_cpu and settings.is_eager(on_cpu=on_cpu))


def _open_gpu() -> None:
    """Makes the CUDA context, a second or more, beside the imports."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.set_device(0)
        torch.zeros(1, device="cuda")
