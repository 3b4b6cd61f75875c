"""JSON schemas of the bodies: V2, generate and OpenAI; sampling comes from its own table."""

from collections.abc import Iterable, Mapping
from typing import Any, Final

from openinference import openai_json, sampling, structured, text_tensors
from openinference.datatypes import DATATYPES
from openinference.generation import ROLES
from openinference.messages import MAX_DIMENSION, MAX_RANK, ModelState
from openinference.v2_json import BINARY_OUTPUT, BINARY_SIZE

Schema = dict[str, Any]

STRING: Final[Schema] = {"type": "string"}
BOOLEAN: Final[Schema] = {"type": "boolean"}
INTEGER: Final[Schema] = {"type": "integer"}
COUNT: Final[Schema] = {"type": "integer", "minimum": 0}
NUMBER: Final[Schema] = {"type": "number"}
NULL: Final[Schema] = {"type": "null"}
FINISH: Final[Schema] = {"enum": ["length", "eos_token", "stop_sequence"]}


def ref(name: str) -> Schema:
    """A schema of SCHEMAS by name."""
    return {"$ref": f"#/components/schemas/{name}"}


def _list(item: Schema, **bounds: int) -> Schema:
    return {"type": "array", "items": item, **bounds}


def _object(
    required: Mapping[str, Any], optional: Mapping[str, Any] | None = None, *, closed: bool = False
) -> Schema:
    schema: Schema = {
        "type": "object",
        "required": list(required),
        "properties": {**required, **(optional or {})},
    }
    if closed:
        schema["additionalProperties"] = False
    return schema


def _or_null(schema: Mapping[str, Any]) -> Schema:
    return {"anyOf": [schema, NULL]}


def _nullable(schemas: Mapping[str, Mapping[str, Any]]) -> Schema:
    return {name: _or_null(schema) for name, schema in schemas.items()}


def _sampling(*left_out: str) -> dict[str, Mapping[str, Any]]:
    return {
        name: parameter.schema
        for name, parameter in sampling.PARAMETERS.items()
        if name not in left_out
    }


def _inert(names: Iterable[str]) -> Schema:
    """Members that may only say "nothing of this kind"."""
    return {
        name: {"enum": [*openai_json.INERT_VALUES[name], None], "description": "Not supported."}
        for name in names
    }


_HARMLESS: Final[Schema] = {
    name: {"description": "Without effect here."} for name in sorted(openai_json.HARMLESS)
}
_PARAMETERS: Final = _or_null(
    {"type": "object", "additionalProperties": {"type": ["string", "number", "boolean"]}}
)
_SHAPE: Final = _list({"type": "integer", "minimum": 0, "maximum": MAX_DIMENSION})
_DATATYPE: Final[Schema] = {"enum": list(DATATYPES)}
_METADATA_TENSOR: Final = _object(
    {"name": STRING, "datatype": _DATATYPE, "shape": _list({"type": "integer", "minimum": -1})}
)
_TOKEN: Final = _object({"id": COUNT, "text": STRING, "logprob": NUMBER, "special": BOOLEAN})
_V2: Final[dict[str, Schema]] = {
    "Error": _object({"error": STRING}),
    "Live": _object({"live": BOOLEAN}),
    "Ready": _object({"live": BOOLEAN, "ready": BOOLEAN}),
    "ServerMetadata": _object({"name": STRING, "version": STRING, "extensions": _list(STRING)}),
    "Models": _object({"models": _list(STRING)}),
    "ModelMetadata": _object(
        {
            "name": STRING,
            "platform": STRING,
            "inputs": _list(_METADATA_TENSOR),
            "outputs": _list(_METADATA_TENSOR),
        },
        {"properties": {"type": "object", "additionalProperties": STRING}},
    ),
    "ModelReady": _object({"name": STRING, "ready": BOOLEAN}),
    "ModelStatus": _object(
        {"name": STRING, "state": {"enum": list(ModelState)}},
        {"phase": STRING, "elapsed_s": NUMBER, "expected_s": NUMBER, "message": STRING},
    ),
    "RepositoryIndexRequest": _object({}, _nullable({"ready": BOOLEAN})),
    "RepositoryIndex": _list(
        _object({"name": STRING, "state": {"enum": ["READY", "UNAVAILABLE"]}}, {"reason": STRING})
    ),
    "InferRequest": _object(
        {"inputs": _list(ref("InputTensor"), minItems=1)},
        {
            "id": _or_null(STRING),
            "parameters": _PARAMETERS,
            "outputs": _or_null(_list(ref("RequestedOutput"))),
        },
    ),
    "InputTensor": _object(
        {
            "name": {"type": "string", "minLength": 1},
            "shape": {**_SHAPE, "maxItems": MAX_RANK},
            "datatype": _DATATYPE,
        },
        {
            "data": {
                "type": "array",
                "description": "Elements in row-major order, flat or nested as the shape says.",
            },
            "parameters": {
                **_PARAMETERS,
                "description": f"`{BINARY_SIZE}` stands in place of data where the elements "
                "follow the JSON as binary tensor data.",
            },
        },
    ),
    "RequestedOutput": _object(
        {"name": STRING},
        {
            "parameters": {
                **_PARAMETERS,
                "description": f"`{BINARY_OUTPUT}` true asks for binary tensor data.",
            }
        },
    ),
    "InferResponse": _object(
        {
            "model_name": STRING,
            "outputs": _list(
                _object(
                    {"name": STRING, "shape": _SHAPE, "datatype": _DATATYPE},
                    {"data": {"type": "array"}, "parameters": {"type": "object"}},
                )
            ),
        },
        {"model_version": STRING, "id": STRING, "parameters": {"type": "object"}},
    ),
    "Token": _TOKEN,
    "GenerateEvent": _object(
        {"model_name": STRING, "text_output": STRING},
        {
            "id": STRING,
            "finish_reason": FINISH,
            "details": _object(
                {"num_input_tokens": COUNT, "num_output_tokens": COUNT},
                {"token": ref("Token"), "finish_reason": FINISH},
            ),
        },
    ),
    "GenerateRequest": _object(
        {"text_input": STRING},
        {
            "id": _or_null(STRING),
            "parameters": _or_null(
                _object(
                    {},
                    {
                        **_sampling("n", "logprobs"),
                        "n": {"const": 1},
                        "details": BOOLEAN,
                        "stream": {
                            "type": "boolean",
                            "description": "false for generate, true for generate_stream.",
                        },
                        text_tensors.TIMEOUT: {**COUNT, "description": "Microseconds."},
                    },
                    closed=True,
                )
            ),
        },
    ),
    "GenerateResponse": _object(
        {"model_name": STRING, "text_output": STRING},
        {
            "id": STRING,
            "details": _object(
                {
                    "finish_reason": FINISH,
                    "logprobs": _list(ref("Token")),
                    "num_input_tokens": COUNT,
                    "num_output_tokens": COUNT,
                }
            ),
        },
    ),
}
_MESSAGE: Final = {
    **_object(
        {
            "role": {"enum": list(ROLES)},
            "content": {
                "anyOf": [STRING, _list(_object({"type": {"const": "text"}, "text": STRING}))],
            },
        },
        {"name": _or_null(STRING)},
    ),
    "additionalProperties": {"enum": [None, [], ""], "description": "Not supported."},
}
_RESPONSE_FORMAT: Final[Schema] = {
    "anyOf": [
        _object({"type": {"enum": ["text", "json_object"]}}),
        _object(
            {
                "type": {"const": "json_schema"},
                "json_schema": _object(
                    {"name": STRING, "schema": {"type": "object"}},
                    {"strict": {"type": ["boolean", "null"]}},
                ),
            }
        ),
    ],
    "description": f"A schema may have {structured.MAX_SPEC_BYTES} bytes "
    f"and {structured.MAX_DEPTH} levels.",
}
_COMMON: Final[Schema] = {
    **_nullable(_sampling("temperature", "logprobs")),
    "temperature": _or_null(
        {"type": "number", "minimum": 0, "maximum": openai_json.MAX_TEMPERATURE}
    ),
    "stream": _or_null(BOOLEAN),
    "stream_options": _or_null(
        {
            **_object(
                {},
                {"include_usage": BOOLEAN, "include_obfuscation": {"const": False}},
                closed=True,
            ),
            "description": "With stream only.",
        }
    ),
    "response_format": _or_null(_RESPONSE_FORMAT),
    **_HARMLESS,
    **_inert(openai_json.INERT_VALUES),
}
_MODEL: Final[Schema] = {"type": "string", "minLength": 1}
_USAGE: Final = _object({"prompt_tokens": COUNT, "completion_tokens": COUNT, "total_tokens": COUNT})
_FINISH: Final[Schema] = {"enum": ["stop", "length", None]}
_RATED: Final = _object({"token": STRING, "logprob": NUMBER, "bytes": _list(COUNT)})


_CHAT_LOGPROBS: Final = _or_null(
    _object({"content": _list({**_RATED, "description": "With `top_logprobs` of the same form."})})
)
_COMPLETION_LOGPROBS: Final = _or_null(
    _object(
        {
            "tokens": _list(STRING),
            "token_logprobs": _list(NUMBER),
            "top_logprobs": _list({"type": "object", "additionalProperties": NUMBER}),
            "text_offset": _list(COUNT),
        }
    )
)


def _answer(kind: str, content: Schema, logprobs: Schema) -> Schema:
    choice = {"index": COUNT, **content, "logprobs": logprobs, "finish_reason": _FINISH}
    return _object(
        {
            "id": STRING,
            "object": {"const": kind},
            "created": COUNT,
            "model": STRING,
            "choices": _list(_object(choice)),
            "usage": ref("Usage"),
        }
    )


def _event(kind: str, content: Schema, logprobs: Schema) -> Schema:
    event = _answer(kind, content, logprobs)
    event["required"].remove("usage")
    event["properties"]["usage"] = _or_null(ref("Usage"))
    return event


_LISTED_MODEL: Final = _object(
    {"id": STRING, "object": {"const": "model"}, "created": COUNT, "owned_by": STRING}
)
_OPENAI: Final[dict[str, Schema]] = {
    "OpenAIError": _object(
        {
            "error": _object(
                {
                    "message": STRING,
                    "type": STRING,
                    "param": _or_null(STRING),
                    "code": _or_null(STRING),
                }
            )
        }
    ),
    "OpenAIModel": _LISTED_MODEL,
    "OpenAIModels": _object({"object": {"const": "list"}, "data": _list(ref("OpenAIModel"))}),
    "Usage": _USAGE,
    "ChatRequest": _object(
        {"model": _MODEL, "messages": _list(_MESSAGE, minItems=1)},
        {
            **_COMMON,
            "max_completion_tokens": _or_null(sampling.PARAMETERS["max_tokens"].schema),
            "logprobs": _or_null(BOOLEAN),
            "top_logprobs": {
                **_or_null({**COUNT, "maximum": sampling.MAX_LOGPROBS}),
                "description": "With logprobs only.",
            },
        },
        closed=True,
    ),
    "ChatResponse": _answer(
        "chat.completion",
        {"message": _object({"role": {"const": "assistant"}, "content": STRING})},
        _CHAT_LOGPROBS,
    ),
    "ChatEvent": _event(
        "chat.completion.chunk",
        {"delta": _object({}, {"role": {"const": "assistant"}, "content": STRING}, closed=True)},
        _CHAT_LOGPROBS,
    ),
    "CompletionRequest": _object(
        {
            "model": _MODEL,
            "prompt": {"anyOf": [STRING, _list(STRING, minItems=1)]},
        },
        {**_COMMON, "logprobs": _or_null(sampling.PARAMETERS["logprobs"].schema)},
        closed=True,
    ),
    "CompletionResponse": _answer("text_completion", {"text": STRING}, _COMPLETION_LOGPROBS),
    "CompletionEvent": _event("text_completion", {"text": STRING}, _COMPLETION_LOGPROBS),
}
SCHEMAS: Final[dict[str, Schema]] = {**_V2, **_OPENAI}
