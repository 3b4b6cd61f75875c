"""Finds what KServe and Knative refuse, drop or run differently than a manifest reads.

`read` gives documents, `read_cluster` what a live cluster allows, `lint` findings, and `text`,
`as_json` and `sarif` what is printed.
"""

from manifest_lint.cluster import STOCK, Cluster
from manifest_lint.documents import Document, InputError, parse
from manifest_lint.linter import Result, lint
from manifest_lint.live import read_cluster
from manifest_lint.report import as_json, text
from manifest_lint.rule import Finding, Rule, Severity
from manifest_lint.rules import RULES
from manifest_lint.sarif import sarif
from manifest_lint.sources import read

__all__ = [
    "RULES",
    "STOCK",
    "Cluster",
    "Document",
    "Finding",
    "InputError",
    "Result",
    "Rule",
    "Severity",
    "as_json",
    "lint",
    "parse",
    "read",
    "read_cluster",
    "sarif",
    "text",
]
