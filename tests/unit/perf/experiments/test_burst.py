"""A burst second by second, and the engine that it is scaled down to."""

from argparse import Namespace

import batching
import pytest
from burst import by_second, cost, scenarios
from cluster import Deployment, Pods
from figures import Outcome


def _ok(due, total):
    return Outcome(due, due + total, 200, whole=True, tokens=50)


def test_each_second_tells_what_was_due_what_ended_and_the_pods():
    outcomes = [
        _ok(0.1, 0.2),
        _ok(0.5, 0.9),
        Outcome(0.2, 1.9, 503, whole=False, tokens=50),
        Outcome(1.2, 1.5, 0, whole=False, tokens=50),
    ]
    first, second = by_second(outcomes, [Pods(1, 0), Pods(3, 2)])
    assert (first.offered, first.served, first.refused, first.failed) == (3, 1, 0, 0)
    assert (second.offered, second.served, second.refused, second.failed) == (1, 1, 1, 1)
    assert first.p50_ms == pytest.approx(200)
    assert (first.pods, first.ready, second.pods, second.ready) == (1, 0, 3, 2)


def test_gpu_seconds_are_those_of_predictors_that_existed_while_load_was_offered(row):
    seconds = tuple(by_second([_ok(0.1, 0.2)], [Pods(1, 0), Pods(3, 2), Pods(3, 3)]))
    given = Namespace(scale=10.0, gpu_price=3.6)
    spent = cost(seconds, row(served=100.0).figures, 2.0, given)
    # Four of a predictor, each a tenth of a GPU.
    assert spent.gpu_seconds == pytest.approx(0.4)
    assert spent.money == pytest.approx(0.0004)
    assert spent.served == 800


def test_an_engine_of_a_tenth_takes_as_long_over_a_tenth_of_the_batch():
    whole = batching.load("h200-bf16")
    wanted = Deployment("h200-bf16", 10, 26, least=1, most=7, start_s=20, window_s=10)
    tenth = wanted.scaled()
    assert tenth.duration_s(26, 30) == pytest.approx(whole.duration_s(251, 300), rel=1e-6)
    assert tenth.max_num_seqs == 26


def test_a_burst_begins_at_one_predictor_at_none_and_at_as_many_as_it_may_have():
    assert [each.least for each in scenarios(7).values()] == [1, 1, 0, 0, 0, 7]
