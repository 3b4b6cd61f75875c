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

import grpc
from google.protobuf.message import DecodeError

from openinference import context as contexts
from openinference import metrics, text_tensors, v2_grpc
from openinference.context import RequestContext
from openinference.deadlines import bounded, collect_until_deadline, until_deadline
from openinference.errors import InternalError, InvalidInput, ServingError
from openinference.generation import Chunk, GenerationRequest
from openinference.messages import InferRequest
from openinference.proto import inference_pb2 as pb
from openinference.proto.inference_pb2_grpc import GRPCInferenceServiceServicer
from openinference.service import InferenceService

logger = logging.getLogger("openinference.grpc")

RETRY_AFTER: Final = "retry-after"
STRICT_STREAM_ERRORS: Final = "triton_grpc_error"
SERVICE_NAME: Final = pb.DESCRIPTOR.services_by_name["GRPCInferenceService"].full_name
# Requests of one stream that are answered at a time, and answers that may wait for a slow reader.
MAX_STREAM_REQUESTS: Final = 128
MAX_STREAM_BACKLOG: Final = 64

# What a stream has still to send; None ends it, an error ends it with its status.
StreamBacklog = asyncio.Queue[pb.ModelStreamInferResponse | ServingError | None]

Answer = TypeVar("Answer")
# grpc.aio hands out an object whose class is not public.
GrpcContext = Any


class InferenceServicer(GRPCInferenceServiceServicer):  # type: ignore[misc]  # generated
    """The servicer; register it with `add_GRPCInferenceServiceServicer_to_server`."""

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
        async def answer(_: RequestContext) -> pb.ModelReadyResponse:
            ready = await self._service.is_model_ready(request.name, request.version or None)
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
            for model in self._service.models:
                ready = await self._service.is_model_ready(model, None)
                if ready or not request.ready:
                    index.models.add(name=model, state="READY" if ready else "UNAVAILABLE")
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
            call = self._call(context)
        except InvalidInput as error:
            await _abort(context, error)
        answers: StreamBacklog = asyncio.Queue(MAX_STREAM_BACKLOG)
        self._backlogs.add(answers)
        reader = asyncio.create_task(self._read_stream(requests, call, answers, strict=strict))
        try:
            while (answer := await answers.get()) is not None:
                if isinstance(answer, ServingError):
                    await _abort(context, answer)
                yield answer
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
        try:
            async with asyncio.TaskGroup() as group:
                async for request in requests:
                    await slots.acquire()
                    task = group.create_task(
                        self._answer_in_stream(request, call, answers, strict=strict)
                    )
                    task.add_done_callback(lambda _: slots.release())
        except* DecodeError:
            await answers.put(InvalidInput("a message of the stream is not a ModelInferRequest"))
        else:
            await answers.put(None)

    async def _answer_in_stream(
        self,
        request: pb.ModelInferRequest,
        call: RequestContext,
        answers: StreamBacklog,
        *,
        strict: bool,
    ) -> None:
        with self._endpoints["ModelStreamInfer"].track() as tracked:
            try:
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
                        error_message=error.message,
                        infer_response=pb.ModelInferResponse(
                            id=request.id, model_name=request.model_name
                        ),
                    )
                )

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
                call = self._call(context)
            except InvalidInput as refused:
                tracked.status = refused.grpc_status.name
                await _abort(context, refused)
            try:
                response = await answer(call)
            except Exception as problem:  # noqa: BLE001 (told as an internal error)
                error = _serving_error(problem, call)
                tracked.status = error.grpc_status.name
                await _abort(context, error)
            tracked.status = grpc.StatusCode.OK.name
            return response

    def _call(self, context: GrpcContext) -> RequestContext:
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
            asyncio.get_running_loop().time(),
            timeout_s=max(0.0, min(bounds)) if bounds else None,
        )
        context.set_trailing_metadata(tuple(call.returned().items()))
        return call


def _serving_error(problem: Exception, call: RequestContext) -> ServingError:
    if isinstance(problem, ServingError):
        return problem
    logger.error("request %s failed", call.request_id, exc_info=problem)
    return InternalError()


async def _abort(context: GrpcContext, error: ServingError) -> NoReturn:
    trailing = tuple(context.trailing_metadata() or ())
    if error.retry_after_s is not None:
        trailing += ((RETRY_AFTER, f"{error.retry_after_s:g}"),)
    await context.abort(error.grpc_status, error.message, trailing)
    raise AssertionError("abort returned")
