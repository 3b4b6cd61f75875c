"""Findings as SARIF 2.1.0, which code hosts show beside the lines (OASIS SARIF 2.1.0)."""

import json
from pathlib import Path
from typing import Any

from manifest_lint.linter import Result
from manifest_lint.rule import Finding, Rule, Severity
from manifest_lint.rules import RULES

SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"
LEVELS = {Severity.ERROR: "error", Severity.WARNING: "warning", Severity.INFO: "note"}


def sarif(result: Result) -> str:
    """One run with every rule and one result a finding."""
    driver = {"name": "keepwarm lint", "rules": [_rule(rule) for rule in RULES]}
    run = {
        "tool": {"driver": driver},
        "columnKind": "unicodeCodePoints",
        "results": [_result(finding) for finding in result.findings],
    }
    return json.dumps({"$schema": SCHEMA, "version": "2.1.0", "runs": [run]}, indent=2)


def _rule(rule: Rule) -> dict[str, Any]:
    return {
        "id": rule.id,
        "shortDescription": {"text": f"{rule.title}."},
        "fullDescription": {"text": rule.reason},
        "help": {"text": f"{rule.fix} Source: {rule.source}."},
        "defaultConfiguration": {"level": LEVELS[rule.severity]},
    }


def _result(finding: Finding) -> dict[str, Any]:
    physical: dict[str, Any] = {"artifactLocation": {"uri": _uri(finding.source)}}
    if finding.line is not None:
        physical["region"] = {"startLine": finding.line}
    logical = {"fullyQualifiedName": f"{finding.object}: {finding.field}", "kind": "member"}
    return {
        "ruleId": finding.rule.id,
        "ruleIndex": RULES.index(finding.rule),
        "level": LEVELS[finding.rule.severity],
        "message": {"text": f"{finding.message} {finding.rule.fix}"},
        "locations": [{"physicalLocation": physical, "logicalLocations": [logical]}],
    }


def _uri(source: str) -> str:
    """Relative to where the command runs, as code hosts want it; absolute paths as file URIs."""
    path = Path(source)
    return path.as_uri() if path.is_absolute() else path.as_posix().replace(" ", "%20")
