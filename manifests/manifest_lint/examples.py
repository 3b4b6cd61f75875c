"""The rules' examples as whole objects."""

import yaml

from manifest_lint.documents import Document
from manifest_lint.inference_service import API, DEPLOYMENT_MODE

METADATA = {"name": "chat", "annotations": {DEPLOYMENT_MODE: "Knative"}}


def document(example: str) -> Document:
    """The InferenceService of an example: its `spec`, or its `metadata` and `spec`."""
    value = yaml.safe_load(example)
    whole = value if "spec" in value else {"spec": value}
    kind = {"apiVersion": API, "kind": "InferenceService", "metadata": METADATA}
    return Document("example", kind | whole)
