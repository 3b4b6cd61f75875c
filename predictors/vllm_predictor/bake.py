"""`python -m vllm_predictor.bake`: fills a compile cache with exactly the settings that will serve.

The engine is started, slowly, with the flags of the predictor; prompts of several lengths make it
compile what a first caller would else wait for. On a GPU it is started twice: the first start
measures what is free for the KV cache, and as that size is part of vLLM's cache key, the second
compiles with it. Then what the cache was made for is written beside it.
"""

import asyncio
import logging
import multiprocessing
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from kserve.model_server import parser

from openinference.generation import GenerationRequest, collect
from openinference.sampling import SamplingParams
from vllm_predictor import baked, engine_events, preflight
from vllm_predictor.server import set_environment
from vllm_predictor.settings import PredictorSettings

if TYPE_CHECKING:
    from vllm_predictor.engine import Engine

logger = logging.getLogger("vllm_predictor.bake")

# Words of a prompt, one or two tokens each: decode alone, a short prefill, one in pieces.
PROMPT_WORDS = (1, 30, 400)
# Kept back of what was free when the cache was baked: another start may find a little less.
KV_CACHE_SHARE = 0.97


def main() -> None:
    """The command; exits with status 1 when the engine cannot be started."""
    settings = PredictorSettings.from_args(sys.argv[1:], parents=[parser])
    if settings.compile_cache is None:
        sys.exit("--compile_cache: say which folder to fill")
    try:
        preflight.check(settings, None)
    except preflight.UnusableModel as unusable:
        sys.exit(f"--model_dir: {unusable}")
    target = settings.compile_cache
    target.mkdir(parents=True, exist_ok=True)
    (target / baked.MANIFEST).unlink(missing_ok=True)
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="keepwarm-") as folder:
        baked.set_environment(target)
        set_environment(settings, Path(folder))
        from vllm_predictor import engine, engine_config

        # The cache is not checked while it is made.
        made = engine.build(settings.model_copy(update={"compile_cache": None}), lambda: None)
        try:
            asyncio.run(_use(settings, made))
        finally:
            made.shutdown()
        measured = [value for name, value in engine_events.events() if name == "kv_cache_gib"]
        device = engine_config.device()
        for child in multiprocessing.active_children():
            child.kill()
    if settings.kv_cache_gib is None and measured:
        free_gib = round(measured[-1] * KV_CACHE_SHARE, 2)
        logger.info("%.1f GiB are for the KV cache; once more with that size", free_gib)
        logging.shutdown()
        again = (sys.executable, "-m", "vllm_predictor.bake", *sys.argv[1:])
        os.execv(sys.executable, (*again, f"--kv_cache_gib={free_gib}"))  # noqa: S606 (ourselves)
    baked.Baked(
        baked.wanted(settings),
        baked.model_id(settings.model_dir),
        baked.versions(),
        device,
        settings.kv_cache_gib,
    ).write(target)
    size = sum(file.stat().st_size for file in target.rglob("*") if file.is_file())
    logger.info("baked %s: %.1f MiB in %.0f s", target, size / 2**20, time.monotonic() - began)
    logging.shutdown()
    # vLLM's objects end badly when the interpreter takes its modules apart.
    os._exit(0)


async def _use(settings: PredictorSettings, made: "Engine") -> None:
    for number, words in enumerate(PROMPT_WORDS):
        prompt = " ".join(["word"] * words)
        await collect(
            request := GenerationRequest(
                settings.model_name,
                (prompt,),
                SamplingParams(max_tokens=4, temperature=0.0, ignore_eos=True),
                stream=False,
            ),
            made.generate(request, f"bake-{number}"),
        )


if __name__ == "__main__":
    main()
