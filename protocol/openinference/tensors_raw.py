"""Tensor elements to and from raw bytes: little-endian, row-major, no padding.

Used by gRPC's raw contents and by the binary tensor data extension. A BYTES element is a 4-byte
little-endian length and that many bytes (OIP inference_grpc.md; Triton extension_binary_data.md).
"""

import struct
from collections.abc import Sequence

import numpy as np

from openinference.datatypes import Datatype
from openinference.errors import InvalidInput
from openinference.messages import Tensor, TensorData, check_count, element_count

_LENGTH = struct.Struct("<I")


def decode(
    datatype: Datatype, shape: Sequence[int], raw: bytes | memoryview, where: str
) -> TensorData:
    """Raw bytes as flat tensor data; raises InvalidInput naming `where` when sizes do not fit."""
    if datatype.numpy is None:
        elements = _split(raw, where)
        check_count(shape, len(elements), where)
        return elements
    size = datatype.numpy.itemsize
    expected = element_count(shape) * size
    if len(raw) != expected:
        raise InvalidInput(
            f"{where}: {datatype.name} of shape {list(shape)} takes {expected} bytes, "
            f"raw data has {len(raw)}"
        )
    array = np.frombuffer(raw, dtype=np.uint8 if datatype.numpy.kind == "b" else datatype.numpy)
    if datatype.numpy.kind == "b":
        if (array > 1).any():
            raise InvalidInput(f"{where}: BOOL bytes must be 0 or 1")
        array = array.astype(datatype.numpy)
    return array


def encode(tensor: Tensor) -> bytes:
    """A tensor's elements as raw bytes."""
    return joined(tensor.data) if isinstance(tensor.data, tuple) else tensor.data.tobytes()


def joined(elements: Sequence[bytes]) -> bytes:
    """BYTES elements as raw bytes."""
    return b"".join([_LENGTH.pack(len(element)) + element for element in elements])


def _split(raw: bytes | memoryview, where: str) -> tuple[bytes, ...]:
    elements: list[bytes] = []
    offset, end = 0, len(raw)
    while offset < end:
        start = offset + _LENGTH.size
        if start > end:
            raise InvalidInput(
                f"{where}: raw BYTES end inside the length of element {len(elements)}"
            )
        (length,) = _LENGTH.unpack_from(raw, offset)
        offset = start + length
        if offset > end:
            raise InvalidInput(
                f"{where}: raw BYTES element {len(elements)} says {length} bytes, "
                f"{end - start} are left"
            )
        elements.append(bytes(raw[start:offset]))
    return tuple(elements)
