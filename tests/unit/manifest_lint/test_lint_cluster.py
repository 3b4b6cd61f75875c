"""What a cluster's ConfigMaps say, and what follows for the rules."""

import json

import pytest
import yaml

from manifest_lint.cluster import STOCK, from_config_maps
from manifest_lint.documents import InputError
from manifest_lint.examples import document
from manifest_lint.linter import lint
from manifest_lint.live import read_cluster

POD_FIELD = "kubernetes.podspec-nodeselector"
CLAIM = "kubernetes.podspec-persistent-volume-claim"
MOUNTED = {
    "containers": [
        {
            "name": "kserve-container",
            "image": "example/p:1",
            "volumeMounts": [{"name": "v", "mountPath": "/v", "readOnly": True}],
        }
    ]
}


def messages(rule, maps, spec, **metadata):
    whole = {"metadata": {"name": "chat"} | metadata, "spec": {"predictor": spec}}
    found = lint([document(yaml.safe_dump(whole))], cluster=from_config_maps("ours", maps)).findings
    return [finding.message for finding in found if finding.rule.id == rule]


def test_without_a_key_the_stock_settings_hold():
    assert from_config_maps("", {}) == STOCK
    assert from_config_maps("", {"config-autoscaler": {"_example": "min-scale: '1'"}}) == STOCK


@pytest.mark.parametrize(
    ("key", "value", "spec", "refused"),
    [
        (POD_FIELD, "enabled", {"nodeSelector": {"a": "b"}}, False),
        (POD_FIELD, "Allowed", {"nodeSelector": {"a": "b"}}, False),
        (POD_FIELD, "disabled", {"nodeSelector": {"a": "b"}}, True),
        (POD_FIELD, "yes", {"nodeSelector": {"a": "b"}}, True),
        (
            CLAIM,
            "enabled",
            MOUNTED | {"volumes": [{"name": "v", "persistentVolumeClaim": {}}]},
            False,
        ),
        (
            CLAIM,
            "allowed",
            MOUNTED | {"volumes": [{"name": "v", "persistentVolumeClaim": {}}]},
            True,
        ),
        (
            "kubernetes.podspec-volumes-emptydir",
            "disabled",
            MOUNTED | {"volumes": [{"name": "v", "emptyDir": {}}]},
            True,
        ),
        (
            "multi-container",
            "disabled",
            {"containers": [MOUNTED["containers"][0], {"name": "b", "image": "b:1"}]},
            True,
        ),
    ],
)
def test_a_feature_counts_as_knative_counts_it(key, value, spec, refused):
    assert bool(messages("KW002", {"config-features": {key: value}}, spec)) == refused


@pytest.mark.parametrize(
    ("rule", "maps", "spec", "words"),
    [
        (
            "KW034",
            {"config-defaults": {"max-revision-timeout-seconds": "900"}},
            {"timeout": 1000},
            "over 900 s",
        ),
        (
            "KW030",
            {"config-defaults": {"allow-container-concurrency-zero": "false"}},
            {"containerConcurrency": 0},
            "For the cluster ours containerConcurrency is a whole number from 1 to 1000, not 0.",
        ),
        (
            "KW020",
            {
                "inferenceservice-config": {
                    "inferenceService": json.dumps(
                        {"serviceAnnotationDisallowedList": ["example.com/team"]}
                    )
                }
            },
            {"annotations": {"example.com/team": "a"}},
            "the cluster ours lists it",
        ),
        (
            "KW016",
            {"inferenceservice-config": {"deploy": '{"defaultDeploymentMode": "Serverless"}'}},
            {},
            "the cluster ours makes it Knative",
        ),
        (
            "KW040",
            {
                "inferenceservice-config": {
                    "inferenceService": '{"resource": {"cpuRequest": "50m", "cpuLimit": "2"}}'
                }
            },
            {"containers": [{"name": "kserve-container", "image": "example/p:1"}]},
            "KServe will say cpu 50m to 2, memory 2Gi to 2Gi",
        ),
        (
            "KW031",
            {"config-deployment": {"progress-deadline": "2m"}},
            {
                "containers": [
                    {
                        "name": "kserve-container",
                        "startupProbe": {"periodSeconds": 10, "failureThreshold": 30},
                    }
                ]
            },
            "allows 300 s, but the revision's progress deadline is 120 s",
        ),
    ],
)
def test_messages_name_what_the_cluster_says(rule, maps, spec, words):
    (message,) = messages(rule, maps, spec)
    assert words in message


def test_a_service_without_a_mode_has_the_clusters():
    maps = {"inferenceservice-config": {"deploy": '{"defaultDeploymentMode": "RawDeployment"}'}}
    assert not messages("KW001", maps, {"hostname": "a"})
    assert messages("KW036", maps, {"hostname": "a"})


def test_a_target_is_measured_with_the_clusters_utilisation():
    engine = {"name": "kserve-container", "image": "example/vllm:1", "args": ["--max-num-seqs=32"]}
    spec = {"scaleTarget": 40, "containers": [engine]}
    for share, found in (("100", True), ("0.7", False), ("70", False)):
        maps = {"config-autoscaler": {"container-concurrency-target-percentage": share}}
        assert bool(messages("KW027", maps, spec)) == found


def test_a_burst_capacity_that_the_cluster_has_chosen_needs_no_annotation():
    assert messages("KW026", {}, {"scaleTarget": 1})
    assert not messages("KW026", {"config-autoscaler": {"target-burst-capacity": "0"}}, {})


def test_without_kubectl_it_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InputError, match="install kubectl"):
        read_cluster(context="ours")
