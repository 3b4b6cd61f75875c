"""What a rule is, and what it reports."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from manifest_lint.documents import Path
from manifest_lint.inference_service import InferenceService


class Severity(StrEnum):
    """How bad a finding is; `error`: refused, or it does not work as written."""

    ERROR = "error"
    WARNING = "warning"
    INFO = "info"

    @property
    def rank(self) -> int:
        """Larger is worse."""
        return {"info": 0, "warning": 1, "error": 2}[self.value]


class Problem(NamedTuple):
    """One place that breaks a rule.

    `needs` is the cluster setting that allows it, where there is one; `refusal` is a piece of what
    the webhook answers, word for word, where one refuses it (`Rule.gate` says which).
    """

    path: Path
    message: str
    needs: str | None = None
    refusal: str | None = None


class Gate(StrEnum):
    """Who refuses. What KServe's webhook refuses fails at `apply`, the rest after it."""

    KSERVE = "KServe's webhook"
    KNATIVE = "Knative's webhook"


@dataclass(frozen=True, kw_only=True)
class Rule:
    """A trap: why it is one, what to do, and an example of each side.

    The examples are the `spec`, and where it matters the `metadata`, of an InferenceService named
    `chat` in Knative mode; `config` are the ConfigMaps of a cluster that is not a stock one.
    """

    id: str
    severity: Severity
    title: str
    reason: str
    fix: str
    source: str
    failing: str
    passing: str
    config: str = ""
    gate: Gate | None = None
    check: Callable[[InferenceService], Iterable[Problem]]


@dataclass(frozen=True)
class Finding:
    """A problem with its rule and its place."""

    rule: Rule
    message: str
    refusal: str | None
    source: str
    line: int | None
    object: str
    field: str
