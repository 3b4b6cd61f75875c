"""Strategies for tensors, as fixtures: `data.draw(tensors)`."""

from math import prod

import numpy as np
import pytest
from hypothesis import strategies as st

from openinference.datatypes import BOOL, BYTES, DATATYPES
from openinference.messages import Tensor

SHAPES = st.lists(st.integers(0, 4), max_size=3).map(tuple)
NAMES = st.text(min_size=1, max_size=12)


@st.composite
def _tensors(draw):
    datatype = draw(st.sampled_from(list(DATATYPES.values())))
    shape = draw(SHAPES)
    count = prod(shape)
    if datatype is BYTES:
        data = tuple(draw(st.lists(st.binary(max_size=9), min_size=count, max_size=count)))
    elif datatype is BOOL:
        data = np.array(draw(st.lists(st.booleans(), min_size=count, max_size=count)), dtype=bool)
    else:
        size = count * datatype.numpy.itemsize
        data = np.frombuffer(draw(st.binary(min_size=size, max_size=size)), datatype.numpy)
    return Tensor(draw(NAMES), datatype, shape, data)


@st.composite
def _json_tensors(draw):
    datatype = draw(st.sampled_from([each for each in DATATYPES.values() if each.json]))
    shape = draw(SHAPES)
    if datatype is BYTES:
        element = st.text(max_size=9).map(str.encode)
    elif datatype is BOOL:
        element = st.booleans()
    elif datatype.numpy.kind == "f":
        width = 8 * datatype.numpy.itemsize
        element = st.floats(width=width, allow_nan=False, allow_infinity=False)
    else:
        bounds = np.iinfo(datatype.numpy.name)
        element = st.integers(int(bounds.min), int(bounds.max))
    elements = draw(st.lists(element, min_size=prod(shape), max_size=prod(shape)))
    data = tuple(elements) if datatype is BYTES else np.array(elements, dtype=datatype.numpy)
    return Tensor(draw(NAMES), datatype, shape, data)


@pytest.fixture(scope="session")
def tensors():
    """Tensors of every datatype, any elements."""
    return _tensors()


@pytest.fixture(scope="session")
def json_tensors():
    """Tensors that JSON can carry."""
    return _json_tensors()


@pytest.fixture(scope="session")
def json_values():
    """Whatever a JSON body may hold."""
    scalars = st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text()
    return st.recursive(
        scalars,
        lambda inner: (
            st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=9), inner, max_size=4)
        ),
        max_leaves=8,
    )
