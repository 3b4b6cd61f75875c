"""Chunks out of a predictor's messages, nearly all of which differ in a few bytes only.

They say the same about model, tensors and shapes again and again; only the raw contents change. So
a first message is read and checked like any other, and of those that begin with the same bytes only
the contents are read. Sources: OIP inference_grpc.md (raw contents
come last), protobuf's encoding.md.
"""

import struct
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
_UINT32: Final = struct.Struct("<I")
# The order of the outputs is the one that text_tensors.infer_request asks for.
_ORDER: Final = [TEXT_OUTPUT, FINISH_REASON, NUM_INPUT_TOKENS, NUM_OUTPUT_TOKENS, OUTPUT_INDEX]
# The last three as raw contents, each of them a tag, a length of four and the number.
_NUMBERS: Final = struct.Struct("<HIHIHI")
_NUMBER: Final = 4 << 8 | _RAW
# Models of one predictor.
_REMEMBERED: Final = 64


def _raw_text(text: str) -> bytes:
    """A short BYTES element as raw contents, tag and length before it."""
    return bytes([_RAW, _UINT32.size + len(text)]) + _UINT32.pack(len(text)) + text.encode()


_REASONS: Final = {_raw_text(""): None} | {_raw_text(each): each for each in FinishReason}


class StreamReader:
    """Reads the messages of one stream, in order."""

    __slots__ = ("_has_begun", "_prefix")

    def __init__(self) -> None:
        self._has_begun = False
        self._prefix: bytes | None = None

    def read(self, message: bytes) -> list[Chunk]:
        """The chunks of a ModelStreamInferResponse; raises InternalError if it is none of ours."""
        if self._prefix is not None:
            at = _infer_response(message)
            if message.startswith(self._prefix, at):
                chunk = _chunk(message, at + len(self._prefix))
                if chunk is not None:
                    return [chunk]
        try:
            response = pb.ModelStreamInferResponse.FromString(message).infer_response
        except DecodeError:
            raise _invalid() from None
        chunks = _chunks(response)
        if not self._has_begun:
            self._has_begun = True
            self._prefix = _prefix(response)
        return chunks


class AnswerReader:
    """Reads answers of one predictor, each of which is one message."""

    def __init__(self) -> None:
        self._prefixes: dict[str, bytes] = {}

    def read(self, message: bytes, model: str) -> list[Chunk]:
        """The chunks of a ModelInferResponse of `model`; raises InternalError if it is not ours."""
        prefix = self._prefixes.get(model)
        if prefix is not None and message.startswith(prefix):
            chunk = _chunk(message, len(prefix))
            if chunk is not None:
                return [chunk]
        try:
            response = pb.ModelInferResponse.FromString(message)
        except DecodeError:
            raise _invalid() from None
        chunks = _chunks(response)
        if prefix is None and (found := _prefix(response)) is not None:
            if len(self._prefixes) >= _REMEMBERED:
                self._prefixes.clear()
            self._prefixes[model] = found
        return chunks


def _infer_response(message: bytes) -> int:
    """Where the only field of a stream's message begins, its infer_response; -1 if it is not so."""
    try:
        if message[0] == _INFER_RESPONSE:
            length, at = _varint(message, 1)
            if at + length == len(message):
                return at
    except (IndexError, ValueError):
        pass
    return -1


def _chunk(message: bytes, at: int) -> Chunk | None:
    """The chunk whose raw contents begin there and end `message`; None if it is to be read whole.

    Whatever is not just so is read whole, and gets its meaning or its error there.
    """
    try:
        if message[at] != _RAW:
            return None
        size, at = _varint(message, at + 1)
        (length,) = _UINT32.unpack_from(message, at)
        if length != size - _UINT32.size:
            return None
        text_end, numbers_at = at + size, len(message) - _NUMBERS.size
        first, num_input, second, num_output, third, index = _NUMBERS.unpack_from(
            message, numbers_at
        )
        if not first == second == third == _NUMBER:
            return None
        return Chunk(
            index,
            message[at + _UINT32.size : text_end].decode(),
            num_input,
            num_output,
            _REASONS[message[text_end:numbers_at]],
        )
    except (IndexError, KeyError, ValueError, struct.error):
        return None


def _prefix(response: pb.ModelInferResponse) -> bytes | None:
    """What messages like this one have before their contents; None if it is not of one sequence."""
    names = [output.name for output in response.outputs]
    if (
        len(names) != len(response.raw_output_contents)
        or names != _ORDER
        or any(
            list(output.shape) != [1] or output.datatype != OUTPUTS[output.name].name
            for output in response.outputs
        )
    ):
        return None
    begun = pb.ModelInferResponse()
    begun.CopyFrom(response)
    begun.ClearField("raw_output_contents")
    return begun.SerializeToString(deterministic=True)


def _chunks(response: pb.ModelInferResponse) -> list[Chunk]:
    try:
        return text_tensors.chunks(v2_grpc.decode_response(response))
    except InvalidInput:
        raise _invalid() from None


def _invalid() -> InternalError:
    return InternalError("the predictor's answer is not valid V2")


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
