"""The rules' examples as whole objects, and the clusters that they are for."""

import yaml

from manifest_lint.cluster import STOCK, Cluster, from_config_maps
from manifest_lint.documents import Document
from manifest_lint.inference_service import API, DEPLOYMENT_MODE
from manifest_lint.rule import Rule

METADATA = {"name": "chat", "annotations": {DEPLOYMENT_MODE: "Knative"}}


def document(example: str) -> Document:
    """The InferenceService of an example: its `spec`, or its `metadata` and `spec`."""
    value = yaml.safe_load(example)
    whole = value if "spec" in value else {"spec": value}
    kind = {"apiVersion": API, "kind": "InferenceService", "metadata": METADATA}
    return Document("example", kind | whole)


def cluster(rule: Rule) -> Cluster:
    """The cluster of a rule's examples: the stock one, or one with the rule's ConfigMaps."""
    return from_config_maps("example", yaml.safe_load(rule.config)) if rule.config else STOCK
