"""The predictor's own server over a simulated engine that batches as vLLM does (`batching.py`).

Everything but the engine is real: start-up phases, admission, deadlines, drain, REST and gRPC. How
long steps take is a profile's (`profiles/`, fitted by `fit_profile.py`) or a latency model's that
`keepwarm trace fit-latency` wrote. A word is a token; what it answers follows from the prompt alone
(`answer`), so that a wrong answer is seen as one. Every answer is as long as it may be.
"""

import argparse
import asyncio
import math
import time
import zlib
from collections.abc import AsyncGenerator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from batching import Batch, Profile, Sequence, from_latency_model, load
from fixed_predictor import serve
from prometheus_client import Counter, Gauge

from openinference import text_tensors
from openinference.generation import Chunk, FinishReason, GenerationRequest, Prompt
from vllm_predictor.settings import PredictorSettings

# Made once: a word costs a look-up, whoever streams thousands of them a second.
_WORDS = tuple(f" {number:03x}" for number in range(4096))
TOKENS = Counter("simulated_engine_tokens", "Tokens generated, whoever has read them.")
RUNNING = Gauge("simulated_engine_running", "Sequences that hold a place in the engine.")
WAITING = Gauge("simulated_engine_waiting", "Sequences that wait for a place.")


def answer(prompt: str, tokens: int, told: int = 0) -> str:
    """The text of a prompt's tokens from number `told` up to `tokens`."""
    first = zlib.crc32(prompt.encode())
    return "".join(_WORDS[(first + number) % len(_WORDS)] for number in range(told, tokens))


def text_of(prompt: Prompt) -> str:
    """A prompt as the engine sees it; of a conversation the contents, one a line."""
    if isinstance(prompt, str):
        return prompt
    return "\n".join(message["content"] for message in prompt.messages)


class SimulatedEngine:
    """Has the interface of vllm_predictor.engine.Engine. One wake-up of the loop serves a step."""

    is_dead = False

    def __init__(self, profile: Profile, tokens_per_event: int) -> None:
        """A stream is told of every `tokens_per_event` tokens; vLLM tells of each."""
        self._profile = profile
        self._tokens_per_event = tokens_per_event
        self._batch = Batch(profile)
        self._timer: asyncio.TimerHandle | None = None
        self._counted = 0
        RUNNING.set_function(lambda: self._batch.running)
        WAITING.set_function(lambda: self._batch.waiting)

    def shutdown(self) -> None:
        """Ends the steps; nobody is told of another."""
        if self._timer is not None:
            self._timer.cancel()

    async def generate(
        self,
        request: GenerationRequest,
        request_id: str,
        *,
        traceparent: str | None = None,
        on_scheduled: Callable[[float], None] | None = None,
    ) -> AsyncGenerator[Chunk, None]:
        """The chunks that answer `request`; closing the generator takes it out of the batch."""
        told: asyncio.Queue[tuple[Sequence, int]] = asyncio.Queue()
        prompts = [text_of(prompt) for prompt in request.prompts]
        sequences = self._enter(request, prompts, told)
        numbers = {id(sequence): index for index, sequence in enumerate(sequences)}
        counts = [0] * len(sequences)
        left = len(sequences)
        try:
            while left:
                sequence, tokens = await told.get()
                if on_scheduled is not None:
                    on_scheduled(sequence.scheduled - sequence.came)
                    on_scheduled = None
                index = numbers[id(sequence)]
                ends = tokens == sequence.output_tokens
                left -= ends
                yield Chunk(
                    index,
                    answer(prompts[index // request.sampling.n], tokens, counts[index]),
                    sequence.prompt_tokens,
                    tokens,
                    FinishReason.LENGTH if ends else None,
                )
                counts[index] = tokens
        finally:
            for sequence in sequences:
                self._batch.drop(sequence)

    def _enter(
        self,
        request: GenerationRequest,
        prompts: list[str],
        told: "asyncio.Queue[tuple[Sequence, int]]",
    ) -> list[Sequence]:
        came = time.monotonic() + self._profile.overhead_s
        sequences = [
            Sequence(
                came,
                len(prompt.split()),
                request.sampling.max_tokens or text_tensors.DEFAULT_MAX_TOKENS,
                self._tokens_per_event if request.stream else 0,
                told.put_nowait,
            )
            for prompt in prompts
            for _ in range(request.sampling.n)
        ]
        for sequence in sequences:
            self._batch.add(sequence)
        self._arm()
        return sequences

    def _arm(self) -> None:
        """Wakes at the end of the step in progress; none is there twice."""
        due = self._batch.next_s
        if self._timer is None and due is not None:
            # The loop's timers go by the millisecond: late rather than early and again.
            wait_ms = math.ceil(max(0.0, due - time.monotonic()) * 1e3)
            self._timer = asyncio.get_running_loop().call_later(wait_ms / 1e3, self._wake)

    def _wake(self) -> None:
        self._timer = None
        for sequence, tokens in self._batch.advance(time.monotonic()):
            sequence.caller((sequence, tokens))
        TOKENS.inc(self._batch.generated - self._counted)
        self._counted = self._batch.generated
        self._arm()


def main() -> None:
    """The command: the flags below, then those of `python -m vllm_predictor`."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False, add_help=False)
    parser.add_argument("--profile", default="h200-bf16", help="a name in profiles/, or a file")
    parser.add_argument("--latency_model", type=Path, help="a fitted latency model instead")
    parser.add_argument(
        "--tokens_per_event", type=int, default=1, help="tokens that a stream's event holds"
    )
    parser.add_argument("--start_s", type=float, default=0, help="how long loading takes")
    own, rest = parser.parse_known_args()
    if own.tokens_per_event < 1:
        parser.error("--tokens_per_event must be 1 or more")
    try:
        profile = load(own.profile) if own.latency_model is None else _fitted(own.latency_model)
    except ValueError as error:
        parser.error(str(error))

    def build(settings: PredictorSettings) -> SimulatedEngine:
        time.sleep(own.start_s)
        limits: dict[str, Any] = {
            "max_num_seqs": settings.max_num_seqs,
            "max_num_batched_tokens": settings.max_num_batched_tokens
            or profile.max_num_batched_tokens,
        }
        return SimulatedEngine(replace(profile, **limits), own.tokens_per_event)

    config = {"architectures": ["SimulatedEngine"], "profile": profile.name}
    serve(build, config, [f"--max_num_seqs={profile.max_num_seqs}", *rest])


def _fitted(path: Path) -> Profile:
    """The profile of a latency model's file; raises ValueError for what is none."""
    from keepwarm.traces.errors import TraceError
    from keepwarm.traces.latency import load as load_model

    try:
        return from_latency_model(load_model(path), path.stem)
    except TraceError as error:
        raise ValueError(str(error)) from None


if __name__ == "__main__":
    main()
