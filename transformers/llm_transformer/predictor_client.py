"""The pooled gRPC channel to the predictor: deadlines, context and errors pass both ways."""

import asyncio
import math
from collections.abc import AsyncGenerator
from typing import Any, Final

import grpc

from openinference import errors, text_tensors, v2_grpc
from openinference.context import REQUEST_ID, RequestContext
from openinference.errors import InternalError, ServingError, Unavailable
from openinference.generation import Chunk, GenerationRequest
from openinference.grpc_servicer import RETRY_AFTER, STRICT_STREAM_ERRORS
from openinference.proto import inference_pb2 as pb
from openinference.proto.inference_pb2_grpc import GRPCInferenceServiceStub

OPTIONS: Final = (
    # A replaced predictor is found again within a second, not after gRPC's two minutes.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1_000),
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.enable_retries", 0),
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
)
READY_TIMEOUT_S: Final = 2.0
# What to tell a caller while the predictor is out of reach; it reconnects within a second.
UNREACHABLE_RETRY_S: Final = 1.0

# Statuses that gRPC makes up itself when a connection breaks or a proxy answers for the server.
_TRANSPORT_STATUSES: Final = (
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.CANCELLED,
    grpc.StatusCode.INTERNAL,
)


class PredictorClient:
    """A client of one predictor; safe for concurrent use on one event loop."""

    def __init__(self, target: str, *, tls: bool) -> None:
        """`target` is HOST:PORT. Connects when first used."""
        self._channel = (
            grpc.aio.secure_channel(target, grpc.ssl_channel_credentials(), options=OPTIONS)
            if tls
            else grpc.aio.insecure_channel(target, options=OPTIONS)
        )
        self._stub = GRPCInferenceServiceStub(self._channel)

    async def close(self) -> None:
        """Ends the channel; calls in flight fail."""
        await self._channel.close(grace=None)

    async def is_ready(self, model: str) -> bool:
        """Whether the predictor says that it can answer for `model`; False when out of reach."""
        try:
            answer = await self._stub.ModelReady(
                pb.ModelReadyRequest(name=model), timeout=READY_TIMEOUT_S
            )
        except grpc.aio.AioRpcError:
            return False
        return bool(answer.ready)

    async def generate(
        self, request: GenerationRequest, context: RequestContext
    ) -> AsyncGenerator[Chunk, None]:
        """The predictor's chunks; closing the generator cancels the call there.

        Raises the ServingError that the predictor answered with, Unavailable when it is out of
        reach, DeadlineExceeded at the deadline of `context`.
        """
        message = v2_grpc.encode_request(text_tensors.infer_request(request))
        timeout_s = context.remaining_s(asyncio.get_running_loop().time())
        metadata = tuple(context.forwarded().items())
        try:
            if not request.stream:
                answer = await self._stub.ModelInfer(message, timeout=timeout_s, metadata=metadata)
                for chunk in _chunks(answer):
                    yield chunk
                return
            call = self._stub.ModelStreamInfer(
                _once(message),
                timeout=timeout_s,
                metadata=(*metadata, (STRICT_STREAM_ERRORS, "true")),
            )
            try:
                async for response in call:
                    for chunk in _chunks(response.infer_response):
                        yield chunk
            finally:
                call.cancel()
        except grpc.aio.AioRpcError as error:
            raise serving_error(error, request.model) from None


async def _once(message: pb.ModelInferRequest) -> AsyncGenerator[pb.ModelInferRequest, None]:
    yield message


def _chunks(message: pb.ModelInferResponse) -> list[Chunk]:
    try:
        return text_tensors.chunks(v2_grpc.decode_response(message))
    except errors.InvalidInput:
        raise InternalError("the predictor's answer is not valid V2") from None


def serving_error(error: grpc.aio.AioRpcError, model: str) -> ServingError:
    """The error to answer with.

    A predictor of ours marks its own statuses with the request id. Without that mark a status that
    gRPC itself makes up means a broken connection, and its text, which names hosts and ports, is
    not for callers.
    """
    trailing: dict[str, Any] = dict(error.trailing_metadata() or ())  # type: ignore[arg-type]
    code = error.code()
    if REQUEST_ID not in trailing and code in _TRANSPORT_STATUSES:
        return Unavailable(
            f"the predictor of model '{model}' cannot be reached",
            retry_after_s=UNREACHABLE_RETRY_S,
        )
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return errors.DeadlineExceeded("the request's deadline has passed")
    try:
        retry_after_s = float(trailing[RETRY_AFTER])
    except (KeyError, ValueError):
        retry_after_s = math.nan
    return errors.from_grpc_status(
        code, error.details() or code.name, retry_after_s if math.isfinite(retry_after_s) else None
    )
