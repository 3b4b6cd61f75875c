"""The one error hierarchy: each class carries its HTTP and its gRPC status.

Stages raise these, the edges format them, and a predictor's gRPC status becomes the same class
again in the transformer. Messages are for callers: they say what was wrong and what is allowed,
and never hold internals.
"""

import reprlib
from enum import StrEnum
from typing import TYPE_CHECKING, ClassVar, Final

from grpc import StatusCode

if TYPE_CHECKING:
    from openinference.messages import ModelStatus

_SHOWN: Final = reprlib.Repr()
_SHOWN.maxlevel = 3
_SHOWN.maxstring = _SHOWN.maxother = _SHOWN.maxlong = 60


def shown(value: object) -> str:
    """A caller's value as it may stand in a message: cut in length and in depth.

    A plain repr of JSON nested a thousand deep raises RecursionError, and a long message does not
    fit into gRPC's trailing metadata.
    """
    return _SHOWN.repr(value)


class ServingError(Exception):
    """Base of everything a caller may be told.

    `retry_after_s` is the number of seconds after which a repeat may succeed; None says nothing.
    """

    http_status: ClassVar[int] = 500
    grpc_status: ClassVar[StatusCode] = StatusCode.INTERNAL

    def __init__(self, message: str, *, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.retry_after_s = retry_after_s


class InvalidInput(ServingError):
    """The request breaks a rule of the protocol or of the model."""

    http_status = 400
    grpc_status = StatusCode.INVALID_ARGUMENT


class Unauthenticated(ServingError):
    """No valid credentials."""

    http_status = 401
    grpc_status = StatusCode.UNAUTHENTICATED


class PermissionDenied(ServingError):
    """Valid credentials that do not allow this."""

    http_status = 403
    grpc_status = StatusCode.PERMISSION_DENIED


class NotFound(ServingError):
    """No such model or version."""

    http_status = 404
    grpc_status = StatusCode.NOT_FOUND


class SlowRequest(ServingError):
    """The caller takes too long to send its request."""

    http_status = 408
    grpc_status = StatusCode.DEADLINE_EXCEEDED


class PayloadTooLarge(ServingError):
    """The body is over the server's limit."""

    http_status = 413
    grpc_status = StatusCode.RESOURCE_EXHAUSTED


class UnsupportedEncoding(ServingError):
    """A Content-Encoding that the server cannot undo."""

    http_status = 415
    grpc_status = StatusCode.INVALID_ARGUMENT


class FailedDependency(ServingError):
    """What the request needs beside the model, an adapter say, cannot be loaded."""

    http_status = 424
    grpc_status = StatusCode.FAILED_PRECONDITION


class RateLimited(ServingError):
    """Over a limit; always says after how many seconds a repeat may succeed."""

    http_status = 429
    grpc_status = StatusCode.RESOURCE_EXHAUSTED

    def __init__(self, message: str, *, retry_after_s: float) -> None:
        super().__init__(message, retry_after_s=retry_after_s)


class ClientLeft(ServingError):
    """The caller cancelled; nobody reads this status."""

    http_status = 499
    grpc_status = StatusCode.CANCELLED


class InternalError(ServingError):
    """A fault of ours; the message never tells more than that."""

    def __init__(self, message: str = "internal error") -> None:
        super().__init__(message)


class Unsupported(ServingError):
    """A part of the protocol that this server does not offer."""

    http_status = 501
    grpc_status = StatusCode.UNIMPLEMENTED


class Reason(StrEnum):
    """Why something is unavailable, for machines; between our own servers it travels."""

    STARTING = "starting"
    FULL = "full"
    OVERLOADED = "overloaded"
    UNREACHABLE = "unreachable"
    LOST = "lost"
    STALLED = "stalled"
    BREAKER = "breaker"


class Unavailable(ServingError):
    """Not ready, shutting down, engine full or predictor out of reach; a repeat may succeed.

    `phase` is the start-up phase of what is starting, where it is known.
    """

    http_status = 503
    grpc_status = StatusCode.UNAVAILABLE

    def __init__(
        self,
        message: str,
        *,
        retry_after_s: float | None = None,
        reason: Reason | None = None,
        phase: str | None = None,
    ) -> None:
        super().__init__(message, retry_after_s=retry_after_s)
        self.reason = reason
        self.phase = phase


class Waking(ServingError):
    """Not answered, because the caller asked not to wait for the start that has begun."""

    http_status = 202
    grpc_status = StatusCode.UNAVAILABLE

    def __init__(
        self,
        message: str,
        *,
        retry_after_s: float | None = None,
        model: str = "",
        status: "ModelStatus | None" = None,
    ) -> None:
        super().__init__(message, retry_after_s=retry_after_s)
        self.model = model
        self.status = status


class DeadlineExceeded(ServingError):
    """The caller's deadline, or the server's own maximum, has passed."""

    http_status = 504
    grpc_status = StatusCode.DEADLINE_EXCEEDED


_CANONICAL: tuple[type[ServingError], ...] = (
    InvalidInput,
    Unauthenticated,
    PermissionDenied,
    NotFound,
    FailedDependency,
    PayloadTooLarge,
    ClientLeft,
    Unsupported,
    Unavailable,
    DeadlineExceeded,
)
_BY_GRPC_STATUS: dict[StatusCode, type[ServingError]] = {
    **{error.grpc_status: error for error in _CANONICAL},
    StatusCode.OUT_OF_RANGE: InvalidInput,
    StatusCode.ABORTED: Unavailable,
}


def from_grpc_status(
    code: StatusCode, message: str, retry_after_s: float | None = None
) -> ServingError:
    """The error that a server meant when it answered `code`.

    RESOURCE_EXHAUSTED stands for two of ours: with a retry time it is RateLimited, without one
    PayloadTooLarge. A code that is nobody's (UNKNOWN, DATA_LOSS, ...) becomes InternalError, whose
    message hides what the server said.
    """
    if code is StatusCode.RESOURCE_EXHAUSTED and retry_after_s is not None:
        return RateLimited(message, retry_after_s=retry_after_s)
    error = _BY_GRPC_STATUS.get(code)
    if error is None:
        return InternalError()
    return error(message, retry_after_s=retry_after_s)
