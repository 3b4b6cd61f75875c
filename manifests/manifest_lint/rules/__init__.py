"""All rules, by id."""

from manifest_lint.rule import Rule
from manifest_lint.rules import (
    annotations,
    cluster_limits,
    exposure,
    knative_fields,
    kserve_gate,
    ports,
    probes,
    resources,
    scaling,
    timeouts,
)

RULES: tuple[Rule, ...] = (
    *knative_fields.RULES,
    *ports.RULES,
    knative_fields.NEVER,
    *kserve_gate.RULES,
    *annotations.RULES,
    *scaling.RULES,
    *timeouts.RULES,
    *cluster_limits.RULES,
    *resources.RULES,
    *probes.RULES,
    *exposure.RULES,
)
