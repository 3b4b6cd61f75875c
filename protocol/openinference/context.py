"""What travels with a request beside its body: request id, deadline, trace context, tenant.

Read once at the edge from HTTP headers or gRPC metadata, handed to every stage, and written again
on the way to the predictor and back to the caller. An API key is not part of it.
"""

import math
import random
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from openinference.errors import DeadlineExceeded, InvalidInput

REQUEST_ID: Final = "x-request-id"
TRACEPARENT: Final = "traceparent"
TRACESTATE: Final = "tracestate"
TENANT: Final = "x-keepwarm-tenant"
REQUEST_TIMEOUT: Final = "x-request-timeout"

# W3C Trace Context: version ff and all-zero ids are invalid, only versions after 00 may be longer,
# and an invalid header is dropped.
_TRACEPARENT = re.compile(
    r"(?!ff|00.{53}.)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}"
    r"(-[\x20-\x7e]{0,200})?"
)
# What gRPC metadata and HTTP headers both carry.
_PRINTABLE = re.compile(r"[\x20-\x7e]+")
_NAME = re.compile(r"[\x21-\x7e]{1,128}")
MAX_TRACESTATE = 512


@dataclass(frozen=True, slots=True)
class RequestContext:
    """`deadline` is in seconds on the event loop's clock (time.monotonic); None is no deadline."""

    request_id: str
    deadline: float | None = None
    traceparent: str | None = None
    tracestate: str | None = None
    tenant: str | None = None

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
        headers = self.returned()
        if self.tracestate is not None:
            headers[TRACESTATE] = self.tracestate
        if self.tenant is not None:
            headers[TENANT] = self.tenant
        return headers

    def returned(self) -> dict[str, str]:
        """The headers that go back to the caller."""
        headers = {REQUEST_ID: self.request_id}
        if self.traceparent is not None:
            headers[TRACEPARENT] = self.traceparent
        return headers


def from_headers(
    headers: Mapping[str, str], now: float, *, timeout_s: float | None = None
) -> RequestContext:
    """The context of a request with these headers (lower-case names), received at `now`.

    `timeout_s` is what else bounds it (a gRPC deadline, the server's maximum); the header
    X-Request-Timeout (seconds) can only shorten it. An unusable request id is replaced, an
    unusable traceparent (W3C Trace Context) or tenant dropped, an unusable timeout raises
    InvalidInput.
    """
    request_id = headers.get(REQUEST_ID)
    if request_id is None or not _NAME.fullmatch(request_id):
        # Unique, not secret: no system call for it.
        request_id = f"{random.getrandbits(128):032x}"
    traceparent = headers.get(TRACEPARENT)
    if traceparent is not None and not _TRACEPARENT.fullmatch(traceparent):
        traceparent = None
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
    return RequestContext(
        request_id,
        None if timeout_s is None else now + timeout_s,
        traceparent,
        tracestate,
        tenant,
    )


def shortened(context: RequestContext, now: float, timeout_s: float) -> RequestContext:
    """`context` with a deadline at most `timeout_s` seconds from `now`."""
    deadline = now + timeout_s
    if context.deadline is not None and context.deadline <= deadline:
        return context
    return RequestContext(
        context.request_id, deadline, context.traceparent, context.tracestate, context.tenant
    )


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not (seconds > 0 and math.isfinite(seconds)):
        raise InvalidInput(f"header X-Request-Timeout must be seconds above 0, got {text!r:.40}")
    return seconds
