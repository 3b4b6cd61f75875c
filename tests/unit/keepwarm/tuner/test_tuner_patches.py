"""What is written can be applied: it passes our linter, Knative's rules, the WarmPool's schema."""

from dataclasses import replace
from pathlib import Path

import pytest
import yaml

import manifest_lint
from keepwarm.kpa import InputError
from keepwarm.kpa.annotations import validation_error
from keepwarm.kpa.config import AutoscalerConfig
from keepwarm.kpa.manifest import policy_of
from keepwarm.tuner import manifest as manifests
from keepwarm.tuner import patches
from keepwarm.tuner.prices import Prices
from keepwarm.tuner.setting import Setting
from keepwarm.tuner.week import Week
from keepwarm.warmpool.api import Spec
from manifest_lint import Severity

BASE = Path(__file__).parents[4] / "manifests/base/inferenceservice.yaml"
WEEK = Week(tuple(int(d < 5 and 8 <= h < 18) for d in range(7) for h in range(24)))
CONFIG = AutoscalerConfig()


@pytest.fixture
def manifest():
    return manifests.read(BASE.read_text(), CONFIG)


def tuned(manifest, **knobs):
    return Setting(replace(manifest.policy, **knobs))


def files(manifest, setting):
    return patches.files(manifest, setting, lead_s=61.0, zone="Europe/Berlin", prices=Prices(2.5))


KNOBS = {
    "stable_window_s": 90,
    "pod_retention_s": 1200.0,
    "scale_down_delay_s": 30,
    "target": 24.0,
    "container_concurrency": 32,
    "target_burst_capacity": 0.0,
    "activation_scale": 2,
    "initial_scale": 2,
}


def test_the_patched_manifest_is_the_recommended_policy(manifest):
    setting = tuned(manifest, **KNOBS)
    patch = yaml.safe_load(files(manifest, setting)["patch.yaml"])
    after = yaml.safe_dump(patches.merged(yaml.safe_load(BASE.read_text()), patch))
    assert policy_of(after, CONFIG) == setting.policy


def test_a_target_that_is_no_whole_number_goes_into_the_annotation(manifest):
    setting = tuned(manifest, target=2.5)
    patch = yaml.safe_load(files(manifest, setting)["patch.yaml"])
    after = yaml.safe_dump(patches.merged(yaml.safe_load(BASE.read_text()), patch))
    assert policy_of(after, CONFIG) == setting.policy


@pytest.mark.parametrize("knobs", [{}, KNOBS])
def test_the_patch_passes_keepwarm_lint(manifest, knobs, tmp_path):
    path = tmp_path / "patch.yaml"
    path.write_text(files(manifest, tuned(manifest, **knobs))["patch.yaml"])
    result = manifest_lint.lint(manifest_lint.read(str(path)))
    assert result.services
    assert result.at_least(Severity.WARNING).findings == []


def test_what_the_linter_would_warn_of_is_found_before_it_is_searched(manifest):
    fine = tuned(manifest, **(KNOBS | {"container_concurrency": 0})).policy
    assert patches.linted(manifest, fine) == []
    # A limit below the engine's batch: it never fills.
    assert patches.linted(manifest, tuned(manifest, **KNOBS).policy) == ["KW029"]


def test_only_what_acts_on_a_live_revision_is_put_on_it(manifest):
    text = files(manifest, tuned(manifest, **KNOBS))["revision.yaml"]
    live = yaml.safe_load(text)["metadata"]["annotations"]
    names = {key.removeprefix("autoscaling.knative.dev/") for key in live}
    assert names == {
        "window",
        "target",
        "target-burst-capacity",
        "scale-to-zero-pod-retention-period",
        "activation-scale",
    }
    assert validation_error(live, CONFIG) is None
    assert "only in patch.yaml: scale-down-delay, initial-scale, containerConcurrency" in text


def test_the_warm_pool_is_one_that_the_api_takes_and_says_the_same_hours(manifest):
    text = files(manifest, Setting(manifest.policy, WEEK))["warmpool.yaml"]
    document = yaml.safe_load(text)
    spec = Spec.of(document["spec"])
    assert spec.target.inference_service == "chat"
    assert spec.time_zone == "Europe/Berlin"
    assert spec.windows == tuple(WEEK.windows())
    assert spec.lead.fixed is not None
    assert spec.lead.fixed.total_seconds() == 61


def test_without_a_schedule_there_is_no_warm_pool(manifest):
    assert set(files(manifest, Setting(manifest.policy))) == {"patch.yaml", "revision.yaml"}


def test_the_asleep_tier_names_the_predictors_arguments(manifest):
    text = files(manifest, replace(tuned(manifest), sleep_after_s=60.0))["patch.yaml"]
    assert "--sleep_mode --sleep_after_s=60" in text
    assert "sleep" not in files(manifest, tuned(manifest))["patch.yaml"]


def test_a_knative_service_is_patched_in_its_template():
    text = """
apiVersion: serving.knative.dev/v1
kind: Service
metadata: {name: plain, namespace: here}
spec:
  template:
    spec:
      containerConcurrency: 4
      timeoutSeconds: 120
      containers: [{image: x, resources: {limits: {nvidia.com/gpu: 2}}}]
"""
    manifest = manifests.read(text, CONFIG)
    assert (manifest.gpus, manifest.timeout_s) == (2, 120.0)
    setting = tuned(manifest, stable_window_s=30, container_concurrency=8)
    patch = yaml.safe_load(files(manifest, setting)["patch.yaml"])
    after = yaml.safe_dump(patches.merged(yaml.safe_load(text), patch))
    assert policy_of(after, CONFIG) == setting.policy


def test_the_manifest_tells_gpus_time_out_and_the_engines_limit():
    document = yaml.safe_load(BASE.read_text())
    container = document["spec"]["predictor"]["containers"][0]
    container["args"].append("--max-num-seqs=48")
    container["resources"] = {"limits": {"nvidia.com/gpu": "4"}}
    manifest = manifests.read(yaml.safe_dump(document), CONFIG)
    assert (manifest.gpus, manifest.timeout_s, manifest.max_sequences) == (4, 330.0, 48)


def test_standard_mode_is_refused():
    text = BASE.read_text().replace("deploymentMode: Knative", "deploymentMode: Standard")
    with pytest.raises(InputError, match="Standard"):
        manifests.read(text, CONFIG)
