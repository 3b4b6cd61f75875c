"""Which web pages may call from a browser (Fetch standard, CORS): those of the origins named."""

from collections.abc import Sequence
from typing import Final

from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp

# What our clients send beside what every page may.
_REQUEST_HEADERS: Final = (
    "authorization",
    "cache-control",
    "content-type",
    "inference-header-content-length",
    "traceparent",
    "tracestate",
    "x-api-key",
    "x-request-id",
    "x-request-timeout",
    "x-wake",
)
_RESPONSE_HEADERS: Final = (
    "age",
    "etag",
    "inference-header-content-length",
    "ratelimit",
    "ratelimit-policy",
    "retry-after",
    "traceparent",
    "x-cache",
    "x-request-id",
)
# A browser asks again after this many seconds.
MAX_AGE_S: Final = 600


def allowing(app: ASGIApp, origins: Sequence[str]) -> ASGIApp:
    """`app`, whose answers pages of `origins` ("*" is all) may read; unchanged without any.

    Keys travel in a header that a page sets itself; cookies are never asked for.
    """
    if not origins:
        return app
    return CORSMiddleware(
        app,
        allow_origins=origins,
        allow_methods=("GET", "POST"),
        allow_headers=_REQUEST_HEADERS,
        expose_headers=_RESPONSE_HEADERS,
        max_age=MAX_AGE_S,
    )
