"""How a call ended, from what came over the wire: trailers, HTTP statuses, resets.

Sources: gRPC's PROTOCOL-HTTP2.md ("Responses", "Errors") and http-grpc-status-mapping.md.
"""

from collections.abc import Sequence
from typing import Final
from urllib.parse import unquote_to_bytes

from grpc import StatusCode

Headers = Sequence[tuple[str, str]]

_CODES: Final = {str(code.value[0]): code for code in StatusCode}
_BY_HTTP_STATUS: Final = {
    "400": StatusCode.INTERNAL,
    "401": StatusCode.UNAUTHENTICATED,
    "403": StatusCode.PERMISSION_DENIED,
    "404": StatusCode.UNIMPLEMENTED,
    "429": StatusCode.UNAVAILABLE,
    "502": StatusCode.UNAVAILABLE,
    "503": StatusCode.UNAVAILABLE,
    "504": StatusCode.UNAVAILABLE,
}
# RFC 9113 7, "Error Codes".
NO_ERROR: Final = 0x0
PROTOCOL_ERROR: Final = 0x1
FLOW_CONTROL_ERROR: Final = 0x3
FRAME_SIZE_ERROR: Final = 0x6
REFUSED_STREAM: Final = 0x7
CANCEL: Final = 0x8
COMPRESSION_ERROR: Final = 0x9
ENHANCE_YOUR_CALM: Final = 0xB
INADEQUATE_SECURITY: Final = 0xC
_BY_RESET: Final = {
    REFUSED_STREAM: StatusCode.UNAVAILABLE,
    CANCEL: StatusCode.CANCELLED,
    ENHANCE_YOUR_CALM: StatusCode.RESOURCE_EXHAUSTED,
    INADEQUATE_SECURITY: StatusCode.PERMISSION_DENIED,
}


class CallError(Exception):
    """A call that did not end well; `trailing` is the metadata that came with its status.

    `is_unseen` says that the server has not looked at it: it may be sent again (RFC 9113 8.7).
    """

    def __init__(
        self, code: StatusCode, details: str, trailing: Headers = (), *, is_unseen: bool = False
    ) -> None:
        super().__init__(f"{code.name}: {details}")
        self.code = code
        self.details = details
        self.trailing = trailing
        self.is_unseen = is_unseen


def lost(details: str, *, is_unseen: bool = False) -> CallError:
    """The error of a call whose connection is not there, or is no more."""
    return CallError(StatusCode.UNAVAILABLE, details, is_unseen=is_unseen)


def of_headers(headers: Headers) -> CallError | None:
    """What is wrong with the first headers of an answer; None if a gRPC answer begins."""
    fields = dict(headers)
    status = fields.get(":status", "")
    if status != "200":
        code = _BY_HTTP_STATUS.get(status, StatusCode.UNKNOWN)
        return CallError(code, f"HTTP status {status}", _metadata(headers))
    kind = fields.get("content-type", "")
    if not kind.startswith("application/grpc"):
        return CallError(StatusCode.UNKNOWN, f"content-type {kind:.60}", _metadata(headers))
    return None


def of_trailers(headers: Headers) -> tuple[CallError | None, Headers]:
    """The call's error, None for a good end, and its trailing metadata."""
    fields = dict(headers)
    metadata = _metadata(headers)
    said = fields.get("grpc-status")
    if said == "0":
        return None, metadata
    if said is None:
        return CallError(StatusCode.UNKNOWN, "the answer has no grpc-status", metadata), metadata
    details = unquote_to_bytes(fields.get("grpc-message", "")).decode(errors="replace")
    return CallError(_CODES.get(said, StatusCode.UNKNOWN), details, metadata), metadata


def of_reset(error: int) -> CallError:
    """The error of a call that the server reset."""
    return CallError(
        _BY_RESET.get(error, StatusCode.INTERNAL),
        f"reset with code {error}",
        is_unseen=error == REFUSED_STREAM,
    )


def _metadata(headers: Headers) -> Headers:
    return [
        (name, value)
        for name, value in headers
        if name[:1] != ":" and name not in ("content-type", "grpc-status", "grpc-message")
    ]


class Fields:
    """A header block that was read. What a good one says is worked out once: many are the same."""

    __slots__ = ("_begins_well", "_trailing", "pairs")

    def __init__(self, pairs: Headers) -> None:
        self.pairs = pairs
        self._begins_well = False
        self._trailing: Headers | None = None

    def wrong(self) -> CallError | None:
        """See of_headers."""
        if self._begins_well:
            return None
        error = of_headers(self.pairs)
        self._begins_well = error is None
        return error

    def ending(self) -> tuple[CallError | None, Headers]:
        """See of_trailers."""
        if self._trailing is not None:
            return None, self._trailing
        error, trailing = of_trailers(self.pairs)
        if error is None:
            self._trailing = trailing
        return error, trailing
