"""The command: formats, filters and exit statuses."""

import json

import pytest
from typer.testing import CliRunner

from keepwarm.cli import app
from manifest_lint import RULES

CLEAN = """\
apiVersion: serving.kserve.io/v1beta1
kind: InferenceService
metadata:
  name: chat
  namespace: models
  annotations:
    serving.kserve.io/deploymentMode: Knative
    autoscaling.knative.dev/target-burst-capacity: "-1"
    queue.sidecar.serving.knative.dev/cpu-resource-request: 100m
spec:
  predictor:
    minReplicas: 0
"""
BROKEN = CLEAN + "    hostname: here\n"
HINTED = CLEAN.replace('    autoscaling.knative.dev/target-burst-capacity: "-1"\n', "")


@pytest.fixture
def lint(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def run(text, *options):
        (tmp_path / "chat.yaml").write_text(text)
        return CliRunner().invoke(app, ["lint", "chat.yaml", *options])

    return run


@pytest.mark.parametrize(
    ("text", "options", "status"),
    [
        (CLEAN, [], 0),
        (BROKEN, [], 1),
        (BROKEN, ["--disable", "KW001"], 0),
        (HINTED, [], 0),
        (HINTED, ["--fail-on", "info"], 1),
        (HINTED, ["--fail-on", "info", "--severity", "error"], 1),
        ("kind: [", [], 2),
        ("kind: ConfigMap", [], 2),
        (CLEAN, ["--disable", "KW999"], 2),
        (CLEAN, ["--format", "xml"], 2),
    ],
)
def test_exit_status(lint, text, options, status):
    assert lint(text, *options).exit_code == status


def test_without_a_path_the_usage_is_shown():
    assert CliRunner().invoke(app, ["lint"]).exit_code == 2


def test_bad_input_is_one_sentence(lint):
    result = lint("kind: ConfigMap")
    assert result.stderr == "keepwarm lint: There is no InferenceService in chat.yaml.\n"


def test_text_tells_place_reason_and_fix(lint):
    text = lint(BROKEN).stdout
    assert (
        "chat.yaml:13: error KW001: Knative drops hostname: the predictor runs without it.\n"
        in text
    )
    assert "at:  InferenceService models/chat, spec.predictor.hostname\n" in text
    assert "fix: Remove the field." in text
    assert text.endswith("1 InferenceService read: 1 error.\n")


def test_text_tells_what_the_webhook_will_say(lint):
    text = lint(CLEAN + "    nodeSelector: {gpu: a100}\n").stdout
    assert 'says: Knative\'s webhook: "spec.template.spec.nodeSelector"\n' in text


def test_severity_hides_what_is_less(lint):
    assert "KW026" in lint(HINTED).stdout
    assert lint(HINTED, "--severity", "warning").stdout == (
        "1 InferenceService read: nothing found; 1 less severe not shown.\n"
    )


def test_a_setting_of_the_cluster_lets_its_field_pass(lint):
    text = CLEAN + "    nodeSelector: {gpu: a100}\n"
    assert lint(text).exit_code == 1
    assert lint(text, "--enabled", "kubernetes.podspec-nodeselector").exit_code == 0


def test_json_has_the_same(lint):
    document = json.loads(lint(BROKEN, "--format", "json").stdout)
    (finding,) = document["findings"]
    assert document["services"] == 1
    assert finding["rule"] == "KW001"
    assert (finding["file"], finding["line"]) == ("chat.yaml", 13)
    assert finding["severity"] == "error"


@pytest.mark.parametrize("text", [CLEAN, BROKEN])
def test_sarif_has_the_structure_that_its_standard_requires(lint, text):
    log = json.loads(lint(text, "--format", "sarif").stdout)
    assert log["version"] == "2.1.0"
    (run,) = log["runs"]
    driver = run["tool"]["driver"]
    assert driver["name"]
    assert [rule["id"] for rule in driver["rules"]] == [rule.id for rule in RULES]
    levels = {"none", "note", "warning", "error"}
    for rule in driver["rules"]:
        assert rule["defaultConfiguration"]["level"] in levels
        assert all(rule[key]["text"] for key in ("shortDescription", "fullDescription", "help"))
    assert len(run["results"]) == (text == BROKEN)
    for result in run["results"]:
        assert driver["rules"][result["ruleIndex"]]["id"] == result["ruleId"]
        assert result["level"] in levels
        assert result["message"]["text"]
        (location,) = result["locations"]
        physical = location["physicalLocation"]
        assert physical["artifactLocation"] == {"uri": "chat.yaml"}
        assert physical["region"]["startLine"] == 13
