"""Generation as V2 tensors: `text_input` or `messages` in, `text_output` and its companions out.

Both ends of the hop from transformer to predictor use it, and every V2 client. Sampling travels
as request parameters. The prompt is never prepended to the answer.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import repeat
from operator import attrgetter
from typing import Final

import orjson

from openinference import sampling, tokens
from openinference.datatypes import BYTES, UINT32, Datatype
from openinference.errors import InternalError, InvalidInput, shown
from openinference.generation import (
    Chunk,
    Completion,
    FinishReason,
    GenerationRequest,
    Prompt,
    parse_conversation,
)
from openinference.messages import (
    InferRequest,
    InferResponse,
    ModelMetadata,
    Parameters,
    RequestedOutput,
    Tensor,
    TensorMetadata,
    bytes_tensor,
    number_tensor,
)

TEXT_INPUT: Final = "text_input"
MESSAGES: Final = "messages"
TEXT_OUTPUT: Final = "text_output"
FINISH_REASON: Final = "finish_reason"
NUM_INPUT_TOKENS: Final = "num_input_tokens"
NUM_OUTPUT_TOKENS: Final = "num_output_tokens"
OUTPUT_INDEX: Final = "output_index"
# Each sequence's tokens as JSON: see openinference.tokens.
LOGPROBS: Final = "logprobs"

OUTPUTS: Final[dict[str, Datatype]] = {
    TEXT_OUTPUT: BYTES,
    FINISH_REASON: BYTES,
    NUM_INPUT_TOKENS: UINT32,
    NUM_OUTPUT_TOKENS: UINT32,
    OUTPUT_INDEX: UINT32,
    LOGPROBS: BYTES,
}

_NUMBERS: Final[dict[str, Callable[[Chunk], int]]] = {
    NUM_INPUT_TOKENS: attrgetter("num_input_tokens"),
    NUM_OUTPUT_TOKENS: attrgetter("num_output_tokens"),
    OUTPUT_INDEX: attrgetter("index"),
}

_OUTPUTS_OF_ALL: Final = tuple(RequestedOutput(name) for name in OUTPUTS if name != LOGPROBS)
_LOGPROBS_TOO: Final = (*_OUTPUTS_OF_ALL, RequestedOutput(LOGPROBS))

# A sequence ends at the model's context anyway, so this reads "as many as fit".
UNBOUNDED: Final = 2**31 - 1
# OIP generate_rest.yaml gives generate this default; V2 infer follows it.
DEFAULT_MAX_TOKENS: Final = 20

TIMEOUT: Final = "timeout"
PRIORITY: Final = "priority"
ALL_BINARY: Final = "binary_data_output"
EMPTY_FINAL_RESPONSE: Final = "triton_enable_empty_final_response"
FINAL_RESPONSE: Final = "triton_final_response"
_PROTOCOL_PARAMETERS: Final = frozenset({TIMEOUT, PRIORITY, ALL_BINARY, EMPTY_FINAL_RESPONSE})
# What Triton's other extensions would make of a tensor, and we would not.
_OTHER_EXTENSIONS: Final = frozenset(
    {
        "classification",
        "shared_memory_region",
        "shared_memory_offset",
        "shared_memory_byte_size",
    }
)


def model_metadata(name: str, platform: str) -> ModelMetadata:
    """The V2 metadata of a text model: the tensors that every request has and gets.

    V2 has no word for a tensor that may be there: clients send every input that is listed, and
    expect every output. So what may be asked for instead or besides is a property.
    """
    return ModelMetadata(
        name,
        platform,
        inputs=[TensorMetadata(TEXT_INPUT, BYTES, (-1,))],
        outputs=[TensorMetadata(TEXT_OUTPUT, BYTES, (-1,))],
        properties={
            "input_instead_of_text_input": f"{MESSAGES} BYTES [-1]",
            "outputs_on_request": ", ".join(
                f"{tensor} {datatype.name} [-1]"
                for tensor, datatype in OUTPUTS.items()
                if tensor != TEXT_OUTPUT
            ),
        },
    )


def timeout_s(parameters: Parameters) -> float | None:
    """Triton's `timeout` request parameter (microseconds; 0 is none) in seconds."""
    value = parameters.get(TIMEOUT, 0)
    if type(value) is float and value.is_integer():
        value = int(value)
    if type(value) is not int or value < 0:
        raise InvalidInput(
            f"parameter 'timeout' must be microseconds, 0 or more, got {shown(value)}"
        )
    return value / 1e6 if value else None


def generation_request(infer: InferRequest, *, stream: bool) -> GenerationRequest:
    """What a V2 request asks to generate.

    Raises InvalidInput for tensors, outputs or parameters that a text model does not have.
    """
    tensor = _only_input(infer.inputs)
    requested = _requested(infer.outputs) if infer.outputs else ()
    parameters = infer.parameters
    if not _PROTOCOL_PARAMETERS.isdisjoint(parameters):
        _check_protocol_parameters(parameters)
        parameters = {k: v for k, v in parameters.items() if k not in _PROTOCOL_PARAMETERS}
    params = sampling.parse(parameters, default_max_tokens=DEFAULT_MAX_TOKENS, texts=True)
    if LOGPROBS in requested:
        if params.logprobs is None:
            params = replace(params, logprobs=0)
    elif params.logprobs is not None:
        raise InvalidInput(
            "parameter 'logprobs' needs the output 'logprobs', which is not asked for"
        )
    return GenerationRequest(infer.model, _prompts(tensor), params, stream)


def _only_input(inputs: Sequence[Tensor]) -> Tensor:
    if len(inputs) != 1 or inputs[0].name not in (TEXT_INPUT, MESSAGES):
        names = [tensor.name for tensor in inputs]
        if len(set(names)) != len(names):
            raise InvalidInput("inputs: two inputs have the same name")
        raise InvalidInput(
            f"inputs must be one tensor, '{TEXT_INPUT}' or '{MESSAGES}', got {shown(names)}"
        )
    _check_supported(inputs[0].parameters, "input", inputs[0].name)
    return inputs[0]


def _requested(outputs: Sequence[RequestedOutput]) -> list[str]:
    for output in outputs:
        _check_supported(output.parameters, "output", output.name)
        if output.name not in OUTPUTS:
            raise InvalidInput(
                f"outputs: {output.name!r:.60} is unknown; allowed: {', '.join(OUTPUTS)}"
            )
    names = [output.name for output in outputs]
    if len(set(names)) != len(names):
        raise InvalidInput("outputs: two outputs have the same name")
    return names


def _check_protocol_parameters(parameters: Parameters) -> None:
    priority = parameters.get(PRIORITY, 0)
    if type(priority) is not int or priority < 0:
        raise InvalidInput(
            f"parameter 'priority' must be an integer, 0 or more, got {shown(priority)}"
        )
    empty = parameters.get(EMPTY_FINAL_RESPONSE, False)
    if type(empty) is not bool:
        raise InvalidInput(
            f"parameter '{EMPTY_FINAL_RESPONSE}' must be true or false, got {shown(empty)}"
        )


def _check_supported(parameters: Parameters, kind: str, tensor: str) -> None:
    for name in parameters:
        if name in _OTHER_EXTENSIONS:
            raise InvalidInput(f"{kind} '{tensor:.60}': parameter '{name}' is not supported")


def raw_request(model: str, version: str | None, body: bytes) -> InferRequest:
    """The request that a raw body is: one text, answered by binary data.

    Source: Triton extension_binary_data.md, "Raw Binary Request": the body is the only input's only
    element, of a BYTES tensor without its length.
    """
    tensor = Tensor(TEXT_INPUT, BYTES, (1,), (body,))
    return InferRequest(model, [tensor], version, parameters={ALL_BINARY: True})


def _prompts(tensor: Tensor) -> tuple[Prompt, ...]:
    where = f"input '{tensor.name}'"
    if not isinstance(tensor.data, tuple):
        raise InvalidInput(f"{where}: datatype must be BYTES, got {tensor.datatype.name}")
    if not tensor.data:
        raise InvalidInput(f"{where}: must hold at least one element")
    prompts: list[Prompt] = []
    for number, element in enumerate(tensor.data):
        try:
            text = element.decode()
        except UnicodeDecodeError:
            raise InvalidInput(f"{where}: element {number} is not UTF-8") from None
        if tensor.name == TEXT_INPUT:
            prompts.append(text)
            continue
        try:
            messages = orjson.loads(text)
        except orjson.JSONDecodeError:
            raise InvalidInput(f"{where}: element {number} is not JSON") from None
        prompts.append(parse_conversation(messages, f"{where}[{number}]"))
    return tuple(prompts)


def infer_request(request: GenerationRequest) -> InferRequest:
    """`request` as V2 tensors, asking for every output that its chunks need.

    The prompts of one request are all texts or all conversations.
    """
    prompts = request.prompts
    name = TEXT_INPUT if isinstance(prompts[0], str) else MESSAGES
    tensor = Tensor(name, BYTES, (len(prompts),), elements(prompts))
    parameters = request.sampling.set_parameters()
    if request.sampling.max_tokens is None:
        parameters["max_tokens"] = UNBOUNDED
    return InferRequest(
        request.model,
        [tensor],
        parameters=parameters,
        outputs=_OUTPUTS_OF_ALL if request.sampling.logprobs is None else _LOGPROBS_TOO,
    )


def elements(prompts: Sequence[Prompt]) -> tuple[bytes, ...]:
    """The elements of the tensor that `prompts` become."""
    return tuple([p.encode() if isinstance(p, str) else orjson.dumps(p.messages) for p in prompts])


def infer_response(
    infer: InferRequest, version: str | None, completions: Sequence[Completion]
) -> InferResponse:
    """The V2 answer of shape [sequences]: the outputs asked for, `text_output` by default."""
    chunks = [
        Chunk(index, c.text, c.num_input_tokens, c.num_output_tokens, c.finish_reason, c.tokens)
        for index, c in enumerate(completions)
    ]
    return InferResponse(infer.model, _outputs(infer, chunks), version, infer.id)


def chunk_response(
    infer: InferRequest, version: str | None, chunk: Chunk, *, final: bool
) -> InferResponse:
    """One V2 response of a stream, tensors of shape [1]; `finish_reason` is "" until the end."""
    return InferResponse(
        infer.model, _outputs(infer, [chunk]), version, infer.id, {FINAL_RESPONSE: final}
    )


def _outputs(infer: InferRequest, chunks: Sequence[Chunk]) -> list[Tensor]:
    if infer.outputs is None:
        return [_output(TEXT_OUTPUT, chunks)]
    return [_output(output.name, chunks) for output in infer.outputs]


def _output(name: str, chunks: Sequence[Chunk]) -> Tensor:
    if name == TEXT_OUTPUT:
        return bytes_tensor(name, [chunk.text for chunk in chunks])
    if name == FINISH_REASON:
        return bytes_tensor(name, [chunk.finish_reason or "" for chunk in chunks])
    if name == LOGPROBS:
        told = tuple([tokens.encode(chunk.tokens) for chunk in chunks])
        return Tensor(name, BYTES, (len(told),), told)
    return number_tensor(name, OUTPUTS[name], [_NUMBERS[name](chunk) for chunk in chunks])


def chunks(response: InferResponse) -> list[Chunk]:
    """The chunks in a V2 answer to `infer_request`; raises InternalError when it is not one."""
    try:
        tensors = {tensor.name: tensor.data for tensor in response.outputs}
        chosen = tensors.get(LOGPROBS)
        return [
            Chunk(
                int(index),
                text.decode(),
                int(num_input),
                int(num_output),
                FinishReason(reason.decode()) if reason else None,
                tokens.decode(told) if told else (),
            )
            for index, text, reason, num_input, num_output, told in zip(
                tensors[OUTPUT_INDEX],
                tensors[TEXT_OUTPUT],
                tensors[FINISH_REASON],
                tensors[NUM_INPUT_TOKENS],
                tensors[NUM_OUTPUT_TOKENS],
                repeat(b"", len(tensors[TEXT_OUTPUT])) if chosen is None else chosen,
                strict=True,
            )
        ]
    except (KeyError, ValueError, AttributeError, OverflowError):
        raise InternalError("the predictor's answer lacks an output") from None
