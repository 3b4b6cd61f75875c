"""What a load driver says to a server, and when an answer has begun: V2, generate, OpenAI."""

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import orjson
from schedule import Planned

# Words that are one token each to most tokenizers; a prompt's first word makes it unlike others.
_LINES = (
    "the of and to in is that it was for on are as with his they at be this from have or by one had"
    " not but what all were when we there can an your which their said if do will each about how up"
    " out them then she many some so these would other into has more her two like him see time"
)
WORDS = tuple(_LINES.split())
Body = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Ask:
    """One request to be made: the model's name and what all requests of a run share."""

    model: str
    ignore_eos: bool = True
    temperature: float = 0.0

    def sampling(self, output_tokens: int) -> Body:
        """The parameters that all protocols share."""
        wanted: Body = {"max_tokens": output_tokens, "temperature": self.temperature}
        if self.ignore_eos:
            wanted["ignore_eos"] = True
        return wanted


@dataclass(frozen=True, slots=True)
class Protocol:
    """A path (with `{model}`), the body of a request, and whether an event holds text."""

    path: str
    body: Callable[[Ask, Planned], Body]
    streams: bool
    has_text: Callable[[Body], bool]


def prompt(planned: Planned) -> str:
    """As many words as the prompt has tokens; of one name always the same."""
    start = sum(planned.prompt.encode())
    words = itertools.islice(itertools.cycle(WORDS), start % len(WORDS), None)
    return " ".join([planned.prompt, *itertools.islice(words, planned.prompt_tokens - 1)])


def _generate(ask: Ask, planned: Planned) -> Body:
    return {"text_input": prompt(planned), "parameters": ask.sampling(planned.output_tokens)}


def _infer(ask: Ask, planned: Planned) -> Body:
    tensor = {"name": "text_input", "shape": [1], "datatype": "BYTES", "data": [prompt(planned)]}
    return {"inputs": [tensor], "parameters": ask.sampling(planned.output_tokens)}


def _openai(ask: Ask, planned: Planned, *, stream: bool) -> Body:
    body = {"model": ask.model, **ask.sampling(planned.output_tokens), "stream": stream}
    if stream:
        body["stream_options"] = {"include_usage": True}
    return body


def _chat(*, stream: bool) -> Callable[[Ask, Planned], Body]:
    def body(ask: Ask, planned: Planned) -> Body:
        messages = [{"role": "user", "content": prompt(planned)}]
        return {"messages": messages, **_openai(ask, planned, stream=stream)}

    return body


def _completions(*, stream: bool) -> Callable[[Ask, Planned], Body]:
    def body(ask: Ask, planned: Planned) -> Body:
        return {"prompt": prompt(planned), **_openai(ask, planned, stream=stream)}

    return body


def _any(_: Body) -> bool:
    return True


def _has_output(event: Body) -> bool:
    return bool(event.get("text_output"))


def _has_choice(event: Body) -> bool:
    """Not the event that only names the role."""
    for choice in event.get("choices", ()):
        delta = choice.get("delta") or {}
        if choice.get("text") or delta.get("content") or delta.get("reasoning_content"):
            return True
    return False


_MODEL = "/v2/models/{model}"
_CHAT, _COMPLETIONS = "/v1/chat/completions", "/v1/completions"
PROTOCOLS = {
    "chat": Protocol(_CHAT, _chat(stream=True), streams=True, has_text=_has_choice),
    "chat-whole": Protocol(_CHAT, _chat(stream=False), streams=False, has_text=_any),
    "completions": Protocol(
        _COMPLETIONS, _completions(stream=True), streams=True, has_text=_has_choice
    ),
    "completions-whole": Protocol(
        _COMPLETIONS, _completions(stream=False), streams=False, has_text=_any
    ),
    "generate_stream": Protocol(
        f"{_MODEL}/generate_stream", _generate, streams=True, has_text=_has_output
    ),
    "generate": Protocol(f"{_MODEL}/generate", _generate, streams=False, has_text=_any),
    "infer": Protocol(f"{_MODEL}/infer", _infer, streams=False, has_text=_any),
}


def encoded(protocol: Protocol, ask: Ask, planned: Planned) -> tuple[str, bytes]:
    """Path and body as they go over the wire."""
    return protocol.path.format(model=ask.model), orjson.dumps(protocol.body(ask, planned))
