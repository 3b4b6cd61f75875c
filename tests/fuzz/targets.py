"""What is fuzzed: every decoder that a stranger's bytes reach, as functions of bytes.

Each gives a value or raises one of our errors for bad input; anything else that it raises is a bug.
What two codecs undo is compared with what went in.
"""

import contextlib
import struct
from collections.abc import Callable, Mapping

import numpy as np
import orjson
from google.protobuf.message import DecodeError

from openinference import (
    context,
    sampling,
    structured,
    tensors_json,
    tensors_raw,
    text_tensors,
    tokens,
    v2_grpc,
    v2_json,
)
from openinference.datatypes import DATATYPES
from openinference.errors import InternalError, InvalidInput, PayloadTooLarge
from openinference.generate_json import GenerateCall
from openinference.generation import GenerationRequest
from openinference.messages import Tensor
from openinference.openai_json import Endpoint, OpenAICall
from openinference.proto import inference_pb2 as pb
from openinference.request_messages import RequestWriter
from openinference.rest import _body

_TYPES = tuple(DATATYPES.values())
_SHAPES = ((), (0,), (1,), (2,), (3, 1), (1, 2, 2), (2**62, 4), (7,))
MAX_BODY = 4096
_WRITER = RequestWriter()


def _datatype_and_shape(data: bytes):
    kind, shape = data[0] % len(_TYPES), data[1] % len(_SHAPES)
    return _TYPES[kind], _SHAPES[shape], data[2:]


def v2_infer(data: bytes) -> None:
    """A REST inference body, with or without the header of binary tensor data."""
    header, body = (None, data[1:]) if data[:1] == b"j" else (str(len(data) // 2), data[1:])
    if data[:1] == b"h":
        (length,) = struct.unpack_from("<H", data.ljust(3, b"\0"), 1)
        header, body = str(length), data[3:]
    with contextlib.suppress(InvalidInput):
        infer = v2_json.infer_request("m", None, body, header)
        request = text_tensors.generation_request(infer, stream=False)
        # What we take from a client must be what we can send to the predictor, unchanged.
        assert _after_the_hop(request) == request


def _after_the_hop(request: GenerationRequest) -> GenerationRequest:
    """What the predictor reads of what it is sent."""
    message = pb.ModelInferRequest.FromString(_WRITER.write(request, request.model))
    return text_tensors.generation_request(v2_grpc.decode_request(message), stream=request.stream)


def raw_tensor(data: bytes) -> None:
    """Raw tensor data of any datatype and shape."""
    if len(data) < 2:
        return
    datatype, shape, raw = _datatype_and_shape(data)
    with contextlib.suppress(InvalidInput):
        decoded = tensors_raw.decode(datatype, shape, raw, "x")
        assert tensors_raw.encode(Tensor("x", datatype, shape, decoded)) == raw


def json_tensor(data: bytes) -> None:
    """JSON tensor data of any datatype and shape."""
    if len(data) < 2:
        return
    datatype, shape, text = _datatype_and_shape(data)
    with contextlib.suppress(InvalidInput, orjson.JSONDecodeError):
        decoded = tensors_json.decode(datatype, shape, orjson.loads(text), "x")
        told = orjson.loads(
            orjson.dumps(tensors_json.encode(Tensor("x", datatype, shape, decoded)))
        )
        again = tensors_json.decode(datatype, shape, told, "x")
        assert decoded == again if isinstance(decoded, tuple) else np.array_equal(decoded, again)


def grpc_request(data: bytes) -> None:
    """A ModelInferRequest, typed or raw."""
    with contextlib.suppress(InvalidInput, DecodeError):
        infer = v2_grpc.decode_request(pb.ModelInferRequest.FromString(data))
        text_tensors.timeout_s(infer.parameters)
        text_tensors.generation_request(infer, stream=True)


def grpc_response(data: bytes) -> None:
    """A predictor's answer, of which the transformer believes nothing."""
    with contextlib.suppress(InvalidInput, InternalError, DecodeError):
        text_tensors.chunks(v2_grpc.decode_response(pb.ModelInferResponse.FromString(data)))


def token_list(data: bytes) -> None:
    """A predictor's log probabilities."""
    with contextlib.suppress(InternalError):
        decoded = tokens.decode(data)
        assert tokens.decode(tokens.encode(decoded)) == decoded


def generate(data: bytes) -> None:
    """A generate body."""
    with contextlib.suppress(InvalidInput):
        GenerateCall("m", v2_json.load_object(data), stream=False)


def _openai(endpoint: Endpoint, data: bytes) -> None:
    with contextlib.suppress(InvalidInput):
        request = OpenAICall(endpoint, v2_json.load_object(data)).request
        again = _after_the_hop(request)
        if request.sampling.max_tokens is not None:
            assert again == request


def chat(data: bytes) -> None:
    """A chat completion's body."""
    _openai(Endpoint.CHAT, data)


def completions(data: bytes) -> None:
    """A completion's body."""
    _openai(Endpoint.COMPLETIONS, data)


def parameters(data: bytes) -> None:
    """Sampling parameters as a V2 client's texts."""
    names = tuple(sampling.PARAMETERS)
    if not data:
        return
    text = data[1:].decode(errors="replace")
    with contextlib.suppress(InvalidInput):
        values = {names[data[0] % len(names)]: text}
        params = sampling.parse(values, default_max_tokens=None, texts=True)
        again = sampling.parse(params.set_parameters(), default_max_tokens=None, texts=True)
        assert again == params


def response_format(data: bytes) -> None:
    """OpenAI's response_format."""
    with contextlib.suppress(InvalidInput, orjson.JSONDecodeError):
        structured.from_response_format(orjson.loads(data))


def headers(data: bytes) -> None:
    """The headers that become a request's context."""
    names = (
        *(context.REQUEST_ID, context.TRACEPARENT, context.TRACESTATE, context.TENANT),
        *(context.PRIORITY, context.REQUEST_TIMEOUT, "authorization", "x-forwarded-for"),
    )
    values = data.decode("latin-1").split("\n")
    with contextlib.suppress(InvalidInput):
        made = context.from_headers(dict(zip(names, values, strict=False)), 0.0)
        # What goes on to the predictor must be good enough to be read there.
        again = context.from_headers(made.forwarded(), 0.0)
        assert (again.request_id, again.traceparent) == (made.request_id, made.traceparent)


def compressed(data: bytes) -> None:
    """A compressed body."""
    encoding = "gzip" if data[:1] == b"g" else "deflate"
    with contextlib.suppress(InvalidInput, PayloadTooLarge):
        assert len(_body._decompress(data[1:], encoding, MAX_BODY)) <= MAX_BODY


DECODERS = (
    *(v2_infer, raw_tensor, json_tensor, grpc_request, grpc_response, token_list),
    *(generate, chat, completions, parameters, response_format, headers, compressed),
)


def every(data: bytes) -> None:
    """All of them: the first byte chooses."""
    if data:
        DECODERS[data[0] % len(DECODERS)](data[1:])


TARGETS: Mapping[str, Callable[[bytes], None]] = {
    target.__name__: target for target in (*DECODERS, every)
}
