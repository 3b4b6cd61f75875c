"""B1-B5: the binary tensor data extension (Triton extension_binary_data.md)."""

import json

import pytest
from v2probe.target import HEADER_LENGTH, check_response, is_ok, is_refused, raw_bytes, split_raw


def read_binary(answer):
    """JSON part and blobs of a binary answer; checks its framing (B1, B3)."""
    assert answer.status == 200, answer
    length = answer.header(HEADER_LENGTH)
    assert length is not None and length.isdigit(), f"no {HEADER_LENGTH} in {answer}"
    body = json.loads(answer.body[: int(length)])
    check_response(body)
    rest = answer.body[int(length) :]
    blobs = {}
    for output in body["outputs"]:
        size = output.get("parameters", {}).get("binary_data_size")
        if size is None:
            assert "data" in output, output
            continue
        assert "data" not in output, f"both data and binary_data_size in {output}"
        assert len(rest) >= size, "the body ends inside a blob"
        blobs[output["name"]], rest = rest[:size], rest[size:]
    assert not rest, f"{len(rest)} bytes belong to no output"
    return body, blobs


def test_b1_must_a_binary_input_is_answered(binary):
    is_ok(binary.infer_binary(*binary.binary_body()))


def test_b1_must_the_header_name_is_case_insensitive(binary):
    body, length = binary.binary_body()
    headers = [("inference-HEADER-content-length", str(length))]
    is_ok(binary.infer_binary(body, None, headers))


def test_b1_must_binary_data_without_the_header_is_refused(binary):
    body, _ = binary.binary_body()
    is_refused(binary.infer_binary(body, None))


@pytest.mark.parametrize(
    "length", ["-1", "x", "1.5", "0x10", "+20", "", "9" * 30, "\uff11\uff12", "1 2"]
)
def test_b1_must_a_header_that_is_no_length_is_refused(binary, length):
    body, _ = binary.binary_body()
    is_refused(binary.infer_binary(body, length.encode().decode("latin-1")))


@pytest.mark.parametrize("off", [-1, 1, 10**6])
def test_b1_must_a_header_with_a_wrong_length_is_refused(binary, off):
    body, length = binary.binary_body()
    is_refused(binary.infer_binary(body, length + off))


def test_b1_must_a_json_request_may_say_its_length(binary):
    body = json.dumps(binary.body()).encode()
    is_ok(binary.infer_binary(body, len(body)))


def test_b2_must_utf8_and_long_texts_travel(binary):
    blob = raw_bytes("héllo ✓ ".encode() * 20)
    is_ok(binary.infer_binary(*binary.binary_body(blob=blob)))


@pytest.mark.parametrize("size", [0, 1, 8, 10, 2**31, 2**64, -1, 9.0, "9", True, [9]], ids=repr)
def test_b2_must_a_wrong_binary_data_size_is_refused(binary, size):
    request = binary.with_input(data=..., parameters={"binary_data_size": size})
    is_refused(binary.infer_binary(*binary.binary_body(request)))


@pytest.mark.parametrize(
    "blob",
    [
        b"",
        b"\x05\x00\x00",
        b"\x06\x00\x00\x00Hello",
        b"\x04\x00\x00\x00Hello",
        b"\xff\xff\xff\xffHello",
        raw_bytes(b"Hello") * 2,
    ],
    ids=repr,
)
def test_b2_must_raw_elements_that_do_not_fit_are_refused(binary, blob):
    is_refused(binary.infer_binary(*binary.binary_body(blob=blob)))


def test_b2_must_left_over_bytes_are_refused(binary):
    body, length = binary.binary_body()
    is_refused(binary.infer_binary(body + b"more", length))


def test_b2_must_both_data_and_binary_data_are_refused(binary):
    request = binary.with_input(parameters={"binary_data_size": 9})
    is_refused(binary.infer_binary(*binary.binary_body(request)))


def test_b2_must_text_that_is_not_utf8_is_no_server_error(binary):
    answer = binary.infer_binary(*binary.binary_body(blob=raw_bytes(b"\xff\xfe")))
    assert answer.status < 500, answer


@pytest.mark.parametrize("datatype", ["FP16", "FP32", "INT64", "BOOL"])
def test_b2_must_numbers_whose_size_does_not_fit_are_refused(binary, datatype):
    request = binary.with_input(data=..., datatype=datatype, parameters={"binary_data_size": 9})
    is_refused(binary.infer_binary(*binary.binary_body(request)))


def test_b3_must_an_output_is_binary_when_asked(binary):
    outputs = [{"name": binary.output, "parameters": {"binary_data": True}}]
    body, blobs = read_binary(binary.infer(binary.body(outputs=outputs)))
    (output,) = body["outputs"]
    assert output["datatype"] == "BYTES"
    count = 1
    for size in output["shape"]:
        count *= size
    assert len(split_raw(blobs[binary.output])) == count


def test_b3_must_all_outputs_are_binary_when_asked(binary):
    parameters = {**binary.parameters, "binary_data_output": True}
    body, blobs = read_binary(binary.infer(binary.body(parameters=parameters)))
    assert set(blobs) == {output["name"] for output in body["outputs"]}


def test_b3_must_an_outputs_own_word_wins(binary):
    outputs = [{"name": binary.output, "parameters": {"binary_data": False}}]
    parameters = {**binary.parameters, "binary_data_output": True}
    is_ok(binary.infer(binary.body(parameters=parameters, outputs=outputs)))


def test_b3_must_a_binary_request_is_answered_in_json_unless_asked(binary):
    answer = binary.infer_binary(*binary.binary_body())
    assert answer.header(HEADER_LENGTH) is None
    is_ok(answer)


def test_b3_must_binary_in_and_out_together(binary):
    outputs = [{"name": binary.output, "parameters": {"binary_data": True}}]
    request = binary.with_input(data=..., parameters={"binary_data_size": 9})
    request["outputs"] = outputs
    read_binary(binary.infer_binary(*binary.binary_body(request)))


@pytest.mark.parametrize("value", ["true", 1, [True]], ids=repr)
def test_b3_must_a_flag_that_is_no_boolean_is_refused(binary, value):
    outputs = [{"name": binary.output, "parameters": {"binary_data": value}}]
    is_refused(binary.infer(binary.body(outputs=outputs)))


@pytest.mark.parametrize("value", ["true", 1], ids=repr)
def test_b3_must_a_flag_for_all_outputs_that_is_no_boolean_is_refused(binary, value):
    parameters = {**binary.parameters, "binary_data_output": value}
    is_refused(binary.infer(binary.body(parameters=parameters)))


def test_b3_peer_json_and_binary_say_the_same(binary):
    if "temperature" not in binary.parameters and binary.parameters:
        pytest.skip("the answers may differ by chance")
    as_json = is_ok(binary.infer(binary.body()))
    outputs = [{"name": binary.output, "parameters": {"binary_data": True}}]
    _, blobs = read_binary(binary.infer(binary.body(outputs=outputs)))
    (output,) = [o for o in as_json["outputs"] if o["name"] == binary.output]
    assert [e.decode() for e in split_raw(blobs[binary.output])] == output["data"]


def raw_input(binary, body, **options):
    answer = binary.infer_binary(body, 0, **options)
    if answer.status in (400, 501) and b"not supported" in answer.body:
        pytest.skip("raw binary requests (header length 0) are not offered")
    return answer


def test_b4_peer_a_raw_body_is_the_only_input(binary):
    _, blobs = read_binary(raw_input(binary, b"Hello"))
    assert binary.output in blobs


@pytest.mark.parametrize("body", [b"", b"\xff\xfe"], ids=repr)
def test_b4_robust_a_raw_body_that_is_no_text_is_no_server_error(binary, body):
    assert raw_input(binary, body).status < 500


def test_b5_must_the_extension_is_listed(binary, http):
    assert "binary_tensor_data" in http.get("/v2").json()["extensions"]


@pytest.mark.parametrize("content_type", [None, "application/octet-stream", "application/json"])
def test_b1_peer_any_content_type_will_do(binary, http, content_type):
    body, length = binary.binary_body()
    headers = [(HEADER_LENGTH, str(length))]
    if content_type:
        headers.append(("Content-Type", content_type))
    is_ok(http.post(f"{binary.path}/infer", body, headers))
