"""Terms are parsed to counts, and what is no term is told."""

import pytest

from keepwarm.tuner import slo
from keepwarm.tuner.errors import TuneError
from keepwarm.tuner.slo import Kind, Term


def test_every_kind_of_term():
    assert slo.parse("cold<=1%, failed<0.1%,wait_p95<=500ms,ttft_p99.9<=2s") == (
        Term("cold<=1%", Kind.COLD, 0.01),
        Term("failed<0.1%", Kind.FAILED, 0.001),
        Term("wait_p95<=500ms", Kind.WAIT, 0.05, 0.5),
        Term("ttft_p99.9<=2s", Kind.TTFT, 0.001, 2.0),
    )


@pytest.mark.parametrize(
    "text",
    ["", "cold<=1", "cold>=1%", "ttft<=2s", "ttft_p99<=fast", "cold<=101%", "cold<=1%,cold<=1%"],
)
def test_what_is_no_term_is_told(text):
    with pytest.raises(TuneError, match="--slo"):
        slo.parse(text)
