"""Where the fuzzer begins: a few good inputs a target, and the words of the protocols."""

import gzip
import zlib
from collections.abc import Sequence

import orjson

from openinference import sampling, text_tensors, tokens, v2_grpc
from openinference.datatypes import DATATYPES
from openinference.generation import Chunk, Conversation, FinishReason, GenerationRequest
from openinference.messages import InferRequest, RequestedOutput
from openinference.openai_json import HARMLESS, INERT_VALUES
from openinference.sampling import SamplingParams
from openinference.structured import Kind, StructuredOutputs

TEXT = {"name": "text_input", "shape": [1], "datatype": "BYTES", "data": ["Hi"]}
BINARY = {"name": "text_input", "shape": [1], "datatype": "BYTES", "parameters": {}}
MESSAGES = [{"role": "user", "content": [{"type": "text", "text": "Hi"}]}]
SAMPLING = {
    "max_tokens": 5,
    "stop": ["a"],
    "logit_bias": {"5": -1},
    "structured_outputs": {"choice": ["a"]},
}
FORMAT = {"type": "json_schema", "json_schema": {"name": "a", "schema": {"type": "object"}}}
TOKEN = tokens.Token(5, "a", -0.5, top=(tokens.Token(5, "a", -0.5),))


def _grpc() -> list[bytes]:
    bound = StructuredOutputs(Kind.REGEX, "a+")
    params = SamplingParams(max_tokens=5, logprobs=1, structured_outputs=bound)
    return [
        v2_grpc.encode_request(
            text_tensors.infer_request(GenerationRequest("m", prompts, params, stream=False))
        ).SerializeToString()
        for prompts in (("Hi",), (Conversation(({"role": "user", "content": "Hi"},)),))
    ]


def _answers() -> list[bytes]:
    infer = InferRequest("m", [], outputs=[RequestedOutput(name) for name in text_tensors.OUTPUTS])
    chunk = Chunk(0, "a", 1, 1, FinishReason.EOS, (TOKEN,))
    response = text_tensors.chunk_response(infer, None, chunk, final=True)
    return [v2_grpc.encode_response(response, raw=raw).SerializeToString() for raw in (False, True)]


def seeds() -> dict[str, list[bytes]]:
    """Good inputs by target."""
    json = orjson.dumps
    binary = json({"inputs": [{**BINARY, "parameters": {"binary_data_size": 6}}]})
    chat = {"model": "m", "messages": MESSAGES, **SAMPLING, "stream": True, "n": 2}
    return {
        "v2_infer": [
            b"j" + json({"inputs": [TEXT], "parameters": {"max_tokens": "5"}, "id": "a"}),
            b"h" + len(binary).to_bytes(2, "little") + binary + b"\x02\0\0\0Hi",
        ],
        "raw_tensor": [bytes([kind, 2]) + b"\x02\0\0\0Hi" for kind in range(len(DATATYPES))],
        "json_tensor": [bytes([kind, 3]) + b"[1, 0]" for kind in range(len(DATATYPES))],
        "grpc_request": _grpc(),
        "grpc_response": _answers(),
        "token_list": [tokens.encode([TOKEN])],
        "generate": [
            json({"text_input": "Hi", "parameters": {**SAMPLING, "details": True}, "id": "a"})
        ],
        "chat": [
            json(chat | {"logprobs": True, "stream_options": {"include_usage": True}}),
            json({"model": "m", "messages": MESSAGES, "response_format": FORMAT}),
        ],
        "completions": [json({"model": "m", "prompt": ["Hi"], **SAMPLING, "logprobs": 1})],
        "parameters": [
            bytes([number]) + text
            for number in range(len(sampling.PARAMETERS))
            for text in (b"1", b"true", b'["a"]', b'{"json": {}}')
        ],
        "response_format": [json(FORMAT), b'{"type": "text"}'],
        "headers": [
            b"a\n00-" + b"1" * 32 + b"-" + b"1" * 16 + b"-01\na=b\nt\n5\n1.5\nBearer k\n::1"
        ],
        "compressed": [
            b"g" + gzip.compress(b"a" * 50, mtime=0),
            b"d" + zlib.compress(b"ab" * 3000),
        ],
    }


def of(name: str, decoders: Sequence[str]) -> list[bytes]:
    """Good inputs of a target; `every` has those of all `decoders`."""
    if name != "every":
        return seeds()[name]
    return [
        bytes([number]) + seed
        for number, decoder in enumerate(decoders)
        for seed in seeds()[decoder]
    ]


def words() -> set[str]:
    """The protocols' own words, for the fuzzer to put in."""
    return {
        *sampling.PARAMETERS,
        *DATATYPES,
        *Kind,
        *HARMLESS,
        *INERT_VALUES,
        *text_tensors.OUTPUTS,
        *("inputs", "outputs", "parameters", "name", "shape", "datatype", "data", "id", "top"),
        *("binary_data_size", "binary_data", "binary_data_output", "timeout", "messages", "role"),
        *("content", "user", "assistant", "type", "text", "model", "prompt", "stream", "schema"),
        *("response_format", "json_schema", "json_object", "stream_options", "include_usage"),
        *("max_completion_tokens", "top_logprobs", "details", "text_input", "logprob", "special"),
    }
