import pytest
from grpc import StatusCode

from openinference import errors
from openinference.errors import from_grpc_status, shown

STATUSES = [
    (errors.Waking, 202, StatusCode.UNAVAILABLE),
    (errors.InvalidInput, 400, StatusCode.INVALID_ARGUMENT),
    (errors.Unauthenticated, 401, StatusCode.UNAUTHENTICATED),
    (errors.PermissionDenied, 403, StatusCode.PERMISSION_DENIED),
    (errors.NotFound, 404, StatusCode.NOT_FOUND),
    (errors.SlowRequest, 408, StatusCode.DEADLINE_EXCEEDED),
    (errors.FailedDependency, 424, StatusCode.FAILED_PRECONDITION),
    (errors.PayloadTooLarge, 413, StatusCode.RESOURCE_EXHAUSTED),
    (errors.UnsupportedEncoding, 415, StatusCode.INVALID_ARGUMENT),
    (errors.RateLimited, 429, StatusCode.RESOURCE_EXHAUSTED),
    (errors.ClientLeft, 499, StatusCode.CANCELLED),
    (errors.InternalError, 500, StatusCode.INTERNAL),
    (errors.Unsupported, 501, StatusCode.UNIMPLEMENTED),
    (errors.Unavailable, 503, StatusCode.UNAVAILABLE),
    (errors.DeadlineExceeded, 504, StatusCode.DEADLINE_EXCEEDED),
]


@pytest.mark.parametrize(("kind", "http", "grpc"), STATUSES)
def test_each_error_has_its_http_and_grpc_status(kind, http, grpc):
    assert (kind.http_status, kind.grpc_status) == (http, grpc)


def test_the_table_above_names_every_error(every_error):
    assert {type(error) for error in every_error} == {row[0] for row in STATUSES}


@pytest.mark.parametrize(
    ("code", "retry_after_s", "kind"),
    [
        (StatusCode.INVALID_ARGUMENT, None, errors.InvalidInput),
        (StatusCode.OUT_OF_RANGE, None, errors.InvalidInput),
        (StatusCode.FAILED_PRECONDITION, None, errors.FailedDependency),
        (StatusCode.UNAUTHENTICATED, None, errors.Unauthenticated),
        (StatusCode.PERMISSION_DENIED, None, errors.PermissionDenied),
        (StatusCode.NOT_FOUND, None, errors.NotFound),
        (StatusCode.RESOURCE_EXHAUSTED, None, errors.PayloadTooLarge),
        (StatusCode.RESOURCE_EXHAUSTED, 0.5, errors.RateLimited),
        (StatusCode.CANCELLED, None, errors.ClientLeft),
        (StatusCode.UNIMPLEMENTED, None, errors.Unsupported),
        (StatusCode.UNAVAILABLE, 3.0, errors.Unavailable),
        (StatusCode.ABORTED, None, errors.Unavailable),
        (StatusCode.DEADLINE_EXCEEDED, None, errors.DeadlineExceeded),
    ],
)
def test_a_grpc_status_becomes_the_error_that_was_meant(code, retry_after_s, kind):
    error = from_grpc_status(code, "what was wrong", retry_after_s)
    assert type(error) is kind
    assert (error.message, error.retry_after_s) == ("what was wrong", retry_after_s)


@pytest.mark.parametrize(
    "code",
    [StatusCode.UNKNOWN, StatusCode.DATA_LOSS, StatusCode.INTERNAL, StatusCode.ALREADY_EXISTS],
)
def test_a_status_that_is_nobodys_hides_what_the_server_said(code):
    error = from_grpc_status(code, "Traceback: secret", 1.0)
    assert type(error) is errors.InternalError
    assert error.message == "internal error"


@pytest.mark.parametrize("code", StatusCode)
def test_every_grpc_status_becomes_some_error(code):
    assert isinstance(from_grpc_status(code, "x"), errors.ServingError)


def _nested(depth):
    value = []
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize("value", ["x" * 10**6, _nested(1020), 10**400, [{"a": "b" * 999}] * 999])
def test_a_shown_value_is_short_whatever_the_caller_sent(value):
    assert len(shown(value)) < 1000


def test_a_small_value_is_shown_whole():
    assert shown(["a", 1, None, True]) == "['a', 1, None, True]"
