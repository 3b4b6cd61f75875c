"""The script for kind, with docker, kind and kubectl that only write down what they were asked.

No cluster of kind runs here: these tests hold what the script asks for, not what comes of it.
"""

import json
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

FOLDER = Path(__file__).parents[3] / "manifests/kind"
MANIFEST = """
kind: InferenceService
spec:
  transformer:
    containers: [{{name: kserve-container,
      image: keepwarm/transformer:0.1.0
    }}]
  predictor:
    containers: [{{name: kserve-container,
      image: keepwarm/{predictor}:0.1.0
    }}]
"""
# Writes its command line and input down, then answers what the script reads.
STUB = """#!/usr/bin/env bash
input=
for last in "$@"; do :; done
[ "${last-}" != - ] || input=$(cat)
printf '%s\\x1f' "${0##*/}" "$@" "$input" >> "$STUB_LOG"
printf '\\x1e' >> "$STUB_LOG"
case "${0##*/} $*" in
"docker info") exit "${STUB_NO_ENGINE:-0}" ;;
"kubectl kustomize"*) cat "$STUB_MANIFEST" ;;
"kind get clusters") echo "$STUB_CLUSTERS" ;;
*"get nodes"*) echo 'keepwarm-worker keepwarm-worker2' ;;
*"create namespace"*) echo 'kind: Namespace' ;;
esac
"""


@dataclass
class Call:
    argv: list[str]
    input: str

    def __str__(self) -> str:
        return " ".join(self.argv)


class Kind:
    """A PATH with stubs in front."""

    def __init__(self, folder: Path) -> None:
        self.bin = folder / "bin"
        self.bin.mkdir()
        for name in ("docker", "kind", "kubectl"):
            (self.bin / name).write_text(STUB)
            (self.bin / name).chmod(0o755)
        self.manifest = folder / "manifest.yaml"
        self.manifest.write_text(MANIFEST.format(predictor="predictor-cpu-demo"))
        self.log = folder / "log"
        self.environment = {
            **os.environ,
            "PATH": f"{self.bin}:{os.environ['PATH']}",
            "STUB_LOG": str(self.log),
            "STUB_MANIFEST": str(self.manifest),
            "STUB_CLUSTERS": "",
        }

    def run(self, script: str, *args: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [FOLDER / script, *args],
            env=self.environment | environment,
            capture_output=True,
            text=True,
            check=False,
        )

    def calls(self) -> list[Call]:
        calls = (call.split("\x1f")[:-1] for call in self.log.read_text().split("\x1e")[:-1])
        return [Call(argv, given) for *argv, given in calls]


@pytest.fixture
def kind(tmp_path):
    return Kind(tmp_path)


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """The script on a machine that has nothing yet, and what it printed."""
    kind = Kind(tmp_path_factory.mktemp("kind"))
    done = kind.run("up.sh")
    assert done.returncode == 0, done.stderr
    return kind.calls(), done.stdout


def test_the_steps_come_in_an_order_in_which_each_finds_what_it_needs(ran):
    calls = [str(call) for call in ran[0]]
    order = [
        next(number for number, call in enumerate(calls) if what in call)
        for what in (
            "docker info",
            "kubectl kustomize",
            "kind create cluster",
            "patch node keepwarm-worker2",
            "cert-manager.yaml",
            "serving-crds.yaml",
            "serving-core.yaml",
            "kourier.yaml",
            "-n knative-serving wait",
            "-n cert-manager wait",
            "kserve-crds.yaml",
            "/kserve.yaml",
            "rollout status deployment kserve-controller-manager",
            "docker build",
            "kind load docker-image",
            "wait inferenceservice/chat",
        )
    ]
    assert order == sorted(order)


def test_every_release_is_pinned(ran):
    urls = [word for call in ran[0] for word in call.argv if word.startswith("https:")]
    assert len(urls) == 6
    for url in urls:
        assert url.split("/releases/download/")[1].removeprefix("knative-")[:2] == "v1" or (
            "/releases/download/v0.17.0/" in url
        ), url


def test_every_patch_is_one(ran):
    patches = [call.argv for call in ran[0] if "patch" in call.argv]
    assert len(patches) == 6
    for argv in patches:
        if "--patch-file" in argv:
            text = Path(argv[argv.index("--patch-file") + 1]).read_text()
            assert json.loads(yaml.safe_load(text)["data"]["ingress"])["disableIstioVirtualHost"]
        else:
            assert json.loads(argv[argv.index("-p") + 1])
    (kourier,) = (argv for argv in patches if "kourier" in argv)
    (port,) = json.loads(kourier[kourier.index("-p") + 1])["spec"]["ports"]
    config = yaml.safe_load((FOLDER / "cluster.yaml").read_text())
    (mapping,) = config["nodes"][0]["extraPortMappings"]
    assert mapping["containerPort"] == port["nodePort"]
    assert mapping["hostPort"] == 8080


def test_the_overlay_is_applied_with_the_images_that_were_built_and_loaded(ran):
    calls, printed = ran
    applied = next(call for call in calls if "InferenceService" in call.input)
    loaded = [call.argv[-1] for call in calls if "docker-image" in call.argv]
    built = [call.argv[call.argv.index("-t") + 1] for call in calls if "build" in call.argv]
    names = ("predictor-cpu-demo", "transformer")
    assert loaded == built == [f"kind.local/keepwarm-{name}:0.1.0" for name in names]
    for image in loaded:
        assert f"image: {image}\n" in applied.input
    assert "image: keepwarm/" not in applied.input
    assert "curl -s http://chat-transformer.default.127.0.0.1.sslip.io:8080/" in printed


def test_an_existing_cluster_is_kept(kind):
    done = kind.run("up.sh", STUB_CLUSTERS="other\nkeepwarm")
    assert done.returncode == 0
    assert not any("create cluster" in str(call) for call in kind.calls())


def test_an_overlay_that_needs_a_real_gpu_is_refused_before_a_cluster_is_made(kind):
    kind.manifest.write_text(MANIFEST.format(predictor="predictor-gpu"))
    done = kind.run("up.sh")
    assert done.returncode == 1
    assert "predictor-gpu, for which a simulated GPU is not enough" in done.stderr
    assert not any("create cluster" in str(call) for call in kind.calls())


def test_without_an_engine_nothing_is_tried(kind):
    done = kind.run("up.sh", STUB_NO_ENGINE="1")
    assert done.returncode == 1
    assert "the Docker engine does not answer" in done.stderr
    assert len(kind.calls()) == 1


@pytest.mark.parametrize("args", [(), ("1",), ("two", "node"), ("-1", "node")], ids=str)
def test_simulated_gpus_want_a_number_and_nodes(kind, args):
    done = kind.run("simulate-gpus.sh", *args)
    assert done.returncode == 2
    assert "usage" in done.stderr
    assert not kind.log.exists()


def test_the_cluster_has_one_control_plane_and_two_workers_of_one_pinned_image():
    config = yaml.safe_load((FOLDER / "cluster.yaml").read_text())
    assert (config["kind"], config["apiVersion"]) == ("Cluster", "kind.x-k8s.io/v1alpha4")
    assert [node["role"] for node in config["nodes"]] == ["control-plane", "worker", "worker"]
    (image,) = {node["image"] for node in config["nodes"]}
    assert image.startswith("kindest/node:v")
    assert len(image.partition("@sha256:")[2]) == 64
