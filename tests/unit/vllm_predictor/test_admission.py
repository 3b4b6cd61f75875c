"""The bound on sequences in the engine."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openinference.errors import Reason, Unavailable
from vllm_predictor.admission import LEAST_RETRY_S, MOST_RETRY_S, Admission


@given(st.integers(1, 8), st.lists(st.integers(1, 10)))
def test_never_more_than_the_bound_is_in_unless_one_request_is_larger(bound, requests):
    admission = Admission(bound)
    inside = []
    for sequences in requests:
        if inside and sum(inside) + sequences > bound:
            with pytest.raises(Unavailable) as refused:
                admission.enter(sequences, 0.0)
            assert refused.value.reason is Reason.FULL
            admission.leave(inside.pop(0), 0.0)
        else:
            admission.enter(sequences, 0.0)
            inside.append(sequences)
        assert admission.sequences == sum(inside)
        assert sum(inside) <= bound or len(inside) == 1


def test_the_retry_time_is_what_the_measured_rate_needs():
    admission = Admission(100)
    # Two sequences end each second, for long.
    for second in range(200):
        admission.enter(2, second)
        admission.leave(2, second)
    admission.enter(100, 200)
    with pytest.raises(Unavailable) as raised:
        admission.enter(20, 200)
    assert raised.value.retry_after_s == pytest.approx(20 / 2, rel=0.15)


def test_the_retry_time_is_bounded_however_slow_or_fast_the_engine_is():
    assert Admission(1).retry_after_s(1, 0.0) == LEAST_RETRY_S
    slow = Admission(1)
    slow.enter(1, 0.0)
    slow.leave(1, 0.0)
    assert slow.retry_after_s(1000, 100.0) == MOST_RETRY_S
