"""`keepwarm kpa` takes real manifests and traces, and tells what it cannot use."""

import json

import pytest
from typer.testing import CliRunner

from keepwarm.cli import app
from keepwarm.kpa import InputError
from keepwarm.kpa.config import AutoscalerConfig
from keepwarm.kpa.manifest import config_of, policy_of, timeout_s_of

ISVC = """
apiVersion: serving.kserve.io/v1beta1
kind: InferenceService
metadata:
  name: llm
  annotations:
    autoscaling.knative.dev/window: 90s
    autoscaling.knative.dev/min-scale: "7"
spec:
  predictor:
    minReplicas: 0
    maxReplicas: 4
    scaleTarget: 8
    containerConcurrency: 16
    annotations:
      autoscaling.knative.dev/window: 120s
"""


def run(*arguments):
    return CliRunner().invoke(app, ["kpa", *map(str, arguments)])


def test_an_inference_services_fields_and_annotations_become_the_policy():
    policy = policy_of(ISVC, AutoscalerConfig())
    # KServe drops min-scale annotations; the component's annotations win.
    assert (policy.min_scale, policy.max_scale, policy.stable_window_s) == (0, 4, 120)
    assert (policy.target, policy.container_concurrency) == (8, 16)


def test_an_inference_service_without_min_replicas_keeps_one():
    text = ISVC.replace("    minReplicas: 0\n", "")
    assert policy_of(text, AutoscalerConfig()).min_scale == 1


def test_what_knatives_webhook_refuses_is_refused_in_its_words():
    with pytest.raises(InputError, match="expected 6s <= 5s <= 1h0m0s: autoscaling"):
        policy_of(ISVC.replace("120s", "5s"), AutoscalerConfig())


def test_other_autoscalers_and_other_kinds_are_refused():
    text = ISVC.replace("window: 120s", "class: hpa.autoscaling.knative.dev")
    with pytest.raises(InputError, match="autoscaler is hpa"):
        policy_of(text, AutoscalerConfig())
    with pytest.raises(InputError, match="There is no InferenceService"):
        policy_of("kind: Pod", AutoscalerConfig())
    with pytest.raises(InputError, match="has no transformer"):
        policy_of(ISVC, AutoscalerConfig(), component="transformer")


SERVICE = """
apiVersion: serving.knative.dev/v1
kind: Service
metadata: {name: llm}
spec:
  template:
    metadata:
      annotations:
        autoscaling.knative.dev/window: 40s
        serving.knative.dev/progress-deadline: 90s
    spec: {containerConcurrency: 2}
"""


def test_a_knative_service_is_read_from_its_template_and_checked_like_the_webhook():
    policy = policy_of(SERVICE, AutoscalerConfig())
    assert (policy.stable_window_s, policy.container_concurrency) == (40, 2)
    assert policy.progress_deadline_s == 90
    for change, message in (
        (("90s", "1500ms"), "is not at second precision"),
        (("90s", "-1s"), "must be positive"),
        (("90s", "soon"), "invalid value: soon"),
        (("containerConcurrency: 2", "containerConcurrency: 1001"), "from 0 to 1000"),
        (
            ("{name: llm}", "{annotations: {autoscaling.knative.dev/min-scale: '1'}}"),
            "must be put under",
        ),
    ):
        with pytest.raises(InputError, match=message):
            policy_of(SERVICE.replace(*change), AutoscalerConfig())


def test_the_request_timeout_is_the_manifests_or_knatives():
    assert timeout_s_of(SERVICE) == 300
    changed = SERVICE.replace("{containerConcurrency: 2}", "{timeoutSeconds: 45}")
    assert timeout_s_of(changed) == 45
    assert timeout_s_of(ISVC.replace("maxReplicas: 4", "timeout: 600")) == 600
    with pytest.raises(InputError, match="whole seconds above 0"):
        timeout_s_of(changed.replace("45", "0"))


def test_a_revision_without_a_route_is_unreachable():
    text = (
        "kind: Revision\nmetadata: {labels: {serving.knative.dev/routingState: reserve}}\nspec: {}"
    )
    assert not policy_of(text, AutoscalerConfig()).reachable
    assert policy_of(text.replace("reserve", "active"), AutoscalerConfig()).reachable


def test_an_inference_service_that_knative_does_not_scale_is_refused():
    text = ISVC.replace(
        "window: 90s", "window: 90s\n    serving.kserve.io/deploymentMode: Standard"
    )
    with pytest.raises(InputError, match="autoscaler does not scale it"):
        policy_of(text, AutoscalerConfig())


def test_the_clusters_settings_are_read_from_its_config_map():
    text = "kind: ConfigMap\ndata: {stable-window: 2m, target-burst-capacity: '0'}"
    policy = policy_of(ISVC.replace("120s", "60s"), config_of(text))
    assert (policy.stable_window_s, policy.target_burst_capacity) == (60, 0)
    with pytest.raises(InputError, match="stable-window = 5s"):
        config_of("kind: ConfigMap\ndata: {stable-window: 5s}")


def test_verify_prints_rows_compared_and_matched(tmp_path, oracle):
    name = "burst_tbc0.json.gz"
    (tmp_path / name).write_bytes((oracle / name).read_bytes())
    result = run("verify", tmp_path)
    assert result.exit_code == 0
    assert f"{name}  reference  1511 of 1511 rows match" in result.output
    assert f"{name}  fast  1511 of 1511 rows match" in result.output
    assert result.output.endswith("3022 of 3022 rows match\n")


def test_verify_ends_with_1_and_the_first_mismatch(tmp_path, oracle):
    from keepwarm.kpa import recording

    content = recording.load(oracle / "burst_tbc0.json.gz")
    content["ticks"][20][5] += 1
    (tmp_path / "changed.json").write_text(json.dumps(content))
    result = run("verify", tmp_path)
    assert result.exit_code == 1
    assert "first mismatch: (a) ticks row 20: Knative [" in result.output


def test_simulate_prints_the_replicas_and_what_requests_met(tmp_path):
    (tmp_path / "isvc.yaml").write_text(ISVC)
    rows = [{"timestamp": t, "input_length": 1, "output_length": 1} for t in (200000, 210000)]
    (tmp_path / "t.jsonl").write_text("\n".join(map(json.dumps, rows)))
    options = ["simulate", "--trace", tmp_path / "t.jsonl", "--isvc", tmp_path / "isvc.yaml"]
    refused = run(*options, "--cold-start", "20s")
    assert refused.exit_code == 2
    assert "no service times" in refused.output
    result = run(*options, "--cold-start", "20s", "--service-time", "2s", "--json")
    assert result.exit_code == 0
    told = json.loads(result.stdout)
    assert told["requests"] == 2
    assert told["pods_started"] >= 1
