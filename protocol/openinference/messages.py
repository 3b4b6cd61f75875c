"""The V2 protocol's messages as frozen values, the same for JSON, binary and gRPC."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from math import prod
from types import MappingProxyType
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from openinference.datatypes import BYTES, Datatype
from openinference.errors import InvalidInput, shown

Parameters = Mapping[str, bool | int | float | str]
TensorData = tuple[bytes, ...] | npt.NDArray[Any]
NO_PARAMETERS: Final[Parameters] = MappingProxyType({})

MAX_DIMENSION = 2**63 - 1
# numpy's own bound is near; without one, the product of a shape costs seconds and megabytes.
MAX_RANK = 32


class Tensor(NamedTuple):
    """A tensor: `data` holds its elements flat, in row-major order.

    BYTES elements are a tuple of bytes, everything else a one-dimensional numpy array of
    `datatype.numpy`. Invariant: the product of `shape` is the number of elements.
    """

    name: str
    datatype: Datatype
    shape: tuple[int, ...]
    data: TensorData
    parameters: Parameters = NO_PARAMETERS


class RequestedOutput(NamedTuple):
    """An output asked for by name; `parameters` may hold `binary_data`."""

    name: str
    parameters: Parameters = NO_PARAMETERS


class InferRequest(NamedTuple):
    """An inference request; `outputs` None means all outputs."""

    model: str
    inputs: Sequence[Tensor]
    version: str | None = None
    id: str | None = None
    parameters: Parameters = NO_PARAMETERS
    outputs: Sequence[RequestedOutput] | None = None


class InferResponse(NamedTuple):
    """An inference answer; `version` None means that the model is not versioned."""

    model: str
    outputs: Sequence[Tensor]
    version: str | None = None
    id: str | None = None
    parameters: Parameters = NO_PARAMETERS


@dataclass(frozen=True, slots=True)
class TensorMetadata:
    """What a model takes or gives; -1 is a dimension of variable size."""

    name: str
    datatype: Datatype
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class ModelMetadata:
    """A model's face: platform and tensors."""

    name: str
    platform: str
    inputs: Sequence[TensorMetadata]
    outputs: Sequence[TensorMetadata]
    properties: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ServerMetadata:
    """A server's name, version and the protocol extensions it offers."""

    name: str
    version: str
    extensions: Sequence[str]


def element_count(shape: Sequence[int]) -> int:
    """Number of elements of a tensor of this shape; a scalar's shape [] holds one."""
    return prod(shape)


def checked_shape(shape: object, where: str) -> tuple[int, ...]:
    """`shape` as a tuple; raises InvalidInput unless it is a list of at most 32 integers.

    Each is from 0 to 2^63-1, gRPC's bound: its dimensions are int64.
    """
    if isinstance(shape, (list, tuple)) and len(shape) <= MAX_RANK:
        for size in shape:
            if type(size) is not int or not 0 <= size <= MAX_DIMENSION:
                break
        else:
            return tuple(shape)
    raise InvalidInput(
        f"{where}: shape must be a list of at most {MAX_RANK} integers from 0 to {MAX_DIMENSION}, "
        f"got {shown(shape)}"
    )


def check_count(shape: Sequence[int], count: int, where: str) -> None:
    """Raises InvalidInput unless a tensor of this shape has `count` elements."""
    expected = element_count(shape)
    if expected != count:
        raise InvalidInput(
            f"{where}: shape {list(shape)} holds {expected} element{'s' * (expected != 1)}, "
            f"data has {count}"
        )


def bytes_tensor(name: str, texts: Sequence[str], shape: Sequence[int] | None = None) -> Tensor:
    """A BYTES tensor of UTF-8 texts, of shape [n] unless given."""
    return Tensor(name, BYTES, tuple(shape or (len(texts),)), tuple([t.encode() for t in texts]))


def number_tensor(name: str, datatype: Datatype, values: Sequence[int | float]) -> Tensor:
    """A numeric tensor of shape [n]."""
    return Tensor(name, datatype, (len(values),), np.array(values, dtype=datatype.numpy))


class ModelState(StrEnum):
    """Where a model is between nothing and answering."""

    ASLEEP = "asleep"
    STARTING = "starting"
    READY = "ready"
    STOPPED = "stopped"


@dataclass(frozen=True, slots=True)
class ModelStatus:
    """How far a model's start is; `phase` is unknown (None) behind a proxy that holds requests.

    `elapsed_s` is how long the start has taken so far, `expected_s` how long nine of ten take.
    """

    state: ModelState
    phase: str | None = None
    elapsed_s: float | None = None
    expected_s: float | None = None
