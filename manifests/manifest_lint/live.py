"""Reads a live cluster's ConfigMaps with kubectl, which brings every way to log in."""

import json
import shutil
import subprocess
from collections.abc import Mapping, Sequence

from manifest_lint.cluster import NAMESPACES, Cluster, from_config_maps
from manifest_lint.documents import InputError

TIMEOUT_S = 30


def read_cluster(*, kubeconfig: str | None = None, context: str | None = None) -> Cluster:
    """The settings of the cluster that a kubeconfig and one of its contexts name.

    A ConfigMap that is not there leaves the defaults. Raises InputError.
    """
    kubectl = shutil.which("kubectl")
    if kubectl is None:
        raise InputError("kubectl is not there to read the cluster: install kubectl.")
    options = [f"--request-timeout={TIMEOUT_S}s"]
    options += [f"--kubeconfig={kubeconfig}"] if kubeconfig else []
    options += [f"--context={context}"] if context else []
    maps: dict[str, Mapping[str, str]] = {}
    for namespace, names in NAMESPACES.items():
        command = [kubectl, *options, f"--namespace={namespace}", "get", "configmaps", *names]
        found = json.loads(_run([*command, "--ignore-not-found", "--output=json"]) or "{}")
        # kubectl prints a List for several names, and the object itself for one.
        for item in found.get("items", [found] if found else []):
            maps[item["metadata"]["name"]] = item.get("data") or {}
    if not maps:
        raise InputError(
            f"The cluster has none of Knative's and KServe's ConfigMaps in"
            f" {' and '.join(NAMESPACES)}."
        )
    name = context or _run([kubectl, *options, "config", "current-context"]).strip()
    return from_config_maps(name, maps)


def _run(command: Sequence[str]) -> str:
    try:
        done = subprocess.run(  # noqa: S603 (kubectl, with names that the user gave)
            command, capture_output=True, text=True, check=False, timeout=2 * TIMEOUT_S
        )
    except subprocess.TimeoutExpired:
        raise InputError(f"The cluster did not answer within {2 * TIMEOUT_S} s.") from None
    if done.returncode:
        raise InputError(f"kubectl cannot read the cluster: {done.stderr.strip()}")
    return done.stdout
