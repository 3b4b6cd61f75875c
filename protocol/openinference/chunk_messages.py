"""Chunks out of a predictor's messages, nearly all of which differ in a few bytes only.

They say the same about model, tensors and shapes again and again; only the raw contents change. So
a first message is read and checked like any other, and of those that begin with the same bytes only
the contents are read. Sources: OIP inference_grpc.md (raw contents
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
# Models of one predictor.
_REMEMBERED: Final = 64
_REASONS: Final = {b"": None} | {each.encode(): each for each in FinishReason}


class StreamReader:
    """Reads the messages of one stream, in order."""

    __slots__ = ("_has_begun", "_template")

    def __init__(self) -> None:
        self._has_begun = False
        self._template: _Template | None = None

    def read(self, message: bytes) -> list[Chunk]:
        """The chunks of a ModelStreamInferResponse; raises InternalError if it is none of ours."""
        if self._template is not None:
            chunk = _within(message, self._template)
            if chunk is not None:
                return [chunk]
        try:
            response = pb.ModelStreamInferResponse.FromString(message).infer_response
        except DecodeError:
            raise _invalid() from None
        chunks = _chunks(response)
        if not self._has_begun:
            self._has_begun = True
            self._template = _template(response)
        return chunks


class AnswerReader:
    """Reads answers of one predictor, each of which is one message."""

    def __init__(self) -> None:
        self._templates: dict[str, _Template | None] = {}

    def read(self, message: bytes, model: str) -> list[Chunk]:
        """The chunks of a ModelInferResponse of `model`; raises InternalError if it is not ours."""
        template = self._templates.get(model)
        if template is not None:
            chunk = template.chunk(message, 0)
            if chunk is not None:
                return [chunk]
        try:
            response = pb.ModelInferResponse.FromString(message)
        except DecodeError:
            raise _invalid() from None
        chunks = _chunks(response)
        if model not in self._templates and (found := _template(response)) is not None:
            if len(self._templates) >= _REMEMBERED:
                self._templates.clear()
            self._templates[model] = found
        return chunks


class _Template:
    """What messages begin with, and where in the raw contents the members of a chunk are."""

    __slots__ = ("_places", "_prefix")

    def __init__(self, prefix: bytes, places: tuple[int, ...]) -> None:
        self._prefix = prefix
        self._places = places

    def chunk(self, message: bytes, at: int) -> Chunk | None:
        """The chunk of the message that begins there; None if it has to be read whole."""
        if not message.startswith(self._prefix, at):
            return None
        try:
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
            index, text, reason, prompt, generated = [raw[place] for place in self._places]
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


def _within(message: bytes, template: _Template) -> Chunk | None:
    """The chunk of a stream's message."""
    try:
        if message[0] != _INFER_RESPONSE:
            return None
        length, at = _varint(message, 1)
    except (IndexError, ValueError):
        return None
    return template.chunk(message, at) if at + length == len(message) else None


def _template(response: pb.ModelInferResponse) -> _Template | None:
    """What other messages like this one begin with; None if it is not of one sequence."""
    names = [output.name for output in response.outputs]
    if (
        len(names) != len(response.raw_output_contents)
        or sorted(names) != sorted(_ORDER)
        or any(
            list(output.shape) != [1] or output.datatype != OUTPUTS[output.name].name
            for output in response.outputs
        )
    ):
        return None
    begun = pb.ModelInferResponse()
    begun.CopyFrom(response)
    begun.ClearField("raw_output_contents")
    return _Template(
        begun.SerializeToString(deterministic=True), tuple(names.index(name) for name in _ORDER)
    )


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


def _uint32(raw: bytes) -> int:
    if len(raw) != _UINT32.size:
        raise ValueError(raw)
    return int(_UINT32.unpack(raw)[0])


def _element(raw: bytes) -> bytes:
    """The one element of a BYTES tensor."""
    if len(raw) < _UINT32.size or len(raw) != _UINT32.size + _UINT32.unpack_from(raw)[0]:
        raise ValueError(raw)
    return raw[_UINT32.size :]
