"""One REST endpoint as an ASGI app: context in, answer or error out, abort when the caller goes."""

import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from typing import NamedTuple

from starlette.types import Receive, Scope, Send

from openinference import clock, metrics, sse
from openinference import context as contexts
from openinference.context import RequestContext, logged
from openinference.deadlines import while_connected
from openinference.errors import ClientLeft, InternalError, ServingError
from openinference.generation import Chunk
from openinference.repeats import SCOPE, Candidate
from openinference.rest import _body, _errors
from openinference.rest._answer import Answer
from openinference.rest._event_sender import EventSender
from openinference.rest._wire import Answering, Wire, answering, body_at_hand

logger = logging.getLogger("openinference.rest")


class Call(NamedTuple):
    """What a handler gets: the path's parameters, the headers, the context and the body.

    `candidate` is there when the same bytes may come again.
    """

    path: Mapping[str, str]
    headers: Mapping[str, str]
    context: RequestContext
    body: bytes
    endpoint: metrics.Endpoint
    candidate: Candidate | None = None


class EventStream:
    """An answer of server-sent events: those that each chunk becomes, if any, and those at its end.

    What `chunks` raises before the first event becomes the answer's status.
    """

    def __init__(
        self,
        chunks: AsyncGenerator[Chunk, None],
        events: Callable[[Chunk], bytes],
        end: Callable[[], bytes] = bytes,
    ) -> None:
        self.chunks = chunks
        self.events = events
        self.end = end


Handler = Callable[[Call], Awaitable[Answer | EventStream]]


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
        self.name = name
        self._handler = handler
        self._max_timeout_s = max_timeout_s
        self._max_body_bytes = max_body_bytes
        self._error_body = error_body
        self._invalid_status = invalid_status
        self._metrics = metrics.Endpoint(name)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = _headers(scope["headers"])
        out = answering(scope, send)
        with self._metrics.track() as tracked:
            context = None
            now = clock.now()
            try:
                context = contexts.from_headers(
                    headers,
                    now,
                    timeout_s=self._max_timeout_s,
                    address=(scope.get("client") or ("",))[0],
                    route=self.name,
                )
                body = (
                    await _body.read(
                        headers, receive, self._max_body_bytes, body_at_hand(scope, send)
                    )
                    if scope["method"] == "POST"
                    else b""
                )
            except ClientLeft:
                return
            except ServingError as error:
                tracked.status = await self._fail(error, context, out)
                return
            except Exception:
                logger.exception("a request could not be read")
                tracked.status = await self._fail(InternalError(), context, out)
                return
            call = Call(
                scope["path_params"],
                headers,
                context,
                body,
                self._metrics,
                scope.get(SCOPE),
            )
            work = self._answer(call, out, tracked)
            if scope["method"] != "POST":
                await work
            elif isinstance(out, Wire):
                await out.caller.while_there(work)
            else:
                await while_connected(receive, work)

    async def _answer(self, call: Call, out: Answering, tracked: metrics.Tracked) -> None:
        context = call.context
        try:
            answer = await self._handler(call)
        except ServingError as error:
            tracked.status = await self._fail(error, context, out)
        except Exception:
            logger.exception("request %s failed", context.request_id, extra=logged(context))
            tracked.status = await self._fail(InternalError(), context, out)
        else:
            tracked.status = (
                await self._stream(answer, context, out)
                if isinstance(answer, EventStream)
                else await _send(answer, context.returned(), out)
            )

    async def _fail(
        self, error: ServingError, context: RequestContext | None, out: Answering
    ) -> str:
        headers = {} if context is None else context.returned()
        answer = _errors.answer(
            error, self._error_body, headers, invalid_status=self._invalid_status
        )
        return await _send(answer, {}, out)

    async def _stream(self, answer: EventStream, context: RequestContext, out: Answering) -> str:
        """Sends the events; an error after the first is an event of its own and ends the stream."""
        sender = EventSender(context, out)
        problem: ServingError | None = None
        try:
            is_empty = True
            async for chunk in answer.chunks:
                is_empty = False
                if events := answer.events(chunk):
                    await sender.send(events)
            if is_empty:
                problem = InternalError("the model ended its answer without a finish reason")
            elif events := answer.end():
                await sender.send(events)
        except ServingError as error:
            problem = error
        except Exception:
            logger.exception("stream %s failed", context.request_id, extra=logged(context))
            problem = InternalError()
        finally:
            await sender.settle()
            await answer.chunks.aclose()
        if problem is not None and not sender.begun:
            return await self._fail(problem, context, out)
        if problem is not None:
            await sender.send(sse.event(self._error_body(problem)))
        await out.end()
        return "200" if problem is None else str(problem.http_status)


async def _send(answer: Answer, more: Mapping[str, str], out: Answering) -> str:
    """Sends a whole answer with `more` headers; its status."""
    headers = {"content-type": answer.media_type, **answer.headers, **more}
    await out.whole(answer.status, headers.items(), answer.body)
    return str(answer.status)


def _headers(pairs: Sequence[tuple[bytes, bytes]]) -> dict[str, str]:
    """Headers by name; the values of one that came twice are joined, as RFC 9110 5.3 has it.

    So that of two lengths or codings neither wins: the list of both is not a good value.
    """
    headers = {key.decode("latin-1"): value.decode("latin-1") for key, value in pairs}
    if len(headers) < len(pairs):
        headers.clear()
        for raw_key, raw_value in pairs:
            key, value = raw_key.decode("latin-1"), raw_value.decode("latin-1")
            headers[key] = f"{headers[key]}, {value}" if key in headers else value
    return headers
