"""V2 messages to and from protobuf: typed contents and raw contents.

Source: OIP inference_grpc.md "Inference" and "Tensor Data". A request that came with raw contents
is answered with raw contents, one that came typed is answered typed.
"""

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import numpy as np

from openinference import tensors_raw
from openinference.datatypes import Datatype, datatype_named
from openinference.errors import InvalidInput
from openinference.messages import (
    InferRequest,
    InferResponse,
    ModelMetadata,
    Parameters,
    RequestedOutput,
    Tensor,
    TensorData,
    TensorMetadata,
    check_count,
    checked_shape,
)
from openinference.proto import inference_pb2 as pb

_INT64 = range(-(2**63), 2**63)
_UINT64 = range(2**64)


def decode_request(message: pb.ModelInferRequest) -> InferRequest:
    """An inference request from protobuf; raises InvalidInput naming the offending field."""
    raw = message.raw_input_contents
    if raw and len(raw) != len(message.inputs):
        raise InvalidInput(
            f"raw_input_contents must have one entry for each of the {len(message.inputs)} inputs, "
            f"got {len(raw)}"
        )
    return InferRequest(
        message.model_name,
        [
            _decode_tensor(tensor, raw[number] if raw else None, "input")
            for number, tensor in enumerate(message.inputs)
        ],
        message.model_version or None,
        message.id or None,
        _decode_parameters(message.parameters),
        [
            RequestedOutput(output.name, _decode_parameters(output.parameters))
            for output in message.outputs
        ]
        or None,
    )


def encode_request(request: InferRequest) -> pb.ModelInferRequest:
    """An inference request as protobuf with raw contents."""
    message = pb.ModelInferRequest(model_name=request.model)
    if request.version is not None:
        message.model_version = request.version
    if request.id is not None:
        message.id = request.id
    _encode_parameters(request.parameters, message.parameters)
    for tensor in request.inputs:
        message.inputs.add(name=tensor.name, datatype=tensor.datatype.name, shape=tensor.shape)
        message.raw_input_contents.append(tensors_raw.encode(tensor))
    for output in request.outputs or ():
        message.outputs.add(name=output.name)
    return message


def decode_response(message: pb.ModelInferResponse) -> InferResponse:
    """An inference answer from protobuf; raises InvalidInput naming the offending field."""
    raw = message.raw_output_contents
    if raw and len(raw) != len(message.outputs):
        raise InvalidInput(
            f"raw_output_contents must have one entry for each of the {len(message.outputs)} "
            f"outputs, got {len(raw)}"
        )
    return InferResponse(
        message.model_name,
        [
            _decode_tensor(tensor, raw[number] if raw else None, "output")
            for number, tensor in enumerate(message.outputs)
        ],
        message.model_version or None,
        message.id or None,
        _decode_parameters(message.parameters),
    )


def encode_response(response: InferResponse, *, raw: bool) -> pb.ModelInferResponse:
    """An inference answer as protobuf, with raw or with typed contents."""
    message = pb.ModelInferResponse()
    message.CopyFrom(
        _described(
            tuple([(each.name, each.datatype.name, each.shape) for each in response.outputs])
        )
    )
    message.model_name = response.model
    if response.version is not None:
        message.model_version = response.version
    if response.id is not None:
        message.id = response.id
    _encode_parameters(response.parameters, message.parameters)
    if raw:
        message.raw_output_contents.extend([tensors_raw.encode(each) for each in response.outputs])
        return message
    for output, tensor in zip(message.outputs, response.outputs, strict=True):
        field = tensor.datatype.contents_field
        if field is None:
            raise InvalidInput(
                f"output '{tensor.name}': {tensor.datatype.name} travels only in raw contents"
            )
        data = tensor.data if isinstance(tensor.data, tuple) else tensor.data.tolist()
        getattr(output.contents, field).extend(data)
    return message


@lru_cache(maxsize=256)
def _described(outputs: tuple[tuple[str, str, tuple[int, ...]], ...]) -> pb.ModelInferResponse:
    """An answer with these names, datatypes and shapes, of which there are few, to be copied."""
    message = pb.ModelInferResponse()
    for name, datatype, shape in outputs:
        message.outputs.add(name=name, datatype=datatype, shape=shape)
    return message


def encode_model_metadata(metadata: ModelMetadata) -> pb.ModelMetadataResponse:
    """A model's metadata as protobuf."""

    def tensor(item: TensorMetadata) -> pb.ModelMetadataResponse.TensorMetadata:
        return pb.ModelMetadataResponse.TensorMetadata(
            name=item.name, datatype=item.datatype.name, shape=item.shape
        )

    return pb.ModelMetadataResponse(
        name=metadata.name,
        platform=metadata.platform,
        inputs=[tensor(item) for item in metadata.inputs],
        outputs=[tensor(item) for item in metadata.outputs],
        properties=dict(metadata.properties),
    )


def _decode_tensor(
    message: pb.ModelInferRequest.InferInputTensor | pb.ModelInferResponse.InferOutputTensor,
    raw: bytes | None,
    kind: str,
) -> Tensor:
    where = f"{kind} '{message.name:.60}'"
    datatype = datatype_named(message.datatype, where)
    shape = checked_shape(message.shape[:], where)
    if raw is None:
        data = _typed(datatype, message.contents, where)
        check_count(shape, len(data), where)
    else:
        if message.HasField("contents"):
            raise InvalidInput(f"{where}: has both contents and raw contents")
        data = tensors_raw.decode(datatype, shape, raw, where)
    return Tensor(message.name, datatype, shape, data, _decode_parameters(message.parameters))


def _typed(datatype: Datatype, contents: pb.InferTensorContents, where: str) -> TensorData:
    if datatype.contents_field is None:
        raise InvalidInput(f"{where}: {datatype.name} travels only in raw contents")
    for descriptor, _ in contents.ListFields():
        if descriptor.name != datatype.contents_field:
            raise InvalidInput(
                f"{where}: {datatype.name} elements belong in {datatype.contents_field}, "
                f"not in {descriptor.name}"
            )
    values = getattr(contents, datatype.contents_field)
    if datatype.numpy is None:
        return tuple(values)
    if datatype.numpy.kind in "iu" and values:
        bounds = np.iinfo(datatype.numpy.name)
        if min(values) < bounds.min or max(values) > bounds.max:
            raise InvalidInput(
                f"{where}: {datatype.name} elements must be from {bounds.min} to {bounds.max}"
            )
    return np.array(values, dtype=datatype.numpy)


def _decode_parameters(parameters: Mapping[str, pb.InferParameter]) -> Parameters:
    if not parameters:
        return {}
    decoded: dict[str, bool | int | float | str] = {}
    for name, parameter in parameters.items():
        choice = parameter.WhichOneof("parameter_choice")
        if choice is None:
            raise InvalidInput(f"parameter '{name:.60}' has no value")
        decoded[name] = getattr(parameter, choice)
    return decoded


def _encode_parameters(parameters: Parameters, into: Any) -> None:
    for name, value in parameters.items():
        if isinstance(value, bool):
            into[name].bool_param = value
        elif isinstance(value, str):
            into[name].string_param = value
        elif isinstance(value, float):
            into[name].double_param = value
        elif value in _INT64:
            into[name].int64_param = value
        elif value in _UINT64:
            into[name].uint64_param = value
        else:
            raise InvalidInput(f"parameter '{name:.60}' does not fit 64 bits")
