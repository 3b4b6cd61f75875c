"""Runs the rules over objects: pure, from documents to findings."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from manifest_lint.documents import Document, dotted
from manifest_lint.inference_service import InferenceService, is_inference_service, mapping
from manifest_lint.rule import Finding, Rule, Severity
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
    rules: Sequence[Rule] = RULES,
) -> Result:
    """Every rule but the `disabled` over every InferenceService.

    `enabled` are the cluster settings that are there, so that what needs them is no finding.
    """
    services = [InferenceService(found) for found in documents if is_inference_service(found)]
    findings = [
        _finding(rule, service, path, message)
        for service in services
        for rule in rules
        if rule.id not in disabled
        for path, message, needs in rule.check(service)
        if needs is None or needs not in enabled
    ]
    return Result(sorted(findings, key=_order), len(services))


def _finding(
    rule: Rule, service: InferenceService, path: tuple[str | int, ...], message: str
) -> Finding:
    metadata = mapping(service.document.value.get("metadata"))
    namespace = metadata.get("namespace")
    name = f"{namespace}/{service.name}" if namespace else service.name
    return Finding(
        rule=rule,
        message=message,
        source=service.document.source,
        line=service.document.line(path),
        object=f"InferenceService {name}",
        field=dotted(path),
    )


def _order(finding: Finding) -> tuple[int, str, str, str, int]:
    return (
        -finding.rule.severity.rank,
        finding.source,
        finding.object,
        finding.rule.id,
        finding.line or 0,
    )
