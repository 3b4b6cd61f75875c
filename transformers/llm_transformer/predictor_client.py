"""The calls of the predictor over one channel: deadlines, context and errors pass both ways."""

import math
from collections.abc import AsyncGenerator, Mapping
from typing import Final

from google.protobuf.message import DecodeError
from grpc import StatusCode

from llm_transformer.h2 import Call, CallError, Channel, Headers
from llm_transformer.resilience.wakeup import Probe
from openinference import alarms, clock, errors
from openinference.chunk_messages import AnswerReader, StreamReader
from openinference.context import QUEUE_TIME, REQUEST_ID, WEIGHTS, RequestContext
from openinference.errors import Reason, ServingError, Unavailable
from openinference.generation import Chunk, GenerationRequest
from openinference.grpc_servicer import PHASE, REASON, RETRY_AFTER, STRICT_STREAM_ERRORS
from openinference.proto import inference_pb2 as pb
from openinference.request_messages import RequestWriter

_SERVICE: Final = "/inference.GRPCInferenceService"
MODEL_READY: Final = f"{_SERVICE}/ModelReady"
MODEL_INFER: Final = f"{_SERVICE}/ModelInfer"
MODEL_STREAM_INFER: Final = f"{_SERVICE}/ModelStreamInfer"
READY_TIMEOUT_S: Final = 2.0
# What to tell a caller while the predictor is out of reach; it reconnects within a second.
UNREACHABLE_RETRY_S: Final = 1.0

# What the client makes up when a connection breaks, or a proxy answers for the server.
_TRANSPORT_STATUSES: Final = (
    StatusCode.UNAVAILABLE,
    StatusCode.CANCELLED,
    StatusCode.INTERNAL,
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
        self._channel = Channel(target, tls=tls)
        self._stall_s = stall_s
        self._names = names or {}
        self._requests = RequestWriter()
        self._answers = AnswerReader()

    async def close(self) -> None:
        """Ends the channel; calls in flight fail."""
        await self._channel.close()

    async def is_ready(self, model: str) -> bool:
        """Whether the predictor says that it can answer for `model`; False when out of reach."""
        return (await self.probe(model, READY_TIMEOUT_S)).ready

    async def probe(self, model: str, timeout_s: float) -> Probe:
        """Asks whether `model` can answer; behind an activator this waits for a pod."""
        asked = pb.ModelReadyRequest(name=self._names.get(model, model)).SerializeToString()
        try:
            answer, trailing = await self._channel.unary(MODEL_READY, asked, timeout_s=timeout_s)
            is_ready = bool(pb.ModelReadyResponse.FromString(answer).ready)
        except CallError as error:
            # A predictor of ours that says no (another model's name, say) is there; and a
            # connection that stays silent is held by somebody, who waits for a pod.
            marked = REQUEST_ID in dict(error.trailing)
            held = error.code is StatusCode.DEADLINE_EXCEEDED
            return Probe(ready=False, reachable=marked or held)
        except DecodeError:
            return Probe(ready=False, reachable=True)
        return Probe(ready=is_ready, phase=dict(trailing).get(PHASE))

    async def generate(
        self, request: GenerationRequest, context: RequestContext
    ) -> AsyncGenerator[Chunk, None]:
        """The predictor's chunks; closing the generator cancels the call there.

        Sets `queued_s` and `weights_id` of `context.reply` at the end, where the predictor tells
        them. Raises the ServingError that the predictor answered with, Unavailable when it is out
        of reach or falls silent, DeadlineExceeded at the deadline of `context`.
        """
        model = self._names.get(request.model, request.model)
        message = self._requests.write(request, model)
        timeout_s = context.remaining_s(clock.now())
        metadata = context.forwarded()
        answering = False
        watch: _StallWatch | None = None
        open_sequences = request.sequences
        context.reply.sent = True
        try:
            if not request.stream:
                answer, trailing = await self._channel.unary(
                    MODEL_INFER,
                    message,
                    timeout_s=timeout_s,
                    metadata=metadata.items(),
                )
                _note_trailing(context, trailing)
                for chunk in self._answers.read(answer, model):
                    yield chunk
                return
            metadata[STRICT_STREAM_ERRORS] = "true"
            call = await self._channel.open(
                MODEL_STREAM_INFER,
                message,
                timeout_s=timeout_s,
                metadata=metadata.items(),
            )
            watch = _StallWatch(call, self._stall_s)
            reader = StreamReader()
            try:
                while messages := await call.read():
                    watch.pause()
                    answering = True
                    for each in messages:
                        for chunk in reader.read(each):
                            open_sequences -= chunk.finish_reason is not None
                            yield chunk
                    watch.resume()
                _note_trailing(context, call.trailing)
            finally:
                watch.end()
                call.close()
        except CallError as error:
            _note_trailing(context, error.trailing)
            problem = serving_error(error, request.model)
            if watch is not None and watch.fired:
                problem = _lost(request.model, Reason.STALLED)
            elif answering and _is_unreachable(problem):
                problem = _lost(request.model, Reason.LOST)
            # A whole answer stays whole, whatever has become of its connection since.
            if open_sequences or not _is_lost(problem):
                raise problem from None


class _StallWatch:
    """Closes a call that has begun to answer when it is then awaited for `stall_s` in vain.

    Its timer is not moved at each message, which would cost more than the message.
    """

    __slots__ = ("_alarm", "_awaited_since", "_call", "_stall_s", "fired")

    def __init__(self, call: Call, stall_s: float) -> None:
        self._call = call
        self._stall_s = stall_s
        self._awaited_since: float | None = None
        self._alarm = alarms.call_at(clock.now() + stall_s, self._look)
        self.fired = False

    def pause(self) -> None:
        """A message has come; what takes long now is its reader."""
        self._awaited_since = None

    def resume(self) -> None:
        """The next message is awaited."""
        self._awaited_since = clock.now()

    def end(self) -> None:
        """Nothing is awaited any more."""
        self._alarm.cancel()

    def _look(self) -> None:
        now = clock.now()
        since = now if self._awaited_since is None else self._awaited_since
        if now - since >= self._stall_s:
            self.fired = True
            self._call.close()
        else:
            self._alarm = alarms.call_at(since + self._stall_s, self._look)


def _note_trailing(context: RequestContext, trailing: Headers) -> None:
    for key, value in trailing:
        if key == QUEUE_TIME:
            seconds = _number(value)
            if seconds is not None:
                context.reply.queued_s = seconds / 1e3
        elif key == WEIGHTS:
            context.reply.weights_id = value


def _number(text: str | None) -> float | None:
    try:
        number = float(text or "")
    except ValueError:
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


def serving_error(error: CallError, model: str) -> ServingError:
    """The error to answer with.

    A predictor of ours marks its own statuses with the request id. Without that mark a status that
    the client makes up means a broken connection, and its text is not for callers.
    """
    trailing = dict(error.trailing)
    code = error.code
    if REQUEST_ID not in trailing and code in _TRANSPORT_STATUSES:
        return Unavailable(
            f"the predictor of model '{model}' cannot be reached",
            retry_after_s=UNREACHABLE_RETRY_S,
            reason=Reason.UNREACHABLE,
        )
    if code is StatusCode.DEADLINE_EXCEEDED:
        return errors.DeadlineExceeded("the request's deadline has passed")
    again = errors.from_grpc_status(
        code, error.details or code.name, _number(trailing.get(RETRY_AFTER))
    )
    if isinstance(again, Unavailable):
        again.phase = trailing.get(PHASE)
        reason = trailing.get(REASON)
        again.reason = Reason(reason) if reason in list(Reason) else None
    return again
