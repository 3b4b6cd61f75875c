"""The pooled gRPC channel to the predictor: deadlines, context and errors pass both ways."""

import asyncio
import math
from collections.abc import AsyncGenerator, Mapping
from typing import Any, Final

import grpc

from llm_transformer.resilience.wakeup import Probe
from openinference import errors, text_tensors, v2_grpc
from openinference.context import QUEUE_TIME, REQUEST_ID, WEIGHTS, RequestContext
from openinference.errors import InternalError, Reason, ServingError, Unavailable
from openinference.generation import Chunk, GenerationRequest
from openinference.grpc_servicer import PHASE, REASON, RETRY_AFTER, STRICT_STREAM_ERRORS
from openinference.proto import inference_pb2 as pb
from openinference.proto.inference_pb2_grpc import GRPCInferenceServiceStub

OPTIONS: Final = (
    # A replaced predictor is found again within a second, not after gRPC's two minutes. The least
    # is what one attempt may take (gRPC, connection-backoff.md).
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 2_000),
    ("grpc.max_reconnect_backoff_ms", 1_000),
    # A half-open connection is found within 15 s. A stream's caller sends nothing after its
    # request, and gRPC would stop asking after two pings without data. A keepalive waits for a ping
    # that is on its way for other reasons, whose own timeout is a minute.
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.http2.ping_timeout_ms", 5_000),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.enable_retries", 0),
    # Over every address of the name: behind a headless Service these are the predictor's pods.
    ("grpc.lb_policy_name", "round_robin"),
    # A connection that ends asks DNS again, at most this often (gRPC's default is 30 s).
    ("grpc.dns_min_time_between_resolutions_ms", 1_000),
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

    def __init__(
        self,
        target: str,
        *,
        tls: bool,
        stall_s: float = 60.0,
        names: Mapping[str, str] | None = None,
    ) -> None:
        """`target` is HOST:PORT. Connects when first used.

        `names` are the predictor's own names for models that it calls otherwise than callers do.

        `stall_s` is the longest silence within a stream, in seconds, before it counts as lost.
        """
        self._channel = (
            grpc.aio.secure_channel(target, grpc.ssl_channel_credentials(), options=OPTIONS)
            if tls
            else grpc.aio.insecure_channel(target, options=OPTIONS)
        )
        self._stub = GRPCInferenceServiceStub(self._channel)
        self._stall_s = stall_s
        self._names = names or {}

    async def close(self) -> None:
        """Ends the channel; calls in flight fail."""
        await self._channel.close(grace=None)

    async def is_ready(self, model: str) -> bool:
        """Whether the predictor says that it can answer for `model`; False when out of reach."""
        return (await self.probe(model, READY_TIMEOUT_S)).ready

    async def probe(self, model: str, timeout_s: float) -> Probe:
        """Asks whether `model` can answer; behind an activator this waits for a pod."""
        call = self._stub.ModelReady(
            pb.ModelReadyRequest(name=self._names.get(model, model)), timeout=timeout_s
        )
        try:
            answer = await call
            trailing = _metadata(await call.trailing_metadata())
        except grpc.aio.AioRpcError as error:
            # A predictor of ours that says no (another model's name, say) is there; and a
            # connection that stays silent is held by somebody, who waits for a pod.
            marked = REQUEST_ID in _metadata(error.trailing_metadata())
            held = error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
            return Probe(ready=False, reachable=marked or held)
        return Probe(ready=bool(answer.ready), phase=trailing.get(PHASE))

    async def generate(
        self, request: GenerationRequest, context: RequestContext
    ) -> AsyncGenerator[Chunk, None]:
        """The predictor's chunks; closing the generator cancels the call there.

        Sets `queued_s` and `weights_id` of `context.reply` at the end, where the predictor tells
        them. Raises the ServingError that the predictor answered with, Unavailable when it is out
        of reach or falls silent, DeadlineExceeded at the deadline of `context`.
        """
        message = v2_grpc.encode_request(text_tensors.infer_request(request))
        message.model_name = self._names.get(request.model, request.model)
        timeout_s = context.remaining_s(asyncio.get_running_loop().time())
        metadata = tuple(context.forwarded().items())
        answering = False
        open_sequences = request.sequences
        context.reply.sent = True
        try:
            if not request.stream:
                unary = self._stub.ModelInfer(message, timeout=timeout_s, metadata=metadata)
                answer = await unary
                _note_trailing(context, await unary.trailing_metadata())
                for chunk in _chunks(answer):
                    yield chunk
                return
            call = self._stub.ModelStreamInfer(
                _once(message),
                timeout=timeout_s,
                metadata=(*metadata, (STRICT_STREAM_ERRORS, "true")),
            )
            watch = _StallWatch(call, self._stall_s)
            try:
                async for response in call:
                    watch.pause()
                    answering = True
                    for chunk in _chunks(response.infer_response):
                        open_sequences -= chunk.finish_reason is not None
                        yield chunk
                    watch.resume()
                _note_trailing(context, await call.trailing_metadata())
            except asyncio.CancelledError:
                if not watch.fired or _is_cancelled():
                    raise
                raise _lost(request.model, Reason.STALLED) from None
            finally:
                watch.end()
                call.cancel()
        except grpc.aio.AioRpcError as error:
            _note_trailing(context, error.trailing_metadata())
            problem = serving_error(error, request.model)
            if answering and _is_unreachable(problem):
                problem = _lost(request.model, Reason.LOST)
            # A whole answer stays whole, whatever has become of its connection since.
            if open_sequences or not _is_lost(problem):
                raise problem from None


class _StallWatch:
    """Cancels a call that has begun to answer when it is then awaited for `stall_s` in vain.

    Its timer is not moved at each message, which would cost more than the message.
    """

    def __init__(self, call: Any, stall_s: float) -> None:
        self._call = call
        self._stall_s = stall_s
        self._loop = asyncio.get_running_loop()
        self._awaited_since: float | None = None
        self._timer = self._loop.call_later(stall_s, self._look)
        self.fired = False

    def pause(self) -> None:
        """A message has come; what takes long now is its reader."""
        self._awaited_since = None

    def resume(self) -> None:
        """The next message is awaited."""
        self._awaited_since = self._loop.time()

    def end(self) -> None:
        """Nothing is awaited any more."""
        self._timer.cancel()

    def _look(self) -> None:
        now = self._loop.time()
        since = now if self._awaited_since is None else self._awaited_since
        if now - since >= self._stall_s:
            self.fired = True
            self._call.cancel()
        else:
            self._timer = self._loop.call_at(since + self._stall_s, self._look)


def _is_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


async def _once(message: pb.ModelInferRequest) -> AsyncGenerator[pb.ModelInferRequest, None]:
    yield message


def _chunks(message: pb.ModelInferResponse) -> list[Chunk]:
    try:
        return text_tensors.chunks(v2_grpc.decode_response(message))
    except errors.InvalidInput:
        raise InternalError("the predictor's answer is not valid V2") from None


def _metadata(pairs: Any) -> Mapping[str, Any]:
    return dict(pairs or ())


def _note_trailing(context: RequestContext, trailing: Any) -> None:
    for key, value in trailing or ():
        if key == QUEUE_TIME:
            seconds = _number(value)
            if seconds is not None:
                context.reply.queued_s = seconds / 1e3
        elif key == WEIGHTS:
            context.reply.weights_id = value


def _number(text: Any) -> float | None:
    try:
        number = float(text)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) and number >= 0 else None


def _is_unreachable(error: ServingError) -> bool:
    return isinstance(error, Unavailable) and error.reason is Reason.UNREACHABLE


def _is_lost(error: ServingError) -> bool:
    return isinstance(error, Unavailable) and error.reason is Reason.LOST


def _lost(model: str, reason: Reason) -> Unavailable:
    return Unavailable(
        f"the predictor of model '{model}' was lost during the answer, which is incomplete;"
        " send the request again",
        retry_after_s=UNREACHABLE_RETRY_S,
        reason=reason,
    )


def serving_error(error: grpc.aio.AioRpcError, model: str) -> ServingError:
    """The error to answer with.

    A predictor of ours marks its own statuses with the request id. Without that mark a status that
    gRPC itself makes up means a broken connection, and its text, which names hosts and ports, is
    not for callers.
    """
    trailing = _metadata(error.trailing_metadata())
    code = error.code()
    if REQUEST_ID not in trailing and code in _TRANSPORT_STATUSES:
        return Unavailable(
            f"the predictor of model '{model}' cannot be reached",
            retry_after_s=UNREACHABLE_RETRY_S,
            reason=Reason.UNREACHABLE,
        )
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return errors.DeadlineExceeded("the request's deadline has passed")
    again = errors.from_grpc_status(
        code, error.details() or code.name, _number(trailing.get(RETRY_AFTER))
    )
    if isinstance(again, Unavailable):
        again.phase = trailing.get(PHASE)
        reason = trailing.get(REASON)
        again.reason = Reason(reason) if reason in list(Reason) else None
    return again
