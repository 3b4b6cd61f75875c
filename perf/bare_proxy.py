"""The honest floor of a proxy: a bare ASGI app in front of a gRPC predictor, nothing checked.

uvicorn, orjson and grpc.aio's stub as their documentations use them: V2 JSON becomes a ModelInfer,
`generate_stream` a ModelStreamInfer whose messages become server-sent events. No keys, no limits,
no deadline, no errors: a request that is not as expected is a 500.
"""

import argparse
from collections.abc import AsyncIterator
from typing import Any, Final

import grpc
import orjson
import uvicorn

from openinference.proto import inference_pb2 as pb
from openinference.proto.inference_pb2_grpc import GRPCInferenceServiceStub

JSON: Final = (b"content-type", b"application/json")
EVENTS: Final = (b"content-type", b"text/event-stream; charset=utf-8")


class Proxy:
    """The ASGI app."""

    def __init__(self, predictor: str) -> None:
        """`predictor` is its HOST:PORT."""
        self._predictor = predictor
        self._stub: Any = None

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if self._stub is None:
            # A channel belongs to the loop that makes it.
            self._stub = GRPCInferenceServiceStub(grpc.aio.insecure_channel(self._predictor))
        parts = []
        while True:
            part = await receive()
            parts.append(part.get("body", b""))
            if not part.get("more_body", False):
                break
        body = orjson.loads(b"".join(parts))
        _, _, model, call = scope["path"].strip("/").split("/")
        if call == "infer":
            await self._infer(model, body, send)
        else:
            await self._stream(model, body, send)

    async def _infer(self, model: str, body: dict[str, Any], send: Any) -> None:
        request = pb.ModelInferRequest(model_name=model, id=body["id"])
        for tensor in body["inputs"]:
            data = [text.encode() for text in tensor["data"]]
            _add_input(request, tensor["name"], tensor["shape"], data)
        _set_parameters(request, body["parameters"])
        answer = await self._stub.ModelInfer(request)
        outputs = [
            {
                "name": output.name,
                "shape": list(output.shape),
                "datatype": output.datatype,
                "data": [text.decode() for text in output.contents.bytes_contents],
            }
            for output in answer.outputs
        ]
        told = orjson.dumps({"model_name": answer.model_name, "id": answer.id, "outputs": outputs})
        length = (b"content-length", b"%d" % len(told))
        await send({"type": "http.response.start", "status": 200, "headers": [JSON, length]})
        await send({"type": "http.response.body", "body": told})

    async def _stream(self, model: str, body: dict[str, Any], send: Any) -> None:
        request = pb.ModelInferRequest(model_name=model)
        _add_input(request, "text_input", [1], [body["text_input"].encode()])
        _set_parameters(request, body["parameters"])
        await send({"type": "http.response.start", "status": 200, "headers": [EVENTS]})
        async for answer in self._stub.ModelStreamInfer(_once(request)):
            (output,) = answer.infer_response.outputs
            text = output.contents.bytes_contents[0].decode()
            event = orjson.dumps({"model_name": model, "text_output": text})
            part = b"data: " + event + b"\n\n"
            await send({"type": "http.response.body", "body": part, "more_body": True})
        await send({"type": "http.response.body", "body": b""})


def _add_input(
    request: pb.ModelInferRequest, name: str, shape: list[int], data: list[bytes]
) -> None:
    tensor = request.inputs.add(name=name, datatype="BYTES", shape=shape)
    tensor.contents.bytes_contents.extend(data)


def _set_parameters(request: pb.ModelInferRequest, parameters: dict[str, int]) -> None:
    for name, value in parameters.items():
        request.parameters[name].int64_param = value


async def _once(request: pb.ModelInferRequest) -> AsyncIterator[pb.ModelInferRequest]:
    yield request


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--http_port", type=int, required=True)
    parser.add_argument("--predictor_host", required=True, help="HOST:PORT")
    arguments = parser.parse_args()
    uvicorn.run(
        Proxy(arguments.predictor_host),
        host="127.0.0.1",
        port=arguments.http_port,
        log_config=None,
        access_log=False,
        lifespan="off",
        backlog=8192,
    )


if __name__ == "__main__":
    main()
