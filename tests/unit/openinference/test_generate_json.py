import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openinference.errors import InvalidInput
from openinference.generate_json import GenerateCall
from openinference.generation import Chunk, Completion, FinishReason, GenerationRequest
from openinference.sampling import SamplingParams


def _call(**body):
    return GenerateCall("m", {"text_input": "Hi", **body}, stream=True)


def test_a_request_is_read_with_the_defaults_of_the_specification():
    call = _call(extra="members are allowed")
    assert call.request == GenerationRequest(
        "m", ("Hi",), SamplingParams(max_tokens=20, temperature=1.0), stream=True
    )


def test_details_and_timeout_are_not_sampling():
    call = _call(parameters={"details": True, "timeout": 5, "top_p": 0.5, "stop": ["a"]})
    assert call.request.sampling == SamplingParams(max_tokens=20, top_p=0.5, stop=("a",))
    assert call.parameters["timeout"] == 5


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ({"text_input": None}, "text_input must be a string"),
        ({"text_input": ["Hi"]}, "text_input must be a string"),
        ({"id": 7}, "id must be a string"),
        ({"parameters": []}, "parameters must be an object"),
        ({"parameters": {"details": 1}}, "parameter 'details' must be true or false, got 1"),
        ({"parameters": {"max_tokens": 0}}, "parameter 'max_tokens' must be an integer"),
        ({"parameters": {"n": 2}}, "parameter 'n' must be 1 for generate"),
        ({"parameters": {"beam": 2}}, "parameter 'beam' is unknown"),
    ],
)
def test_a_wrong_member_is_refused_by_name(body, told):
    with pytest.raises(InvalidInput) as error:
        _call(**body)
    assert told in error.value.message


@given(data=st.data())
def test_any_json_parses_or_is_invalid_input(data, json_values):
    body = st.dictionaries(st.sampled_from(["text_input", "id", "parameters"]), json_values)
    with contextlib.suppress(InvalidInput):
        GenerateCall("m", data.draw(body), stream=False)


COMPLETION = Completion("Hello", FinishReason.EOS, 3, 2)


def test_an_answer_is_the_models_name_and_text():
    assert _call().answer(COMPLETION) == {"model_name": "m", "text_output": "Hello"}


def test_an_answer_repeats_the_id_and_tells_details_when_asked():
    assert _call(id="a1", parameters={"details": True}).answer(COMPLETION) == {
        "model_name": "m",
        "text_output": "Hello",
        "id": "a1",
        "details": {"finish_reason": "eos_token", "num_input_tokens": 3, "num_output_tokens": 2},
    }


def test_only_the_last_event_tells_why_it_ended():
    call = _call(id="a1")
    assert call.event(Chunk(0, "Hel", 3, 1)) == {
        "model_name": "m",
        "text_output": "Hel",
        "id": "a1",
    }
    assert call.event(Chunk(0, "lo", 3, 2, FinishReason.LENGTH))["details"] == {
        "finish_reason": "length"
    }


def test_every_event_counts_tokens_when_details_are_asked_for():
    call = _call(parameters={"details": True})
    assert call.event(Chunk(0, "Hel", 3, 1))["details"] == {
        "num_input_tokens": 3,
        "num_output_tokens": 1,
    }
