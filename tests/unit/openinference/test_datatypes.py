import numpy as np
import pytest

from openinference.datatypes import DATATYPES, datatype_named
from openinference.errors import InvalidInput
from openinference.proto import inference_pb2 as pb


@pytest.mark.parametrize(
    ("name", "size", "field"),
    [
        ("BOOL", 1, "bool_contents"),
        ("UINT8", 1, "uint_contents"),
        ("UINT16", 2, "uint_contents"),
        ("UINT32", 4, "uint_contents"),
        ("UINT64", 8, "uint64_contents"),
        ("INT8", 1, "int_contents"),
        ("INT16", 2, "int_contents"),
        ("INT32", 4, "int_contents"),
        ("INT64", 8, "int64_contents"),
        ("FP16", 2, None),
        ("BF16", 2, None),
        ("FP32", 4, "fp32_contents"),
        ("FP64", 8, "fp64_contents"),
        ("BYTES", None, "bytes_contents"),
    ],
)
def test_each_datatype_has_its_size_and_its_grpc_field(name, size, field):
    datatype = datatype_named(name, "input 'x'")
    assert (datatype.numpy and datatype.numpy.itemsize) == size
    assert datatype.contents_field == field
    assert field is None or field in pb.InferTensorContents.DESCRIPTOR.fields_by_name


def test_elements_are_little_endian_on_any_machine():
    for datatype in DATATYPES.values():
        if datatype.numpy is not None:
            assert datatype.numpy == datatype.numpy.newbyteorder("<")


def test_only_fp16_and_bf16_have_no_json_form():
    assert {name for name, datatype in DATATYPES.items() if not datatype.json} == {"FP16", "BF16"}


def test_a_bfloat16_is_kept_as_its_16_bits():
    assert DATATYPES["BF16"].numpy == np.dtype("<u2")


@pytest.mark.parametrize("name", ["bytes", "STRING", "", None, 7, ["BYTES"], {}, "x" * 10**5])
def test_an_unknown_datatype_is_refused_with_what_is_allowed(name):
    with pytest.raises(InvalidInput, match=r"input 'x': datatype .* allowed: BOOL, UINT8") as error:
        datatype_named(name, "input 'x'")
    assert len(error.value.message) < 300
