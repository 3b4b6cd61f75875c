"""The predictor's own server over an engine of fixed capacity, in place of vLLM's.

Everything but the engine is real: start-up phases, admission, drain, REST and gRPC. The engine runs
`--slots` sequences at a time and lets the others wait in order; each takes `--prefill_ms`, then
`--token_ms` for a token. What it says follows from the prompt alone (`answer`), so that a wrong
answer is seen as one; what it did is told as a metric, in tokens. The prompt `POISON` breaks it.
"""

import argparse
import asyncio
import gc
import json
import sys
import time
import types
import zlib
from collections.abc import AsyncGenerator, Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from prometheus_client import Counter

from openinference import text_tensors
from openinference.generation import Chunk, FinishReason, GenerationRequest
from vllm_predictor.settings import PredictorSettings

POISON = "poison"
TOKENS = Counter("fixed_engine_tokens", "Tokens generated, whoever has read them.")
ENDED = Counter("fixed_engine_sequences", "Sequences by how they ended.", ["end"])


def token(prompt: str, number: int) -> str:
    """The text of a prompt's token `number`, from 0."""
    return f" {zlib.crc32(f'{prompt}/{number}'.encode()):08x}"


def answer(prompt: str, tokens: int) -> str:
    """The whole text that a prompt gets."""
    return "".join(token(prompt, number) for number in range(tokens))


class FixedEngine:
    """Has the interface of vllm_predictor.engine.Engine."""

    is_dead = False

    def __init__(self, slots: int, prefill_s: float, token_s: float) -> None:
        self._slots = asyncio.Semaphore(slots)
        self._prefill_s = prefill_s
        self._token_s = token_s

    def shutdown(self) -> None:
        """Nothing runs outside of the requests."""

    async def generate(
        self,
        request: GenerationRequest,
        request_id: str,
        *,
        traceparent: str | None = None,
        on_scheduled: Callable[[float], None] | None = None,
    ) -> AsyncGenerator[Chunk, None]:
        """Sequences one after another; each waits for a slot of its own."""
        tokens = request.sampling.max_tokens or text_tensors.DEFAULT_MAX_TOKENS
        for index in range(request.sequences):
            prompt = str(request.prompts[index // request.sampling.n])
            asked = time.monotonic()
            async with self._slots:
                if on_scheduled is not None:
                    on_scheduled(time.monotonic() - asked)
                async for chunk in self._sequence(request, prompt, index, tokens):
                    yield chunk

    async def _sequence(
        self, request: GenerationRequest, prompt: str, index: int, tokens: int
    ) -> AsyncGenerator[Chunk, None]:
        if prompt == POISON:
            raise RuntimeError("the prompt is poison")
        length = len(prompt.split())
        end = "aborted"
        try:
            # Against the clock, so that a busy machine does not make the engine slower.
            due = time.monotonic() + self._prefill_s
            for number in range(tokens):
                await asyncio.sleep(max(0.0, due - time.monotonic()))
                due += self._token_s
                TOKENS.inc()
                if request.stream and number < tokens - 1:
                    yield Chunk(index, token(prompt, number), length, number + 1)
            end = "finished"
        finally:
            ENDED.labels(end).inc()
        text = token(prompt, tokens - 1) if request.stream else answer(prompt, tokens)
        yield Chunk(index, text, length, tokens, FinishReason.LENGTH)


def serve(
    build: Callable[[PredictorSettings], object], config: dict[str, Any], flags: list[str]
) -> None:
    """The predictor's server with `flags`, over what `build` makes in place of vLLM's engine.

    `config` tells models apart: the weights id follows from it.
    """

    def built(settings: PredictorSettings, on_config: Callable[[], None], **__: object) -> object:
        on_config()
        return build(settings)

    module = types.ModuleType("vllm_predictor.engine")
    vars(module)["build"] = built
    sys.modules["vllm_predictor.engine"] = module
    from vllm_predictor import server

    with TemporaryDirectory() as folder:
        # A model as far as the server looks; the weights id is that of the folder's files.
        (Path(folder) / "config.json").write_text(json.dumps(config))
        (Path(folder) / "model.bin").touch()
        # There is no vLLM here whose imports could be put off.
        sys.argv[1:] = [f"--model_dir={folder}", "--deferred_imports=false", *flags]
        gc.freeze()
        server.main()


def main() -> None:
    """The command: the flags above, then those of `python -m vllm_predictor`."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False, add_help=False)
    parser.add_argument("--slots", type=int, default=16)
    parser.add_argument("--prefill_ms", type=float, default=20)
    parser.add_argument("--token_ms", type=float, default=20)
    parser.add_argument("--start_s", type=float, default=0, help="how long loading takes")
    parser.add_argument("--weights", default="", help="what its weights id is made from")
    own, rest = parser.parse_known_args()

    def build(_: PredictorSettings) -> FixedEngine:
        time.sleep(own.start_s)
        return FixedEngine(own.slots, own.prefill_ms / 1e3, own.token_ms / 1e3)

    config = {"architectures": ["FixedEngine"], "weights": own.weights}
    serve(build, config, [f"--max_num_seqs={own.slots}", *rest])


if __name__ == "__main__":
    main()
