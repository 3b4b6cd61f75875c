import math
from dataclasses import replace

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from openinference import sampling
from openinference.errors import InvalidInput
from openinference.sampling import PARAMETERS, SamplingParams
from openinference.structured import Kind, StructuredOutputs

DEEP = {}
for _ in range(300):
    DEEP = {"items": DEEP}


def _parse(**values):
    return sampling.parse(values, default_max_tokens=20, texts=True)


@pytest.mark.parametrize(
    ("name", "value", "parsed"),
    [
        ("max_tokens", 1, 1),
        ("max_tokens", "16", 16),
        ("max_tokens", 16.0, 16),
        ("min_tokens", 0, 0),
        ("temperature", 0, 0.0),
        ("temperature", "0.7", 0.7),
        ("temperature", 2.5, 2.5),
        ("top_p", 1, 1.0),
        ("top_p", "0.1", 0.1),
        ("top_k", -1, -1),
        ("top_k", "50", 50),
        ("min_p", 0.0, 0.0),
        ("presence_penalty", -2, -2.0),
        ("frequency_penalty", "2", 2.0),
        ("repetition_penalty", 0.1, 0.1),
        ("stop", "END", ("END",)),
        ("stop", ["a", "b"], ("a", "b")),
        ("stop", '["a", "b"]', ("a", "b")),
        ("stop", "[not json", ("[not json",)),
        ("stop", [], ()),
        ("stop_token_ids", [0, 2], (0, 2)),
        ("stop_token_ids", "[2]", (2,)),
        ("ignore_eos", True, True),
        ("ignore_eos", "True", True),
        ("skip_special_tokens", "false", False),
        ("seed", -(2**63), -(2**63)),
        ("seed", "42", 42),
        ("n", 128, 128),
        ("top_p", 0, 0.0),
        ("logprobs", 0, 0),
        ("logprobs", "20", 20),
        ("logit_bias", {"50256": -100, "7": 0.5}, ((7, 0.5), (50256, -100.0))),
        ("logit_bias", '{"7": 1}', ((7, 1.0),)),
        ("logit_bias", {}, ()),
        ("structured_outputs", {"json_object": True}, StructuredOutputs(Kind.JSON_OBJECT)),
        ("structured_outputs", '{"regex": "a+"}', StructuredOutputs(Kind.REGEX, "a+")),
    ],
)
def test_a_value_is_read_also_from_a_string(name, value, parsed):
    got = getattr(_parse(**{name: value}), name)
    assert got == parsed
    assert type(got) is type(parsed)


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("max_tokens", 0, "an integer from 1 to 2147483647, got 0"),
        ("max_tokens", 2**31, "an integer from 1"),
        ("max_tokens", 1.5, "an integer from 1"),
        ("max_tokens", "ten", "an integer from 1"),
        ("max_tokens", "9" * 5000, "an integer from 1"),
        ("max_tokens", True, "an integer from 1"),
        ("max_tokens", None, "an integer from 1"),
        ("max_tokens", math.inf, "an integer from 1"),
        ("max_tokens", math.nan, "an integer from 1"),
        ("min_tokens", -1, "an integer from 0"),
        ("temperature", -0.1, "a number from 0, got -0.1"),
        ("temperature", "warm", "a number from 0"),
        ("temperature", False, "a number from 0"),
        ("temperature", "nan", "a number from 0"),
        ("temperature", "inf", "a number from 0"),
        ("temperature", math.inf, "a number from 0"),
        ("temperature", 10**400, "a number from 0"),
        ("temperature", [0.5], "a number from 0"),
        ("top_p", -0.1, "a number from 0 to 1, got -0.1"),
        ("top_p", 1.01, "a number from 0 to 1"),
        ("top_k", -2, "an integer from -1"),
        ("min_p", 1.5, "a number from 0 to 1"),
        ("presence_penalty", 2.1, "a number from -2 to 2"),
        ("frequency_penalty", -2.1, "a number from -2 to 2"),
        ("repetition_penalty", 0, "a number above 0"),
        ("repetition_penalty", "infinity", "a number above 0"),
        ("stop", ["a"] * 17, "a list of at most 16 non-empty strings"),
        ("stop", [""], "a list of at most 16 non-empty strings"),
        ("stop", "", "a list of at most 16 non-empty strings"),
        ("stop", [1], "a list of at most 16 non-empty strings"),
        ("stop", {"a": 1}, "a list of at most 16 non-empty strings"),
        ("stop", 7, "a list of at most 16 non-empty strings"),
        ("stop_token_ids", [-1], "a list of at most 16 token ids"),
        ("stop_token_ids", [2**31], "a list of at most 16 token ids"),
        ("stop_token_ids", "[99999999999999999999999999]", "a list of at most 16 token ids"),
        ("stop_token_ids", [True], "a list of at most 16 token ids"),
        ("stop_token_ids", "7", "a list of at most 16 token ids"),
        ("stop_token_ids", "[" * 10**5, "a list of at most 16 token ids"),
        ("ignore_eos", 1, "true or false, got 1"),
        ("ignore_eos", "yes", "true or false"),
        ("skip_special_tokens", None, "true or false"),
        ("seed", 2**63, "an integer from -9223372036854775808"),
        ("n", 0, "an integer from 1 to 128"),
        ("n", 129, "an integer from 1 to 128"),
        ("logprobs", 21, "an integer from 0 to 20, got 21"),
        ("logprobs", True, "an integer from 0 to 20"),
        *(
            ("logit_bias", value, "an object of at most 300 token ids, each with a number")
            for value in (
                *([], [[7, 1]], "7", "{", {"x": 1}, {"-1": 1}, {"1": 101}, {"1": True}),
                *({"1": math.nan}, {"1": None}, {"9" * 5000: 1}, {"2147483648": 1}),
                *({"7": 1, "07": 2}, {str(number): 1 for number in range(301)}),
            )
        ),
        *(
            ("structured_outputs", value, "an object with one of json, json_object, regex")
            for value in (
                *([], {}, "{}", "json", {"json_object": False}, {"json_object": 1}, {"yaml": "a"}),
                *({"regex": ""}, {"regex": 7}, {"choice": []}, {"choice": [1]}, {"choice": "a"}),
                *({"regex": "a", "choice": ["a"]}, {"json": 7}, {"json": "{"}, {"json": "[]"}),
                *({"grammar": None}, {"regex": "a" * 40_000}, {"json": DEEP}),
            )
        ),
    ],
)
def test_a_wrong_value_is_refused_with_its_name_and_bounds(name, value, told):
    with pytest.raises(InvalidInput) as error:
        _parse(**{name: value})
    assert error.value.message.startswith(f"parameter '{name}' must be {told}")


def test_an_unknown_name_is_refused_with_the_known_ones():
    with pytest.raises(InvalidInput, match="parameter 'beam_width' is unknown; allowed: max_token"):
        _parse(beam_width=2)


def test_min_tokens_is_at_most_max_tokens():
    assert _parse(min_tokens=20).min_tokens == 20
    with pytest.raises(InvalidInput, match=r"'min_tokens' must be at most max_tokens \(20\)"):
        _parse(min_tokens=21)
    assert sampling.parse({"min_tokens": 21}, default_max_tokens=None).min_tokens == 21


def test_each_protocol_brings_its_own_default_of_max_tokens():
    assert sampling.parse({}, default_max_tokens=16) == SamplingParams(max_tokens=16)
    assert sampling.parse({}, default_max_tokens=None) == SamplingParams(max_tokens=None)


def test_text_is_no_number_where_the_protocol_has_numbers():
    for name, value in {"max_tokens": "5", "ignore_eos": "true", "logit_bias": "{}"}.items():
        with pytest.raises(InvalidInput, match=f"parameter '{name}' must be"):
            sampling.parse({name: value}, default_max_tokens=None)
    assert sampling.parse({"stop": "a"}, default_max_tokens=None).stop == ("a",)


def test_every_field_has_a_parser():
    assert set(PARAMETERS) == set(SamplingParams.__dataclass_fields__)


TEXTS = st.text(min_size=1, max_size=9)


def _numbers(low, high, **options):
    return st.floats(low, high, allow_nan=False, **options)


SAMPLINGS = st.builds(
    SamplingParams,
    max_tokens=st.integers(100, 2**31 - 1),
    min_tokens=st.integers(0, 100),
    temperature=_numbers(0, 100),
    top_p=_numbers(0, 1, exclude_min=True),
    top_k=st.integers(-1, 100),
    min_p=_numbers(0, 1),
    presence_penalty=_numbers(-2, 2),
    frequency_penalty=_numbers(-2, 2),
    repetition_penalty=_numbers(0, 10, exclude_min=True),
    stop=st.lists(st.text(min_size=1), max_size=3).map(tuple),
    stop_token_ids=st.lists(st.integers(0, 2**31 - 1), max_size=3).map(tuple),
    ignore_eos=st.booleans(),
    skip_special_tokens=st.booleans(),
    seed=st.none() | st.integers(-(2**63), 2**63 - 1),
    n=st.integers(1, 128),
    logprobs=st.none() | st.integers(0, 20),
    logit_bias=st.dictionaries(st.integers(0, 2**31 - 1), _numbers(-100, 100), max_size=3).map(
        lambda biases: tuple(sorted(biases.items()))
    ),
    structured_outputs=st.none()
    | st.builds(StructuredOutputs, st.just(Kind.JSON_OBJECT))
    | st.builds(StructuredOutputs, st.sampled_from([Kind.REGEX, Kind.GRAMMAR]), TEXTS)
    | st.lists(TEXTS, min_size=1, max_size=3).map(
        lambda texts: StructuredOutputs(Kind.CHOICE, orjson.dumps(texts).decode())
    )
    | st.dictionaries(st.text(), st.integers(0, 9) | st.text(), max_size=3).map(
        lambda schema: StructuredOutputs(Kind.JSON, orjson.dumps(schema).decode())
    ),
)


@given(params=SAMPLINGS)
def test_set_parameters_parse_to_the_same_sampling(params):
    values = params.set_parameters()
    assert sampling.parse(values, default_max_tokens=None, texts=True) == params
    texts = {
        name: value if isinstance(value, str) else str(value) for name, value in values.items()
    }
    assert sampling.parse(texts, default_max_tokens=None, texts=True) == params


def test_defaults_set_no_parameter():
    assert SamplingParams().set_parameters() == {}
    assert replace(SamplingParams(), stop=("a",)).set_parameters() == {"stop": '["a"]'}


@given(data=st.data(), name=st.sampled_from(list(PARAMETERS)))
def test_any_value_parses_or_is_invalid_input(data, name, json_values):
    value = data.draw(json_values)
    try:
        _parse(**{name: value})
    except InvalidInput as error:
        assert f"'{name}'" in error.message  # noqa: PT017 (either outcome is right)


def test_numbers_that_are_equal_are_still_told_apart_by_their_kind():
    assert type(_parse(temperature=1).temperature) is float
    assert type(_parse(max_tokens=1.0).max_tokens) is int
    for name in ("max_tokens", "temperature", "n"):
        _parse(**{name: 1})
        with pytest.raises(InvalidInput):
            _parse(**{name: True})


@pytest.mark.parametrize(
    "values",
    [
        {"stop": "a" * 9},
        {"stop_token_ids": [7]},
        {"logit_bias": {"7": 1}},
        {"structured_outputs": {"choice": ["a"]}},
    ],
)
def test_what_may_be_long_is_not_remembered(values):
    sampling._of_numbers.cache_clear()
    _parse(**values)
    assert sampling._of_numbers.cache_info().currsize == 0
