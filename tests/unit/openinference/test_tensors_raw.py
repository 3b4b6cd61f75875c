import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from openinference import tensors_raw
from openinference.datatypes import DATATYPES
from openinference.errors import InvalidInput
from openinference.messages import Tensor

BYTES = DATATYPES["BYTES"]


@given(data=st.data())
def test_what_is_encoded_decodes_to_the_same_elements(data, tensors):
    tensor = data.draw(tensors)
    raw = tensors_raw.encode(tensor)
    again = tensors_raw.decode(tensor.datatype, tensor.shape, raw, "x")
    assert len(again) == len(tensor.data)
    assert tensors_raw.encode(Tensor("x", tensor.datatype, tensor.shape, again)) == raw
    if isinstance(tensor.data, tuple):
        assert again == tensor.data
    else:
        assert again.dtype == tensor.datatype.numpy


@given(
    datatype=st.sampled_from(list(DATATYPES.values())),
    shape=st.lists(st.integers(0, 3), max_size=3),
    raw=st.binary(max_size=40),
)
def test_any_bytes_decode_or_are_invalid_input(datatype, shape, raw):
    for view in (raw, memoryview(raw)):
        try:
            decoded = tensors_raw.decode(datatype, shape, view, "input 'x'")
        except InvalidInput as error:
            assert error.message.startswith("input 'x': ")  # noqa: PT017 (either outcome is right)
        else:
            assert tensors_raw.encode(Tensor("x", datatype, tuple(shape), decoded)) == raw


@pytest.mark.parametrize(
    ("datatype", "shape", "raw", "told"),
    [
        ("INT32", [2], b"\0" * 7, "INT32 of shape [2] takes 8 bytes, raw data has 7"),
        ("INT32", [2], b"\0" * 9, "INT32 of shape [2] takes 8 bytes, raw data has 9"),
        ("FP16", [1], b"", "FP16 of shape [1] takes 2 bytes, raw data has 0"),
        ("BOOL", [1], b"\2", "BOOL bytes must be 0 or 1"),
        ("BYTES", [1], b"\1\0\0", "raw BYTES end inside the length of element 0"),
        ("BYTES", [1], b"\2\0\0\0a", "raw BYTES element 0 says 2 bytes, 1 are left"),
        ("BYTES", [1], b"\xff\xff\xff\xff", "raw BYTES element 0 says 4294967295 bytes"),
        ("BYTES", [2], b"\0\0\0\0", "shape [2] holds 2 elements, data has 1"),
        ("BYTES", [1], b"\0\0\0\0\1", "raw BYTES end inside the length of element 1"),
    ],
)
def test_sizes_that_do_not_fit_are_told(datatype, shape, raw, told):
    with pytest.raises(InvalidInput) as error:
        tensors_raw.decode(DATATYPES[datatype], shape, raw, "input 'x'")
    assert error.value.message.startswith("input 'x': ")
    assert told in error.value.message


def test_a_bytes_element_is_its_length_in_4_little_endian_bytes_and_itself():
    assert tensors_raw.encode(Tensor("x", BYTES, (2,), (b"Hi", b""))) == b"\2\0\0\0Hi\0\0\0\0"


def test_numbers_are_little_endian():
    tensor = Tensor("x", DATATYPES["UINT32"], (1,), np.array([1], "<u4"))
    assert tensors_raw.encode(tensor) == b"\1\0\0\0"
