"""What the tests ask, in each protocol, and what comes back: texts, a status, a retry time."""

import json
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
import httpx

from openinference.proto import inference_pb2 as pb
from openinference.proto.inference_pb2_grpc import GRPCInferenceServiceStub

from .servers import MODEL, Server

# Far more than any test waits for, at any pace of the engine.
ENDLESS = 100_000
# Path, body of a prompt and a number of tokens; whether the answer is a stream.
REST = {
    "infer": (
        f"/v2/models/{MODEL}/infer",
        lambda prompt, tokens: {
            "inputs": [{"name": "text_input", "shape": [1], "datatype": "BYTES", "data": [prompt]}],
            "parameters": {"max_tokens": tokens},
        },
        False,
    ),
    "generate": (
        f"/v2/models/{MODEL}/generate",
        lambda prompt, tokens: {"text_input": prompt, "parameters": {"max_tokens": tokens}},
        False,
    ),
    "generate_stream": (
        f"/v2/models/{MODEL}/generate_stream",
        lambda prompt, tokens: {"text_input": prompt, "parameters": {"max_tokens": tokens}},
        True,
    ),
    "completions": (
        "/openai/v1/completions",
        lambda prompt, tokens: {"model": MODEL, "prompt": prompt, "max_tokens": tokens},
        False,
    ),
    "completions_stream": (
        "/openai/v1/completions",
        lambda prompt, tokens: {
            "model": MODEL,
            "prompt": prompt,
            "max_tokens": tokens,
            "stream": True,
        },
        True,
    ),
}
STREAMS = [name for name, (_, _, streamed) in REST.items() if streamed]


@dataclass
class Answer:
    """What a caller got: the status, the events or the one body, SSE comments, an error."""

    status: int
    headers: dict[str, str] = field(default_factory=dict)
    bodies: list[Any] = field(default_factory=list)
    comments: list[str] = field(default_factory=list)

    @property
    def text(self) -> str:
        """The generated text."""
        return "".join(_text(body) for body in self.bodies)

    @property
    def error(self) -> str | None:
        """The last error's message; None when all went well."""
        for body in reversed(self.bodies):
            if "error" in body:
                problem = body["error"]
                return problem if isinstance(problem, str) else problem["message"]
        return None


def _text(body: Any) -> str:
    if "choices" in body:
        return "".join(choice["text"] for choice in body["choices"])
    if "outputs" in body:
        return "".join(body["outputs"][0]["data"])
    return body.get("text_output", "")


class Stream:
    """A stream of events under way."""

    def __init__(self, response: httpx.Response) -> None:
        self.answer = Answer(response.status_code, dict(response.headers))
        self._lines = response.aiter_lines()

    async def next(self) -> Any:
        """The next event's data; None at the end."""
        async for line in self._lines:
            if line.startswith(": "):
                self.answer.comments.append(line[2:])
            elif line.startswith("data: ") and line != "data: [DONE]":
                self.answer.bodies.append(json.loads(line[6:]))
                return self.answer.bodies[-1]
        return None

    async def rest(self) -> Answer:
        """All that is left."""
        while await self.next() is not None:
            pass
        return self.answer


class Client:
    """An HTTP client of one server."""

    def __init__(self, http: httpx.AsyncClient, server: Server) -> None:
        self._http = http
        self._url = server.url

    async def ask(
        self,
        kind: str,
        prompt: str,
        tokens: int,
        headers: dict[str, str] | None = None,
        **more: Any,
    ) -> Answer:
        """A whole request; `more` are request parameters of V2."""
        path, body, streamed = REST[kind]
        content = body(prompt, tokens)
        if more:
            content["parameters"].update(more)
        if streamed:
            async with self.stream(kind, prompt, tokens, headers) as stream:
                return await stream.rest()
        response = await self._http.post(self._url + path, json=content, headers=headers)
        return Answer(response.status_code, dict(response.headers), [response.json()])

    @asynccontextmanager
    async def stream(
        self, kind: str, prompt: str, tokens: int, headers: dict[str, str] | None = None
    ) -> AsyncIterator[Stream]:
        """A stream; leaving the block ends the connection."""
        path, body, _ = REST[kind]
        async with self._http.stream(
            "POST", self._url + path, json=body(prompt, tokens), headers=headers
        ) as response:
            stream = Stream(response)
            if response.status_code != 200:
                stream.answer.bodies.append(json.loads(await response.aread()))
            yield stream

    async def get(self, path: str) -> httpx.Response:
        """A GET."""
        return await self._http.get(self._url + path)


def infer_message(prompt: str, tokens: int, **more: int) -> pb.ModelInferRequest:
    """A V2 request of gRPC."""
    request = pb.ModelInferRequest(model_name=MODEL, id="abc")
    tensor = request.inputs.add(name="text_input", datatype="BYTES", shape=[1])
    tensor.contents.bytes_contents.append(prompt.encode())
    for name, value in {"max_tokens": tokens, **more}.items():
        request.parameters[name].int64_param = value
    return request


def told_text(told: Iterable[pb.ModelStreamInferResponse]) -> str:
    """The text of a gRPC stream's messages, none of which is an error."""
    assert not [each.error_message for each in told if each.error_message]
    return b"".join(
        each.infer_response.outputs[0].contents.bytes_contents[0] for each in told
    ).decode()


@asynccontextmanager
async def stub(server: Server) -> AsyncIterator[GRPCInferenceServiceStub]:
    """A stub on a channel of its own."""
    async with grpc.aio.insecure_channel(server.target) as channel:
        yield GRPCInferenceServiceStub(channel)
