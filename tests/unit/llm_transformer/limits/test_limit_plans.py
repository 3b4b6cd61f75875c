"""Plans: what a file may say, and what its members become."""

import json
from pathlib import Path

import jsonschema
import pytest
import yaml

from llm_transformer.limits.plans import UnusablePlansError, read
from llm_transformer.limits.rules import Limits, Rate


@pytest.fixture
def plans(tmp_path):
    def parse(text):
        path = tmp_path / "plans.yaml"
        path.write_text(text)
        return read(path)

    return parse


def test_a_plan_limits_what_it_names(plans):
    found = plans(
        """
plans:
  free:
    requests: {limit: 60}
  gold:
    requests: {limit: 600, per_s: 10, burst: 7}
    requests_per_address: {limit: 5}
    concurrent: 3
    tokens: {limit: 1000}
    max_tokens: 100
    max_tokens_by_route: {infer: 10, generate: 1000}
  open: {}
"""
    ).plans
    assert found["free"].limits() == Limits(requests=Rate(60, 60, 6))
    assert found["gold"].limits() == Limits(
        Rate(600, 10, 7), Rate(5, 60, 1), 3, Rate(1000, 60, 1000)
    )
    assert [found["gold"].longest_answer(route) for route in ("infer", "generate", "x")] == [
        10,
        100,
        100,
    ]
    assert found["open"].limits() == Limits()
    assert found["free"].longest_answer("infer") is None


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("plans: [", "is not YAML"),
        ("", "the file: Input should be"),
        ("plans: {}", "plans: Dictionary should have at least 1 item"),
        ("plans: {a: {request: {limit: 1}}}", "plans.a.request: Extra inputs are not permitted"),
        ("plans: {a: {requests: {limit: 0}}}", "plans.a.requests.limit"),
        ("plans: {a: {requests: {limit: '5'}}}", "plans.a.requests.limit"),
        ("plans: {a: {requests: {limit: 5, per_s: 0}}}", "plans.a.requests.per_s"),
        ("plans: {a: {tokens: {limit: 5, burst: 0}}}", "plans.a.tokens.burst"),
        ("plans: {a: {concurrent: 0}}", "plans.a.concurrent"),
        (
            "plans: {a: {max_tokens_by_route: {infr: 5}}}",
            "max_tokens_by_route.infr: must be one of",
        ),
        ("plans: {a: {max_tokens_by_route: {infer: 0}}}", "max_tokens_by_route.infer: must be"),
    ],
)
def test_what_would_limit_nothing_or_everything_is_refused_by_place(plans, text, told):
    with pytest.raises(UnusablePlansError) as refused:
        plans(text)
    assert told in str(refused.value)


def test_a_file_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(UnusablePlansError, match="cannot be read"):
        read(tmp_path / "none.yaml")


def test_a_key_of_no_plan_is_refused_not_unlimited(plans):
    found = plans("plans: {a: {}, b: {}}")
    found.check_names(["a"])
    with pytest.raises(UnusablePlansError, match="there is no plan 'c'; there are: a, b"):
        found.check_names(["a", "c"])


DOCS = Path(__file__).parents[4] / "docs"


def test_the_example_of_the_documentation_is_a_plans_file(plans):
    text = (DOCS / "plans.md").read_text().split("```yaml\n")[1].split("```")[0]
    found = plans(text).plans
    assert set(found) == {"standard", "anonymous"}
    jsonschema.validate(yaml.safe_load(text), json.loads((DOCS / "plans.schema.json").read_text()))


@pytest.mark.parametrize(
    "text",
    [
        "plans: {}",
        "plans: {a: {request: {limit: 1}}}",
        "plans: {a: {requests: {limit: 0}}}",
        "plans: {a: {max_tokens_by_route: {infr: 5}}}",
        "plans: {a: {max_tokens_by_route: {infer: 0}}}",
    ],
)
def test_the_schema_refuses_what_the_transformer_refuses(text):
    schema = json.loads((DOCS / "plans.schema.json").read_text())
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(yaml.safe_load(text), schema)


def test_the_plans_of_the_component_are_a_plans_file():
    component = Path(__file__).parents[4] / "manifests/components/api-keys/plans.yaml"
    assert "default" in read(component).plans
