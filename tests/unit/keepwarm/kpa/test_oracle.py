"""The twin does what Knative's own autoscaler was recorded doing, row for row."""

import json
import math

import pytest

from keepwarm.kpa import InputError, Policy, recording, tables
from keepwarm.kpa.closed_loop import ClusterLoop
from keepwarm.kpa.decider import DeciderSpec
from keepwarm.kpa.fast_core import FAST
from keepwarm.kpa.open_loop import decider_rows, reconciler_rows
from keepwarm.kpa.twin import REFERENCE
from keepwarm.kpa.verify import verify


def test_both_engines_match_every_recorded_row(oracle):
    tallies = list(verify(oracle, [REFERENCE, FAST]))
    assert [t.mismatch for t in tallies if t.mismatch] == []
    rows = {
        engine: sum(t.matched for t in tallies if t.engine == engine)
        for engine in ("reference", "fast", "tables")
    }
    assert rows == {"reference": 226_700, "fast": 226_700, "tables": 2_535}
    assert len(tallies) == 205


def test_a_changed_row_is_found_and_told_with_both_values(tmp_path, oracle):
    content = recording.load(oracle / "burst_tbc0.json.gz")
    content["recon"][6][3] += 1
    (tmp_path / "changed.json").write_text(json.dumps(content))
    (tally,) = verify(tmp_path, [REFERENCE])
    assert tally.compared - tally.matched == 2  # by ways (b) and (c)
    row = content["recon"][6]
    assert tally.mismatch.startswith(f"(b) recon row 6: Knative {row}, twin [{row[0]},")


def test_a_row_too_few_is_a_mismatch(tmp_path, oracle):
    content = recording.load(oracle / "burst_tbc0.json.gz")
    content["pods"].pop()
    (tmp_path / "short.json").write_text(json.dumps(content))
    (tally,) = verify(tmp_path, [REFERENCE])
    assert "(c) pods row 18: Knative nothing, twin [" in tally.mismatch


@pytest.mark.parametrize("core", [REFERENCE, FAST], ids=lambda core: core.name)
def test_an_event_that_takes_reachability_back_needs_no_value(oracle, core):
    content = recording.load(oracle / "burst_tbc0.json.gz")
    content["input"]["events"] = [
        {"t_ms": 60_000, "op": "reach", "value": "Unreachable"},
        {"t_ms": 200_000, "op": "reach"},
    ]
    (trace,) = recording.parse("made.json", content)
    replay = ClusterLoop(trace, core).run()
    # What it did, given back as a recording, is what it does.
    content |= {column: getattr(replay, column) for column in recording.COLUMNS}
    (again,) = recording.parse("made.json", content)
    assert decider_rows(again, core) == replay.ticks
    assert reconciler_rows(again, core) == replay.recon


@pytest.mark.parametrize("core", [REFERENCE, FAST], ids=lambda core: core.name)
def test_windows_have_the_settings_of_the_moment_in_which_collecting_begins(core):
    spec = DeciderSpec.of(Policy(stable_window_s=60))
    scaler = core.scaler(spec, 0, 0)
    scaler.record(0, 50.0, 0.0)  # nobody collects yet
    edited = DeciderSpec.of(Policy(stable_window_s=6, aggregation="weighted-exponential"))
    scaler.change(edited, 100_000)
    scaler.start_collecting()
    scaler.record(1, 100.0, 0.0)
    # A weight of 1 - 0.0001 ** (1 / 6) for the only second.
    assert scaler.scale(1_500_000, 1).stable == pytest.approx(78.456, abs=1e-3)


@pytest.mark.parametrize("core", [REFERENCE, FAST], ids=lambda core: core.name)
def test_an_endless_rate_is_no_bound_and_a_target_that_is_no_number_decides_nothing(core):
    endless = Policy(target=1, utilization=1, max_scale_up_rate=math.inf)
    scaler = core.scaler(DeciderSpec.of(endless), 0, 0)
    scaler.start_collecting()
    scaler.record(1, 700.0, 0.0)
    assert scaler.scale(1_500_000, 1).desired == 700
    scaler = core.scaler(DeciderSpec.of(Policy(target=math.nan)), 0, 0)
    scaler.start_collecting()
    scaler.record(1, 700.0, 0.0)
    # Go's int32 of NaN.
    assert scaler.scale(1_500_000, 1).desired == -(2**31)


def test_what_is_no_recording_is_said_and_left_out(tmp_path, oracle):
    (tmp_path / "index.json").write_text("{}")
    (tmp_path / "tables.json.gz").write_bytes((oracle / "tables_sample_size.json.gz").read_bytes())
    tallies = list(verify(tmp_path, [REFERENCE]))
    assert [(t.path.name, t.engine, t.matched) for t in tallies] == [
        ("index.json", "", 0),
        ("tables.json.gz", "tables", 32),
    ]


def test_a_folder_without_recordings_is_refused(tmp_path):
    (tmp_path / "other.json").write_text("{}")
    with pytest.raises(InputError, match="no recording"):
        list(verify(tmp_path, [REFERENCE]))


def test_a_broken_file_is_named(tmp_path):
    (tmp_path / "half.json.gz").write_bytes(b"\x1f\x8b\x08")
    with pytest.raises(InputError, match=r"half\.json\.gz cannot be read"):
        list(verify(tmp_path, [REFERENCE]))


def test_floats_may_differ_by_a_billionth_integers_by_nothing():
    assert tables.same([1, 0.1], [1, 0.1 + 1e-11])
    assert not tables.same([1, 0.1], [1, 0.1 + 1e-8])
    assert not tables.same([1], [2])
    assert not tables.same([1], [1, 2])
