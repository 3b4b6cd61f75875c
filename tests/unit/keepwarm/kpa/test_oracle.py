"""The twin does what Knative's own autoscaler was recorded doing, row for row."""

import json

import pytest

from keepwarm.kpa import InputError, recording, tables
from keepwarm.kpa.fast_core import FAST
from keepwarm.kpa.twin import REFERENCE
from keepwarm.kpa.verify import verify


def test_both_engines_match_every_recorded_row(oracle):
    tallies = list(verify(oracle, [REFERENCE, FAST]))
    assert [t.mismatch for t in tallies if t.mismatch] == []
    rows = {
        engine: sum(t.matched for t in tallies if t.engine == engine)
        for engine in ("reference", "fast", "tables")
    }
    assert rows == {"reference": 226_700, "fast": 226_700, "tables": 1_159}
    assert len(tallies) == 203


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
