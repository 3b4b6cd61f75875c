"""An OpenAPI 3.1 document of routes: each route's name is an operation's."""

import re
from collections.abc import Iterable
from http import HTTPStatus
from typing import Any, Final

from starlette.routing import Route

from openinference.messages import ServerMetadata
from openinference.openapi._operations import JSON, OPERATIONS, Operation
from openinference.openapi._schemas import SCHEMAS, Schema, ref

_PARAMETER: Final = re.compile(r"\{(\w+)\}")
_RETRY_AFTER: Final[Schema] = {
    "Retry-After": {
        "description": "Seconds after which a repeat may succeed.",
        "schema": {"type": "integer", "minimum": 0},
    }
}
# An API key comes in one of two headers.
_KEYS: Final[Schema] = {
    "bearer": {"type": "http", "scheme": "bearer"},
    "x-api-key": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
}


def document(metadata: ServerMetadata, routes: Iterable[Route]) -> dict[str, Any]:
    """The document of a server with these routes; raises KeyError for one without an operation."""
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        for method in sorted((route.methods or set()) - {"HEAD"}):
            described = _operation(route.name, route.path, OPERATIONS[route.name])
            paths.setdefault(route.path, {})[method.lower()] = described
    return {
        "openapi": "3.1.0",
        "info": {
            "title": f"{metadata.name}: Open Inference Protocol (V2), generate, OpenAI",
            "version": metadata.version,
        },
        "paths": dict(sorted(paths.items())),
        "components": {"schemas": SCHEMAS, "securitySchemes": _KEYS},
    }


def _operation(name: str, path: str, operation: Operation) -> dict[str, Any]:
    described: dict[str, Any] = {
        # A path that is served twice, with a version say, needs two names.
        "operationId": name + _suffix(path),
        "summary": operation.summary,
        "parameters": [
            *(
                {"name": each, "in": "path", "required": True, "schema": {"type": "string"}}
                for each in _PARAMETER.findall(path)
            ),
            *operation.parameters,
        ],
        "responses": _responses(operation),
    }
    if operation.body:
        described["requestBody"] = {"required": True, "content": _content(operation.body)}
    if HTTPStatus.UNAUTHORIZED in operation.errors:
        # A server may also answer callers without a key.
        described["security"] = [*({name: []} for name in _KEYS), {}]
    return described


def _suffix(path: str) -> str:
    if path.startswith("/v1/"):
        return "_v1"
    return "_of_version" if "{version}" in path else ""


def _responses(operation: Operation) -> dict[str, Any]:
    good: dict[str, Any] = {"description": "Yes", "content": _content(operation.answers)}
    if operation.headers:
        good["headers"] = operation.headers
    error = {JSON: ref(operation.error)}
    responses: dict[str, Any] = {"200": good}
    if operation.body:
        responses["202"] = {
            "description": "The model is starting, and the caller does not wait (X-Wake: nowait)",
            "content": _content({JSON: ref("ModelStatus")}),
        }
    for status in operation.errors:
        responses[str(status)] = {
            "description": HTTPStatus(status).phrase,
            "content": _content(error),
        }
        if status in (429, 503):
            responses[str(status)]["headers"] = _RETRY_AFTER
    if operation.no_too:
        responses["503"] = {"description": "No", "content": _content(operation.answers)}
    responses["default"] = {"description": "Any other error", "content": _content(error)}
    return responses


def _content(schemas: dict[str, Schema]) -> dict[str, Any]:
    return {media_type: {"schema": schema} for media_type, schema in schemas.items()}
