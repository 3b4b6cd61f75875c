"""Errors as HTTP answers, in the shape of the protocol that was spoken."""

import math
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import orjson
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from openinference import openai_json, v2_json
from openinference.errors import InternalError, ServingError, Waking
from openinference.rest._answer import JSON, Answer

ErrorBody = Callable[[ServingError], dict[str, Any]]


def v2_body(error: ServingError) -> dict[str, Any]:
    """OIP's error object."""
    return {"error": error.message}


def http_status(error: ServingError, *, invalid_status: int = 400) -> int:
    """The HTTP status of an error; generate answers bad input with 422 (generate_rest.yaml)."""
    return invalid_status if error.http_status == 400 else error.http_status


def answer(
    error: ServingError, body: ErrorBody, headers: Mapping[str, str], *, invalid_status: int = 400
) -> Answer:
    """The error as a whole answer, with Retry-After (seconds, rounded up) where it has one."""
    extra = dict(headers)
    if error.retry_after_s is not None:
        extra["retry-after"] = str(math.ceil(error.retry_after_s))
    # Not a failure: what was asked for is under way, and the status says how far.
    content = body(error)
    if isinstance(error, Waking) and error.status is not None:
        content = {"message": error.message, **v2_json.model_status(error.model, error.status)}
    status = http_status(error, invalid_status=invalid_status)
    return Answer(orjson.dumps(content), status, headers=extra)


def exception_handlers() -> dict[Any, Callable[[Request, Any], Awaitable[Response]]]:
    """Handlers for an app whose every answer, 404 and 405 too, must be one of our error bodies."""

    async def http_error(request: Request, error: HTTPException) -> Response:
        message = {
            404: f"no such path: {request.url.path:.200}",
            405: f"method {request.method} is not allowed here",
        }.get(error.status_code, str(error.detail))
        problem = ServingError(message)
        shape = openai_json.error if _is_openai(request.url.path) else v2_body
        body = shape(problem)
        if shape is openai_json.error:
            body["error"]["type"] = "invalid_request_error"
        return Response(orjson.dumps(body), error.status_code, error.headers, JSON)

    async def bug(request: Request, _: Exception) -> Response:
        shape = openai_json.error if _is_openai(request.url.path) else v2_body
        failed = answer(InternalError(), shape, {})
        return Response(failed.body, failed.status, media_type=failed.media_type)

    return {HTTPException: http_error, Exception: bug}


def _is_openai(path: str) -> bool:
    return path.startswith(("/openai/", "/v1/"))
