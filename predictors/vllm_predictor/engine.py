"""An AsyncLLM behind GenerationRequest and Chunk.

vLLM's internal paths move between releases (four times from 0.24 to 0.33); what we use of it is
used here, in `engine_config` and in `engine_ahead` only, and a test runs each line against the
pinned release.
"""

import asyncio
import contextlib
import itertools
import re
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing
from dataclasses import replace
from typing import Any

import jinja2
import orjson
from vllm import SamplingParams
from vllm.exceptions import GracefulHTTPError, VLLMClientError
from vllm.inputs import TextPrompt
from vllm.logprobs import Logprob
from vllm.lora.request import LoRARequest
from vllm.outputs import CompletionOutput
from vllm.platforms import current_platform
from vllm.renderers.params import ChatParams
from vllm.sampling_params import RequestOutputKind, StructuredOutputsParams
from vllm.utils.import_utils import import_pynvml
from vllm.v1.engine import utils as engine_processes
from vllm.v1.engine.async_llm import AsyncLLM
from vllm.v1.engine.exceptions import EngineDeadError
from vllm.v1.metrics.stats import RequestStateStats

from openinference.errors import InternalError, InvalidInput, Reason, Unavailable
from openinference.generation import (
    Chunk,
    Conversation,
    FinishReason,
    GenerationRequest,
    Prompt,
)
from openinference.sampling import SamplingParams as Sampling
from openinference.structured import Kind, StructuredOutputs
from openinference.tokens import LEAST_LOGPROB, Token
from vllm_predictor import baked, engine_config
from vllm_predictor.adapters import Adapter
from vllm_predictor.early_process import EarlyContext, EarlyProcess
from vllm_predictor.settings import PredictorSettings
from vllm_predictor.sleep import Level

# After this many seconds another try makes sense: prompts in the queue are soon computed.
BUSY_RETRY_S = 1.0
SHUTDOWN_S = 1.0
# Clock, file and line that xgrammar begins its messages with.
_WHERE = re.compile(r"\[[\d:]+\] \S+:\d+: ")
MAX_SENTENCE = 500
# The protocols let top_p be 0, which vLLM does not: of so little only the likeliest token is part.
LEAST_TOP_P = 1e-9


class Engine:
    """A running engine. Made by `build`, which blocks for as long as the model takes to load."""

    def __init__(self, llm: AsyncLLM) -> None:
        self._llm = llm
        self._numbers = itertools.count()
        self._max_model_len: int = llm.model_config.max_model_len
        self._special_ids = frozenset(llm.get_tokenizer().all_special_ids)

    @property
    def is_dead(self) -> bool:
        """Whether the engine's process has ended; it never comes back."""
        return bool(self._llm.errored)

    def shutdown(self) -> None:
        """Ends the engine's process; requests in flight fail."""
        # Nothing is in flight after a drain; vLLM's default waits 5 s for a process that idles.
        self._llm.shutdown(timeout=SHUTDOWN_S)

    async def sleep(self, level: Level) -> int:
        """Gives GPU memory back: KV cache and weights; how many bytes of it."""
        before = _free_gpu_bytes()
        with _unless_dead():
            await self._llm.sleep(level=level)
        return _free_gpu_bytes() - before

    async def wake_up(self, level: Level) -> None:
        """Takes the memory again; after level 2 the weights are read from disk again."""
        with _unless_dead():
            if level == 1:
                await self._llm.wake_up()
                return
            await self._llm.wake_up(tags=["weights"])
            await self._llm.collective_rpc("reload_weights")
            await self._llm.wake_up(tags=["kv_cache"])

    async def load_adapter(self, adapter: Adapter) -> None:
        """Loads a LoRA adapter; raises Unavailable when the engine is dead, else what vLLM says."""
        with _unless_dead():
            loaded = await self._llm.add_lora(_lora_request(adapter))
        if not loaded:
            raise InternalError

    async def unload_adapter(self, adapter: Adapter) -> None:
        """Forgets a LoRA adapter; one that is not loaded is no error."""
        with contextlib.suppress(EngineDeadError):
            await self._llm.remove_lora(adapter.number)

    async def generate(
        self,
        request: GenerationRequest,
        request_id: str,
        *,
        adapter: Adapter | None = None,
        traceparent: str | None = None,
        on_scheduled: Callable[[float], None] | None = None,
    ) -> AsyncGenerator[Chunk, None]:
        """The chunks that answer `request`; closing the generator aborts it in the engine.

        `on_scheduled` is told, with each prompt's first output, how many seconds it waited in the
        engine's queue. Raises InvalidInput for what the model cannot take, Unavailable when the
        engine is full or dead.
        """
        self._admit(request)
        # Callers may repeat an x-request-id; the engine must not see it twice at a time.
        engine_id = f"{request_id}-{next(self._numbers)}"
        sources = [
            self._generate_one(
                prompt,
                number,
                request,
                f"{engine_id}-{number}",
                adapter=adapter,
                traceparent=traceparent,
                on_scheduled=on_scheduled,
            )
            for number, prompt in enumerate(request.prompts)
        ]
        source = sources[0] if len(sources) == 1 else _merged(sources)
        async with aclosing(source):
            async for chunk in source:
                yield chunk

    def _admit(self, request: GenerationRequest) -> None:
        try:
            self._llm.check_admission(request.sequences)
        except GracefulHTTPError:
            raise _full() from None

    async def _generate_one(
        self,
        prompt: Prompt,
        number: int,
        request: GenerationRequest,
        engine_id: str,
        *,
        adapter: Adapter | None,
        traceparent: str | None,
        on_scheduled: Callable[[float], None] | None,
    ) -> AsyncGenerator[Chunk, None]:
        rendered = await self._render(prompt)
        prompt_tokens = len(rendered["prompt_token_ids"])
        sampling = request.sampling
        room = self._room(prompt_tokens, sampling.max_prompt_tokens)
        # All choices of a greedy request are one text, and vLLM refuses to make it twice.
        copies = sampling.n if sampling.temperature == 0 else 1
        counted = [0] * sampling.n
        try:
            outputs = self._llm.generate(
                rendered,
                _vllm_sampling(sampling, sampling.n // copies, room, stream=request.stream),
                engine_id,
                lora_request=_lora_request(adapter) if adapter else None,
                trace_headers={"traceparent": traceparent} if traceparent else None,
            )
            async with aclosing(outputs):
                async for output in outputs:
                    if on_scheduled is not None and output.metrics is not None:
                        on_scheduled(_queued_s(output.metrics))
                        on_scheduled = None
                    for choice in output.outputs:
                        counted[choice.index] += len(choice.token_ids)
                        _check_compiled(choice, sampling)
                        tokens = self._tokens(choice, sampling.logprobs)
                        if not choice.text and not tokens and choice.finish_reason is None:
                            continue
                        for copy in range(copies):
                            yield Chunk(
                                number * sampling.n + choice.index + copy,
                                choice.text,
                                prompt_tokens,
                                counted[choice.index],
                                _finish_reason(choice),
                                tokens,
                            )
        except VLLMClientError as error:
            raise InvalidInput(_sentence(error)) from None
        except GracefulHTTPError:
            raise _full() from None
        except EngineDeadError:
            raise Unavailable("the engine has ended", retry_after_s=BUSY_RETRY_S) from None

    def _tokens(self, choice: CompletionOutput, most: int | None) -> tuple[Token, ...]:
        """The choice's new tokens with the `most` likeliest of each place; () without logprobs."""
        if most is None or not choice.logprobs:
            return ()
        return tuple(self._token(position, most) for position in choice.logprobs)

    def _token(self, position: dict[int, Logprob], most: int) -> Token:
        """A place's token: of vLLM's entries the first is the chosen one, and ranks begin at 1."""
        tokens = [
            (
                entry.rank or 0,
                Token(
                    number,
                    entry.decoded_token or "",
                    max(entry.logprob, LEAST_LOGPROB),
                    number in self._special_ids,
                ),
            )
            for number, entry in position.items()
        ]
        chosen = tokens[0][1]
        top = sorted(tokens, key=lambda ranked: ranked[0])[:most]
        return replace(chosen, top=tuple(token for _, token in top))

    def _room(self, prompt_tokens: int, most: int | None) -> int:
        """What a prompt leaves for its answer, in tokens; raises InvalidInput when it is nothing.

        `most` is the longest prompt that the caller may send.
        """
        room = self._max_model_len - prompt_tokens
        if room < 1:
            raise InvalidInput(
                f"the prompt has {prompt_tokens} tokens; with an answer the model takes at most "
                f"{self._max_model_len}"
            )
        if most is not None and prompt_tokens > most:
            raise InvalidInput(
                f"the prompt has {prompt_tokens} tokens; at most {most} are allowed here"
            )
        return room

    async def _render(self, prompt: Prompt) -> Any:
        """The prompt's token ids as vLLM's input; raises InvalidInput when it does not fit."""
        renderer = self._llm.renderer
        try:
            if isinstance(prompt, Conversation):
                _, (rendered,) = await renderer.render_chat_async(
                    [[dict(message) for message in prompt.messages]],
                    ChatParams(chat_template_kwargs={"add_generation_prompt": True}),
                )
            else:
                (rendered,) = await renderer.render_cmpl_async([TextPrompt(prompt=prompt)])
        except jinja2.TemplateError as error:
            raise InvalidInput(f"the model's chat template refuses the messages: {error}") from None
        except (VLLMClientError, ValueError) as error:
            raise InvalidInput(_sentence(error)) from None
        return rendered


def build(
    settings: PredictorSettings,
    on_config: Callable[[], None],
    *,
    early: EarlyProcess | None = None,
) -> Engine:
    """Loads the model; `on_config` is called when vLLM has read the model's configuration.

    `early` becomes the engine's process. Blocks; run it in a thread. Raises what vLLM raises, with
    its cause in the log.
    """
    if settings.compile_cache is not None:
        made_for = baked.checked(settings, settings.compile_cache)
        baked.check_device(made_for, engine_config.device())
    config = engine_config.create(settings)
    on_config()
    if early is not None:
        context = EarlyContext(early)
        engine_processes.get_mp_context = lambda: context
    return Engine(AsyncLLM.from_vllm_config(config))


@contextlib.contextmanager
def _unless_dead() -> Iterator[None]:
    """Turns vLLM's word for an engine that has died into ours."""
    try:
        yield
    except EngineDeadError:
        raise Unavailable("the engine has ended", retry_after_s=BUSY_RETRY_S) from None


def _free_gpu_bytes() -> int:
    """Asked of the driver: this process has no CUDA context, and 0 without a GPU."""
    if not current_platform.is_cuda():
        return 0
    nvml = import_pynvml()
    nvml.nvmlInit()
    try:
        index = current_platform.device_id_to_physical_device_id(0)
        return int(nvml.nvmlDeviceGetMemoryInfo(nvml.nvmlDeviceGetHandleByIndex(index)).free)
    finally:
        nvml.nvmlShutdown()


def _lora_request(adapter: Adapter) -> LoRARequest:
    return LoRARequest(adapter.engine_name, adapter.number, str(adapter.folder))


def _vllm_sampling(sampling: Sampling, n: int, room: int, *, stream: bool) -> SamplingParams:
    return SamplingParams(
        n=n,
        max_tokens=min(sampling.max_tokens or room, room),
        min_tokens=min(sampling.min_tokens, room),
        temperature=sampling.temperature,
        top_p=max(sampling.top_p, LEAST_TOP_P),
        top_k=sampling.top_k,
        min_p=sampling.min_p,
        presence_penalty=sampling.presence_penalty,
        frequency_penalty=sampling.frequency_penalty,
        repetition_penalty=sampling.repetition_penalty,
        stop=list(sampling.stop),
        stop_token_ids=list(sampling.stop_token_ids),
        ignore_eos=sampling.ignore_eos,
        skip_special_tokens=sampling.skip_special_tokens,
        seed=sampling.seed,
        logprobs=sampling.logprobs,
        logit_bias=dict(sampling.logit_bias) or None,
        structured_outputs=_vllm_structured(sampling.structured_outputs),
        output_kind=RequestOutputKind.DELTA if stream else RequestOutputKind.FINAL_ONLY,
    )


def _vllm_structured(bound: StructuredOutputs | None) -> StructuredOutputsParams | None:
    if bound is None:
        return None
    match bound.kind:
        case Kind.JSON:
            return StructuredOutputsParams(json=bound.spec)
        case Kind.JSON_OBJECT:
            return StructuredOutputsParams(json_object=True)
        case Kind.REGEX:
            return StructuredOutputsParams(regex=bound.spec)
        case Kind.CHOICE:
            return StructuredOutputsParams(choice=orjson.loads(bound.spec))
        case Kind.GRAMMAR:
            return StructuredOutputsParams(grammar=bound.spec)


def _queued_s(stats: RequestStateStats) -> float:
    """From the engine's queue to its first step; both stamps are of the engine's own clock."""
    return max(0.0, float(stats.scheduled_ts) - float(stats.queued_ts))


def _full() -> Unavailable:
    return Unavailable(
        f"the engine has too many prompt tokens waiting; try again in {BUSY_RETRY_S:g} s",
        retry_after_s=BUSY_RETRY_S,
        reason=Reason.FULL,
    )


def _check_compiled(choice: CompletionOutput, sampling: Sampling) -> None:
    """Raises InvalidInput for a structured output that vLLM took and then could not compile.

    The engine ends such a request before its first token, and says no more than "error".
    """
    if choice.finish_reason == "error" and sampling.structured_outputs and not choice.token_ids:
        raise InvalidInput(
            f"structured_outputs: this {sampling.structured_outputs.kind} cannot be compiled"
        )


def _sentence(error: Exception) -> str:
    """What vLLM says, in one line and without where its libraries say it."""
    return _WHERE.sub("", " ".join(str(error).split()))[:MAX_SENTENCE]


def _finish_reason(choice: CompletionOutput) -> FinishReason | None:
    match choice.finish_reason:
        case None:
            return None
        case "length":
            return FinishReason.LENGTH
        case "stop":
            # vLLM names the stop string or token id, and leaves it out for end-of-sequence.
            return FinishReason.EOS if choice.stop_reason is None else FinishReason.STOP_SEQUENCE
        case "abort":
            raise Unavailable("the engine aborted the request", retry_after_s=BUSY_RETRY_S)
        case other:
            raise InternalError(f"the engine ended the request: {other}")


async def _merged(sources: list[AsyncGenerator[Chunk, None]]) -> AsyncGenerator[Chunk, None]:
    """The chunks of several generators as they come; the first error closes all."""
    queue: asyncio.Queue[Chunk | Exception | None] = asyncio.Queue(maxsize=64)

    async def drain(source: AsyncGenerator[Chunk, None]) -> None:
        try:
            async with aclosing(source):
                async for chunk in source:
                    await queue.put(chunk)
        except Exception as error:  # noqa: BLE001 (raised again by the reader)
            await queue.put(error)
        else:
            await queue.put(None)

    tasks = [asyncio.create_task(drain(source)) for source in sources]
    try:
        running = len(tasks)
        while running:
            item = await queue.get()
            if isinstance(item, Exception):
                raise item
            if item is None:
                running -= 1
            else:
                yield item
    finally:
        for task in tasks:
            task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.gather(*tasks, return_exceptions=True)
