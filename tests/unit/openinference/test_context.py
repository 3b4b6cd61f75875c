import pytest
from hypothesis import given
from hypothesis import strategies as st

from openinference.context import RequestContext, from_headers, shortened
from openinference.errors import DeadlineExceeded, InvalidInput

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
TRACEPARENT = f"00-{TRACE}-{SPAN}-01"


@pytest.mark.parametrize(
    "traceparent",
    [TRACEPARENT, f"00-{TRACE}-{SPAN}-00", f"cc-{TRACE}-{SPAN}-01", f"cc-{TRACE}-{SPAN}-01-more"],
)
def test_a_valid_traceparent_travels(traceparent):
    context = from_headers({"traceparent": traceparent, "tracestate": "a=1"}, 0)
    assert (context.traceparent, context.tracestate) == (traceparent, "a=1")


@pytest.mark.parametrize(
    "traceparent",
    [
        "",
        "00",
        f"ff-{TRACE}-{SPAN}-01",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE.upper()}-{SPAN}-01",
        f"00-{TRACE[1:]}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-1",
        f"00-{TRACE}-{SPAN}-01-more",
        f"cc-{TRACE}-{SPAN}-01-\u00e9",
        f"cc-{TRACE}-{SPAN}-01-{'x' * 500}",
        f" {TRACEPARENT}",
        f"{TRACEPARENT}\n",
    ],
)
def test_an_invalid_traceparent_is_dropped_and_its_tracestate_too(traceparent):
    context = from_headers({"traceparent": traceparent, "tracestate": "a=1"}, 0)
    assert (context.traceparent, context.tracestate) == (None, None)


@pytest.mark.parametrize("tracestate", ["a=" + "1" * 511, "", "a=\u00e9", "a=\x07"])
def test_a_tracestate_that_cannot_travel_is_dropped(tracestate):
    context = from_headers({"traceparent": TRACEPARENT, "tracestate": tracestate}, 0)
    assert (context.traceparent, context.tracestate) == (TRACEPARENT, None)


def test_a_request_id_is_kept():
    assert from_headers({"x-request-id": "abc-1"}, 0).request_id == "abc-1"


@pytest.mark.parametrize("headers", [{}, *({"x-request-id": bad} for bad in ("", "a b", "\u00e9"))])
def test_a_request_without_a_usable_id_gets_one(headers):
    one, other = from_headers(headers, 0).request_id, from_headers(headers, 0).request_id
    assert len(one) == len(other) == 32
    assert one != other


@pytest.mark.parametrize(
    ("header", "bound_s", "deadline"),
    [
        (None, None, None),
        (None, 5.0, 105.0),
        ("2.5", None, 102.5),
        ("2.5", 5.0, 102.5),
        ("10", 5.0, 105.0),
        ("1e1", None, 110.0),
    ],
)
def test_the_deadline_is_the_nearest_bound(header, bound_s, deadline):
    headers = {} if header is None else {"x-request-timeout": header}
    assert from_headers(headers, 100.0, timeout_s=bound_s).deadline == deadline


@pytest.mark.parametrize("timeout", ["", "0", "-1", "nan", "inf", "1e999", "soon", "5s", "9" * 999])
def test_an_unusable_timeout_is_refused(timeout):
    with pytest.raises(InvalidInput, match="header X-Request-Timeout must be seconds above 0"):
        from_headers({"x-request-timeout": timeout}, 0)


def test_remaining_time_runs_down_to_an_error():
    context = RequestContext("a", deadline=10.0)
    assert context.remaining_s(7.5) == 2.5
    for now in (10.0, 11.0):
        with pytest.raises(DeadlineExceeded):
            context.remaining_s(now)
    assert RequestContext("a").remaining_s(1e9) is None


@pytest.mark.parametrize(
    ("deadline", "timeout_s", "shorter"), [(None, 5.0, 15.0), (12.0, 5.0, 12.0), (20.0, 5.0, 15.0)]
)
def test_a_deadline_only_gets_shorter(deadline, timeout_s, shorter):
    context = RequestContext("a", deadline, TRACEPARENT, "s=1", "tenant")
    assert shortened(context, 10.0, timeout_s) == RequestContext(
        "a", shorter, TRACEPARENT, "s=1", "tenant"
    )


HEADERS = {
    "x-request-id": "a",
    "traceparent": TRACEPARENT,
    "tracestate": "s=1",
    "x-keepwarm-tenant": "acme",
}


def test_the_predictor_gets_id_trace_and_tenant_and_nothing_else():
    context = from_headers({**HEADERS, "authorization": "Bearer secret", "cookie": "c"}, 0)
    assert context.forwarded() == HEADERS


def test_the_caller_gets_back_id_and_trace():
    context = from_headers(HEADERS, 0)
    assert context.returned() == {"x-request-id": "a", "traceparent": TRACEPARENT}
    assert from_headers({"x-request-id": "a"}, 0).returned() == {"x-request-id": "a"}


ANY_TEXT = st.text(st.characters(max_codepoint=255), max_size=600)


@given(
    headers=st.fixed_dictionaries(
        {}, optional={name: ANY_TEXT | st.just(HEADERS[name]) for name in HEADERS}
    )
)
def test_whatever_comes_only_printable_ascii_travels(headers):
    for value in from_headers(headers, 0).forwarded().values():
        assert value.isascii()
        assert value.isprintable()


@pytest.mark.parametrize(
    ("headers", "api_key"),
    [
        ({"authorization": "Bearer kw_a_b"}, "kw_a_b"),
        ({"authorization": "bearer  kw_a_b "}, "kw_a_b"),
        ({"x-api-key": "kw_a_b"}, "kw_a_b"),
        ({"authorization": "Bearer one", "x-api-key": "other"}, "one"),
        ({"authorization": "Basic abc", "x-api-key": "kw_a_b"}, "kw_a_b"),
        ({"authorization": "Basic abc"}, None),
        ({}, None),
    ],
)
def test_an_api_key_comes_in_and_is_neither_shown_nor_sent_on(headers, api_key):
    context = from_headers(headers, 0)
    assert context.caller.api_key == api_key
    assert "kw_a_b" not in repr(context)
    assert set(context.forwarded()) == set(context.returned()) == {"x-request-id"}


@pytest.mark.parametrize(("header", "priority"), [("7", 7), ("-3", -3), ("", 0), ("99999", 0)])
def test_a_priority_travels_and_an_unusable_one_is_none(header, priority):
    context = from_headers({"x-keepwarm-priority": header}, 0)
    assert context.priority == priority
    assert from_headers(context.forwarded(), 0).priority == priority


def test_what_a_stage_says_goes_back_and_not_on():
    context = from_headers({"x-request-id": "a"}, 0)
    context.reply.headers["x-cache"] = "hit"
    assert shortened(context, 0, 5).returned() == {"x-request-id": "a", "x-cache": "hit"}
    assert context.forwarded() == {"x-request-id": "a"}
