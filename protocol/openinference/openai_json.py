"""OpenAI's completions and chat completions: bodies, stream events and error objects.

Every member of a request is honoured, harmless to leave out, or refused by name: nothing that
could change the answer is ignored. Source: OpenAI API reference, "Chat" and "Completions".
"""

import random
import time
from collections.abc import Iterator, Mapping, Sequence
from enum import Enum
from typing import Any, Final

import orjson

from openinference import openai_logprobs, sampling, sse, structured
from openinference.errors import InvalidInput, ServingError, shown
from openinference.generation import (
    Chunk,
    Completion,
    FinishReason,
    GenerationRequest,
    Prompt,
    Usage,
    parse_conversation,
)
from openinference.tokens import Token

# OpenAI's documented default of /completions.
DEFAULT_COMPLETION_TOKENS: Final = 16
MAX_TEMPERATURE: Final = 2

# Members that describe the caller or its billing; leaving them out changes no answer.
HARMLESS: Final = frozenset(
    {"user", "metadata", "store", "service_tier", "safety_identifier", "prompt_cache_key"}
)
# Members that are refused unless they say "nothing of this kind".
INERT_VALUES: Final[Mapping[str, Sequence[Any]]] = {
    "tools": ([],),
    "tool_choice": ("none",),
    "functions": ([],),
    "function_call": ("none",),
    "parallel_tool_calls": (True, False),
    "echo": (False,),
    "best_of": (1,),
    "suffix": ("",),
    "modalities": (["text"],),
    "audio": (),
    "prediction": (),
    "reasoning_effort": (),
    "verbosity": (),
    "web_search_options": (),
}
_LEFT_OUT: Final = HARMLESS | set(INERT_VALUES)


class Endpoint(Enum):
    """Which of the two bodies: (object name, object name of a stream's events, id prefix)."""

    CHAT = ("chat.completion", "chat.completion.chunk", "chatcmpl-")
    COMPLETIONS = ("text_completion", "text_completion", "cmpl-")


class OpenAICall:
    """A parsed OpenAI request and what its answer needs to repeat."""

    def __init__(self, endpoint: Endpoint, body: dict[str, Any]) -> None:
        """Raises InvalidInput naming the offending member of `body`."""
        self._endpoint = endpoint
        members = {name: value for name, value in body.items() if value is not None}
        model = members.pop("model", None)
        if not isinstance(model, str) or not model:
            raise InvalidInput("model must be a non-empty string")
        self.stream = _flag(members, "stream")
        self._include_usage = self._stream_options(members.pop("stream_options", None))
        prompts = self._prompts(members)
        for name in [name for name in members if name in _LEFT_OUT]:
            if name in INERT_VALUES and not _is_inert(members[name], INERT_VALUES[name]):
                raise InvalidInput(f"'{name}' is not supported")
            del members[name]
        self._rename(members)
        self.request = GenerationRequest(
            model,
            prompts,
            sampling.parse(
                members,
                default_max_tokens=(
                    None if endpoint is Endpoint.CHAT else DEFAULT_COMPLETION_TOKENS
                ),
            ),
            self.stream,
        )
        if self.request.sampling.temperature > MAX_TEMPERATURE:
            raise InvalidInput(
                f"parameter 'temperature' must be a number from 0 to {MAX_TEMPERATURE}, "
                f"got {shown(members['temperature'])}"
            )
        # The members that a body begins with.
        whole, event, prefix = endpoint.value
        self._envelope = {
            "id": f"{prefix}{random.getrandbits(128):032x}",
            "object": event if self.stream else whole,
            "created": int(time.time()),
            "model": self.request.model,
        }
        self._started: set[int] = set()
        # How much of each choice's text has been told, for the offsets of /completions' tokens.
        self._told: dict[int, int] = {}
        # What events of each choice are that only tell a text.
        self._text_events: dict[int, sse.TextEvent] = {}

    def answer(self, completions: Sequence[Completion]) -> dict[str, Any]:
        """The body of a whole answer."""
        return {**self._envelope, **self.content(completions)}

    def content(self, completions: Sequence[Completion]) -> dict[str, Any]:
        """The body of a whole answer without its envelope."""
        choices = []
        for index, completion in enumerate(completions):
            content: dict[str, Any] = (
                {"message": {"role": "assistant", "content": completion.text, "refusal": None}}
                if self._endpoint is Endpoint.CHAT
                else {"text": completion.text}
            )
            choices.append(
                self._choice(index, content, completion.tokens, completion.finish_reason)
            )
        # A prompt with several choices counts once.
        prompt = sum([each.num_input_tokens for each in completions[:: self.request.sampling.n]])
        generated = sum([each.num_output_tokens for each in completions])
        return {"choices": choices, "usage": _usage(prompt, generated)}

    def opening(self) -> bytes:
        """The begin of a body, its envelope, for one more answer to the same request."""
        whole, _, prefix = self._endpoint.value
        return b'{"id":"%b%032x","object":"%b","created":%d,"model":%b,' % (
            prefix.encode(),
            random.getrandbits(128),
            whole.encode(),
            time.time(),
            orjson.dumps(self.request.model),
        )

    def events(self, chunk: Chunk) -> Iterator[dict[str, Any]]:
        """The stream events that a chunk becomes; the first of a chat choice names the role."""
        if self._endpoint is Endpoint.COMPLETIONS:
            yield self._event(chunk.index, {"text": chunk.text}, chunk.tokens, chunk.finish_reason)
            return
        if chunk.index not in self._started:
            self._started.add(chunk.index)
            yield self._event(chunk.index, {"delta": {"role": "assistant", "content": ""}})
        if chunk.text or chunk.tokens:
            yield self._event(chunk.index, {"delta": {"content": chunk.text}}, chunk.tokens)
        if chunk.finish_reason is not None:
            yield self._event(chunk.index, {"delta": {}}, finish_reason=chunk.finish_reason)

    def encoded_events(self, chunk: Chunk) -> bytes:
        """`events` as they are sent."""
        text_event = self._text_events.get(chunk.index)
        if (
            text_event is not None
            and chunk.text
            and not chunk.tokens
            and chunk.finish_reason is None
        ):
            return text_event.with_text(chunk.text)
        if text_event is None:
            self._text_events[chunk.index] = self._text_event(chunk.index)
        return sse.events(self.events(chunk))

    def usage_event(self, usage: Usage) -> dict[str, Any] | None:
        """The event before [DONE] that a caller gets who asked for `include_usage`."""
        if not self._include_usage:
            return None
        return {
            **self._envelope,
            "choices": [],
            "usage": _usage(usage.prompt_tokens, usage.completion_tokens),
        }

    def _text_event(self, index: int) -> sse.TextEvent:
        if self._endpoint is Endpoint.COMPLETIONS:
            return sse.TextEvent(self._event(index, {"text": ""}), "text")
        return sse.TextEvent(self._event(index, {"delta": {"content": ""}}), "content")

    def _event(
        self,
        index: int,
        content: dict[str, Any],
        tokens: Sequence[Token] = (),
        finish_reason: FinishReason | None = None,
    ) -> dict[str, Any]:
        event: dict[str, Any] = {
            **self._envelope,
            "choices": [self._choice(index, content, tokens, finish_reason)],
        }
        if self._include_usage:
            event["usage"] = None
        return event

    def _choice(
        self,
        index: int,
        content: dict[str, Any],
        tokens: Sequence[Token],
        finish_reason: FinishReason | None,
    ) -> dict[str, Any]:
        reason = "length" if finish_reason is FinishReason.LENGTH else "stop"
        return {
            "index": index,
            **content,
            "logprobs": self._logprobs(index, tokens) if tokens else None,
            "finish_reason": None if finish_reason is None else reason,
        }

    def _logprobs(self, index: int, tokens: Sequence[Token]) -> dict[str, Any]:
        if self._endpoint is Endpoint.CHAT:
            return openai_logprobs.chat(tokens)
        offset = self._told.get(index, 0)
        self._told[index] = offset + sum(len(token.text) for token in tokens)
        return openai_logprobs.completions(tokens, offset)

    def _stream_options(self, options: Any) -> bool:
        if options is None:
            return False
        if not self.stream:
            raise InvalidInput("stream_options is only allowed when stream is true")
        # Obfuscation pads events; what asks for none is honoured.
        allowed = {"include_usage", "include_obfuscation"}
        if not isinstance(options, dict) or set(options) - allowed:
            raise InvalidInput("stream_options must be an object with at most include_usage")
        if options.get("include_obfuscation", False) is not False:
            raise InvalidInput("stream_options.include_obfuscation must be false")
        return _flag(dict(options), "include_usage")

    def _prompts(self, members: dict[str, Any]) -> tuple[Prompt, ...]:
        if self._endpoint is Endpoint.CHAT:
            return (parse_conversation(members.pop("messages", None)),)
        prompt = members.pop("prompt", None)
        prompts = [prompt] if isinstance(prompt, str) else prompt
        if (
            not isinstance(prompts, list)
            or not prompts
            or not all(isinstance(text, str) for text in prompts)
        ):
            raise InvalidInput(
                "prompt must be a string or a non-empty list of strings; "
                "token ids are not supported"
            )
        return tuple(prompts)

    def _rename(self, members: dict[str, Any]) -> None:
        """Turns OpenAI's names for what others call differently into those of `sampling`."""
        if self._endpoint is Endpoint.CHAT:
            if "max_completion_tokens" in members:
                # It replaced max_tokens, and wins where both are given.
                members["max_tokens"] = members.pop("max_completion_tokens")
            if "logprobs" in members or "top_logprobs" in members:
                self._rename_logprobs(members)
        if "response_format" in members:
            if "structured_outputs" in members:
                raise InvalidInput("response_format and structured_outputs exclude each other")
            bound = structured.from_response_format(members.pop("response_format"))
            if bound is not None:
                members["structured_outputs"] = bound.members()

    @staticmethod
    def _rename_logprobs(members: dict[str, Any]) -> None:
        wanted = _flag(members, "logprobs")
        asked, parameter = members.pop("top_logprobs", 0), sampling.PARAMETERS["logprobs"]
        try:
            most = parameter.checked(asked)
        except ValueError:
            raise InvalidInput(
                f"top_logprobs must be {parameter.allowed}, got {shown(asked)}"
            ) from None
        if wanted:
            members["logprobs"] = most
        elif most:
            raise InvalidInput("top_logprobs is only allowed when logprobs is true")


def models(names: Sequence[str], created: int) -> dict[str, Any]:
    """The body of `GET /models`."""
    return {"object": "list", "data": [model(name, created) for name in names]}


def model(name: str, created: int) -> dict[str, Any]:
    """The body of `GET /models/NAME`; `created` is in seconds since 1970."""
    return {"id": name, "object": "model", "created": created, "owned_by": "keepwarm"}


_ERROR_TYPES: Final = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
}


def error(problem: ServingError) -> dict[str, Any]:
    """OpenAI's error object."""
    kind = _ERROR_TYPES.get(
        problem.http_status,
        "invalid_request_error" if problem.http_status < 500 else "server_error",
    )
    code = "model_not_found" if problem.http_status == 404 else None
    return {"error": {"message": problem.message, "type": kind, "param": None, "code": code}}


def _usage(prompt: int, generated: int) -> dict[str, int]:
    return {
        "prompt_tokens": prompt,
        "completion_tokens": generated,
        "total_tokens": prompt + generated,
    }


def _flag(members: dict[str, Any], name: str) -> bool:
    value = members.pop(name, False)
    if not isinstance(value, bool):
        raise InvalidInput(f"{name} must be true or false, got {shown(value)}")
    return value


def _is_inert(value: Any, inert_values: Sequence[Any]) -> bool:
    # Python's 1 equals True, but is not what is meant.
    return any(type(value) is type(inert) and value == inert for inert in inert_values)
