"""The twin beside ten recorded minutes of a real Knative, each service under its own policy."""

from pathlib import Path

import pytest

from tests.living_twin import Steps, best, load

RECORDED = {
    each.name: each for each in load(Path(__file__).parents[3] / "data/living_twin.json.gz")
}


@pytest.mark.parametrize("name", RECORDED)
def test_the_twin_does_what_a_real_cluster_did(name: str) -> None:
    compared = best(RECORDED[name])
    assert compared.events > 30
    assert compared.unmet == []
    assert compared.apart < 0.05


def test_another_policy_is_told_from_the_one_that_was_running() -> None:
    recording = RECORDED["proxied"]
    other = recording.manifest.replace("window: 20s", "window: 40s")
    assert other != recording.manifest
    compared = best(type(recording)(**vars(recording) | {"manifest": other}))
    assert len(compared.unmet) > 5


def test_steps_hold_until_the_next() -> None:
    steps = Steps()
    for t_s, count in ((1.0, 1), (2.0, 1), (3.5, 3), (9.0, 0)):
        steps.add(t_s, count)
    assert steps.rises() == [(1.0, 1), (3.5, 3)]
    assert steps.zeros() == [9.0]
    assert steps.sampled(11) == [0, 1, 1, 1, 3, 3, 3, 3, 3, 0, 0]
    assert steps.around(5.0, 2.0) == {1, 3}
