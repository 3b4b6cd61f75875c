"""`keepwarm lint`: reads manifests, prints what the rules find, and ends with a status."""

from collections.abc import Collection, Sequence
from enum import StrEnum

import manifest_lint
from manifest_lint import InputError, Severity


class Format(StrEnum):
    """How findings are printed."""

    TEXT = "text"
    JSON = "json"
    SARIF = "sarif"


FORMATTERS = {
    Format.TEXT: manifest_lint.text,
    Format.JSON: manifest_lint.as_json,
    Format.SARIF: manifest_lint.sarif,
}


def run(
    paths: Sequence[str],
    *,
    output: Format,
    severity: Severity,
    fail_on: Severity,
    disabled: Collection[str],
    enabled: Collection[str],
    kubeconfig: str | None = None,
    context: str | None = None,
) -> tuple[str, int]:
    """The report and the exit status, 0 or 1. Raises InputError."""
    known = {rule.id for rule in manifest_lint.RULES}
    if unknown := sorted(set(disabled) - known):
        raise InputError(f"There is no rule {unknown[0]} to disable.")
    live = kubeconfig or context
    cluster = (
        manifest_lint.read_cluster(kubeconfig=kubeconfig, context=context)
        if live
        else manifest_lint.STOCK
    )
    documents = [document for path in paths for document in manifest_lint.read(path)]
    result = manifest_lint.lint(documents, disabled=disabled, enabled=enabled, cluster=cluster)
    if not result.services:
        raise InputError(f"There is no InferenceService in {', '.join(paths)}.")
    failed = bool(result.at_least(fail_on).findings)
    return FORMATTERS[output](result.at_least(severity)), int(failed)
