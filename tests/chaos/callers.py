"""Callers of all kinds at random, and what each of them got."""

import asyncio
import itertools
import random
from contextlib import suppress
from dataclasses import dataclass, field

import grpc
from open_loop import ask
from processes import LONGEST_S, MODEL, Server

from openinference.proto import inference_pb2 as pb
from openinference.proto.inference_pb2_grpc import GRPCInferenceServiceStub

# A caller who has heard nothing final by then was forgotten.
PATIENCE_S = 2 * LONGEST_S
RATE_PER_S = 16.0
STREAMED = ("generate_stream", "completions_stream", "grpc_stream")
KINDS = (*STREAMED, "generate", "infer", "grpc_infer")
LEAVE_SHARE = 0.1
SMALL_SHARE = 0.15
POPULAR_SHARE = 0.25


@dataclass(slots=True)
class Call:
    """One request and its end.

    A `popular` one is asked for again and again and may be answered from a cache or with another
    caller's answer. `status` is HTTP's, or a gRPC status name, or empty when the connection was
    lost; `error` the message of an error, `whole` whether the answer said that it is complete.
    `left` is set when the caller went away on purpose.
    """

    kind: str
    to: str
    prompt: str
    tokens: int
    key: str
    leaves: bool = False
    popular: bool = False
    began: float = 0.0
    ended: float = 0.0
    status: str = ""
    texts: list[str] = field(default_factory=list)
    error: str | None = None
    retry_after: str | None = None
    whole: bool = False
    hung: bool = False
    left: bool = False

    @property
    def streamed(self) -> bool:
        return self.kind in STREAMED

    @property
    def text(self) -> str:
        return "".join(self.texts)


class Callers:
    """Calls at random times until told to stop."""

    def __init__(self, servers: tuple[Server, Server], keys: dict[str, str], seed: int) -> None:
        """`keys` are by plan: "main", and "small" whose limits are soon reached."""
        self._servers = servers
        self._keys = keys
        self._rng = random.Random(seed)
        self._numbers = itertools.count()
        self.calls: list[Call] = []

    async def run(self, stop: asyncio.Event) -> None:
        """Returns when `stop` is set and the last call has ended."""
        async with asyncio.TaskGroup() as group:
            while not stop.is_set():
                group.create_task(self.call(self._next()))
                await asyncio.sleep(self._rng.expovariate(RATE_PER_S))

    def _next(self) -> Call:
        rng = self._rng
        key = "small" if rng.random() < SMALL_SHARE else "main"
        words = " ".join(["word"] * rng.randint(0, 5))
        tokens = rng.choice((1, 4, 8, 16, 48))
        popular = rng.random() < POPULAR_SHARE
        number = f"popular {tokens}" if popular else next(self._numbers)
        return Call(
            rng.choice(KINDS),
            rng.choice(self._servers).name,
            f"{key} {number} {words}".strip(),
            tokens,
            key,
            leaves=rng.random() < LEAVE_SHARE,
            popular=popular,
        )

    async def call(self, call: Call) -> None:
        """Makes one call and keeps what came of it."""
        self.calls.append(call)
        loop = asyncio.get_running_loop()
        call.began = loop.time()
        server = await self._reached(call)
        work = asyncio.ensure_future(
            self._grpc(call, server) if call.kind.startswith("grpc") else self._rest(call, server)
        )
        if call.leaves:
            await asyncio.wait([work], timeout=self._rng.uniform(0.0, 0.5))
            call.left = not work.done()
            work.cancel()
        with suppress(asyncio.CancelledError):
            await work
        call.ended = loop.time()

    async def _reached(self, call: Call) -> Server:
        """The server that `call` is for, or the other one when that refuses connections.

        What any load balancer does: nothing has been sent, so nothing is repeated.
        """
        first, other = sorted(self._servers, key=lambda server: server.name != call.to)
        try:
            port = first.grpc if call.kind.startswith("grpc") else first.http
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.close()
        except ConnectionError:
            call.to = other.name
            return other
        return first

    async def _rest(self, call: Call, server: Server) -> None:
        path, body = _request(call)
        headers = {"authorization": f"Bearer {self._keys[call.key]}"}
        reply = await ask(server.http, path, body, headers=headers, patience_s=PATIENCE_S)
        call.hung = reply.hung
        call.status = str(reply.status) if reply.status else ""
        call.retry_after = reply.headers.get("retry-after")
        for event in reply.events:
            if "error" in event:
                problem = event["error"]
                call.error = problem if isinstance(problem, str) else problem["message"]
            else:
                text, finished = _event(event)
                call.texts += [text] if text else []
                call.whole = call.whole or finished
        if not reply.ended:
            # Cut by whoever died: no status of the protocol, whatever came before.
            call.whole = False
            call.status = ""

    async def _grpc(self, call: Call, server: Server) -> None:
        metadata = (("authorization", f"Bearer {self._keys[call.key]}"),)
        message = _message(call)
        async with grpc.aio.insecure_channel(f"127.0.0.1:{server.grpc}") as channel:
            stub = GRPCInferenceServiceStub(channel)
            try:
                async with asyncio.timeout(PATIENCE_S):
                    if call.kind == "grpc_infer":
                        unary = stub.ModelInfer(message, metadata=metadata)
                        _take(call, await unary)
                        call.whole = True
                    else:
                        stream = stub.ModelStreamInfer(iter([message]), metadata=metadata)
                        async for answer in stream:
                            if answer.error_message:
                                call.error = answer.error_message
                            else:
                                _take(call, answer.infer_response)
                        call.whole = call.error is None
                call.status = "OK"
            except TimeoutError:
                call.hung = True
            except grpc.aio.AioRpcError as error:
                trailing = dict(error.trailing_metadata() or ())
                # Without our mark it is the channel that speaks: the server is gone.
                call.status = error.code().name if "x-request-id" in trailing else ""
                call.retry_after = trailing.get("retry-after")
                call.error = error.details()


def _request(call: Call) -> tuple[str, dict[str, object]]:
    parameters: dict[str, object] = {"max_tokens": call.tokens}
    if call.popular:
        parameters["temperature"] = 0
    if call.kind == "completions_stream":
        openai = {"model": MODEL, "prompt": call.prompt, **parameters, "stream": True}
        return "/v1/completions", openai
    if call.kind == "infer":
        tensor = {"name": "text_input", "shape": [1], "datatype": "BYTES", "data": [call.prompt]}
        return f"/v2/models/{MODEL}/infer", {"inputs": [tensor], "parameters": parameters}
    body = {"text_input": call.prompt, "parameters": parameters}
    return f"/v2/models/{MODEL}/{call.kind}", body


def _event(event: dict[str, object]) -> tuple[str, bool]:
    """The text of an event or a whole answer, and whether it says that the answer is complete."""
    if "choices" in event:
        (choice,) = event["choices"]
        return choice["text"], choice["finish_reason"] is not None
    if "outputs" in event:
        return event["outputs"][0]["data"][0], True
    return event["text_output"], "finish_reason" not in event or bool(event["finish_reason"])


def _message(call: Call) -> pb.ModelInferRequest:
    message = pb.ModelInferRequest(model_name=MODEL)
    tensor = message.inputs.add(name="text_input", datatype="BYTES", shape=[1])
    tensor.contents.bytes_contents.append(call.prompt.encode())
    message.parameters["max_tokens"].int64_param = call.tokens
    if call.popular:
        message.parameters["temperature"].int64_param = 0
    return message


def _take(call: Call, response: pb.ModelInferResponse) -> None:
    call.texts.append(response.outputs[0].contents.bytes_contents[0].decode())
