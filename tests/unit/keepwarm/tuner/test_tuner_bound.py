"""The clairvoyant bound is one: nobody whom the twin can simulate pays less."""

import itertools
from datetime import UTC, datetime

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from keepwarm.kpa import MinScaleSchedule, Outcome, Pods, Policy, Requests, simulate
from keepwarm.tuner import slo
from keepwarm.tuner.bound import lower_bound
from keepwarm.tuner.hybrid import hybrid_histogram
from keepwarm.tuner.prices import Prices
from keepwarm.tuner.score import score
from keepwarm.tuner.workload import Workload

PODS = Pods((40.0,))
TERMS = slo.parse("cold<=1%")


def make_workload(arrival, service, end_s, *, pods=PODS, block_s=None):
    return Workload(
        name="made",
        begins=datetime(2026, 1, 5, tzinfo=UTC),
        zone=UTC,
        requests=Requests(arrival, service, end_s),
        prefill_s=None,
        pods=pods,
        block_s=block_s or end_s,
    )


@st.composite
def workloads(draw):
    """Bursts and silences, short and long services, one or several start-up times."""
    gaps = draw(
        st.lists(
            st.one_of(st.floats(0, 3), st.floats(10, 90), st.floats(100, 900)),
            min_size=1,
            max_size=14,
        )
    )
    services = draw(
        st.lists(
            st.one_of(st.floats(0, 2), st.floats(5, 120)), min_size=len(gaps), max_size=len(gaps)
        )
    )
    arrival = np.cumsum(gaps)
    end = float(arrival[-1]) + draw(st.floats(0.01, 400))
    starts = draw(st.lists(st.floats(0.5, 70), min_size=1, max_size=3))
    return make_workload(
        arrival,
        services,
        end,
        pods=Pods(tuple(starts), request_timeout_s=draw(st.sampled_from([60.0, 300.0]))),
        block_s=end / draw(st.integers(1, 4)),
    )


@st.composite
def policies(draw):
    """Knative's knobs, and sometimes a schedule that nobody would come to by hindsight alone."""
    schedule = None
    if draw(st.booleans()):
        offsets = sorted(draw(st.sets(st.integers(0, 3000), min_size=1, max_size=5)))
        schedule = MinScaleSchedule(
            tuple((float(at), draw(st.integers(0, 2))) for at in offsets), period_s=4000.0
        )
    return Policy(
        target=draw(st.sampled_from([1.0, 4.0, 100.0])),
        container_concurrency=draw(st.sampled_from([0, 1, 4])),
        target_burst_capacity=draw(st.sampled_from([-1.0, 0.0, 211.0])),
        stable_window_s=draw(st.sampled_from([6, 30, 60, 300])),
        scale_down_delay_s=draw(st.sampled_from([0, 30, 200])),
        pod_retention_s=draw(st.sampled_from([0.0, 45.0, 400.0])),
        initial_scale=draw(st.sampled_from([1, 2])),
        min_scale=draw(st.sampled_from([0, 0, 0, 1])),
        schedule=schedule,
    )


@given(
    workloads(),
    policies(),
    st.sampled_from([0.0, 20.0, 600.0]),
    st.sampled_from([(1, 1, 0), (1, 2, 0), (2, 4, 1)]),
    st.data(),
)
def test_no_policy_costs_less_than_the_bound_for_its_cold_requests(
    workload, policy, linger_s, nodes, data
):
    per_pod, per_node, reserved = nodes
    prices = Prices(3.0, per_pod, per_node, node_linger_s=linger_s, reserved_nodes=reserved)
    (result,) = simulate([policy], workload.requests, workload.pods)
    if np.isin(result.outcome, (Outcome.REJECTED, Outcome.CUT)).any():
        return
    found = score(result, workload, TERMS, prices)
    concurrency = policy.container_concurrency
    first = data.draw(st.integers(0, workload.blocks - 1))
    for block in {0, first}:
        from_s = float(workload.edges_s[block])
        bound = lower_bound(workload, prices, from_s=from_s, concurrency=concurrency)
        part = found.part(slice(block, None))
        least = bound.cost(part.cold.sum(), part.failed.sum())
        assert part.cost.sum() >= least - 1e-6


@given(workloads(), st.sampled_from([0.0, 300.0]))
def test_nor_does_the_hybrid_histogram(workload, linger_s):
    prices = Prices(1.0, node_linger_s=linger_s)
    found = hybrid_histogram(workload, prices)
    bound = lower_bound(workload, prices)
    assert found.cost.sum() >= bound.cost(found.cold.sum()) - 1e-6


@given(
    st.lists(st.integers(5, 200), min_size=1, max_size=5),
    st.integers(1, 40),
    st.integers(0, 5),
)
def test_with_no_cold_request_it_is_the_cheapest_of_all_ways_to_cut_the_time(gaps, start, keep):
    """Every subset of silences is tried: bridged, or ended and begun again a start-up earlier."""
    arrival = np.cumsum([1000, *gaps]).astype(float)
    workload = make_workload(
        arrival,
        np.ones(len(arrival)),
        float(arrival[-1]) + 1000,
        pods=Pods((float(start),), drain_quiet_s=float(keep)),
    )
    tail = max(1.0, keep)
    cheapest = np.inf
    for cuts in itertools.product((False, True), repeat=len(gaps)):
        on, begin = 0.0, arrival[0]
        for at, cut in enumerate(cuts):
            if cut and arrival[at + 1] - start >= arrival[at] + tail:
                on += arrival[at] + tail - begin
                begin = arrival[at + 1] - start
        on += arrival[-1] + tail - begin
        cheapest = min(cheapest, on)
    prices = Prices(3600.0, node_linger_s=0)
    assert lower_bound(workload, prices).cost(0) == pytest.approx(cheapest)


def test_more_cold_requests_allow_less_money_and_never_a_negative_sum():
    workload = make_workload([500.0, 2000.0, 2001.0, 9000.0], [40.0] * 4, 10_000.0)
    bound = lower_bound(workload, Prices(1.0, node_linger_s=0))
    costs = [bound.cost(k) for k in range(6)]
    assert costs == sorted(costs, reverse=True)
    assert costs[-1] >= 0


def test_work_bounds_what_needs_several_pods():
    arrival = np.linspace(100, 200, 400)
    workload = make_workload(arrival, np.full(400, 30.0), 2000.0, pods=Pods((20.0,)))
    prices = Prices(3600.0, node_linger_s=0)
    # 400 x 30 s of work, two at a time.
    assert lower_bound(workload, prices, concurrency=2).cost(0) == pytest.approx(6000)
    assert lower_bound(workload, prices).cost(0) < 300
    requests = Requests(arrival, np.full(400, 30.0), 2000.0)
    policy = Policy(target=2, container_concurrency=2, target_burst_capacity=-1)
    (result,) = simulate([policy], requests, workload.pods)
    assert result.pod_seconds > 6000
