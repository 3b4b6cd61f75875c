"""One REST endpoint as an ASGI app: context in, answer or error out, abort when the caller goes."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

import orjson
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from openinference import context as contexts
from openinference import metrics, sse
from openinference.context import RequestContext
from openinference.deadlines import while_connected
from openinference.errors import ClientLeft, InternalError, ServingError
from openinference.rest import _body, _errors

logger = logging.getLogger("openinference.rest")


@dataclass(frozen=True, slots=True)
class Call:
    """What a handler gets: the path's parameters, the headers, the context and the body."""

    path: Mapping[str, str]
    headers: Mapping[str, str]
    context: RequestContext
    body: bytes


class EventStream:
    """An answer of server-sent events.

    `first` has been awaited, so errors before it have a status. `close` frees what `rest` draws
    from, also when `rest` was never begun.
    """

    def __init__(
        self, first: bytes, rest: AsyncIterator[bytes], close: Callable[[], Awaitable[None]]
    ) -> None:
        self.first = first
        self.rest = rest
        self.close = close


Handler = Callable[[Call], Awaitable[Response | EventStream]]


def json_response(value: Any, status: int = 200) -> Response:
    """A JSON answer."""
    return Response(orjson.dumps(value), status, media_type=_errors.JSON)


class Endpoint:
    """Reads the request, runs the handler, formats what it returns or raises."""

    def __init__(
        self,
        name: str,
        handler: Handler,
        *,
        max_timeout_s: float | None,
        max_body_bytes: int = 0,
        error_body: _errors.ErrorBody = _errors.v2_body,
        invalid_status: int = 400,
    ) -> None:
        self._handler = handler
        self._max_timeout_s = max_timeout_s
        self._max_body_bytes = max_body_bytes
        self._error_body = error_body
        self._invalid_status = invalid_status
        self._metrics = metrics.Endpoint(name)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = {
            key.decode("latin-1"): value.decode("latin-1") for key, value in scope["headers"]
        }
        with self._metrics.track() as tracked:
            answer_headers: Mapping[str, str] = {}
            try:
                context = contexts.from_headers(
                    headers, asyncio.get_running_loop().time(), timeout_s=self._max_timeout_s
                )
                answer_headers = context.returned()
                body = (
                    await _body.read(headers, receive, self._max_body_bytes)
                    if scope["method"] == "POST"
                    else b""
                )
            except ClientLeft:
                return
            except ServingError as error:
                tracked.status = await self._fail(error, answer_headers, scope, receive, send)
                return
            call = Call(scope["path_params"], headers, context, body)

            async def answer() -> None:
                tracked.status = await self._answer(call, answer_headers, scope, receive, send)

            if scope["method"] == "POST":
                await while_connected(receive, answer())
            else:
                await answer()

    async def _answer(
        self, call: Call, headers: Mapping[str, str], scope: Scope, receive: Receive, send: Send
    ) -> str:
        try:
            answer = await self._handler(call)
        except ServingError as error:
            return await self._fail(error, headers, scope, receive, send)
        except Exception:
            logger.exception("request %s failed", call.context.request_id)
            return await self._fail(InternalError(), headers, scope, receive, send)
        if isinstance(answer, EventStream):
            return await self._stream(answer, call.context.request_id, headers, send)
        answer.headers.update(headers)
        await answer(scope, receive, send)
        return str(answer.status_code)

    async def _fail(
        self,
        error: ServingError,
        headers: Mapping[str, str],
        scope: Scope,
        receive: Receive,
        send: Send,
    ) -> str:
        answer = _errors.response(
            error, self._error_body, headers, invalid_status=self._invalid_status
        )
        await answer(scope, receive, send)
        return str(answer.status_code)

    async def _stream(
        self, answer: EventStream, request_id: str, returned: Mapping[str, str], send: Send
    ) -> str:
        """Sends the events; an error after the first is an event of its own and ends the stream."""
        headers = {
            "content-type": sse.CONTENT_TYPE,
            "cache-control": "no-cache",
            # Nginx-like proxies buffer answers unless told.
            "x-accel-buffering": "no",
            **returned,
        }
        status = "200"
        try:
            await send(
                {
                    "type": "http.response.start",
                    "status": 200,
                    "headers": [(key.encode(), value.encode()) for key, value in headers.items()],
                }
            )
            await _send_part(send, answer.first)
            async for event in answer.rest:
                await _send_part(send, event)
        except ServingError as error:
            status = str(error.http_status)
            await _send_part(send, sse.event(self._error_body(error)))
        except Exception:
            logger.exception("stream %s failed", request_id)
            status = "500"
            await _send_part(send, sse.event(self._error_body(InternalError())))
        finally:
            await answer.close()
        await send({"type": "http.response.body", "body": b"", "more_body": False})
        return status


async def _send_part(send: Send, part: bytes) -> None:
    await send({"type": "http.response.body", "body": part, "more_body": True})
