import logging
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import REGISTRY

from vllm_predictor.startup import Phase, Startup, process_began


def _active():
    return [
        phase
        for phase in Phase
        if REGISTRY.get_sample_value("keepwarm_startup_phase_active", {"phase": phase})
    ]


def _seconds(phase):
    return REGISTRY.get_sample_value("keepwarm_startup_phase_seconds", {"phase": phase})


def test_the_first_phase_begins_with_the_process():
    startup = Startup(100.0)
    assert startup.phase is Phase.IMPORT
    assert _active() == [Phase.IMPORT]
    assert {_seconds(phase) for phase in Phase} == {0}


def test_each_phase_takes_the_time_until_the_next(caplog):
    startup = Startup(100.0)
    for phase, now in (
        (Phase.CONFIG, 101.0),
        (Phase.ENGINE, 103.0),
        (Phase.WEIGHTS, 106.0),
        (Phase.ENGINE, 110.0),
        (Phase.WARMUP, 115.0),
    ):
        startup.enter(phase, now)
        assert startup.phase is phase
        assert _active() == [phase]
    with caplog.at_level(logging.INFO):
        startup.finish(121.0)
    expected = {"import": 1, "config": 2, "weights": 4, "engine": 8, "warmup": 6}
    assert startup.seconds == expected
    assert {phase: _seconds(phase) for phase in Phase} == expected
    assert startup.phase is None
    assert _active() == []
    assert REGISTRY.get_sample_value("keepwarm_startup_seconds") == 21
    assert "ready after 21.0 s: import 1.0 s, config 2.0 s, weights 4.0 s" in caplog.text


def test_after_the_end_no_phase_grows():
    startup = Startup(0.0)
    startup.finish(5.0)
    startup.finish(9.0)
    assert sum(startup.seconds.values()) == 5


@given(
    steps=st.lists(st.tuples(st.sampled_from(Phase), st.floats(0, 1000)), max_size=9),
    last=st.floats(0, 1000),
)
def test_the_phases_add_up_to_the_whole(steps, last):
    startup, now = Startup(50.0), 50.0
    for phase, seconds in steps:
        now += seconds
        startup.enter(phase, now)
    startup.finish(now + last)
    assert sum(startup.seconds.values()) == pytest.approx(now + last - 50.0)
    assert all(seconds >= 0 for seconds in startup.seconds.values())


def test_this_process_began_before_now():
    began = process_began()
    assert began < time.monotonic()
    assert process_began() == pytest.approx(began, abs=0.5)
