"""The gRPC edge: the V2 service over one InferenceService.

Unary calls fail with a gRPC status. On ModelStreamInfer an error is a message of the stream and
does not end it, as in Triton; a caller that sends the metadata `triton_grpc_error: true` gets a
gRPC status instead, which ends the stream.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from typing import Any, Final, NoReturn, TypeVar
from urllib.parse import unquote

import grpc
from google.protobuf.message import DecodeError

from openinference import clock, metrics, text_tensors, v2_grpc
from openinference import context as contexts
from openinference.context import Reply, RequestContext, logged
from openinference.deadlines import bounded, collect_until_deadline, until_deadline
from openinference.errors import InternalError, InvalidInput, ServingError, Unavailable
from openinference.generation import Chunk, GenerationRequest
from openinference.messages import InferRequest
from openinference.proto import inference_pb2 as pb
from openinference.proto.inference_pb2_grpc import GRPCInferenceServiceServicer
from openinference.service import InferenceService, repository_index

logger = logging.getLogger("openinference.grpc")

RETRY_AFTER: Final = "retry-after"
# Why a predictor is unavailable, and the start-up phase it is in.
REASON: Final = "keepwarm-reason"
PHASE: Final = "keepwarm-phase"
STRICT_STREAM_ERRORS: Final = "triton_grpc_error"
_SERVICE: Final = pb.DESCRIPTOR.services_by_name["GRPCInferenceService"]
SERVICE_NAME: Final = _SERVICE.full_name
# Requests of one stream that are answered at a time, and answers that may wait for a slow reader.
MAX_STREAM_REQUESTS: Final = 128
MAX_STREAM_BACKLOG: Final = 64

# Stands for a message that is not protobuf.
MALFORMED: Final = object()

# What a stream has still to send; None ends it, an error ends it with its status.
StreamBacklog = asyncio.Queue[pb.ModelStreamInferResponse | ServingError | None]

Answer = TypeVar("Answer")
# grpc.aio hands out an object whose class is not public.
GrpcContext = Any


class InferenceServicer(GRPCInferenceServiceServicer):  # type: ignore[misc]  # generated
    """The servicer; add it to a server with `register`."""

    def __init__(self, service: InferenceService) -> None:
        self._service = service
        self._backlogs: set[StreamBacklog] = set()
        self._endpoints = {
            name: metrics.Endpoint(f"grpc_{name}")
            for name in ("ModelInfer", "ModelStreamInfer", "other")
        }

    @property
    def in_flight(self) -> int:
        """Requests being answered and answers not yet sent; an idle stream is neither."""
        return sum(endpoint.in_flight for endpoint in self._endpoints.values()) + sum(
            backlog.qsize() for backlog in self._backlogs
        )

    async def ServerLive(self, request: pb.ServerLiveRequest, context: GrpcContext) -> Any:
        async def answer(_: RequestContext) -> pb.ServerLiveResponse:
            return pb.ServerLiveResponse(live=await self._service.is_live())

        return await self._unary("other", context, answer)

    async def ServerReady(self, request: pb.ServerReadyRequest, context: GrpcContext) -> Any:
        async def answer(_: RequestContext) -> pb.ServerReadyResponse:
            return pb.ServerReadyResponse(ready=await self._service.is_ready())

        return await self._unary("other", context, answer)

    async def ModelReady(self, request: pb.ModelReadyRequest, context: GrpcContext) -> Any:
        async def answer(call: RequestContext) -> pb.ModelReadyResponse:
            model, version = request.name, request.version or None
            ready = await self._service.is_model_ready(model, version)
            if not ready:
                status = await self._service.model_status(model, version)
                if status.phase is not None:
                    call.reply.headers[PHASE] = status.phase
            return pb.ModelReadyResponse(ready=ready)

        return await self._unary("other", context, answer)

    async def ServerMetadata(self, request: pb.ServerMetadataRequest, context: GrpcContext) -> Any:
        async def answer(_: RequestContext) -> pb.ServerMetadataResponse:
            metadata = self._service.metadata
            return pb.ServerMetadataResponse(
                name=metadata.name, version=metadata.version, extensions=metadata.extensions
            )

        return await self._unary("other", context, answer)

    async def ModelMetadata(self, request: pb.ModelMetadataRequest, context: GrpcContext) -> Any:
        async def answer(_: RequestContext) -> pb.ModelMetadataResponse:
            return v2_grpc.encode_model_metadata(
                await self._service.model_metadata(request.name, request.version or None)
            )

        return await self._unary("other", context, answer)

    async def RepositoryIndex(
        self, request: pb.RepositoryIndexRequest, context: GrpcContext
    ) -> Any:
        async def answer(_: RequestContext) -> pb.RepositoryIndexResponse:
            index = pb.RepositoryIndexResponse()
            for name, state in await repository_index(self._service, only_ready=request.ready):
                index.models.add(name=name, state=state)
            return index

        return await self._unary("other", context, answer)

    async def ModelInfer(self, request: pb.ModelInferRequest, context: GrpcContext) -> Any:
        async def answer(call: RequestContext) -> pb.ModelInferResponse:
            infer = v2_grpc.decode_request(request)
            generation = text_tensors.generation_request(infer, stream=False)
            call = bounded(call, infer.parameters)
            chunks = self._service.generate(generation, infer.version, call)
            completions = await collect_until_deadline(generation, chunks, call)
            return v2_grpc.encode_response(
                text_tensors.infer_response(infer, infer.version, completions),
                raw=bool(request.raw_input_contents),
            )

        return await self._unary("ModelInfer", context, answer)

    async def ModelStreamInfer(
        self, requests: AsyncIterator[pb.ModelInferRequest], context: GrpcContext
    ) -> AsyncIterator[pb.ModelStreamInferResponse]:
        strict = dict(context.invocation_metadata()).get(STRICT_STREAM_ERRORS) == "true"
        try:
            call = self._call(context, "ModelStreamInfer")
        except InvalidInput as error:
            await _abort(context, error)
        answers: StreamBacklog = asyncio.Queue(MAX_STREAM_BACKLOG)
        self._backlogs.add(answers)
        reader = asyncio.create_task(self._read_stream(requests, call, answers, strict=strict))
        try:
            while (answer := await answers.get()) is not None:
                if isinstance(answer, ServingError):
                    _return_headers(context, call)
                    await _abort(context, answer)
                yield answer
            _return_headers(context, call)
        finally:
            self._backlogs.discard(answers)
            reader.cancel()
            await asyncio.gather(reader, return_exceptions=True)

    async def _read_stream(
        self,
        requests: AsyncIterator[pb.ModelInferRequest],
        call: RequestContext,
        answers: StreamBacklog,
        *,
        strict: bool,
    ) -> None:
        """Answers every request of the stream, several at a time, and then ends the stream."""
        slots = asyncio.Semaphore(MAX_STREAM_REQUESTS)
        async with asyncio.TaskGroup() as group:
            async for request in requests:
                await slots.acquire()
                task = group.create_task(
                    self._answer_in_stream(request, call, answers, strict=strict)
                )
                task.add_done_callback(lambda _: slots.release())
        await answers.put(None)

    async def _answer_in_stream(
        self,
        request: pb.ModelInferRequest,
        call: RequestContext,
        answers: StreamBacklog,
        *,
        strict: bool,
    ) -> None:
        # What goes back to the caller is the stream's; what stages tell each other is a request's.
        call = call._replace(reply=Reply(call.reply.headers))
        with self._endpoints["ModelStreamInfer"].track() as tracked:
            echoed = pb.ModelInferResponse()
            try:
                _check_message(request)
                echoed = pb.ModelInferResponse(id=request.id, model_name=request.model_name)
                infer = v2_grpc.decode_request(request)
                generation = text_tensors.generation_request(infer, stream=True)
                raw = bool(request.raw_input_contents)
                open_sequences = generation.sequences
                async with aclosing(self._chunks(infer, generation, call)) as chunks:
                    async for chunk in chunks:
                        open_sequences -= chunk.finish_reason is not None
                        response = text_tensors.chunk_response(
                            infer, infer.version, chunk, final=open_sequences == 0
                        )
                        encoded = v2_grpc.encode_response(response, raw=raw)
                        await answers.put(pb.ModelStreamInferResponse(infer_response=encoded))
                tracked.status = grpc.StatusCode.OK.name
            except Exception as problem:  # noqa: BLE001 (told as an internal error)
                error = _serving_error(problem, call)
                tracked.status = error.grpc_status.name
                await answers.put(
                    error
                    if strict
                    else pb.ModelStreamInferResponse(
                        error_message=error.message, infer_response=echoed
                    )
                )

    async def refuse(self, message: str, context: GrpcContext) -> Any:
        """Answers a request that is not a `message`."""

        async def answer(_: RequestContext) -> NoReturn:
            raise InvalidInput(f"the request is not a {message}")

        return await self._unary("other", context, answer)

    def _chunks(
        self, infer: InferRequest, generation: GenerationRequest, call: RequestContext
    ) -> AsyncGenerator[Chunk, None]:
        call = bounded(call, infer.parameters)
        return until_deadline(self._service.generate(generation, infer.version, call), call)

    async def _unary(
        self,
        endpoint: str,
        context: GrpcContext,
        answer: Callable[[RequestContext], Awaitable[Answer]],
    ) -> Answer:
        with self._endpoints[endpoint].track() as tracked:
            try:
                call = self._call(context, endpoint)
            except InvalidInput as refused:
                tracked.status = refused.grpc_status.name
                await _abort(context, refused)
            try:
                response = await answer(call)
            except Exception as problem:  # noqa: BLE001 (told as an internal error)
                error = _serving_error(problem, call)
                tracked.status = error.grpc_status.name
                _return_headers(context, call)
                await _abort(context, error)
            tracked.status = grpc.StatusCode.OK.name
            _return_headers(context, call)
            return response

    def _call(self, context: GrpcContext, route: str) -> RequestContext:
        """The request's context, whose id goes back in the trailing metadata.

        Raises InvalidInput for metadata that cannot be meant.
        """
        headers = {
            key: value for key, value in context.invocation_metadata() if isinstance(value, str)
        }
        bounds = [
            bound
            for bound in (context.time_remaining(), self._service.max_timeout_s)
            if bound is not None
        ]
        call = contexts.from_headers(
            headers,
            clock.now(),
            timeout_s=max(0.0, min(bounds)) if bounds else None,
            address=_address(context.peer()),
            route=route,
        )
        _return_headers(context, call)
        return call


def _return_headers(context: GrpcContext, call: RequestContext) -> None:
    """Sets what goes back with the status; the requests of one stream share it."""
    context.set_trailing_metadata(tuple(call.returned().items()))


def _address(peer: str) -> str:
    """The IP in gRPC's name of a peer: ipv4:127.0.0.1:4711, ipv6:%5B::1%5D:4711, unix:..."""
    kind, _, rest = peer.partition(":")
    if kind not in ("ipv4", "ipv6"):
        return ""
    return unquote(rest).rpartition(":")[0].strip("[]")


def register(servicer: InferenceServicer, server: grpc.aio.Server) -> None:
    """Adds the service to `server`.

    Unlike the generated function's, a message that is not protobuf is refused like any other bad
    request; gRPC itself answers UNKNOWN.
    """
    handlers = {
        method.name: _handler(servicer, method.name, getattr(pb, method.input_type.name))
        for method in _SERVICE.methods
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE_NAME, handlers),))


def _handler(servicer: InferenceServicer, name: str, request_class: Any) -> Any:
    def deserialize(data: bytes) -> Any:
        try:
            return request_class.FromString(data)
        except DecodeError:
            return MALFORMED

    def serialize(message: Any) -> bytes:
        encoded: bytes = message.SerializeToString()
        return encoded

    answer = getattr(servicer, name)
    if name == "ModelStreamInfer":
        return grpc.stream_stream_rpc_method_handler(answer, deserialize, serialize)

    async def checked(request: Any, context: GrpcContext) -> Any:
        if request is MALFORMED:
            return await servicer.refuse(request_class.__name__, context)
        return await answer(request, context)

    return grpc.unary_unary_rpc_method_handler(checked, deserialize, serialize)


def _check_message(request: Any) -> None:
    if request is MALFORMED:
        raise InvalidInput("a message of the stream is not a ModelInferRequest")


def _serving_error(problem: Exception, call: RequestContext) -> ServingError:
    if isinstance(problem, ServingError):
        return problem
    logger.error("request %s failed", call.request_id, exc_info=problem, extra=logged(call))
    return InternalError()


async def _abort(context: GrpcContext, error: ServingError) -> NoReturn:
    trailing = tuple(context.trailing_metadata() or ())
    if error.retry_after_s is not None:
        trailing += ((RETRY_AFTER, f"{error.retry_after_s:g}"),)
    if isinstance(error, Unavailable):
        trailing += tuple(
            (key, value)
            for key, value in ((REASON, error.reason), (PHASE, error.phase))
            if value is not None
        )
    await context.abort(error.grpc_status, error.message, trailing)
    raise AssertionError("abort returned")
