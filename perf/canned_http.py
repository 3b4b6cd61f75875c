"""An HTTP/1.1 upstream of ready-made answers: V2 JSON, `generate_stream` and OpenAI chat.

KServe's REST transformer and LiteLLM stand in front of it, and streams straight from it are what
theirs are compared with. It reads a request's length and as much of its body as it has to repeat,
and tells its bytes at the pace that the prompt asks for (`canned.py`).
"""

import argparse
import asyncio
import re
from functools import cache
from typing import Any, Final, cast

import orjson
import uvloop
from canned import ANSWER, Paced, Shared, pace_of, piece, serve

_LENGTH: Final = re.compile(rb"\r\ncontent-length: *([0-9]+)", re.IGNORECASE)
_MAX_TOKENS: Final = re.compile(rb'"max_(?:completion_)?tokens": ?([0-9]+)')
_SSE_HEAD: Final = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\n"
    b"transfer-encoding: chunked\r\n\r\n"
)
MODEL: Final = "model"


def _whole(body: bytes) -> bytes:
    head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
    return head % len(body) + body


def _piece(body: bytes) -> bytes:
    """A chunk of a chunked answer."""
    return b"%x\r\n%b\r\n" % (len(body), body)


def _event(data: Any) -> bytes:
    return b"data: " + orjson.dumps(data) + b"\n\n"


_READY: Final = _whole(b'{"name":"model","ready":true}')
_USAGE: Final = {"prompt_tokens": 8, "completion_tokens": 16, "total_tokens": 24}
_CHAT: Final = _whole(
    orjson.dumps(
        {
            "id": "chatcmpl-1",
            "object": "chat.completion",
            "created": 1,
            "model": MODEL,
            "choices": [
                {
                    "index": 0,
                    "message": {"role": "assistant", "content": ANSWER},
                    "finish_reason": "stop",
                }
            ],
            "usage": _USAGE,
        }
    )
)


def _chat_event(delta: dict[str, Any], finish_reason: str | None = None) -> bytes:
    return _event(
        {
            "id": "chatcmpl-1",
            "object": "chat.completion.chunk",
            "created": 1,
            "model": MODEL,
            "choices": [{"index": 0, "delta": delta, "finish_reason": finish_reason}],
        }
    )


_CHAT_FIRST: Final = _chat_event({"role": "assistant", "content": ""})
_DONE: Final = b"data: [DONE]\n\n"
_END: Final = b"0\r\n\r\n"


@cache
def _token(number: int, *, chat: bool, last: bool) -> bytes:
    """A token's event as a chunk, and behind the last the answer's end."""
    reason = "length" if last else None
    if chat:
        body = _piece(_chat_event({"content": piece(number)}, reason))
        return body + _piece(_DONE) + _END if last else body
    event = {"model_name": MODEL, "text_output": piece(number)}
    if last:
        return _piece(_event({**event, "finish_reason": reason})) + _END
    return _piece(_event(event))


class Connection(asyncio.Protocol):
    """A caller's connection: one request after the other."""

    def __init__(self, upstream: "CannedUpstream") -> None:
        self._upstream = upstream
        self._received = b""
        self._paced: Paced | None = None
        self._out: list[bytes] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are none of asyncio's classes.
        self._transport = cast("asyncio.Transport", transport)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._paced is not None:
            self._paced.ended = True

    def data_received(self, data: bytes) -> None:
        self._received += data
        head_end = self._received.find(b"\r\n\r\n")
        if head_end < 0:
            return
        head, body = self._received[:head_end], self._received[head_end + 4 :]
        length = _LENGTH.search(head)
        if length is not None and len(body) < int(length[1]):
            return
        self._received = b""
        self._on_request(head, body)

    def _on_request(self, head: bytes, body: bytes) -> None:
        target = head.split(b" ", 2)[1]
        if head.startswith(b"GET"):
            self._transport.write(_READY)
            return
        pace = pace_of(body)
        if target.endswith(b"/infer"):
            identity = orjson.loads(body).get("id")
            self._transport.write(_whole(_v2_answer(identity)))
        elif pace is None:
            self._transport.write(_CHAT)
        else:
            self._stream(body, pace, chat=target.endswith(b"/chat/completions"))

    def _stream(self, body: bytes, pace: tuple[float, bool], *, chat: bool) -> None:
        found = _MAX_TOKENS.search(body)
        assert found is not None
        tokens = int(found[1])
        self._out.append(_SSE_HEAD + (_piece(_CHAT_FIRST) if chat else b""))

        def send(number: int) -> None:
            self._out.append(_token(number, chat=chat, last=number == tokens))
            self._upstream.sent(self)

        self._paced = Paced(send, tokens, pace[0])
        if pace[1]:
            self._upstream.steps.join(self._paced, pace[0])
        else:
            self._paced.begin()

    def flush(self) -> None:
        """Writes what has gathered."""
        self._transport.write(b"".join(self._out))
        self._out.clear()


def _v2_answer(identity: str | None) -> bytes:
    output = {"name": "text_output", "shape": [1], "datatype": "BYTES", "data": [ANSWER]}
    answer: dict[str, Any] = {"model_name": MODEL, "outputs": [output]}
    if identity is not None:
        answer["id"] = identity
    return orjson.dumps(answer)


class CannedUpstream(Shared):
    """What the connections share."""

    def connection(self) -> Connection:
        """A protocol for a new connection."""
        return Connection(self)


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--http_port", type=int, required=True)
    uvloop.run(serve(CannedUpstream().connection, parser.parse_args().http_port))


if __name__ == "__main__":
    main()
