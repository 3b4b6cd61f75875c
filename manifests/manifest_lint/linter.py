"""Runs the rules over objects: pure, from documents to findings."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from manifest_lint.cluster import STOCK, Cluster
from manifest_lint.documents import Document, dotted
from manifest_lint.inference_service import InferenceService, is_inference_service, mapping
from manifest_lint.rule import Finding, Problem, Rule, Severity
from manifest_lint.rules import RULES


@dataclass(frozen=True)
class Result:
    """What was found, the worst first, and in how many InferenceServices.

    `hidden` findings were left out because they are too slight.
    """

    findings: Sequence[Finding]
    services: int
    hidden: int = 0

    def at_least(self, severity: Severity) -> "Result":
        """Without the slighter findings, which are counted."""
        kept = [found for found in self.findings if found.rule.severity.rank >= severity.rank]
        return Result(kept, self.services, self.hidden + len(self.findings) - len(kept))


def lint(
    documents: Iterable[Document],
    *,
    disabled: Collection[str] = (),
    enabled: Collection[str] = (),
    cluster: Cluster = STOCK,
    rules: Sequence[Rule] = RULES,
) -> Result:
    """Every rule but the `disabled` over every InferenceService, as `cluster` would take it.

    `enabled` are settings that are there besides the cluster's, so that what needs them is no
    finding.
    """
    services = [
        InferenceService(found, cluster) for found in documents if is_inference_service(found)
    ]
    there = {*enabled, *cluster.enabled}
    findings = [
        _finding(rule, service, problem)
        for service in services
        for rule in rules
        if rule.id not in disabled
        for problem in rule.check(service)
        if problem.needs is None or problem.needs not in there
    ]
    return Result(sorted(findings, key=_order), len(services))


def _finding(rule: Rule, service: InferenceService, problem: Problem) -> Finding:
    metadata = mapping(service.document.value.get("metadata"))
    namespace = metadata.get("namespace")
    name = f"{namespace}/{service.name}" if namespace else service.name
    return Finding(
        rule=rule,
        message=problem.message,
        refusal=problem.refusal,
        source=service.document.source,
        line=service.document.line(problem.path),
        object=f"InferenceService {name}",
        field=dotted(problem.path),
    )


def _order(finding: Finding) -> tuple[int, str, str, str, int]:
    return (
        -finding.rule.severity.rank,
        finding.source,
        finding.object,
        finding.rule.id,
        finding.line or 0,
    )
