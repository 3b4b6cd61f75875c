"""Nodes are billed from when a pod needs one until it has lingered; time between edges adds up."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from keepwarm.kpa import Timeline
from keepwarm.tuner.errors import TuneError
from keepwarm.tuner.intervals import Intervals, integral
from keepwarm.tuner.prices import Prices


def timeline(*rows):
    t, pods = np.asarray(rows, float).T
    none = np.zeros(len(t), np.int64)
    return Timeline(t, pods.astype(np.int64), none, none)


def test_a_node_lingers_and_a_pod_that_comes_back_in_time_finds_it():
    prices = Prices(1.0, node_linger_s=100)
    pods = timeline((0, 0), (50, 1), (60, 0), (120, 1), (130, 0))
    # From 50 to 130, and 100 s more.
    billed = prices.node_seconds(pods, 1000.0, np.asarray([0.0, 100.0, 1000.0]))
    assert billed.tolist() == [50, 130]


def test_a_pod_that_frees_no_node_saves_nothing():
    two_on_a_node = Prices(1.0, gpus_per_pod=4, gpus_per_node=8, node_linger_s=0)
    edges = np.asarray([0.0, 100.0])
    full = two_on_a_node.node_seconds(timeline((0, 2)), 100.0, edges)
    half = two_on_a_node.node_seconds(timeline((0, 2), (10, 1)), 100.0, edges)
    none = two_on_a_node.node_seconds(timeline((0, 2), (10, 0)), 100.0, edges)
    assert (full.tolist(), half.tolist(), none.tolist()) == ([100], [100], [10])


def test_reserved_nodes_are_paid_for_in_any_case():
    prices = Prices(1.0, node_linger_s=0, reserved_nodes=1)
    billed = prices.node_seconds(timeline((0, 0), (10, 2), (20, 0)), 100.0, np.asarray([0.0, 100]))
    assert billed.tolist() == [110]


@given(
    st.lists(st.tuples(st.integers(1, 40), st.integers(0, 4)), min_size=1, max_size=12),
    st.integers(0, 60),
    st.integers(1, 3),
    st.integers(0, 2),
)
def test_each_second_bills_the_most_nodes_needed_within_the_linger_before_it(
    steps, linger, per_node, reserved
):
    t = np.concatenate(([0], np.cumsum([length for length, _ in steps])[:-1]))
    pods = [count for _, count in steps]
    end = int(sum(length for length, _ in steps)) + 30
    prices = Prices(1.0, gpus_per_node=per_node, node_linger_s=linger, reserved_nodes=reserved)
    each = np.repeat(pods, np.diff(np.append(t, end)))
    nodes = -(-each // per_node)
    slow = [max(reserved, nodes[max(0, s - linger) : s + 1].max()) for s in range(end)]
    edges = np.asarray([0.0, end // 3, end])
    fast = prices.node_seconds(timeline(*zip(t, pods, strict=True)), float(end), edges)
    assert fast.tolist() == pytest.approx([sum(slow[: end // 3]), sum(slow[end // 3 :])])


@given(st.lists(st.tuples(st.integers(0, 60), st.integers(0, 30)), max_size=10))
def test_a_union_covers_each_second_that_any_stretch_covers(stretches):
    begin = np.asarray([b for b, _ in stretches], float)
    end = np.asarray([b + length for b, length in stretches], float)
    covered = {s for b, length in stretches for s in range(b, b + length)}
    union = Intervals.union(begin, end)
    assert union.total_s == len(covered)
    edges = np.asarray([0.0, 13, 40, 100])
    wanted = [sum(low <= s < high for s in covered) for low, high in ((0, 13), (13, 40), (40, 100))]
    assert union.within(edges).tolist() == wanted


def test_integral_of_steps():
    area = integral(
        np.asarray([0.0, 10]), np.asarray([2.0, 5]), 20.0, np.asarray([5.0, 10, 12, 20])
    )
    assert area.tolist() == [10, 20, 30, 70]


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"per_gpu_hour": 0}, "--gpu-price"),
        ({"per_gpu_hour": float("nan")}, "--gpu-price"),
        ({"per_gpu_hour": 1, "gpus_per_pod": 2}, "--gpus-per-node"),
        ({"per_gpu_hour": 1, "node_linger_s": -1}, "--node-linger"),
        ({"per_gpu_hour": 1, "asleep_per_pod_hour": 2}, "--asleep-price"),
    ],
)
def test_a_price_that_cannot_be_is_told(wrong, told):
    with pytest.raises(TuneError, match=told):
        Prices(**wrong)
