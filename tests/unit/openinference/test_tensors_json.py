import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from openinference import tensors_json, tensors_raw
from openinference.datatypes import DATATYPES
from openinference.errors import InvalidInput
from openinference.messages import Tensor


def _nested(shape, flat):
    return np.array([*flat, None], dtype=object)[:-1].reshape(shape).tolist()


@given(data=st.data())
def test_what_is_encoded_decodes_to_the_same_elements(data, json_tensors):
    tensor = data.draw(json_tensors)
    flat = orjson.loads(orjson.dumps(tensors_json.encode(tensor)))
    again = tensors_json.decode(tensor.datatype, tensor.shape, flat, "x")
    assert type(again) is type(tensor.data)
    assert tensors_raw.encode(Tensor("x", tensor.datatype, tensor.shape, again)) == (
        tensors_raw.encode(tensor)
    )


@given(data=st.data())
def test_nested_data_means_the_same_as_flat_data(data, json_tensors):
    tensor = data.draw(json_tensors.filter(lambda tensor: tensor.shape))
    flat = tensors_json.encode(tensor)
    nested = _nested(tensor.shape, flat)
    assert list(tensors_json.decode(tensor.datatype, tensor.shape, nested, "x")) == (
        list(tensors_json.decode(tensor.datatype, tensor.shape, flat, "x"))
    )


@given(data=st.data(), shape=st.lists(st.integers(0, 3), max_size=3))
def test_any_json_decodes_or_is_invalid_input(data, shape, json_values):
    datatype = data.draw(st.sampled_from(list(DATATYPES.values())))
    value = data.draw(json_values | st.lists(json_values, max_size=4))
    try:
        decoded = tensors_json.decode(datatype, shape, value, "input 'x'")
    except InvalidInput as error:
        assert error.message.startswith("input 'x': ")  # noqa: PT017 (either outcome is right)
    else:
        assert len(decoded) == np.prod(shape, dtype=int)


@pytest.mark.parametrize(
    ("datatype", "shape", "value", "told"),
    [
        ("INT32", [2], "12", "data must be a list"),
        ("INT32", [2], None, "data must be a list"),
        ("INT32", [2], [1], "shape [2] holds 2 elements, data has 1"),
        ("INT32", [1], [1, 2], "shape [1] holds 1 element, data has 2"),
        ("INT32", [0], [1], "shape [0] holds 0 elements, data has 1"),
        ("INT32", [2, 2], [[1, 2], [3]], "data must be flat or nested as its shape [2, 2] says"),
        ("INT32", [2, 2], [[1, 2], 3, 4], "data must be flat or nested as its shape [2, 2] says"),
        ("INT32", [2, 2], [[1], [2], [3], [4]], "nested as its shape"),
        ("INT32", [4], [[1, 2, 3, 4]], "nested as its shape"),
        ("INT32", [], [[1]], "nested as its shape"),
        ("INT32", [1], [1.0], "INT32 elements must be integers"),
        ("INT32", [1], [True], "INT32 elements must be integers"),
        ("INT32", [1], ["1"], "INT32 elements must be integers"),
        ("INT32", [1], [2**31], "INT32 elements must be from -2147483648 to 2147483647"),
        ("UINT8", [1], [-1], "UINT8 elements must be from 0 to 255"),
        ("BOOL", [1], [1], "BOOL elements must be true or false"),
        ("FP32", [1], ["1"], "FP32 elements must be numbers"),
        ("FP32", [1], [True], "FP32 elements must be numbers"),
        ("FP32", [1], [1e39], "out of the range of FP32"),
        ("FP64", [1], [10**400], "out of the range of FP64"),
        ("BYTES", [1], [1], "BYTES elements must be strings"),
        ("BYTES", [1], [None], "BYTES elements must be strings"),
        ("FP16", [1], [1.0], "FP16 has no JSON form"),
        ("BF16", [1], [1.0], "BF16 has no JSON form"),
    ],
)
def test_wrong_data_is_refused_with_what_is_allowed(datatype, shape, value, told):
    with pytest.raises(InvalidInput) as error:
        tensors_json.decode(DATATYPES[datatype], shape, value, "input 'x'")
    assert error.value.message.startswith("input 'x': ")
    assert told in error.value.message


def test_a_scalar_of_shape_nothing_holds_one_element():
    assert list(tensors_json.decode(DATATYPES["INT8"], [], [7], "x")) == [7]


@pytest.mark.parametrize(
    ("tensor", "told"),
    [
        (Tensor("y", DATATYPES["BYTES"], (1,), (b"\xff",)), "output 'y': is not UTF-8"),
        (Tensor("y", DATATYPES["FP16"], (1,), np.ones(1, "<f2")), "output 'y': FP16 has no JSON"),
    ],
)
def test_what_json_cannot_carry_points_to_binary_data(tensor, told):
    with pytest.raises(InvalidInput, match=f"{told}.*binary_data true"):
        tensors_json.encode(tensor)
