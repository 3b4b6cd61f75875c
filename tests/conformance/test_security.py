"""X1-X7: what an attacker would try over the network; only against servers of your own."""

import contextlib
import gzip
import json
import re
import time

import grpc as grpcio
import pytest
from v2probe.http import BadAnswer
from v2probe.target import HEADER_LENGTH, is_ok, raw_bytes

LIVE = "/v2/health/live"
LEAK = re.compile(
    rb"Traceback|File \\?\"|site-packages|/usr/|/home/|/root/|\.py\b|object at 0x|"
    rb"[A-Z][a-z]+Error\b|Exception\b|pydantic|numpy|orjson|starlette|uvicorn|fastapi|torch|vllm",
)
SMUGGLED = "GET /v2/smuggled HTTP/1.1\r\nHost: x\r\n\r\n"


def smuggle(http, head_lines: list[str], body: bytes):
    """Sends one ambiguous request; it must be one answer at most, and a refusal closes."""
    head = "\r\n".join(
        [f"POST {http.prefix}/v2/models/x/infer HTTP/1.1", f"Host: {http.authority}", *head_lines]
    )
    with http.connect(15) as connection:
        connection.send(head.encode("latin-1") + b"\r\n\r\n" + body)
        first = connection.answer()
        assert first.status < 500 or first.status in (501, 505), first
        with contextlib.suppress(BadAnswer, OSError):
            second = connection.answer()
            raise AssertionError(f"the smuggled request was answered: {first}, then {second}")


AMBIGUOUS = {
    "length and chunked": ["Content-Length: 5", "Transfer-Encoding: chunked"],
    "chunked and length": ["Transfer-Encoding: chunked", "Content-Length: 5"],
    "two lengths": ["Content-Length: 5", f"Content-Length: {5 + len(SMUGGLED)}"],
    "list of lengths": [f"Content-Length: 5, {5 + len(SMUGGLED)}"],
    "unknown coding": ["Transfer-Encoding: xchunked", "Content-Length: 5"],
    "coding after chunked": ["Transfer-Encoding: chunked, identity", "Content-Length: 5"],
    "space before colon": ["Transfer-Encoding : chunked", "Content-Length: 5"],
    "folded header": ["X: y", " Transfer-Encoding: chunked", "Content-Length: 5"],
    "tab in coding": ["Transfer-Encoding:\x0bchunked", "Content-Length: 5"],
}


@pytest.mark.parametrize("case", AMBIGUOUS)
def test_x1_sec_an_ambiguous_length_smuggles_nothing(http, case):
    # RFC 9112 6.1, 6.3, 11.2: refuse, or answer once and close.
    smuggle(http, AMBIGUOUS[case], b"0\r\n\r\n" + SMUGGLED.encode())


@pytest.mark.parametrize("ending", ["\n", "\r"], ids=repr)
def test_x1_sec_a_bare_line_ending_ends_no_header(http, ending):
    head = [f"X: y{ending}Transfer-Encoding: chunked", "Content-Length: 5"]
    with contextlib.suppress(BadAnswer):
        smuggle(http, head, b"0\r\n\r\n" + SMUGGLED.encode())


def test_x1_sec_two_different_header_lengths_are_refused(binary):
    body, length = binary.binary_body()
    for second in (0, length + 1):
        answer = binary.infer_binary(body, length, [(HEADER_LENGTH, str(second))])
        assert 400 <= answer.status < 500, answer


def test_x1_sec_two_content_codings_are_refused(target):
    body = gzip.compress(json.dumps(target.body()).encode())
    headers = [("Content-Encoding", "gzip"), ("Content-Encoding", "identity")]
    answer = target.infer(body, headers)
    assert 400 <= answer.status < 500, answer


def test_x2_sec_a_huge_content_length_is_413_before_the_body(http, target):
    with http.connect(15) as connection:
        head = http.head("POST", f"{target.path}/infer", [("Content-Length", str(10**12))])
        connection.send(head)
        answer = connection.answer()
    assert answer.status == 413, answer
    assert isinstance(answer.json()["error"], str)


def test_x2_sec_expect_continue_with_a_huge_length_gets_no_100(http, target):
    headers = [("Content-Length", str(10**12)), ("Expect", "100-continue")]
    with http.connect(15) as connection:
        connection.send(http.head("POST", f"{target.path}/infer", headers))
        answer = connection.answer()
    assert answer.status in (413, 417) and not answer.interim, answer


def test_x2_sec_an_endless_chunked_body_is_413(http, target):
    head = http.head("POST", f"{target.path}/infer", [("Transfer-Encoding", "chunked")])
    piece = b"100000\r\n" + b" " * 2**20 + b"\r\n"
    with http.connect(60) as connection:
        connection.send(head)
        connection.socket.settimeout(20)
        for _ in range(256):
            try:
                connection.socket.sendall(piece)
            except OSError:
                break
            connection.socket.setblocking(False)
            with contextlib.suppress(BlockingIOError, OSError):
                connection._buffer += connection.socket.recv(65536)
            connection.socket.settimeout(20)
            if b"\r\n\r\n" in connection._buffer:
                break
        assert connection._buffer.startswith(b"HTTP/1.1 413"), connection._buffer[:100]


def bomb(size: int) -> bytes:
    return gzip.compress(b" " * size)


@pytest.mark.parametrize("coding", ["gzip", "deflate"])
def test_x3_sec_a_decompression_bomb_is_refused_at_once(target, coding):
    import zlib

    packer = zlib.compressobj(9, wbits=31 if coding == "gzip" else 15)
    zeros = b"\0" * 2**20
    body = b"".join([*(packer.compress(zeros) for _ in range(512)), packer.flush()])
    began = time.monotonic()
    answer = target.infer(body, [("Content-Encoding", coding)], timeout_s=30)
    assert answer.status in (400, 413), answer
    assert time.monotonic() - began < 10


def test_x4_sec_a_flood_of_headers_is_refused(http):
    flood = [(f"X-{number}", "y" * 1000) for number in range(2000)]
    with http.connect(15) as connection:
        connection.send(http.head("GET", LIVE, flood))
        answer = connection.answer()
    assert answer.status in (400, 413, 431), answer


def test_x4_sec_one_huge_header_is_refused(http):
    with http.connect(15) as connection:
        connection.send(http.head("GET", LIVE, [("X", "y" * 2**20)]))
        answer = connection.answer()
    assert answer.status in (400, 413, 431), answer


def test_x4_sec_a_huge_target_is_refused(http):
    with http.connect(15) as connection:
        connection.send(http.head("GET", "/v2/models/" + "x" * 2**20))
        answer = connection.answer()
    assert answer.status in (400, 404, 413, 414, 431), answer
    assert len(answer.body) < 4096


def test_x4_sec_an_endless_header_is_cut_off(http):
    with http.connect(30) as connection:
        connection.send(b"GET /v2 HTTP/1.1\r\nHost: x\r\nX: ")
        for _ in range(64):
            connection.send(b"y" * 2**18)
            if connection.is_closed(0.01) or connection._buffer:
                return
    raise AssertionError("16 MiB of one header were taken")


PROBES = {
    "not JSON": b"{",
    "wrong type": b'{"inputs": [{"name": 5}]}',
    "wrong data": b'{"inputs": [{"name": "x", "shape": [1], "datatype": "FP32", "data": ["a"]}]}',
    "deep": b"[" * 5000,
    "huge number": b'{"inputs": ' + b"9" * 10_000 + b"}",
    "surrogate": b'{"id": "\\ud800", "inputs": []}',
    "wrong parameters": b'{"inputs": [], "parameters": {"a": {"b": []}}}',
}


@pytest.mark.parametrize("case", PROBES)
@pytest.mark.parametrize("route", ["infer", "generate"])
def test_x5_sec_errors_tell_no_internals(target, case, route):
    answer = target.http.post(
        f"{target.path}/{route}", PROBES[case], [("Content-Type", "application/json")]
    )
    assert not LEAK.search(answer.body), answer


def test_x5_sec_a_wrong_tensor_tells_no_internals(target):
    for members in ({"shape": [2]}, {"datatype": "INT8", "data": [1000]}, {"data": [[[1]]]}):
        answer = target.infer(target.with_input(**members))
        assert not LEAK.search(answer.body), answer


def test_x5_sec_grpc_errors_tell_no_internals(grpc, target):
    for message in (b"\xff\xff", target.message(raw=True, raw_input_contents=[b"\x01"])):
        with pytest.raises(grpcio.RpcError) as caught:
            grpc.call("ModelInfer", message)
        assert not LEAK.search((caught.value.details() or "").encode()), caught.value.details()


def test_x5_sec_headers_tell_no_versions(http):
    server = http.get(LIVE).header("server") or ""
    assert not re.search(r"\d", server), server


@pytest.mark.parametrize(
    "path",
    [
        "/v2/models/../../etc/passwd",
        "/v2/models/%2e%2e%2f%2e%2e%2fetc%2fpasswd",
        "/../../etc/passwd",
        "/static/../../etc/passwd",
        "//etc/passwd",
    ],
)
def test_x6_sec_no_path_leads_to_files(http, path):
    answer = http.raw(http.head("GET", path))
    assert 400 <= answer.status < 500, answer
    assert b"root:" not in answer.body


@pytest.mark.parametrize("value", ["a\nX-Evil: 1", "a\rX-Evil: 1"], ids=repr)
def test_x6_sec_no_header_of_ours_comes_back_as_one_of_theirs(http, value):
    with contextlib.suppress(BadAnswer):
        answer = http.raw(http.head("GET", LIVE, [("x-request-id", value)]), 15)
        assert answer.header("X-Evil") is None


def test_x6_sec_an_id_stays_a_json_string(target):
    text = '"}],"injected":true,"x":[{"y":"'
    body = is_ok(target.infer(target.body(id=text)))
    assert "injected" not in body


def test_x6_sec_markup_in_a_path_is_not_answered_as_html(http):
    answer = http.raw(http.head("GET", "/v2/models/%3Cscript%3Ealert(1)%3C/script%3E"))
    assert "html" not in (answer.header("content-type") or "")


def test_x7_sec_a_huge_grpc_message_is_refused(grpc, target):
    message = target.message(raw=True, raw_input_contents=[raw_bytes(b"x" * 64 * 2**20)])
    assert grpc.code("ModelInfer", message) in ("RESOURCE_EXHAUSTED", "INVALID_ARGUMENT")


def test_x8_sec_nobody_can_unload_the_model(http, target):
    answer = http.post_json(f"/v2/repository/models/{target.model}/unload", {})
    assert answer.status in (401, 403, 404, 405, 501), answer
    assert http.get(f"{target.path}/ready").status == 200


def test_x8_sec_nobody_can_unload_the_model_over_grpc(grpc, target):
    code = grpc.code("RepositoryModelUnload", {"model_name": target.model})
    assert code in ("UNIMPLEMENTED", "PERMISSION_DENIED", "UNAUTHENTICATED", "NOT_FOUND"), code
    assert grpc.call("ModelReady", {"name": target.model}) == {"ready": True}
