"""The canned predictor's protobuf messages, each made once by the codecs of the real one."""

from dataclasses import dataclass

from canned import ANSWER, piece

from openinference import text_tensors, v2_grpc
from openinference.generation import Chunk, Completion, FinishReason
from openinference.proto import inference_pb2 as pb

# dummy_predictor.py's counts.
PROMPT_TOKENS, ANSWER_TOKENS = 8, 16


@dataclass(frozen=True, slots=True)
class _Shape:
    """The answers to requests that ask for the same outputs in the same way, without an id."""

    whole: bytes
    pieces: list[bytes]


class Answers:
    """Encoded answers, by what their requests ask for."""

    def __init__(self) -> None:
        self._shapes: dict[tuple[bool, tuple[str, ...], int], _Shape] = {}

    def shape(self, request: pb.ModelInferRequest, tokens: int) -> _Shape:
        """The answers to `request`; its stream has so many tokens (0: it is whole)."""
        raw = bool(request.raw_input_contents)
        key = (raw, tuple([output.name for output in request.outputs]), tokens)
        known = self._shapes.get(key)
        if known is None:
            known = self._shapes[key] = _shape(request, tokens, raw=raw)
        return known


def _shape(request: pb.ModelInferRequest, tokens: int, *, raw: bool) -> _Shape:
    anonymous = pb.ModelInferRequest()
    anonymous.CopyFrom(request)
    anonymous.id = ""
    infer = v2_grpc.decode_request(anonymous)
    done = Completion(ANSWER, FinishReason.EOS, PROMPT_TOKENS, ANSWER_TOKENS)
    whole = v2_grpc.encode_response(text_tensors.infer_response(infer, None, [done]), raw=raw)
    pieces = []
    for number in range(1, tokens + 1):
        last = number == tokens
        reason = FinishReason.LENGTH if last else None
        chunk = Chunk(0, piece(number), PROMPT_TOKENS, number, reason)
        response = text_tensors.chunk_response(infer, None, chunk, final=last)
        pieces.append(
            pb.ModelStreamInferResponse(
                infer_response=v2_grpc.encode_response(response, raw=raw)
            ).SerializeToString()
        )
    return _Shape(whole.SerializeToString(), pieces)


def varint(data: bytes) -> bytes:
    """A length as protobuf's varint."""
    size, out = len(data), bytearray()
    while size > 127:
        out.append(size & 127 | 128)
        size >>= 7
    out.append(size)
    return bytes(out)
