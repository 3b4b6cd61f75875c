"""V2 REST bodies: JSON, and JSON followed by binary tensor data.

Source: OIP inference_rest.md and open_inference_rest.yaml; Triton extension_binary_data.md for the
binary extension (the length of the JSON part comes in `Inference-Header-Content-Length`).
"""

from typing import Any, Final

import orjson

from openinference import tensors_json, tensors_raw
from openinference.datatypes import datatype_named
from openinference.errors import InvalidInput, shown
from openinference.messages import (
    InferRequest,
    InferResponse,
    ModelMetadata,
    ModelStatus,
    Parameters,
    RequestedOutput,
    ServerMetadata,
    Tensor,
    checked_shape,
)
from openinference.text_tensors import ALL_BINARY

HEADER_LENGTH: Final = "inference-header-content-length"
BINARY_SIZE: Final = "binary_data_size"
BINARY_OUTPUT: Final = "binary_data"

_SCALARS: Final = (bool, int, float, str)


def load_object(body: bytes | memoryview) -> dict[str, Any]:
    """A JSON body that must be an object; raises InvalidInput saying where JSON breaks."""
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise InvalidInput(f"body is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise InvalidInput("body must be a JSON object")
    return value


def infer_request(
    model: str, version: str | None, body: bytes, header_length: str | None
) -> InferRequest:
    """An inference request from its body and its Inference-Header-Content-Length header.

    Raises InvalidInput naming the offending field.
    """
    text, binary = (body, b"") if header_length is None else _parts(body, header_length)
    message = load_object(text)
    blobs = _Blobs(binary)
    inputs = message.get("inputs")
    if not isinstance(inputs, list) or not inputs:
        raise InvalidInput("inputs must be a non-empty list of tensors")
    request_id = message.get("id")
    if request_id is not None and not isinstance(request_id, str):
        raise InvalidInput("id must be a string")
    tensors = [_input(tensor, number, blobs) for number, tensor in enumerate(inputs)]
    blobs.finish()
    parameters = _parameters(message.get("parameters"), "parameters")
    _check_flag(parameters, ALL_BINARY, "parameters")
    return InferRequest(
        model,
        tensors,
        version,
        request_id,
        parameters,
        _requested_outputs(message.get("outputs")),
    )


def infer_response(request: InferRequest, response: InferResponse) -> tuple[bytes, int | None]:
    """The body of an answer, and the length of its JSON part when binary data follows it."""
    binary_names = _binary_names(request)
    outputs: list[dict[str, Any]] = []
    blobs: list[bytes] = []
    for tensor in response.outputs:
        output: dict[str, Any] = {
            "name": tensor.name,
            "shape": tensor.shape,
            "datatype": tensor.datatype.name,
        }
        if binary_names is None or tensor.name in binary_names:
            blob = tensors_raw.encode(tensor)
            output["parameters"] = {**tensor.parameters, BINARY_SIZE: len(blob)}
            blobs.append(blob)
        else:
            if tensor.parameters:
                output["parameters"] = dict(tensor.parameters)
            output["data"] = tensors_json.encode(tensor)
        outputs.append(output)
    message: dict[str, Any] = {"model_name": response.model}
    if response.version is not None:
        message["model_version"] = response.version
    if response.id is not None:
        message["id"] = response.id
    if response.parameters:
        message["parameters"] = dict(response.parameters)
    message["outputs"] = outputs
    body = orjson.dumps(message)
    return (b"".join([body, *blobs]), len(body)) if blobs else (body, None)


def server_metadata(metadata: ServerMetadata) -> dict[str, Any]:
    """The body of `GET /v2`."""
    return {
        "name": metadata.name,
        "version": metadata.version,
        "extensions": list(metadata.extensions),
    }


def model_metadata(metadata: ModelMetadata) -> dict[str, Any]:
    """The body of `GET /v2/models/M`; an unversioned model has no `versions`."""
    body: dict[str, Any] = {
        "name": metadata.name,
        "platform": metadata.platform,
        "inputs": [_tensor_metadata(tensor) for tensor in metadata.inputs],
        "outputs": [_tensor_metadata(tensor) for tensor in metadata.outputs],
    }
    if metadata.properties:
        body["properties"] = dict(metadata.properties)
    return body


def model_status(model: str, status: ModelStatus) -> dict[str, Any]:
    """The body of `GET /v2/models/M/status` (not of OIP); what is unknown is left out."""
    body: dict[str, Any] = {"name": model, "state": status.state}
    if status.phase is not None:
        body["phase"] = status.phase
    if status.elapsed_s is not None:
        body["elapsed_s"] = round(status.elapsed_s, 1)
    if status.expected_s is not None:
        body["expected_s"] = round(status.expected_s, 1)
    return body


def _tensor_metadata(tensor: Any) -> dict[str, Any]:
    return {"name": tensor.name, "datatype": tensor.datatype.name, "shape": list(tensor.shape)}


class _Blobs:
    """Hands out the binary data behind the JSON part, in input order."""

    def __init__(self, data: bytes | memoryview) -> None:
        self._data = data
        self._offset = 0

    def take(self, size: object, where: str) -> bytes | memoryview:
        left = len(self._data) - self._offset
        if type(size) is not int or not 0 <= size <= left:
            raise InvalidInput(
                f"{where}: {BINARY_SIZE} must be from 0 to the {left} bytes that are left, "
                f"got {shown(size)}"
            )
        self._offset += size
        return self._data[self._offset - size : self._offset]

    def finish(self) -> None:
        left = len(self._data) - self._offset
        if left:
            raise InvalidInput(f"{left} bytes of binary data belong to no input")


def _parts(body: bytes, header_length: str) -> tuple[memoryview, memoryview]:
    """The JSON part and the binary data behind it."""
    length, view = _length(header_length, len(body)), memoryview(body)
    return view[:length], view[length:]


def _length(header: str, body_length: int) -> int:
    # isdecimal alone would let other scripts' digits through; the length guards int()'s own limit.
    length = int(header) if header.isascii() and header.isdecimal() and len(header) < 20 else -1
    if not 0 < length <= body_length:
        raise InvalidInput(
            f"header Inference-Header-Content-Length must be from 1 to the body's {body_length} "
            f"bytes, got {header!r:.40}"
        )
    return length


def _input(tensor: Any, number: int, blobs: _Blobs) -> Tensor:
    if not isinstance(tensor, dict):
        raise InvalidInput(f"inputs[{number}] must be an object")
    name = tensor.get("name")
    if not isinstance(name, str) or not name:
        raise InvalidInput(f"inputs[{number}]: name must be a non-empty string")
    where = f"input '{name:.60}'"
    for required in ("shape", "datatype"):
        if required not in tensor:
            raise InvalidInput(f"{where}: {required} is missing")
    datatype = datatype_named(tensor["datatype"], where)
    shape = checked_shape(tensor["shape"], where)
    parameters = _parameters(tensor.get("parameters"), f"{where}: parameters")
    if BINARY_SIZE in parameters:
        if "data" in tensor:
            raise InvalidInput(f"{where}: has both data and {BINARY_SIZE}")
        blob = blobs.take(parameters[BINARY_SIZE], where)
        return Tensor(
            name, datatype, shape, tensors_raw.decode(datatype, shape, blob, where), parameters
        )
    if "data" not in tensor:
        raise InvalidInput(f"{where}: data is missing")
    data = tensors_json.decode(datatype, shape, tensor["data"], where)
    return Tensor(name, datatype, shape, data, parameters)


def _parameters(parameters: Any, where: str) -> Parameters:
    if parameters is None:
        return {}
    if not isinstance(parameters, dict):
        raise InvalidInput(f"{where} must be an object")
    for name, value in parameters.items():
        if not isinstance(value, _SCALARS):
            raise InvalidInput(
                f"{where}: '{name:.60}' must be a string, number or boolean, got {shown(value)}"
            )
    return parameters


def _requested_outputs(outputs: Any) -> list[RequestedOutput] | None:
    if outputs is None:
        return None
    if not isinstance(outputs, list):
        raise InvalidInput("outputs must be a list")
    requested: list[RequestedOutput] = []
    for number, output in enumerate(outputs):
        name = output.get("name") if isinstance(output, dict) else None
        if not isinstance(name, str):
            raise InvalidInput(f"outputs[{number}] must be an object with a name")
        where = f"output '{name:.60}': parameters"
        parameters = _parameters(output.get("parameters"), where)
        _check_flag(parameters, BINARY_OUTPUT, where)
        requested.append(RequestedOutput(name, parameters))
    # tritonclient sends an empty list for "all outputs".
    return requested or None


def _binary_names(request: InferRequest) -> set[str] | None:
    """The outputs to answer as binary data; None is all of them."""
    default = request.parameters.get(ALL_BINARY) is True
    if request.outputs is None:
        return None if default else set()
    return {
        output.name
        for output in request.outputs
        if output.parameters.get(BINARY_OUTPUT, default) is True
    }


def _check_flag(parameters: Parameters, name: str, where: str) -> None:
    if type(parameters.get(name, False)) is not bool:
        raise InvalidInput(f"{where}: '{name}' must be true or false, got {parameters[name]!r:.60}")
