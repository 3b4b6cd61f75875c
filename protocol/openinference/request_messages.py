"""Requests as a predictor's messages, nearly all of which differ in their prompts only.

What comes before the raw contents says model, sampling, shape and outputs again and again, so it is
encoded once and remembered; the prompts follow as they are. Sources: OIP inference_grpc.md (raw
contents come last), protobuf's encoding.md.
"""

from typing import Final

from openinference import tensors_raw, text_tensors, v2_grpc
from openinference.generation import GenerationRequest
from openinference.sampling import SamplingParams

# Field number and wire type 2: ModelInferRequest.raw_input_contents.
_RAW: Final = bytes([7 << 3 | 2])
# Callers mostly say one of a few; seeds, of which none comes again, push the others out.
_REMEMBERED: Final = 256
# A longer head (stop strings, a grammar) is encoded each time; this bounds what is held.
_HEAD_BYTES: Final = 1024

# Model, whether the prompts are texts, their number, and how to sample.
_Kind = tuple[str, bool, int, SamplingParams]


class RequestWriter:
    """Writes requests to one predictor."""

    def __init__(self) -> None:
        self._heads: dict[_Kind, bytes] = {}

    def write(self, request: GenerationRequest, model: str) -> bytes:
        """`request` as a ModelInferRequest of `model`, which is the predictor's name for it."""
        prompts = request.prompts
        kind = (model, isinstance(prompts[0], str), len(prompts), request.sampling)
        head = self._heads.get(kind)
        if head is None:
            head = _head(request, model)
            if len(head) <= _HEAD_BYTES:
                if len(self._heads) >= _REMEMBERED:
                    self._heads.clear()
                self._heads[kind] = head
        contents = tensors_raw.joined(text_tensors.elements(prompts))
        return b"%b%b%b%b" % (head, _RAW, _varint(len(contents)), contents)


def _head(request: GenerationRequest, model: str) -> bytes:
    """The message without its raw contents."""
    message = v2_grpc.encode_request(text_tensors.infer_request(request))
    message.model_name = model
    message.ClearField("raw_input_contents")
    return message.SerializeToString()


def _varint(number: int) -> bytes:
    groups = []
    while number > 127:
        groups.append(number & 127 | 128)
        number >>= 7
    return bytes([*groups, number])
