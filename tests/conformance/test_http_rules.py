"""H1-H12: HTTP as RFC 9110 and RFC 9112 have it."""

import json
import zlib
from email.utils import parsedate_to_datetime

import pytest
from v2probe.target import has_error, is_ok, is_refused

LIVE = "/v2/health/live"


def infer_head(target, headers=(), **options):
    return target.http.head("POST", f"{target.path}/infer", headers, **options)


@pytest.mark.parametrize("path", [LIVE, "/v2", "{model}", "{model}/ready"])
def test_h1_http_a_wrong_method_is_405_with_allow(http, target, path):
    # RFC 9110 15.5.6: the server MUST send Allow.
    answer = http.request("PUT", path.replace("{model}", target.path), b"{}")
    assert answer.status == 405, answer
    assert "GET" in (answer.header("allow") or "")


def test_h1_http_get_on_infer_is_405_with_allow(http, target):
    answer = http.get(f"{target.path}/infer")
    assert answer.status == 405, answer
    assert "POST" in (answer.header("allow") or "")


@pytest.mark.parametrize("method", ["BREW", "get", "TRACE", "CONNECT", "PRI", "X" * 60])
def test_h1_http_a_strange_method_is_refused(http, method):
    answer = http.raw(http.head(method, LIVE))
    assert 400 <= answer.status < 500 or answer.status == 501, answer


def test_h2_http_head_is_get_without_a_body(http):
    # RFC 9110 9.3.2, 9.1: GET and HEAD MUST be supported.
    get, head = http.get("/v2"), http.request("HEAD", "/v2")
    assert head.status == get.status
    assert head.header("content-type") == get.header("content-type")


def test_h2_http_nothing_follows_an_answer_to_head(http):
    with http.connect() as connection:
        connection.send(http.head("HEAD", LIVE) + http.head("GET", LIVE))
        assert connection.answer("HEAD").status == 200
        assert connection.answer().json()["live"] is True


def test_h3_http_no_host_is_400(http):
    # RFC 9112 3.2: a server MUST respond with 400 to an HTTP/1.1 request without Host.
    answer = http.raw(f"GET {http.prefix}{LIVE} HTTP/1.1\r\n\r\n".encode())
    assert answer.status == 400, answer


def test_h3_http_two_hosts_are_400(http):
    head = f"GET {http.prefix}{LIVE} HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n"
    assert http.raw(head.encode()).status == 400


@pytest.mark.parametrize("host", ["a b", "a/b", "a, b", "a@b"])
def test_h3_http_a_host_that_is_none_is_400(http, host):
    head = f"GET {http.prefix}{LIVE} HTTP/1.1\r\nHost: {host}\r\n\r\n"
    assert http.raw(head.encode()).status == 400


@pytest.mark.parametrize("host", ["example.org", "[::1]:8080", "", "10.0.0.1:80", "a_b.example"])
def test_h3_http_any_proper_host_will_do(http, host):
    head = f"GET {http.prefix}{LIVE} HTTP/1.1\r\nHost: {host}\r\n\r\n"
    assert http.raw(head.encode()).status == 200


def test_h3_http_the_absolute_form_is_accepted(http):
    # RFC 9112 3.2.2: a server MUST accept it.
    head = f"GET http://{http.authority}{http.prefix}{LIVE} HTTP/1.1\r\nHost: x\r\n\r\n"
    assert http.raw(head.encode()).status == 200


def test_h4_http_a_connection_serves_many_requests(http, target):
    body = json.dumps(target.body()).encode()
    with http.connect() as connection:
        for _ in range(3):
            length = [("Content-Length", str(len(body)))]
            connection.send(infer_head(target, length) + body)
            is_ok(connection.answer())
            connection.send(http.head("GET", LIVE))
            assert connection.answer().status == 200


def test_h4_http_a_refused_request_leaves_the_connection_usable_or_closed(http, target):
    body = b'{"inputs": 5}'
    with http.connect() as connection:
        connection.send(infer_head(target, [("Content-Length", str(len(body)))]) + body)
        answer = connection.answer()
        is_refused(answer)
        if (answer.header("connection") or "").lower() == "close":
            assert connection.is_closed(5)
        else:
            connection.send(http.head("GET", LIVE))
            assert connection.answer().status == 200


def test_h4_http_connection_close_closes(http):
    with http.connect() as connection:
        connection.send(http.head("GET", LIVE, [("Connection", "close")]))
        answer = connection.answer()
        assert answer.status == 200
        assert (answer.header("connection") or "").lower() == "close"
        assert connection.is_closed(5)


def test_h4_http_http_1_0_needs_no_host_and_closes(http):
    with http.connect() as connection:
        connection.send(f"GET {http.prefix}{LIVE} HTTP/1.0\r\n\r\n".encode())
        assert connection.answer().status == 200
        assert connection.is_closed(5)


def test_h5_http_pipelined_requests_are_answered_in_order(http, target):
    with http.connect() as connection:
        connection.send(
            http.head("GET", LIVE) + http.head("GET", target.path) + http.head("GET", "/v2")
        )
        assert connection.answer().json()["live"] is True
        assert connection.answer().json()["name"] == target.model
        assert "extensions" in connection.answer().json()


def chunked(body: bytes, size: int, extension: bytes = b"", trailer: bytes = b"") -> bytes:
    parts = [body[start : start + size] for start in range(0, len(body), size)]
    framed = b"".join(b"%x%s\r\n%s\r\n" % (len(part), extension, part) for part in parts)
    return framed + b"0\r\n" + trailer + b"\r\n"


@pytest.mark.parametrize(
    ("extension", "trailer"),
    [(b"", b""), (b";a=b", b""), (b"", b"X-Sum: 1\r\n")],
    ids=["plain", "extension", "trailer"],
)
def test_h6_http_a_chunked_body_is_understood(http, target, extension, trailer):
    # RFC 9112 7.1: a recipient MUST be able to parse the chunked coding.
    body = json.dumps(target.body()).encode()
    head = infer_head(target, [("Transfer-Encoding", "chunked")])
    is_ok(http.raw(head + chunked(body, 7, extension, trailer)))


def test_h6_http_a_body_in_many_small_packets_is_understood(http, target):
    body = json.dumps(target.body()).encode()
    data = infer_head(target, [("Content-Length", str(len(body)))]) + body
    with http.connect() as connection:
        for start in range(0, len(data), 16):
            connection.send(data[start : start + 16])
        is_ok(connection.answer())


@pytest.mark.parametrize(
    "broken",
    [b"x\r\nab\r\n0\r\n\r\n", b"-1\r\n\r\n", b"2\r\nabc\r\n0\r\n\r\n", b"f" * 20 + b"\r\na\r\n"],
    ids=repr,
)
def test_h6_http_a_broken_chunk_is_400(http, target, broken):
    head = infer_head(target, [("Transfer-Encoding", "chunked")])
    assert http.raw(head + broken, 15).status == 400


def test_h7_http_expect_100_continue_is_answered(http, target):
    # RFC 9110 10.1.1: 100 or a final status, without waiting for the body.
    body = json.dumps(target.body()).encode()
    headers = [("Content-Length", str(len(body))), ("Expect", "100-continue")]
    with http.connect(10) as connection:
        connection.send(infer_head(target, headers))
        interim = connection._until(b"\r\n\r\n")
        assert interim.startswith(b"HTTP/1.1 100"), interim
        connection.send(body)
        is_ok(connection.answer())


@pytest.mark.parametrize("coding", ["br", "zstd", "gzip, gzip", "nonsense"])
def test_h8_http_an_unknown_content_coding_is_415(target, coding):
    # RFC 9110 8.4.
    answer = target.infer(target.body(), [("Content-Encoding", coding)])
    assert answer.status == 415, answer
    has_error(answer)


@pytest.mark.parametrize("coding", ["gzip", "deflate"])
@pytest.mark.parametrize("body", [b"not compressed", b"", b"\x1f\x8b\x08\x00"], ids=repr)
def test_h8_http_broken_compression_is_400(target, coding, body):
    is_refused(target.infer(body, [("Content-Encoding", coding)]), 400)


@pytest.mark.parametrize("coding", ["identity", "GZIP", "x-gzip"])
def test_h8_http_content_codings_are_case_insensitive(target, coding):
    body = json.dumps(target.body()).encode()
    if coding != "identity":
        packer = zlib.compressobj(wbits=31)
        body = packer.compress(body) + packer.flush()
    is_ok(target.infer(body, [("Content-Encoding", coding)]))


@pytest.mark.parametrize("path", ["/v2", LIVE, "{model}", "{model}/ready", "/nothing"])
def test_h9_http_json_answers_say_so(http, target, path):
    answer = http.get(path.replace("{model}", target.path))
    assert (answer.header("content-type") or "").startswith("application/json")
    answer.json()


def test_h9_http_answers_carry_a_date(http):
    # RFC 9110 6.6.1: an origin server with a clock MUST send it.
    assert parsedate_to_datetime(http.get(LIVE).header("date") or "")


def test_h9_http_an_answer_to_infer_says_its_type(target):
    answer = target.infer(target.body())
    assert (answer.header("content-type") or "").startswith("application/json")


def test_h10_http_a_percent_encoded_path_is_the_same(http, target):
    encoded = "".join(f"%{byte:02x}" for byte in target.model.encode())
    assert http.get(f"/v2/models/{encoded}").json()["name"] == target.model


def test_h10_http_a_query_changes_nothing(http, target):
    assert http.get(f"{target.path}?a=b&c=%zz").json()["name"] == target.model


@pytest.mark.parametrize(
    "path",
    [
        "/v2/models/%ff%fe",
        "/v2/models/%00",
        "/v2/models/é",
        "/v2/models/%zz",
        "/v2/models/" + "x" * 3000,
    ],
)
def test_h10_http_a_strange_path_is_a_client_error(http, path):
    answer = http.raw(http.head("GET", path))
    assert 400 <= answer.status < 500, answer


@pytest.mark.parametrize("target_form", ["*", "//", "", "x", "http://", "/\x7f"])
def test_h10_http_a_strange_target_is_a_client_error(http, target_form):
    answer = http.raw(f"GET {target_form} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    assert 400 <= answer.status < 500, answer


@pytest.mark.parametrize(
    "line",
    [
        "Name : value",
        " Name: value",
        "Name\x00: value",
        "Name: val\x00ue",
        "Na me: value",
        ": value",
        "no colon",
        "Name: a\rb",
    ],
    ids=repr,
)
def test_h11_http_a_malformed_header_is_400(http, line):
    # RFC 9112 5.1, RFC 9110 5.5: whitespace before the colon, NUL, bare CR.
    head = f"GET {http.prefix}{LIVE} HTTP/1.1\r\nHost: x\r\n{line}\r\n\r\n"
    assert http.raw(head.encode("latin-1"), 15).status == 400


@pytest.mark.parametrize(
    "line",
    ["GET", "GET / HTTP/9.9", "GET / HTTP/1.1 x", "\x16\x03\x01", "{}"],
    ids=repr,
)
def test_h11_http_a_malformed_request_line_is_refused(http, line):
    with http.connect(15) as connection:
        connection.send(f"{line}\r\nHost: x\r\n\r\n".encode("latin-1"))
        answer = connection.answer()
        assert 400 <= answer.status <= 505 and answer.status != 500, answer
        assert connection.is_closed(5)


def test_h11_http_empty_lines_before_a_request_are_ignored(http):
    # RFC 9112 2.2 (SHOULD).
    assert http.raw(b"\r\n" + http.head("GET", LIVE)).status == 200


@pytest.mark.parametrize("length", ["-1", "+5", "5x", "0x5", "1,2", "", "9" * 40, "1 1"])
def test_h12_http_a_bad_content_length_is_refused(http, target, length):
    # RFC 9112 6.3.
    head = infer_head(target, [("Content-Length", length)])
    with http.connect(15) as connection:
        connection.send(head + b"{}")
        answer = connection.answer()
        assert answer.status in ((400, 413) if length == "9" * 40 else (400,)), answer
        assert connection.is_closed(5)


def test_h12_http_a_body_on_get_does_no_harm(http):
    with http.connect() as connection:
        connection.send(http.head("GET", LIVE, [("Content-Length", "5")]) + b"hello")
        assert connection.answer().status == 200
        if not connection.is_closed(0.2):
            connection.send(http.head("GET", LIVE))
            assert connection.answer().status == 200
