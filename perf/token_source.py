"""An OpenAI server that says the same to everybody, cheaply: what is left of a driver is its own.

`python perf/token_source.py --port N --tokens 100 --pause_ms 100`. All streams get a token at the
same tick, one write each; what a stream says was encoded before the first request.
"""

import argparse
import asyncio
import json
from typing import cast

import uvloop
from open_loop import allow_many_connections

HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\n"
    b"transfer-encoding: chunked\r\n\r\n"
)
MODELS = b'{"object":"list","data":[{"id":"model","object":"model","owned_by":"nobody"}]}'


def _event(choices: list[object], **more: object) -> bytes:
    """A chat event as vLLM's server and ours send it, in a chunk of its own."""
    envelope = {
        "id": f"chatcmpl-{'0' * 32}",
        "object": "chat.completion.chunk",
        "created": 1_700_000_000,
        "model": "model",
        "choices": choices,
        **more,
    }
    return _chunk(b"data: " + json.dumps(envelope).encode() + b"\n\n")


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


def _choice(delta: dict[str, str], reason: str | None = None) -> dict[str, object]:
    return {"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}


class Source(asyncio.Protocol):
    """One connection; `streaming` are those that get tokens."""

    streaming: dict["Source", int]
    pieces: list[bytes]

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are none of asyncio's classes.
        self._transport = cast("asyncio.Transport", transport)
        self._read = b""

    def connection_lost(self, exc: Exception | None) -> None:
        self.streaming.pop(self, None)

    def data_received(self, data: bytes) -> None:
        self._read += data
        head, found, body = self._read.partition(b"\r\n\r\n")
        if not found:
            return
        length = 0
        for line in head.lower().split(b"\r\n"):
            if line.startswith(b"content-length:"):
                length = int(line[15:])
        if len(body) < length:
            return
        self._read = b""
        if head.startswith(b"POST"):
            self._transport.write(HEAD)
            self.streaming[self] = 0
        else:
            answer = (
                b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
            )
            self._transport.write(answer % len(MODELS) + MODELS)

    def tick(self, number: int) -> None:
        """The next piece of the stream."""
        self._transport.write(self.pieces[number])
        if number + 1 < len(self.pieces):
            self.streaming[self] = number + 1
        else:
            del self.streaming[self]


async def serve(port: int, tokens: int, pause_s: float) -> None:
    """Serves until the process is ended."""
    usage = {"prompt_tokens": 30, "completion_tokens": tokens, "total_tokens": 30 + tokens}
    token = _event([_choice({"content": " token"})], usage=None)
    first = _event([_choice({"role": "assistant", "content": ""})], usage=None) + token
    end = (
        _event([_choice({}, "length")], usage=None)
        + _event([], usage=usage)
        + _chunk(b"data: [DONE]\n\n")
        + b"0\r\n\r\n"
    )
    Source.streaming = {}
    Source.pieces = [first, *[token] * (tokens - 1), end]
    loop = asyncio.get_running_loop()
    await loop.create_server(Source, "127.0.0.1", port)
    due = loop.time()
    while True:
        due = max(due + pause_s, loop.time())
        await asyncio.sleep(due - loop.time())
        for stream, number in list(Source.streaming.items()):
            stream.tick(number)


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--tokens", type=int, default=100)
    parser.add_argument("--pause_ms", type=float, default=100)
    arguments = parser.parse_args()
    allow_many_connections()
    uvloop.run(serve(arguments.port, arguments.tokens, arguments.pause_ms / 1e3))


if __name__ == "__main__":
    main()
