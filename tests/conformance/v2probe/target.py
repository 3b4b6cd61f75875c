"""The server under test: its model's face, and requests that it should answer."""

import copy
import json
import struct
from dataclasses import dataclass

from v2probe.grpc_client import Grpc
from v2probe.http import Answer, Http

DATATYPES = (
    *("BOOL", "UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64"),
    *("FP16", "FP32", "FP64", "BYTES", "BF16"),
)
HEADER_LENGTH = "Inference-Header-Content-Length"


@dataclass
class Target:
    """A V2 server with a model that takes one BYTES tensor and gives one."""

    http: Http
    grpc: Grpc | None
    model: str
    input: str
    shape: list[int]
    variable: bool
    output: str
    metadata: dict
    parameters: dict
    patience_s: float

    @property
    def path(self) -> str:
        return f"/v2/models/{self.model}"

    def body(self, text: str = "Hello", **members) -> dict:
        """A good infer request; `members` are added, a member None is taken out."""
        request = {
            "inputs": [
                {"name": self.input, "shape": self.shape, "datatype": "BYTES", "data": [text]}
            ],
        }
        if self.parameters:
            request["parameters"] = dict(self.parameters)
        request.update(members)
        return {name: value for name, value in request.items() if value is not None}

    def with_input(self, **members) -> dict:
        """A good request whose input has these members; one that is ... is taken out."""
        request = copy.deepcopy(self.body())
        tensor = request["inputs"][0]
        tensor.update(members)
        request["inputs"][0] = {k: v for k, v in tensor.items() if v is not ...}
        return request

    def infer(self, request: dict | bytes, headers=(), timeout_s=None) -> Answer:
        body = request if isinstance(request, bytes) else json.dumps(request).encode()
        headers = [("Content-Type", "application/json"), *headers]
        return self.http.post(f"{self.path}/infer", body, headers, timeout_s)

    def binary_body(self, request: dict | None = None, blob: bytes | None = None):
        """A good binary request: (body, length of its JSON part)."""
        blob = raw_bytes(b"Hello") if blob is None else blob
        if request is None:
            request = self.with_input(data=..., parameters={"binary_data_size": len(blob)})
        header = json.dumps(request).encode()
        return header + blob, len(header)

    def infer_binary(self, body: bytes, length: object, headers=(), path=None) -> Answer:
        headers = [("Content-Type", "application/octet-stream"), *headers]
        if length is not None:
            headers.append((HEADER_LENGTH, str(length)))
        return self.http.post(path or f"{self.path}/infer", body, headers)

    def message(self, *, raw: bool = False, **members) -> dict:
        """A good ModelInferRequest with typed or raw contents."""
        tensor = {"name": self.input, "datatype": "BYTES", "shape": self.shape}
        request = {"model_name": self.model, "inputs": [tensor]}
        if raw:
            request["raw_input_contents"] = [raw_bytes(b"Hello")]
        else:
            tensor["contents"] = {"bytes_contents": [b"Hello"]}
        if self.parameters:
            request["parameters"] = {k: parameter(v) for k, v in self.parameters.items()}
        request.update(members)
        return request


def parameter(value) -> dict:
    """A parameter of V2 gRPC."""
    if isinstance(value, bool):
        return {"bool_param": value}
    if isinstance(value, int):
        return {"int64_param": value}
    return {"double_param": value} if isinstance(value, float) else {"string_param": value}


def raw_bytes(*elements: bytes) -> bytes:
    """Elements of a BYTES tensor as raw data: a 4-byte little-endian length before each."""
    return b"".join(struct.pack("<I", len(element)) + element for element in elements)


def split_raw(raw: bytes) -> list[bytes]:
    """The elements of a raw BYTES tensor; fails when the lengths do not add up."""
    elements = []
    while raw:
        (length,) = struct.unpack_from("<I", raw)
        assert len(raw) >= 4 + length, "raw BYTES end inside an element"
        elements.append(raw[4 : 4 + length])
        raw = raw[4 + length :]
    return elements


def elements_of(shape: list[int]) -> int:
    count = 1
    for size in shape:
        count *= size
    return count


def is_refused(answer: Answer, *statuses: int) -> None:
    """The answer is a client error in OIP's shape: 4xx and {"error": "..."}."""
    assert 400 <= answer.status < 500, f"wanted a client error, got {answer}"
    if statuses:
        assert answer.status in statuses, f"wanted {statuses}, got {answer}"
    has_error(answer)


def has_error(answer: Answer) -> None:
    """The body is {"error": "a sentence"}."""
    body = answer.json()
    assert isinstance(body, dict) and isinstance(body.get("error"), str), (
        f"wanted a body with an error string, got {answer}"
    )
    assert body["error"], "the error is empty"


def is_ok(answer: Answer) -> dict:
    """The answer is a whole V2 inference answer in JSON; gives it."""
    assert answer.status == 200, f"wanted 200, got {answer}"
    # A member that is null though it should be absent is R13's own case, not every other's.
    body = _without_nulls(answer.json())
    check_response(body)
    for output in body["outputs"]:
        assert "data" in output, f"output without data: {output}"
        count = len(list(flatten(output["data"])))
        assert count == elements_of(output["shape"]), f"shape and data differ: {output}"
    return body


def _without_nulls(value):
    if isinstance(value, dict):
        return {key: _without_nulls(item) for key, item in value.items() if item is not None}
    return [_without_nulls(item) for item in value] if isinstance(value, list) else value


def check_response(body: dict) -> None:
    """Members and types of an inference answer (R13)."""
    assert isinstance(body.get("model_name"), str), f"no model_name in {body}"
    for name in ("model_version", "id"):
        assert name not in body or isinstance(body[name], str), f"{name} is {body[name]!r}"
    assert isinstance(body.get("parameters", {}), dict), f"parameters is {body['parameters']!r}"
    assert isinstance(body.get("outputs"), list), f"no outputs in {body}"
    for output in body["outputs"]:
        assert isinstance(output.get("name"), str), output
        assert output.get("datatype") in DATATYPES, output
        assert isinstance(output.get("shape"), list), output
        assert all(type(size) is int and size >= 0 for size in output["shape"]), output
        assert isinstance(output.get("parameters", {}), dict), output


def flatten(data):
    for item in data:
        if isinstance(item, list):
            yield from flatten(item)
        else:
            yield item
