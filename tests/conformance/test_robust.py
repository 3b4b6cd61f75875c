"""V2-V8: whatever comes in, a client error or an answer goes out, in time."""

import json
import socket
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from v2probe.http import BadAnswer
from v2probe.target import is_ok, is_refused

NOT_JSON = {
    "empty": b"",
    "space": b"   ",
    "text": b"hello",
    "half": b'{"inputs": [',
    "trailing comma": b'{"inputs": [],}',
    "two values": b"{} {}",
    "comment": b'/* a */ {"inputs": []}',
    "single quotes": b"{'inputs': []}",
    "byte order mark": b"\xef\xbb\xbf{}",
    "UTF-16": '{"inputs": []}'.encode("utf-16"),
    "invalid UTF-8": b'{"id": "\xff"}',
    "overlong UTF-8": b'{"id": "\xc0\xaf"}',
    "raw control character": b'{"id": "\x01"}',
    "NUL": b"\x00",
    "unescaped newline": b'{"id": "\n"}',
    "NaN": b'{"inputs": NaN}',
    "Infinity": b'{"parameters": {"temperature": Infinity}}',
    "leading zero": b'{"inputs": 01}',
    "deep list": b"[" * 100_000,
    "deep object": b'{"a":' * 100_000,
}


@pytest.mark.parametrize("case", NOT_JSON)
def test_v2_robust_what_is_not_json_is_refused(target, case):
    is_refused(target.infer(NOT_JSON[case]), 400, 422)


@pytest.mark.parametrize(
    "body", [b"[]", b"null", b"true", b"5", b'"x"', b"1e999"], ids=lambda body: body.decode()
)
def test_v2_robust_what_is_no_object_is_refused(target, body):
    is_refused(target.infer(body), 400, 422)


def body_with(target, old: str, new: str) -> bytes:
    text = json.dumps(target.with_input(data="DATA", shape="SHAPE"))
    text = text.replace('"SHAPE"', json.dumps(target.shape)) if old != "SHAPE" else text
    text = text.replace('"DATA"', '["Hello"]') if old != "DATA" else text
    assert f'"{old}"' in text
    return text.replace(f'"{old}"', new).encode()


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("SHAPE", "[" + "1," * 50_000 + "1]"),
        ("SHAPE", "[" * 500 + "]" * 500),
        ("SHAPE", "[9223372036854775807, 9223372036854775807]"),
        ("SHAPE", "[" + "9" * 5000 + "]"),
        ("SHAPE", "[1e400]"),
        ("SHAPE", "[NaN]"),
        ("DATA", "[" * 900 + "]" * 900),
        ("DATA", '["\\ud800"]'),
        ("DATA", '["\\udfff\\ud800"]'),
        ("DATA", "[" + "9" * 5000 + "]"),
        ("DATA", "[[1], [2, 3]]"),
    ],
    ids=lambda text: text[:24],
)
def test_v3_robust_strange_shapes_and_data_are_refused(target, old, new):
    is_refused(target.infer(body_with(target, old, new)), 400, 422)


WRONG_ELEMENTS = {
    "BOOL": ["true", 2, None, [], {}],
    "UINT8": [-1, 256, 1.5, "1", None],
    "UINT64": [-1, 2**64, 10**40, 1e30],
    "INT8": [-129, 128, True, "x"],
    "INT64": [2**63, -(2**63) - 1, 0.5],
    "FP32": ["1.0", None, 10**400, True],
    "FP64": ["nan", [], {}],
    "BYTES": [5, True, None, {}, 1.5],
}


@pytest.mark.parametrize(
    ("datatype", "element"),
    [(datatype, element) for datatype, elements in WRONG_ELEMENTS.items() for element in elements],
    ids=lambda value: repr(value)[:24],
)
def test_v3_robust_elements_of_a_wrong_type_are_no_server_error(target, datatype, element):
    # OIP: the server may coerce or err.
    answer = target.infer(target.with_input(datatype=datatype, data=[element]))
    if answer.status != 200:
        is_refused(answer, 400, 422)


def test_v3_robust_elements_of_bytes_that_are_objects_are_refused(target):
    is_refused(target.infer(target.with_input(data=[{"a": 1}])), 400, 422)


@pytest.mark.parametrize(
    "members",
    [
        {"name": ""},
        {"name": None},
        {"name": 5},
        {"name": "x" * 100_000},
        {"name": "no_such_input"},
        {"name": "\x00"},
        {"parameters": []},
        {"parameters": "x"},
        {"parameters": {"a": [1]}},
        {"datatype": "x" * 100_000},
        {"data": []},
    ],
    ids=lambda members: repr(members)[:36],
)
def test_v4_robust_a_strange_input_is_refused(target, members):
    is_refused(target.infer(target.with_input(**members)), 400, 422)


def test_v4_robust_the_same_input_twice_is_refused(target):
    request = target.body()
    request["inputs"] *= 2
    is_refused(target.infer(request), 400, 422)


def test_v4_robust_an_unknown_input_beside_a_known_one_is_refused(target):
    request = target.body()
    request["inputs"].append(
        {"name": "no_such_input", "shape": [1], "datatype": "BYTES", "data": ["x"]}
    )
    is_refused(target.infer(request), 400, 422)


def test_v4_robust_the_same_output_twice_is_refused(target):
    is_refused(target.infer(target.body(outputs=[{"name": target.output}] * 2)), 400, 422)


def test_v4_robust_a_thousand_inputs_are_refused(target):
    request = target.body()
    request["inputs"] *= 1000
    is_refused(target.infer(request), 400, 413, 422)


@pytest.mark.parametrize(
    "parameters",
    [{"temperature": -5}, {"temperature": "hot"}, {"max_tokens": 10**30}, {"x" * 10_000: 1}],
    ids=lambda parameters: repr(parameters)[:24],
)
def test_v4_robust_strange_parameters_are_no_server_error(target, parameters):
    answer = target.infer(target.body(parameters={**target.parameters, **parameters}))
    assert answer.status < 500, answer


def test_v4_robust_a_message_says_what_was_wrong(target):
    answer = target.infer(target.with_input(shape=[2]))
    is_refused(answer)
    assert "shape" in answer.json()["error"] or target.input in answer.json()["error"]


def test_v4_robust_a_message_about_huge_input_is_short(target):
    answer = target.infer(target.with_input(name="x" * 100_000))
    assert len(answer.body) < 4096


TEXTS = ["", " ", "\x00", "\u202e", "\U0010ffff", "é" * 50, "🙂" * 20, "\r\n\r\n", "</s><|im_end|>"]


@pytest.mark.parametrize("text", TEXTS, ids=ascii)
def test_v5_robust_any_text_is_answered_or_refused(target, text):
    answer = target.infer(target.body(text))
    if answer.status != 200:
        is_refused(answer, 400, 413, 422)


def stalled(target, data: bytes, drip: bytes = b"", every_s: float = 1.0):
    """Sends `data` and then `drip`, a byte a second; True when the server gives up in time."""
    http = target.http
    end = time.monotonic() + target.patience_s
    with http.connect(target.patience_s + 5) as connection:
        connection.send(data)
        position = 0
        while time.monotonic() < end:
            if connection.is_closed(every_s) or connection._buffer:
                return connection
            if drip:
                connection.send(drip[position % len(drip) :][:1])
                position += 1
    raise AssertionError(f"the server still waits after {target.patience_s:g} s")


@pytest.mark.parametrize("drip", [b"", b" "], ids=["silent", "dripping"])
def test_v6_robust_a_body_that_never_ends_is_given_up(target, drip):
    head = target.http.head("POST", f"{target.path}/infer", [("Content-Length", "100000")])
    connection = stalled(target, head + b'{"inputs": [', drip)
    assert connection._buffer.startswith((b"HTTP/1.1 4", b"HTTP/1.1 504")), connection._buffer


def test_v6_robust_a_chunked_body_that_never_ends_is_given_up(target):
    head = target.http.head("POST", f"{target.path}/infer", [("Transfer-Encoding", "chunked")])
    stalled(target, head + b"5\r\nhel")


@pytest.mark.parametrize("drip", [b"", b"a"], ids=["silent", "dripping"])
def test_v6_robust_a_head_that_never_ends_is_given_up(target, drip):
    stalled(target, b"GET /v2 HTTP/1.1\r\nHost: x\r\nX-Slow: ", drip)


def test_v7_robust_a_client_that_leaves_mid_body_harms_nobody(target):
    head = target.http.head("POST", f"{target.path}/infer", [("Content-Length", "1000")])
    for _ in range(20):
        with target.http.connect() as connection:
            connection.send(head + b'{"inputs"')
    is_ok(target.infer(target.body()))


def test_v7_robust_a_client_that_leaves_before_the_answer_harms_nobody(target):
    body = json.dumps(target.body()).encode()
    head = target.http.head("POST", f"{target.path}/infer", [("Content-Length", str(len(body)))])
    for _ in range(20):
        with target.http.connect() as connection:
            connection.send(head + body)
            linger = b"\x01\x00\x00\x00\x00\x00\x00\x00"
            connection.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    is_ok(target.infer(target.body()))


def test_v8_robust_many_connections_are_served_at_once(target):
    def one(_):
        return target.http.get("/v2/health/live").status

    with ThreadPoolExecutor(64) as pool:
        assert set(pool.map(one, range(256))) == {200}


def test_v8_robust_idle_connections_do_not_block_others(target):
    idle = []
    try:
        for _ in range(200):
            idle.append(target.http.connect())
            idle[-1].send(b"POST ")
        assert target.http.get("/v2/health/live").status == 200
    finally:
        for connection in idle:
            connection.socket.close()


def test_v8_robust_good_and_bad_requests_do_not_mix(target):
    """Many at once: each answer belongs to its own request."""

    def one(number):
        if number % 2:
            return is_refused(target.infer(target.with_input(shape=[2])))
        assert is_ok(target.infer(target.body(id=f"r{number}"))).get("id") == f"r{number}"
        return None

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(one, range(32)))


def test_v8_robust_random_bytes_get_an_answer_or_the_end(target):
    import random

    dice = random.Random(7)
    for _ in range(50):
        with target.http.connect(15) as connection:
            connection.send(dice.randbytes(dice.randrange(1, 400)) + b"\r\n\r\n")
            try:
                answer = connection.answer()
            except BadAnswer as problem:
                assert "closed" in str(problem), problem
            else:
                assert 400 <= answer.status <= 505 and answer.status != 500, answer
