"""Chunks out of the messages of a predictor's stream, nearly all of which differ in a few bytes.

The messages of one stream say the same about model, tensors and shapes again and again; only the
raw contents change. So the first message is read and checked like any other, and of those that
begin with the same bytes only the contents are read. Sources: OIP inference_grpc.md (raw contents
come last), protobuf's encoding.md.
"""

from struct import Struct
from typing import Final

from google.protobuf.message import DecodeError

from openinference import text_tensors, v2_grpc
from openinference.errors import InternalError, InvalidInput
from openinference.generation import Chunk, FinishReason
from openinference.proto import inference_pb2 as pb
from openinference.text_tensors import (
    FINISH_REASON,
    NUM_INPUT_TOKENS,
    NUM_OUTPUT_TOKENS,
    OUTPUT_INDEX,
    OUTPUTS,
    TEXT_OUTPUT,
)

# Field numbers and wire type 2: ModelStreamInferResponse.infer_response, and
# ModelInferResponse.raw_output_contents.
_INFER_RESPONSE: Final = 2 << 3 | 2
_RAW: Final = 6 << 3 | 2
_UINT32: Final = Struct("<I")
_ORDER: Final = (OUTPUT_INDEX, TEXT_OUTPUT, FINISH_REASON, NUM_INPUT_TOKENS, NUM_OUTPUT_TOKENS)
_REASONS: Final = {b"": None} | {each.encode(): each for each in FinishReason}


class StreamReader:
    """Reads the messages of one stream, in order."""

    __slots__ = ("_has_begun", "_places", "_prefix")

    def __init__(self) -> None:
        self._has_begun = False
        self._prefix = b""
        # Where in the raw contents the members of a chunk are.
        self._places: tuple[int, ...] = ()

    def read(self, message: bytes) -> list[Chunk]:
        """The chunks of a ModelStreamInferResponse; raises InternalError if it is none of ours."""
        if self._prefix:
            chunk = self._alike(message)
            if chunk is not None:
                return [chunk]
        try:
            response = pb.ModelStreamInferResponse.FromString(message).infer_response
            chunks = text_tensors.chunks(v2_grpc.decode_response(response))
        except (InvalidInput, DecodeError):
            raise InternalError("the predictor's answer is not valid V2") from None
        if not self._has_begun:
            self._has_begun = True
            self._learn(response)
        return chunks

    def _learn(self, response: pb.ModelInferResponse) -> None:
        """Notes what the next messages are expected to begin with."""
        names = [output.name for output in response.outputs]
        if (
            len(names) != len(response.raw_output_contents)
            or sorted(names) != sorted(_ORDER)
            or any(
                list(output.shape) != [1] or output.datatype != OUTPUTS[output.name].name
                for output in response.outputs
            )
        ):
            return
        begun = pb.ModelInferResponse()
        begun.CopyFrom(response)
        begun.ClearField("raw_output_contents")
        self._prefix = begun.SerializeToString()
        self._places = tuple(names.index(name) for name in _ORDER)

    def _alike(self, message: bytes) -> Chunk | None:
        """The chunk of a message like the ones before; None if it has to be read whole."""
        try:
            if message[0] != _INFER_RESPONSE:
                return None
            length, at = _varint(message, 1)
            if at + length != len(message) or not message.startswith(self._prefix, at):
                return None
            at += len(self._prefix)
            raw = []
            while at < len(message):
                if message[at] != _RAW:
                    return None
                length, at = _varint(message, at + 1)
                raw.append(message[at : at + length])
                at += length
            if at != len(message) or len(raw) != len(self._places):
                return None
            index, text, reason, prompt, generated = (raw[place] for place in self._places)
            return Chunk(
                _uint32(index),
                _element(text).decode(),
                _uint32(prompt),
                _uint32(generated),
                _REASONS[_element(reason)],
            )
        except (IndexError, KeyError, ValueError):
            # Read whole, it gets its error.
            return None


def _varint(message: bytes, at: int) -> tuple[int, int]:
    """A varint of at most four bytes and where it ends."""
    value = message[at]
    if value < 128:
        return value, at + 1
    value &= 127
    for shift in (7, 14, 21):
        at += 1
        byte = message[at]
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at + 1
    raise ValueError(message)


def _uint32(raw: bytes) -> int:
    if len(raw) != _UINT32.size:
        raise ValueError(raw)
    return int(_UINT32.unpack(raw)[0])


def _element(raw: bytes) -> bytes:
    """The one element of a BYTES tensor."""
    if len(raw) < _UINT32.size or len(raw) != _UINT32.size + _UINT32.unpack_from(raw)[0]:
        raise ValueError(raw)
    return raw[_UINT32.size :]
