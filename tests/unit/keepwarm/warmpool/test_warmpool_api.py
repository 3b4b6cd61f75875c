"""What a WarmPool may say; the same table is put to a real API server in tests/e2e."""

from datetime import timedelta
from pathlib import Path

import pytest
import yaml

from keepwarm.warmpool import durations
from keepwarm.warmpool.api import InvalidWarmPool, Spec, Target, Window, manifest

SPECS = yaml.safe_load((Path(__file__).parent / "specs.yaml").read_text())


@pytest.mark.parametrize("row", SPECS, ids=lambda row: row["what"])
def test_the_typed_spec_accepts_and_refuses_what_the_crd_does(row):
    expected = row.get("error", row.get("typed"))
    if expected is None:
        Spec.of(row["spec"])
        return
    with pytest.raises(InvalidWarmPool) as refused:
        Spec.of(row["spec"])
    assert expected in str(refused.value)


@pytest.mark.parametrize(
    "row", [row for row in SPECS if len(row) == 2], ids=lambda row: row["what"]
)
def test_what_is_written_reads_back_the_same(row):
    spec = Spec.of(row["spec"])
    assert Spec.of(manifest("chat", spec)["spec"]) == spec


def test_the_example_to_start_from_is_one():
    example = Path(__file__).parents[4] / "manifests/components/warm-pool/example.yaml"
    document = yaml.safe_load(example.read_text())
    assert manifest("chat", Spec.of(document["spec"]))["kind"] == document["kind"]


def test_a_manifest_leaves_out_what_is_default():
    spec = Spec(
        target=Target(inference_service="chat"),
        windows=(Window(name="office", start="08:00", end="18:00", replicas=2),),
    )
    assert manifest("chat", spec, namespace="llm") == {
        "apiVersion": "autoscaling.keepwarm.dev/v1alpha1",
        "kind": "WarmPool",
        "metadata": {"name": "chat", "namespace": "llm"},
        "spec": {
            "target": {"inferenceService": "chat"},
            "windows": [{"name": "office", "start": "08:00", "end": "18:00", "replicas": 2}],
        },
    }


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("1h30m", 5400), ("10m", 600), ("0s", 0), ("168h", 604800)]
)
def test_durations_are_read_and_written(text, seconds):
    assert durations.parse(text) == timedelta(seconds=seconds)
    assert durations.parse(durations.show(timedelta(seconds=seconds))) == timedelta(seconds=seconds)


@pytest.mark.parametrize("text", ["", "5", "5 m", "1.5h", "-5m", "1d", "30m1h"])
def test_what_is_no_duration_is_refused(text):
    with pytest.raises(ValueError, match="no duration"):
        durations.parse(text)
