"""Each rule's own examples, and what holds for all rules."""

import pytest

from manifest_lint.examples import cluster, document
from manifest_lint.linter import lint
from manifest_lint.rules import RULES

RULE = pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.id)


@RULE
def test_the_failing_example_is_found(rule):
    found = lint([document(rule.failing)], rules=[rule], cluster=cluster(rule)).findings
    assert {finding.rule.id for finding in found} == {rule.id}


@RULE
def test_the_passing_example_is_not(rule):
    assert lint([document(rule.passing)], rules=[rule], cluster=cluster(rule)).findings == []


@RULE
def test_what_a_rule_says_is_sentences(rule):
    for text in (rule.reason, rule.fix):
        assert text[0].isupper() or text.startswith("queue-proxy")
        assert text.endswith(".")
        assert "  " not in text
    for finding in lint([document(rule.failing)], rules=[rule], cluster=cluster(rule)).findings:
        assert finding.message.endswith(".")
        assert finding.field.startswith(("spec", "metadata"))


def test_ids_are_unique_and_in_order():
    ids = [rule.id for rule in RULES]
    assert ids == sorted(set(ids))


@RULE
def test_a_rule_with_a_gate_tells_what_the_gate_says(rule):
    found = lint([document(rule.failing)], rules=[rule], cluster=cluster(rule)).findings
    assert all(bool(finding.refusal) == bool(rule.gate) for finding in found)
