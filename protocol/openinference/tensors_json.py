"""Tensor elements to and from JSON: nested or flat, row-major, strictly typed.

Source: OIP inference_rest.md "Tensor Data". BOOL wants true/false, integers whole numbers in the
datatype's range, FP32/FP64 finite numbers, BYTES strings; FP16 and BF16 have no JSON form.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from openinference.datatypes import BOOL, BYTES, Datatype
from openinference.errors import InvalidInput
from openinference.messages import Tensor, TensorData, check_count


def decode(datatype: Datatype, shape: Sequence[int], data: object, where: str) -> TensorData:
    """JSON `data` as flat tensor data; raises InvalidInput naming `where`."""
    if not datatype.json:
        raise InvalidInput(
            f"{where}: {datatype.name} has no JSON form; send it as binary tensor data"
        )
    if not isinstance(data, list):
        raise InvalidInput(f"{where}: data must be a list")
    elements = _flatten(data, shape, where)
    check_count(shape, len(elements), where)
    if datatype is BYTES:
        return _texts(elements, where)
    return _numbers(datatype, elements, where)


def encode(tensor: Tensor) -> list[Any]:
    """A tensor's elements as a flat JSON list.

    Raises InvalidInput when JSON cannot carry them: FP16, BF16, or BYTES that are not UTF-8.
    """
    if not tensor.datatype.json:
        raise InvalidInput(
            f"output '{tensor.name}': {tensor.datatype.name} has no JSON form; "
            "ask for it with binary_data true"
        )
    if isinstance(tensor.data, tuple):
        try:
            return [element.decode() for element in tensor.data]
        except UnicodeDecodeError:
            raise InvalidInput(
                f"output '{tensor.name}': is not UTF-8; ask for it with binary_data true"
            ) from None
    values: list[Any] = tensor.data.tolist()
    return values


def _flatten(data: list[Any], shape: Sequence[int], where: str) -> list[Any]:
    """The elements of `data`, which is either flat or nested exactly as `shape` says."""
    if list not in map(type, data):
        return data
    level = data
    for depth, size in enumerate(shape):
        if depth == len(shape) - 1:
            break
        if not _all_of(level, list) or (depth == 0 and len(level) != size):
            break
        if not all(len(row) == shape[depth + 1] for row in level):
            break
        level = [element for row in level for element in row]
    if list in map(type, level):
        raise InvalidInput(f"{where}: data must be flat or nested as its shape {list(shape)} says")
    return level


def _all_of(elements: list[Any], *types: type) -> bool:
    return set(map(type, elements)).issubset(types)


def _texts(elements: list[Any], where: str) -> tuple[bytes, ...]:
    try:
        return tuple([element.encode() for element in elements])
    except (AttributeError, UnicodeEncodeError):
        raise InvalidInput(f"{where}: BYTES elements must be strings of valid Unicode") from None


def _numbers(datatype: Datatype, elements: list[Any], where: str) -> TensorData:
    dtype = datatype.numpy
    assert dtype is not None
    if datatype is BOOL:
        if not _all_of(elements, bool):
            raise InvalidInput(f"{where}: BOOL elements must be true or false")
    elif dtype.kind == "f":
        if not _all_of(elements, int, float):
            raise InvalidInput(f"{where}: {datatype.name} elements must be numbers")
        try:
            with np.errstate(over="ignore"):
                narrowed = np.array(elements, dtype=np.float64).astype(dtype)
        except OverflowError:
            narrowed = np.array([np.inf], dtype=dtype)
        if not np.isfinite(narrowed).all():
            raise InvalidInput(f"{where}: an element is out of the range of {datatype.name}")
        return narrowed
    else:
        bounds = np.iinfo(dtype.name)
        if not _all_of(elements, int):
            raise InvalidInput(f"{where}: {datatype.name} elements must be integers")
        if elements and (min(elements) < bounds.min or max(elements) > bounds.max):
            raise InvalidInput(
                f"{where}: {datatype.name} elements must be from {bounds.min} to {bounds.max}"
            )
    return np.array(elements, dtype=dtype)
