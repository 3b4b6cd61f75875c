"""The requests that the benchmarks send, and which answers to them are right.

The first answer on a connection is read and held against what the predictor said; those after it
must be the same bytes, save what each answer says of itself (an OpenAI id and time).
"""

from collections.abc import Callable
from itertools import count
from typing import Any, Final

import orjson
from canned import ANSWER, pieces
from closed_loop import Exchange, http_post

PROMPT: Final = "Answer in one sentence: what is the capital of France, and on which river?"
MAX_TOKENS: Final = 16
_DIGITS: Final = 12
_MARK: Final = "#" * _DIGITS
# No two requests of a run are the same where they must not be.
_numbers = count()

Check = Callable[[bytes], bool]


def infer_exchange(
    model: str, number: int, text: str = ANSWER, header: str = "", *, distinct: bool = False
) -> Exchange:
    """A V2 infer of one BYTES tensor; its answer must repeat the id and hold `text`.

    With `distinct` each prompt is another, so that no cache has its answer.
    """
    request_id = f"connection-{number}"
    tensor = {
        "name": "text_input",
        "shape": [1],
        "datatype": "BYTES",
        "data": [f"{PROMPT} {_MARK}" if distinct else PROMPT],
    }
    body = orjson.dumps(
        {
            "id": request_id,
            "inputs": [tensor],
            "parameters": {"max_tokens": MAX_TOKENS, "temperature": 0},
        }
    )

    def holds(answer: bytes) -> bool:
        message = orjson.loads(answer)
        (output,) = message["outputs"]
        return bool(message["id"] == request_id and output["data"] == [text])

    request = http_post(f"/v2/models/{model}/infer", body, header)
    return Exchange(request, _same_bytes(holds), _fresh(request) if distinct else None)


def chat_exchange(path: str, model: str, header: str = "", *, distinct: bool = False) -> Exchange:
    """An OpenAI chat; its answer must hold the predictor's text."""
    body = orjson.dumps(
        {
            "model": model,
            "messages": [{"role": "user", "content": f"{PROMPT} {_MARK}" if distinct else PROMPT}],
            "max_tokens": MAX_TOKENS,
            "temperature": 0,
        }
    )

    def is_right(status: int, answer: bytes) -> bool:
        if status != 200:
            return False
        (choice,) = orjson.loads(answer)["choices"]
        return bool(choice["message"]["content"] == ANSWER and choice["finish_reason"] == "stop")

    request = http_post(path, body, header)
    return Exchange(request, is_right, _fresh(request) if distinct else None)


def pace(pause_ms: float, *, in_step: bool) -> str:
    """The prompt that asks the canned predictor for this pace."""
    return f"{pause_ms:g} ms between tokens{', in step' if in_step else ''}"


def stream_exchange(
    model: str, *, tokens: int, prompt: str, header: str = "", distinct: bool = False
) -> Exchange:
    """A generate_stream; its events must hold the predictor's pieces."""
    body = orjson.dumps(
        {
            "text_input": f"{prompt} {_MARK}" if distinct else prompt,
            "parameters": {"max_tokens": tokens, "temperature": 0},
        }
    )

    def holds(answer: bytes) -> bool:
        texts = [event["text_output"] for event in _events(answer)]
        return texts == pieces(tokens)

    request = http_post(f"/v2/models/{model}/generate_stream", body, header)
    return Exchange(request, _same_bytes(holds), _fresh(request) if distinct else None)


def chat_stream_exchange(
    path: str, model: str, *, tokens: int, prompt: str, header: str = "", distinct: bool = False
) -> Exchange:
    """A streamed OpenAI chat; its deltas must hold the predictor's pieces."""
    body = orjson.dumps(
        {
            "model": model,
            "messages": [{"role": "user", "content": f"{prompt} {_MARK}" if distinct else prompt}],
            "max_tokens": tokens,
            "temperature": 0,
            "stream": True,
        }
    )

    def is_right(status: int, answer: bytes) -> bool:
        text, done, _ = answer.rpartition(b"data: [DONE]\n\n")
        if status != 200 or not done:
            return False
        deltas = [choice["delta"] for e in _events(text) for choice in e["choices"]]
        return "".join(delta.get("content") or "" for delta in deltas) == "".join(pieces(tokens))

    request = http_post(path, body, header)
    return Exchange(request, is_right, _fresh(request) if distinct else None)


def _events(answer: bytes) -> list[dict[str, Any]]:
    """The events' data; a comment, which keeps an idle stream alive, is none."""
    return [
        orjson.loads(event.removeprefix(b"data: "))
        for event in answer.split(b"\n\n")[:-1]
        if not event.startswith(b":")
    ]


def _same_bytes(holds: Check) -> Callable[[int, bytes], bool]:
    """Whether an answer is the first right one again; the first is read."""
    known: bytes | None = None

    def is_right(status: int, answer: bytes) -> bool:
        nonlocal known
        if status != 200:
            return False
        if known is None and holds(answer):
            known = answer
        return answer == known

    return is_right


def _fresh(request: bytes) -> Callable[[], bytes]:
    """Makes `request` with another number in the place of its mark each time."""
    before, after = request.split(_MARK.encode())

    def make() -> bytes:
        return b"%b%0*d%b" % (before, _DIGITS, next(_numbers), after)

    return make
