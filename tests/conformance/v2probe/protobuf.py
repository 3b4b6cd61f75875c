"""The V2 messages on protobuf's wire, by hand: nothing generated, nothing registered, and broken
messages can be written as easily as good ones.

Source: OIP open_inference_grpc.proto; protobuf.dev "Encoding". A schema maps a field's name to
(number, kind); `*` before a kind is repeated, `map:` a map from string to that message.
"""

import struct

TENSOR = {
    "name": (1, "string"),
    "datatype": (2, "string"),
    "shape": (3, "*int64"),
    "parameters": (4, "map:parameter"),
    "contents": (5, "contents"),
}
MESSAGES = {
    "empty": {},
    "live": {"live": (1, "bool")},
    "ready": {"ready": (1, "bool")},
    "model": {"name": (1, "string"), "version": (2, "string")},
    "server_metadata": {
        "name": (1, "string"),
        "version": (2, "string"),
        "extensions": (3, "*string"),
    },
    "model_metadata": {
        "name": (1, "string"),
        "versions": (2, "*string"),
        "platform": (3, "string"),
        "inputs": (4, "*tensor_metadata"),
        "outputs": (5, "*tensor_metadata"),
    },
    "tensor_metadata": {"name": (1, "string"), "datatype": (2, "string"), "shape": (3, "*int64")},
    "parameter": {
        "bool_param": (1, "bool"),
        "int64_param": (2, "int64"),
        "string_param": (3, "string"),
        "double_param": (4, "double"),
        "uint64_param": (5, "uint64"),
    },
    "contents": {
        "bool_contents": (1, "*bool"),
        "int_contents": (2, "*int64"),
        "int64_contents": (3, "*int64"),
        "uint_contents": (4, "*uint64"),
        "uint64_contents": (5, "*uint64"),
        "fp32_contents": (6, "*float"),
        "fp64_contents": (7, "*double"),
        "bytes_contents": (8, "*bytes"),
    },
    "tensor": TENSOR,
    "requested_output": {"name": (1, "string"), "parameters": (2, "map:parameter")},
    "infer_request": {
        "model_name": (1, "string"),
        "model_version": (2, "string"),
        "id": (3, "string"),
        "parameters": (4, "map:parameter"),
        "inputs": (5, "*tensor"),
        "outputs": (6, "*requested_output"),
        "raw_input_contents": (7, "*bytes"),
    },
    "infer_response": {
        "model_name": (1, "string"),
        "model_version": (2, "string"),
        "id": (3, "string"),
        "parameters": (4, "map:parameter"),
        "outputs": (5, "*tensor"),
        "raw_output_contents": (6, "*bytes"),
    },
    "stream_response": {"error_message": (1, "string"), "infer_response": (2, "infer_response")},
    "index_request": {"repository_name": (1, "string"), "ready": (2, "bool")},
    "index_response": {"models": (1, "*index_entry")},
    "index_entry": {"name": (1, "string"), "version": (2, "string"), "state": (3, "string")},
    "unload_request": {"repository_name": (1, "string"), "model_name": (2, "string")},
    "health_request": {"service": (1, "string")},
    "health_response": {"status": (1, "uint64")},
}
_FIXED = {"double": (1, "<d"), "float": (5, "<f")}


def encode(kind: str, value: dict) -> bytes:
    """The message `kind` with these fields; bytes pass in place of a string or a message."""
    out = b""
    for name, item in value.items():
        number, field_kind = MESSAGES[kind][name]
        if field_kind.startswith("map:"):
            for key, entry in item.items():
                pair = _field(1, "string", key) + _field(2, field_kind[4:], entry)
                out += _field(number, "bytes", pair)
        elif field_kind.startswith("*"):
            out += b"".join(_field(number, field_kind[1:], each) for each in item)
        else:
            out += _field(number, field_kind, item)
    return out


def decode(kind: str, data: bytes) -> dict:
    """The fields of a message: repeated ones as lists, maps as dicts, absent ones left out."""
    by_number = {number: (name, k) for name, (number, k) in MESSAGES[kind].items()}
    fields: dict = {}
    for number, wire, raw in _walk(data):
        if number not in by_number:
            continue
        name, field_kind = by_number[number]
        if field_kind.startswith("map:"):
            pair = {n: r for n, _, r in _walk(raw)}
            entry = decode(field_kind[4:], pair.get(2, b""))
            fields.setdefault(name, {})[pair.get(1, b"").decode()] = entry
        elif field_kind.startswith("*"):
            base = field_kind[1:]
            values = (
                _unpack(base, raw)
                if wire == 2 and base not in ("string", "bytes") and base not in MESSAGES
                else [_value(base, raw)]
            )
            fields.setdefault(name, []).extend(values)
        else:
            fields[name] = _value(field_kind, raw)
    return fields


def varint(value: int) -> bytes:
    """A base-128 varint; negative numbers as their 64-bit two's complement."""
    value &= 2**64 - 1
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)


def _field(number: int, kind: str, value) -> bytes:
    if kind in _FIXED:
        wire, code = _FIXED[kind]
        return varint(number << 3 | wire) + struct.pack(code, value)
    if kind in ("bool", "int64", "uint64"):
        return varint(number << 3) + varint(int(value))
    if not isinstance(value, bytes):
        value = encode(kind, value) if kind in MESSAGES else value.encode()
    return varint(number << 3 | 2) + varint(len(value)) + value


def _walk(data: bytes):
    offset = 0
    while offset < len(data):
        tag, offset = _varint_at(data, offset)
        wire = tag & 7
        if wire == 0:
            raw, offset = _varint_at(data, offset)
        else:
            if wire == 2:
                size, offset = _varint_at(data, offset)
            else:
                size = {1: 8, 5: 4}[wire]
            raw = data[offset : offset + size]
            assert len(raw) == size, "message ends inside a field"
            offset += size
        yield tag >> 3, wire, raw


def _varint_at(data: bytes, offset: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[offset]
        value |= (byte & 127) << shift
        offset, shift = offset + 1, shift + 7
        if byte < 128:
            return value, offset


def _value(kind: str, raw):
    if kind in _FIXED:
        return struct.unpack(_FIXED[kind][1], raw)[0]
    if kind == "bool":
        return bool(raw)
    if kind == "int64":
        return raw - 2**64 if raw >= 2**63 else raw
    if kind in {"uint64", "bytes"}:
        return raw
    return decode(kind, raw) if kind in MESSAGES else raw.decode()


def _unpack(kind: str, raw: bytes) -> list:
    if kind in _FIXED:
        code = _FIXED[kind][1]
        return [value for (value,) in struct.iter_unpack(code, raw)]
    values, offset = [], 0
    while offset < len(raw):
        value, offset = _varint_at(raw, offset)
        values.append(_value(kind, value))
    return values
