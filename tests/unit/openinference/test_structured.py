import contextlib

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from openinference import structured
from openinference.errors import InvalidInput
from openinference.structured import Kind, StructuredOutputs

TEXT = st.text(min_size=1, max_size=9)
SAID = (
    st.fixed_dictionaries({"json": st.dictionaries(st.text(), TEXT, max_size=3)})
    | st.fixed_dictionaries({"json_object": st.just(True)})
    | st.fixed_dictionaries({"regex": TEXT})
    | st.fixed_dictionaries({"choice": st.lists(TEXT, min_size=1, max_size=3)})
    | st.fixed_dictionaries({"grammar": TEXT})
)


@given(said=SAID)
def test_a_bound_is_the_same_when_said_again(said):
    bound = structured.parse(said)
    assert structured.parse(bound.members()) == bound
    assert structured.parse(orjson.loads(orjson.dumps(bound.members()))) == bound


def test_a_schema_keeps_the_order_of_its_members():
    assert structured.parse({"json": {"b": 1, "a": 2}}).spec == '{"b":1,"a":2}'


def test_a_schema_may_come_as_its_text():
    text = '{ "type": "object" }'
    assert structured.parse({"json": text}) == StructuredOutputs(Kind.JSON, text)


def test_a_schema_of_64_levels_is_the_deepest():
    schema = {}
    for _ in range(structured.MAX_DEPTH - 1):
        schema = {"items": schema}
    structured.parse({"json": schema})
    with pytest.raises(ValueError, match="items"):
        structured.parse({"json": {"items": schema}})


@given(data=st.data())
def test_any_json_parses_or_is_refused(data, json_values):
    value = data.draw(json_values | st.dictionaries(st.sampled_from(list(Kind)), json_values))
    with contextlib.suppress(ValueError):
        structured.parse(value)


@given(data=st.data())
def test_any_response_format_is_read_or_is_invalid_input(data, json_values):
    form = st.fixed_dictionaries(
        {"type": st.sampled_from(["text", "json_object", "json_schema"]) | json_values},
        optional={
            "json_schema": json_values
            | st.fixed_dictionaries({"name": st.text(), "schema": json_values})
        },
    )
    with contextlib.suppress(InvalidInput):
        structured.from_response_format(data.draw(form | json_values))
