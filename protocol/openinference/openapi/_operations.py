"""What each endpoint takes and gives; its name is the one that metrics know it by."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from openinference import sse, v2_json
from openinference.openapi._schemas import Schema, ref

JSON: Final = "application/json"
BINARY: Final = "application/octet-stream"
EVENTS: Final = sse.CONTENT_TYPE.partition(";")[0]
TEXT: Final = "text/plain"


@dataclass(frozen=True, slots=True)
class Operation:
    """An endpoint: a body's schema by media type, and that of the answer.

    `errors` are the statuses that callers must reckon with; "default" stands for the others.
    """

    summary: str
    answers: dict[str, Schema]
    body: dict[str, Schema] = field(default_factory=dict)
    errors: Sequence[int] = ()
    error: str = "Error"
    parameters: Sequence[Schema] = ()
    headers: dict[str, Schema] = field(default_factory=dict)
    no_too: bool = False


_MODEL: Final = (404,)
_WORK: Final = (400, 401, 403, 404, 408, 413, 415, 429, 500, 503, 504)
_GENERATE: Final = (401, 403, 404, 408, 413, 415, 422, 424, 429, 500, 503, 504)
_TIMEOUT: Final[Schema] = {
    "name": "X-Request-Timeout",
    "in": "header",
    "description": "Seconds after which the caller no longer waits: 504.",
    "schema": {"type": "number", "exclusiveMinimum": 0},
}
_HEADER_LENGTH: Final[Schema] = {
    "name": "Inference-Header-Content-Length",
    "in": "header",
    "description": "Length of the JSON part of a body with binary tensor data; 0 for a raw text.",
    "schema": {"type": "integer", "minimum": 0},
}
_LENGTH_BACK: Final[Schema] = {
    v2_json.HEADER_LENGTH: {
        "description": "Length of the JSON part, when binary tensor data follows it.",
        "schema": {"type": "integer", "minimum": 1},
    }
}
_OPENAI: Final[dict[str, Any]] = {"error": "OpenAIError"}


def _events(name: str) -> dict[str, Schema]:
    return {EVENTS: {"description": f"Server-sent events; the data of each is a {name}."}}


def _json(name: str) -> dict[str, Schema]:
    return {JSON: ref(name)}


OPERATIONS: Final[dict[str, Operation]] = {
    "root": Operation("Alive", {JSON: {"type": "object"}}),
    "openapi": Operation("This document", {JSON: {"type": "object"}}),
    "metrics": Operation("Metrics for Prometheus", {TEXT: {"type": "string"}}),
    "server_metadata": Operation("Server metadata", _json("ServerMetadata")),
    "live": Operation("Is the server alive?", _json("Live"), no_too=True),
    "ready": Operation("Are all models ready?", _json("Ready"), no_too=True),
    "models": Operation("Names of the models", _json("Models")),
    "repository_index": Operation(
        "Models and their states, as in Triton",
        _json("RepositoryIndex"),
        _json("RepositoryIndexRequest"),
        (400, 408, 413, 415),
    ),
    "model_metadata": Operation("Model metadata", _json("ModelMetadata"), errors=_MODEL),
    "model_ready": Operation(
        "Is the model ready?", _json("ModelReady"), errors=_MODEL, no_too=True
    ),
    "model_status": Operation("How far is the model's start?", _json("ModelStatus"), errors=_MODEL),
    "infer": Operation(
        "Inference",
        {JSON: ref("InferResponse"), BINARY: {"type": "string", "format": "binary"}},
        {JSON: ref("InferRequest"), BINARY: {"type": "string", "format": "binary"}},
        _WORK,
        parameters=(_TIMEOUT, _HEADER_LENGTH),
        headers=_LENGTH_BACK,
    ),
    "generate": Operation(
        "Generate text",
        _json("GenerateResponse"),
        _json("GenerateRequest"),
        _GENERATE,
        parameters=(_TIMEOUT,),
    ),
    "generate_stream": Operation(
        "Generate text in pieces, each a server-sent event",
        _events("GenerateEvent"),
        _json("GenerateRequest"),
        _GENERATE,
        parameters=(_TIMEOUT,),
    ),
    "openai_models": Operation("Models, as OpenAI lists them", _json("OpenAIModels"), **_OPENAI),
    "openai_model": Operation(
        "A model, as OpenAI tells it", _json("OpenAIModel"), errors=_MODEL, **_OPENAI
    ),
    "chat_completions": Operation(
        "Chat, whole or in server-sent events",
        _json("ChatResponse") | _events("ChatEvent, and at the end [DONE]"),
        _json("ChatRequest"),
        _WORK,
        parameters=(_TIMEOUT,),
        **_OPENAI,
    ),
    "completions": Operation(
        "Completion, whole or in server-sent events",
        _json("CompletionResponse") | _events("CompletionEvent, and at the end [DONE]"),
        _json("CompletionRequest"),
        _WORK,
        parameters=(_TIMEOUT,),
        **_OPENAI,
    ),
}
