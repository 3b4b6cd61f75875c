"""The fast engine does what the reference does, bit for bit, on anything they are given."""

import os

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from keepwarm.kpa import (
    InputError,
    MinScaleSchedule,
    Phases,
    Pods,
    Policy,
    Requests,
    fast,
    fast_jit,
)
from keepwarm.kpa.decider import Decider, DeciderSpec
from keepwarm.kpa.fast import FastLog
from keepwarm.kpa.fast_core import FastDecider
from keepwarm.kpa.fast_memory import CHANGE, ENDING
from keepwarm.kpa.reference import RequestLoop

POLICIES = st.builds(
    Policy,
    metric=st.sampled_from(["concurrency", "rps"]),
    target=st.sampled_from([0.05, 0.5, 1, 2, 3, 10, 100]),
    utilization=st.sampled_from([0.7, 1, 0.3]),
    container_concurrency=st.sampled_from([0, 1, 2, 4, 8]),
    target_burst_capacity=st.sampled_from([-1, 0, 1, 5, 20, 211]),
    stable_window_s=st.sampled_from([6, 7, 15, 60, 300, 3600]),
    panic_window_percentage=st.sampled_from([1, 10, 50, 100]),
    panic_threshold_percentage=st.sampled_from([0, 110, 200, 1000]),
    max_scale_up_rate=st.sampled_from([1.1, 2, 1000]),
    max_scale_down_rate=st.sampled_from([1.1, 2, 10]),
    scale_down_delay_s=st.sampled_from([0, 1, 5, 60, 600]),
    scale_to_zero_grace_s=st.sampled_from([0.5, 6, 30]),
    pod_retention_s=st.sampled_from([0, 10, 100.25]),
    enable_scale_to_zero=st.booleans(),
    initial_scale=st.integers(0, 3),
    activation_scale=st.sampled_from([0, 2, 5]),
    min_scale=st.integers(0, 2),
    max_scale=st.sampled_from([0, 3, 8]),
    aggregation=st.sampled_from(["linear", "weighted-exponential"]),
    progress_deadline_s=st.sampled_from([600, 20]),
    reachable=st.booleans(),
    schedule=st.none()
    | st.builds(
        lambda begin, end, first, second, period: MinScaleSchedule(
            ((begin, first), (begin + end, second)), period_s=period
        ),
        *(st.sampled_from([0.0, 0.6, 50.0]), st.sampled_from([0.5, 100.5])),
        *(st.integers(0, 3), st.integers(0, 2), st.sampled_from([300.0, 1000.0])),
    ),
)
PODS = st.builds(
    Pods,
    st.lists(st.sampled_from([0.0, 0.5, 5, 20, 45.3, 700]), min_size=1, max_size=3).map(tuple),
    slowdown=st.sampled_from([0, 0.05, 0.5]),
    request_timeout_s=st.sampled_from([5, 30, 300]),
    drain_quiet_s=st.sampled_from([0, 3, 30]),
    termination_grace_s=st.sampled_from([1, 40, 300]),
)
PHASES = st.sampled_from(
    [Phases(), Phases(0, 0, 0, 0), Phases(1.9, 0.5, 0.5, 0.5), Phases(1.23, 0.9, 0.01, 0.77)]
)


@st.composite
def request_logs(draw):
    """Bursts and gaps; times often meet the second, or each other, exactly."""
    gap = st.one_of(st.just(0.0), st.floats(0, 3), st.integers(0, 5), st.floats(5, 400))
    gaps = draw(st.lists(gap, max_size=120))
    service = st.one_of(st.integers(0, 20), st.floats(0, 40))
    arrival = np.cumsum(gaps)
    services = draw(st.lists(service, min_size=len(gaps), max_size=len(gaps)))
    end = float(arrival[-1]) if gaps else 0.0
    return Requests(arrival, services, end + draw(st.sampled_from([0.5, 60.0, 1000.0])))


def outcome(run):
    """Everything in a result that both engines must agree on, or what it was refused with."""
    try:
        result = run()
    except InputError as error:
        return str(error)
    timeline = result.timeline
    arrays = (result.wait_s, result.verdict, result.outcome)
    arrays += (timeline.t_s, timeline.ready, timeline.starting, timeline.draining)
    sums = (result.ready_pod_seconds, result.starting_pod_seconds, result.draining_pod_seconds)
    return [a.tolist() for a in arrays], sums, result.pods_started, result.ticks


@settings(max_examples=200)
@given(policy=POLICIES, requests=request_logs(), pods=PODS, phases=PHASES)
def test_any_policy_on_any_log_gives_the_references_result(policy, requests, pods, phases):
    expected = outcome(RequestLoop(policy, requests, pods, phases).run)
    assert outcome(lambda: FastLog(requests, pods, phases).run(policy)) == expected


@given(policies=st.lists(POLICIES, min_size=2, max_size=4), requests=request_logs(), pods=PODS)
def test_a_policy_leaves_nothing_behind_for_the_next(policies, requests, pods):
    log = FastLog(requests, pods, Phases())
    together = [outcome(lambda p=p: log.run(p)) for p in policies]
    alone = [outcome(lambda p=p: FastLog(requests, pods, Phases()).run(p)) for p in policies]
    assert together == alone


OPERATIONS = st.lists(
    st.tuples(
        st.integers(0, 7000),  # milliseconds since the one before
        st.integers(-8, 2),  # seconds that a report is late or early
        st.sampled_from(["report", "report", "tick", "change"]),
        st.floats(0, 50, allow_subnormal=False),
        st.integers(0, 30),
        POLICIES,
    ),
    max_size=80,
)


@given(policy=POLICIES, operations=OPERATIONS, ready=st.integers(0, 4))
def test_deciders_agree_on_late_reports_silences_and_live_edits(policy, operations, ready):
    spec = DeciderSpec.of(policy)
    ours, theirs = FastDecider(spec, 0, ready), Decider(spec, 0, ready)
    for decider in (ours, theirs):
        decider.start_collecting()
    now = 10_000_000
    for wait_ms, late_s, kind, load, count, changed in operations:
        now += wait_ms * 1000
        if kind == "report":
            for decider in (ours, theirs):
                decider.record(now // 1_000_000 + late_s, load, float(count))
        elif kind == "change":
            for decider in (ours, theirs):
                decider.change(DeciderSpec.of(changed), now)
        else:
            mine, reference = ours.scale(now, count % 5), theirs.scale(now, count % 5)
            assert mine == reference
            assert ours.accept(mine) == theirs.accept(reference)
            assert (ours.desired, ours.excess_burst) == (theirs.desired, theirs.excess_burst)


def test_quiet_stretches_are_jumped_over_without_a_trace():
    requests = Requests([100.0, 9_000.0, 40_000.0], np.full(3, 2.0), 50_000.0)
    for policy in (
        Policy(),
        Policy(min_scale=2),
        Policy(stable_window_s=3600, scale_down_delay_s=600),
        Policy(target_burst_capacity=0),
    ):
        expected = RequestLoop(policy, requests, Pods((20.0,)), Phases())
        result = FastLog(requests, Pods((20.0,)), Phases()).run(policy)
        assert result.ticks == 24_999
        assert result.stepped_ticks < 8_000
        assert outcome(lambda result=result: result) == outcome(expected.run)


def test_a_run_that_needs_more_room_gets_it():
    rng = np.random.default_rng(5)
    requests = Requests(np.sort(rng.uniform(0, 900, 600)), rng.exponential(8, 600), 1000.0)
    policy = Policy(target=1, stable_window_s=6)
    log = FastLog(requests, Pods((3.0,)), Phases())
    revision = log._memory.revision._replace(wakes=np.zeros(1, np.int64))
    log._memory = log._memory._replace(
        endings=np.zeros(1, ENDING), changes=np.zeros(2, CHANGE), revision=revision
    )
    expected = outcome(RequestLoop(policy, requests, Pods((3.0,)), Phases()).run)
    assert outcome(lambda: log.run(policy)) == expected


def test_too_many_pods_are_refused_by_both_in_the_same_words():
    requests = Requests(np.full(12_000, 100.0), np.full(12_000, 50.0), 300.0)
    policy, pods = Policy(target=0.01, utilization=1), Pods((5.0,))
    told = outcome(lambda: FastLog(requests, pods, Phases()).run(policy))
    assert told == "The policy asks for more than 10000 pods at once."
    assert outcome(RequestLoop(policy, requests, pods, Phases()).run) == told


def test_compiled_code_is_kept_where_only_we_may_write(tmp_path, monkeypatch):
    monkeypatch.delenv("NUMBA_CACHE_DIR", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder = fast_jit.cache_folder()
    assert folder.parent == tmp_path / "cache"
    assert folder.stat().st_mode & 0o777 == 0o700
    # Somebody else could have put code there: it is not used.
    folder.chmod(0o777)
    monkeypatch.setattr(fast_jit.tempfile, "tempdir", str(tmp_path))
    assert fast_jit.cache_folder().parent == tmp_path


def test_without_a_home_that_can_be_written_compiled_code_goes_to_a_temporary_folder(
    tmp_path, monkeypatch
):
    (tmp_path / "file").touch()
    monkeypatch.delenv("NUMBA_CACHE_DIR", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    monkeypatch.setattr(fast_jit.tempfile, "tempdir", str(tmp_path))
    assert fast_jit.cache_folder().name.endswith(f"-{os.getuid()}")
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "chosen"))
    assert fast_jit.cache_folder().parent == tmp_path / "chosen"


def test_compiling_is_told_with_what_it_took_and_only_when_it_was_needed(tmp_path, monkeypatch):
    monkeypatch.setattr(fast, "FOLDER", tmp_path)
    told = []
    fast.compile_first(told.append)
    assert told[0] == "compiling the fast engine, once for this version ..."
    assert told[1].startswith("compiled in ")
    assert told[1].endswith(f" s, kept in {tmp_path}")
    (tmp_path / "kpa").mkdir()
    (tmp_path / "kpa/fast_loop.run-201.py311.nbi").touch()
    fast.compile_first(told.append)
    assert len(told) == 2


def test_changed_sources_have_another_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    names = set()
    for text in ("one", "two", "two"):
        (tmp_path / "fast_other.py").write_text(text)
        monkeypatch.setattr(fast_jit, "__file__", str(tmp_path / "fast_jit.py"))
        names.add(fast_jit.cache_folder().name)
    assert len(names) == 2
