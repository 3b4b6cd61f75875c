"""Every decoder that the fuzzer knows, under hypothesis: any bytes, and good ones with damage."""

import importlib
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

FUZZ = Path(__file__).parents[2] / "fuzz"


def _fuzzers(name):
    sys.path.insert(0, str(FUZZ))
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(str(FUZZ))


DECODERS = {decoder.__name__: decoder for decoder in _fuzzers("targets").DECODERS}
SEEDS = _fuzzers("seeds").seeds()


@st.composite
def _damaged(draw, seeds):
    seed = draw(st.sampled_from(seeds))
    start = draw(st.integers(0, len(seed)))
    end = draw(st.integers(start, min(len(seed), start + 9)))
    return seed[:start] + draw(st.binary(max_size=9)) + seed[end:]


@pytest.mark.parametrize("name", DECODERS)
@given(data=st.data())
def test_any_bytes_give_a_value_or_one_of_our_errors(name, data):
    DECODERS[name](data.draw(st.binary(max_size=200) | _damaged(SEEDS[name])))
