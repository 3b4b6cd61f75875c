"""The one request that all protocols become, and the chunks that answer it.

A GenerationRequest is made once at the edge; a service answers it with Chunks; the edge formats
them. Chunks of several sequences may interleave; each sequence is numbered `index` =
prompt number * n + choice number.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, NamedTuple

from openinference.errors import InternalError, InvalidInput, shown
from openinference.sampling import SamplingParams
from openinference.tokens import Token

MAX_SEQUENCES = 256
ROLES = ("system", "developer", "user", "assistant", "tool")


@dataclass(frozen=True, slots=True)
class Conversation:
    """Chat messages, for the model's own chat template; each has `role` and `content` texts."""

    messages: tuple[dict[str, str], ...]


Prompt = str | Conversation


@dataclass(frozen=True, slots=True)
class GenerationRequest:
    """Prompts to continue. With `stream` false each sequence is answered by one final chunk.

    `sequences` is how many answer it.
    """

    model: str
    prompts: tuple[Prompt, ...]
    sampling: SamplingParams
    stream: bool
    sequences: int = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        sequences = len(self.prompts) * self.sampling.n
        object.__setattr__(self, "sequences", sequences)
        if not 1 <= sequences <= MAX_SEQUENCES:
            raise InvalidInput(
                f"prompts times n must be from 1 to {MAX_SEQUENCES} sequences, got {sequences}"
            )


class FinishReason(StrEnum):
    """Why a sequence ended, in the words of OIP's generate extension."""

    LENGTH = "length"
    EOS = "eos_token"
    STOP_SEQUENCE = "stop_sequence"


class Chunk(NamedTuple):
    """New text of one sequence.

    `num_input_tokens` is the length of its prompt, `num_output_tokens` what it has generated so
    far; `finish_reason` is set on its last chunk and nowhere else. `tokens` are those of this
    chunk, where the request asks for log probabilities.
    """

    index: int  # type: ignore[assignment]  # a tuple's method, which a chunk has no use for
    text: str
    num_input_tokens: int
    num_output_tokens: int
    finish_reason: FinishReason | None = None
    tokens: tuple[Token, ...] = ()


class Completion(NamedTuple):
    """A finished sequence."""

    text: str
    finish_reason: FinishReason
    num_input_tokens: int
    num_output_tokens: int
    tokens: tuple[Token, ...] = ()


@dataclass(slots=True)
class Usage:
    """Token counts of a whole request, from its chunks as they pass."""

    n: int
    prompt_tokens: int = 0
    completion_tokens: int = 0

    def add(self, chunk: Chunk) -> None:
        """Counts a sequence when it ends; a prompt with several choices counts once."""
        if chunk.finish_reason is not None:
            self.completion_tokens += chunk.num_output_tokens
            if chunk.index % self.n == 0:
                self.prompt_tokens += chunk.num_input_tokens


def told(last: Mapping[int, Chunk], n: int) -> tuple[int, int]:
    """Tokens of prompts and of answers by now: `last` is each sequence's latest chunk, by index.

    A prompt with `n` choices counts once.
    """
    prompts: dict[int, int] = {}
    answers = 0
    for index, chunk in last.items():
        prompts[index // n] = chunk.num_input_tokens
        answers += chunk.num_output_tokens
    return sum(prompts.values()), answers


async def collect(request: GenerationRequest, chunks: AsyncIterator[Chunk]) -> list[Completion]:
    """All sequences of a request, in order of index; raises InternalError if one is missing."""
    return collected(request, [chunk async for chunk in chunks])


def collected(request: GenerationRequest, chunks: Sequence[Chunk]) -> list[Completion]:
    """`collect` of chunks that are there."""
    if request.sequences == len(chunks) == 1:
        # The usual answer when none is streamed.
        (only,) = chunks
        if only.index == 0 and only.finish_reason is not None:
            return [_completion(only.text, only, only.finish_reason, only.tokens)]
    texts: list[list[str]] = [[] for _ in range(request.sequences)]
    tokens: list[tuple[Token, ...]] = [()] * request.sequences
    last: list[Chunk | None] = [None] * request.sequences
    for chunk in chunks:
        if not 0 <= chunk.index < request.sequences:
            raise InternalError(
                f"the model answered sequence {chunk.index}, which is not asked for"
            )
        texts[chunk.index].append(chunk.text)
        if chunk.tokens:
            tokens[chunk.index] += chunk.tokens
        if chunk.finish_reason is not None:
            last[chunk.index] = chunk
    completions = []
    for parts, end, chosen in zip(texts, last, tokens, strict=True):
        if end is None or end.finish_reason is None:
            raise InternalError("the model ended its answer without a finish reason")
        completions.append(_completion("".join(parts), end, end.finish_reason, chosen))
    return completions


def _completion(
    text: str, last: Chunk, reason: FinishReason, tokens: tuple[Token, ...]
) -> Completion:
    return Completion(text, reason, last.num_input_tokens, last.num_output_tokens, tokens)


def parse_conversation(messages: Any, where: str = "messages") -> Conversation:
    """Chat messages from decoded JSON; raises InvalidInput naming the message and the field.

    `content` is a string or a list of {"type": "text", "text": ...} parts, which are joined.
    """
    if not isinstance(messages, list) or not messages:
        raise InvalidInput(f"{where} must be a non-empty list of messages")
    return Conversation(
        tuple([_message(message, f"{where}[{number}]") for number, message in enumerate(messages)])
    )


def _message(message: Any, where: str) -> dict[str, str]:
    if not isinstance(message, dict):
        raise InvalidInput(f"{where} must be an object with role and content")
    role = message.get("role")
    if role not in ROLES:
        raise InvalidInput(f"{where}.role must be one of {', '.join(ROLES)}, got {shown(role)}")
    content = message.get("content")
    if not isinstance(content, str):
        content = _joined(content, f"{where}.content")
    parsed = {"role": role, "content": content}
    for key, value in message.items():
        if key in ("role", "content"):
            continue
        if key == "name" and isinstance(value, str):
            parsed["name"] = value
        elif value not in (None, [], ""):
            raise InvalidInput(f"{where}.{key:.40} is not supported; allowed: role, content, name")
    return parsed


def _joined(content: Any, where: str) -> str:
    if not isinstance(content, list):
        raise InvalidInput(f"{where} must be a string or a list of text parts")
    texts: list[str] = []
    for number, part in enumerate(content):
        text = part.get("text") if isinstance(part, dict) and part.get("type") == "text" else None
        if not isinstance(text, str):
            raise InvalidInput(
                f"{where}[{number}] must be a text part {{'type': 'text', 'text': ...}}; "
                "other kinds of content are not supported"
            )
        texts.append(text)
    return "".join(texts)
