"""Findings as text for people and JSON for programs."""

import json
from collections import Counter
from collections.abc import Sequence

from manifest_lint.linter import Result
from manifest_lint.rule import Finding, Severity


def text(result: Result) -> str:
    """A paragraph a finding, and a line that counts."""
    return "\n".join([*map(_paragraph, result.findings), _summary(result)])


def as_json(result: Result) -> str:
    """All that is known of each finding."""
    return json.dumps(
        {
            "services": result.services,
            "hidden": result.hidden,
            "findings": [
                {
                    "rule": finding.rule.id,
                    "severity": finding.rule.severity.value,
                    "file": finding.source,
                    "line": finding.line,
                    "object": finding.object,
                    "field": finding.field,
                    "message": finding.message,
                    "gate": finding.rule.gate,
                    "refusal": finding.refusal,
                    "reason": finding.rule.reason,
                    "fix": finding.rule.fix,
                }
                for finding in result.findings
            ],
        },
        indent=2,
    )


def _paragraph(finding: Finding) -> str:
    line = "" if finding.line is None else f":{finding.line}"
    rule = finding.rule
    said = f'    says: {rule.gate}: "{finding.refusal}"\n' if finding.refusal else ""
    return (
        f"{finding.source}{line}: {rule.severity} {rule.id}: {finding.message}\n"
        f"    at:  {finding.object}, {finding.field}\n"
        f"{said}"
        f"    why: {rule.reason}\n"
        f"    fix: {rule.fix}\n"
    )


def _summary(result: Result) -> str:
    counts = _counts(result.findings)
    found = ", ".join(f"{counts[severity]} {severity}" for severity in Severity if counts[severity])
    plural = "" if result.services == 1 else "s"
    hidden = f"; {result.hidden} less severe not shown" if result.hidden else ""
    return f"{result.services} InferenceService{plural} read: {found or 'nothing found'}{hidden}."


def _counts(findings: Sequence[Finding]) -> Counter[Severity]:
    return Counter(finding.rule.severity for finding in findings)
