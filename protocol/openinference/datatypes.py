"""The V2 tensor datatypes: numpy type, size, and where gRPC keeps their typed contents.

Source: OIP inference_rest.md "Tensor Data Types" and inference_grpc.md "Tensor Data".
"""

from dataclasses import dataclass
from typing import Final

import numpy as np

from openinference.errors import InvalidInput, shown


@dataclass(frozen=True, slots=True)
class Datatype:
    """One datatype.

    `numpy` is little-endian; None for BYTES. BF16 has no numpy type: its elements are kept as the
    16 bits they are (uint16). `contents_field` is the field of InferTensorContents, None for the
    types that gRPC carries only raw; `json` tells whether JSON can carry it.
    """

    name: str
    numpy: np.dtype[np.generic] | None
    contents_field: str | None
    json: bool = True


def _number(name: str, code: str, contents_field: str | None, *, json: bool = True) -> Datatype:
    return Datatype(name, np.dtype(code), contents_field, json)


BOOL: Final = _number("BOOL", "?", "bool_contents")
UINT32: Final = _number("UINT32", "<u4", "uint_contents")
BYTES: Final = Datatype("BYTES", None, "bytes_contents")

DATATYPES: Final[dict[str, Datatype]] = {
    datatype.name: datatype
    for datatype in (
        BOOL,
        _number("UINT8", "u1", "uint_contents"),
        _number("UINT16", "<u2", "uint_contents"),
        UINT32,
        _number("UINT64", "<u8", "uint64_contents"),
        _number("INT8", "i1", "int_contents"),
        _number("INT16", "<i2", "int_contents"),
        _number("INT32", "<i4", "int_contents"),
        _number("INT64", "<i8", "int64_contents"),
        _number("FP16", "<f2", None, json=False),
        _number("BF16", "<u2", None, json=False),
        _number("FP32", "<f4", "fp32_contents"),
        _number("FP64", "<f8", "fp64_contents"),
        BYTES,
    )
}


def datatype_named(name: object, where: str) -> Datatype:
    """The datatype called `name`; raises InvalidInput naming `where` and what is allowed."""
    datatype = DATATYPES.get(name) if isinstance(name, str) else None
    if datatype is None:
        raise InvalidInput(
            f"{where}: datatype {shown(name)} is unknown; allowed: {', '.join(DATATYPES)}"
        )
    return datatype
