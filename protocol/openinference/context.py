"""What travels with a request beside its body: request id, deadline, trace context, tenant.

Read once at the edge from HTTP headers or gRPC metadata, handed to every stage, and written again
on the way to the predictor and back to the caller. An API key comes in with it and never goes on.
"""

import math
import random
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, NamedTuple, Self

from openinference.errors import DeadlineExceeded, InvalidInput

REQUEST_ID: Final = "x-request-id"
TRACEPARENT: Final = "traceparent"
TRACESTATE: Final = "tracestate"
TENANT: Final = "x-keepwarm-tenant"
PRIORITY: Final = "x-keepwarm-priority"
REQUEST_TIMEOUT: Final = "x-request-timeout"
WAKE: Final = "x-wake"
# What a predictor tells of its own queue, in milliseconds.
QUEUE_TIME: Final = "x-keepwarm-queue-ms"
# What answered there: an id of weights, adapter and chat template together.
WEIGHTS: Final = "x-keepwarm-weights"

# W3C Trace Context: version ff and all-zero ids are invalid, only versions after 00 may be longer,
# and an invalid header is dropped.
_TRACEPARENT = re.compile(
    r"(?!ff|00.{53}.)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}"
    r"(-[\x20-\x7e]{0,200})?"
)
# What gRPC metadata and HTTP headers both carry.
_PRINTABLE = re.compile(r"[\x20-\x7e]+")
_NAME = re.compile(r"[\x21-\x7e]{1,128}")
_PRIORITY = re.compile(r"-?[0-9]{1,4}")
MAX_TRACESTATE = 512


class Caller(NamedTuple):
    """Who asks, as the caller says and the socket shows: unproven, never forwarded, never logged.

    `address` is the IP of the connection's other end (maybe a proxy's), `forwarded_for` the raw
    X-Forwarded-For, `route` the endpoint's name as metrics name it, `nowait` whether a cold start
    is answered at once with 202 (X-Wake: nowait).
    """

    address: str = ""
    forwarded_for: str | None = None
    api_key: str | None = None
    cache_control: str | None = None
    route: str = ""
    nowait: bool = False

    def __repr__(self) -> str:
        """Where it called, and nothing of what it said."""
        return f"Caller(route={self.route!r})"


NOBODY: Final = Caller()


class Cached(StrEnum):
    """What a cache did for a request, in the words of X-Cache.

    HIT and COALESCED cost the engine nothing: the answer was there, or another request's became it.
    MISS is work of the engine that others may be answered with, BYPASS work for this caller only.
    """

    HIT = "hit"
    MISS = "miss"
    COALESCED = "coalesced"
    BYPASS = "bypass"


@dataclass(slots=True)
class Reply:
    """What the stages say beside their chunks; one for each request, theirs to change.

    `headers` (lower-case names) go back to the caller: on REST with the status, so what a stage
    sets after its first chunk comes too late there, on gRPC as trailing metadata. `weights_id`
    names what answered: weights, adapter and chat template together; None is not known. `note` says
    what is waited for, `queued_s` how long the request waited in the engine's queue, and `waited_s`
    before the predictor was called, for it to start or have room, in seconds.
    `cached` is set before the first chunk or error where there is a cache, and holds at the end:
    who follows another request's work stands for it when that one leaves. `sent` says that the
    predictor has been called, so that it may have worked.
    """

    headers: dict[str, str] = field(default_factory=dict)
    weights_id: str | None = None
    note: str | None = None
    queued_s: float | None = None
    waited_s: float = 0.0
    cached: Cached | None = None
    sent: bool = False


class _Fields(NamedTuple):
    request_id: str
    deadline: float | None
    traceparent: str | None
    tracestate: str | None
    tenant: str | None
    plan: str | None
    priority: int
    caller: Caller
    reply: Reply


class RequestContext(_Fields):
    """`deadline` is in seconds on the event loop's clock (time.monotonic); None is no deadline.

    Until a stage has authenticated the caller, `tenant` and `priority` are what the headers say: a
    predictor may believe them, for only a transformer calls it; a transformer overwrites them. A
    higher `priority` goes first.

    A tuple, because a request makes three: a frozen dataclass takes three times as long.
    """

    __slots__ = ()

    def __new__(  # noqa: PLR0917 (the fields)
        cls,
        request_id: str,
        deadline: float | None = None,
        traceparent: str | None = None,
        tracestate: str | None = None,
        tenant: str | None = None,
        plan: str | None = None,
        priority: int = 0,
        caller: Caller = NOBODY,
        reply: Reply | None = None,
    ) -> Self:
        """Each has a reply of its own, unless it is another's."""
        return super().__new__(
            cls,
            request_id,
            deadline,
            traceparent,
            tracestate,
            tenant,
            plan,
            priority,
            caller,
            Reply() if reply is None else reply,
        )

    def remaining_s(self, now: float) -> float | None:
        """Seconds left at `now`; None without a deadline. Raises DeadlineExceeded at zero."""
        if self.deadline is None:
            return None
        left = self.deadline - now
        if left <= 0:
            raise DeadlineExceeded("the request's deadline has passed")
        return left

    def forwarded(self) -> dict[str, str]:
        """The headers that go on to the predictor."""
        headers = self._ids()
        if self.tracestate is not None:
            headers[TRACESTATE] = self.tracestate
        if self.tenant is not None:
            headers[TENANT] = self.tenant
        if self.priority:
            headers[PRIORITY] = str(self.priority)
        return headers

    def returned(self) -> dict[str, str]:
        """The headers that go back to the caller, as they are now."""
        return {**self._ids(), **self.reply.headers}

    def _ids(self) -> dict[str, str]:
        headers = {REQUEST_ID: self.request_id}
        if self.traceparent is not None:
            headers[TRACEPARENT] = self.traceparent
        return headers


def from_headers(
    headers: Mapping[str, str],
    now: float,
    *,
    timeout_s: float | None = None,
    address: str = "",
    route: str = "",
) -> RequestContext:
    """The context of a request with these headers (lower-case names), received at `now`.

    `address` and `route` are those of its Caller.

    `timeout_s` is what else bounds it (a gRPC deadline, the server's maximum); the header
    X-Request-Timeout (seconds) can only shorten it. An unusable request id is replaced, an
    unusable traceparent (W3C Trace Context) or tenant dropped, an unusable timeout raises
    InvalidInput.
    """
    request_id = usable_request_id(headers.get(REQUEST_ID)) or new_request_id()
    traceparent = usable_traceparent(headers.get(TRACEPARENT))
    tracestate = headers.get(TRACESTATE) if traceparent is not None else None
    if tracestate is not None and (
        len(tracestate) > MAX_TRACESTATE or not _PRINTABLE.fullmatch(tracestate)
    ):
        tracestate = None
    tenant = headers.get(TENANT)
    if tenant is not None and not _NAME.fullmatch(tenant):
        tenant = None
    asked = headers.get(REQUEST_TIMEOUT)
    if asked is not None:
        asked_s = _seconds(asked)
        timeout_s = asked_s if timeout_s is None else min(timeout_s, asked_s)
    priority = headers.get(PRIORITY)
    return RequestContext(
        request_id,
        None if timeout_s is None else now + timeout_s,
        traceparent,
        tracestate,
        tenant,
        None,
        int(priority) if priority is not None and _PRIORITY.fullmatch(priority) else 0,
        Caller(
            address,
            headers.get("x-forwarded-for"),
            _api_key(headers),
            headers.get("cache-control"),
            route,
            _nowait(headers.get(WAKE)),
        ),
    )


def logged(context: RequestContext) -> dict[str, dict[str, str]]:
    """The `extra` of a log record about this request; see server.logs.JsonFormatter."""
    return {"fields": {"request_id": context.request_id}}


def usable_request_id(text: str | None) -> str | None:
    """A caller's own id, if it is one."""
    return text if text is not None and _NAME.fullmatch(text) else None


def usable_traceparent(text: str | None) -> str | None:
    """A caller's trace context, if it is one."""
    return text if text is not None and _TRACEPARENT.fullmatch(text) else None


def new_request_id() -> str:
    """Unique, not secret: no system call for it."""
    return f"{random.getrandbits(128):032x}"


def shortened(context: RequestContext, now: float, timeout_s: float) -> RequestContext:
    """`context` with a deadline at most `timeout_s` seconds from `now`."""
    deadline = now + timeout_s
    if context.deadline is not None and context.deadline <= deadline:
        return context
    return context._replace(deadline=deadline)


def _api_key(headers: Mapping[str, str]) -> str | None:
    """The key in `Authorization: Bearer KEY` or in `X-API-Key: KEY`; the first wins."""
    authorization = headers.get("authorization")
    if authorization is not None and authorization[:7].lower() == "bearer ":
        return authorization[7:].strip()
    return headers.get("x-api-key")


def _nowait(wake: str | None) -> bool:
    if wake is not None and wake.strip().lower() != "nowait":
        raise InvalidInput(f"header X-Wake must be nowait, got {wake!r:.40}")
    return wake is not None


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not (seconds > 0 and math.isfinite(seconds)):
        raise InvalidInput(f"header X-Request-Timeout must be seconds above 0, got {text!r:.40}")
    return seconds
