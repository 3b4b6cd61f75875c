"""The WarmPool's definition on a real API server: it refuses what the typed spec refuses."""

import subprocess

import pytest
import yaml

from .conftest import REPOSITORY, kubectl

NAMESPACE = "default"
CRD = REPOSITORY / "manifests/components/warm-pool/crd.yaml"
SPECS = yaml.safe_load((REPOSITORY / "tests/unit/keepwarm/warmpool/specs.yaml").read_text())


@pytest.fixture(scope="module", autouse=True)
def definition():
    kubectl("apply", "-f", str(CRD))
    try:
        kubectl("wait", "-f", str(CRD), "--for=condition=Established", "--timeout=60s")
        yield
    finally:
        kubectl("delete", "-f", str(CRD), "--timeout=60s")


@pytest.mark.parametrize("row", SPECS, ids=lambda row: row["what"])
def test_the_api_server_accepts_and_refuses_what_the_typed_spec_does(row):
    manifest = {
        "apiVersion": "autoscaling.keepwarm.dev/v1alpha1",
        "kind": "WarmPool",
        "metadata": {"name": "chat", "namespace": NAMESPACE},
        "spec": row["spec"],
    }
    created = subprocess.run(
        ["kubectl", "create", "--dry-run=server", "--validate=strict", "-f", "-"],
        input=yaml.safe_dump(manifest),
        capture_output=True,
        text=True,
        check=False,
    )
    expected = row.get("error", row.get("server"))
    assert (created.returncode == 0) == (expected is None), created.stderr
    assert expected is None or expected in created.stderr
