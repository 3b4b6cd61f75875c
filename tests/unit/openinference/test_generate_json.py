import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openinference import sse
from openinference.errors import InvalidInput
from openinference.generate_json import GenerateCall
from openinference.generation import Chunk, Completion, FinishReason, GenerationRequest
from openinference.sampling import SamplingParams
from openinference.tokens import Token


def _call(**body):
    return GenerateCall("m", {"text_input": "Hi", **body}, stream=True)


def test_a_request_is_read_with_the_defaults_of_the_specification():
    call = _call(extra="members are allowed")
    assert call.request == GenerationRequest(
        "m", ("Hi",), SamplingParams(max_tokens=20, temperature=1.0), stream=True
    )


def test_details_and_timeout_are_not_sampling():
    parameters = {"details": False, "stream": True, "timeout": 5, "top_p": 0.5, "stop": ["a"]}
    call = _call(parameters=parameters)
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
        ({"parameters": {"max_tokens": "5"}}, "parameter 'max_tokens' must be an integer"),
        ({"parameters": {"stream": False}}, "parameter 'stream' must be true here"),
        ({"parameters": {"stream": "true"}}, "parameter 'stream' must be true here"),
        ({"parameters": {"logprobs": 1}}, "parameter 'logprobs' is not for generate"),
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


def test_details_ask_for_the_chosen_tokens():
    assert _call(parameters={"details": True}).request.sampling.logprobs == 0


HEL, LO = Token(5, "Hel", -0.5), Token(6, "lo", -1.5, special=True)
COMPLETION = Completion("Hello", FinishReason.EOS, 3, 2, (HEL, LO))
TOLD = [
    {"id": 5, "text": "Hel", "logprob": -0.5, "special": False},
    {"id": 6, "text": "lo", "logprob": -1.5, "special": True},
]


def test_an_answer_is_the_models_name_and_text():
    assert _call().answer(COMPLETION) == {"model_name": "m", "text_output": "Hello"}


def test_an_answer_repeats_the_id_and_tells_details_when_asked():
    assert _call(id="a1", parameters={"details": True}).answer(COMPLETION) == {
        "model_name": "m",
        "text_output": "Hello",
        "id": "a1",
        "details": {
            "finish_reason": "eos_token",
            "logprobs": TOLD,
            "num_input_tokens": 3,
            "num_output_tokens": 2,
        },
    }


def _events(call, *chunks):
    return [event for chunk in chunks for event in call.events(chunk)]


def test_only_the_last_event_tells_why_it_ended():
    chunks = Chunk(0, "Hel", 3, 1), Chunk(0, "lo", 3, 2, FinishReason.LENGTH)
    assert _events(_call(id="a1"), *chunks) == [
        {"model_name": "m", "text_output": "Hel", "id": "a1"},
        {"model_name": "m", "text_output": "lo", "id": "a1", "finish_reason": "length"},
    ]


def test_an_event_with_details_tells_of_one_token():
    call = _call(parameters={"details": True})
    events = _events(
        call,
        Chunk(0, "Hel", 3, 1, None, (HEL,)),
        Chunk(0, "lolo", 3, 3, FinishReason.LENGTH, (LO, LO)),
    )
    counts = {"num_input_tokens": 3}
    assert [(event["text_output"], event["details"]) for event in events] == [
        ("Hel", {**counts, "num_output_tokens": 1, "token": TOLD[0]}),
        ("", {**counts, "num_output_tokens": 2, "token": TOLD[1]}),
        (
            "lolo",
            {**counts, "num_output_tokens": 3, "token": TOLD[1], "finish_reason": "length"},
        ),
    ]


TEXTS = st.text() | st.sampled_from(["text_output", '"text_output":""', '\\"text_output\\":""'])


@given(
    st.lists(
        st.builds(
            Chunk,
            st.just(0),
            TEXTS,
            st.just(3),
            st.integers(1, 9),
            st.none() | st.sampled_from(FinishReason),
            st.sampled_from([(), (Token(7, "é", -0.5),)]),
        )
    ),
    TEXTS,
    st.none() | TEXTS,
    st.booleans(),
)
def test_events_are_sent_as_their_json(chunks, model, request_id, details):
    body = {"text_input": "Hi", "id": request_id, "parameters": {"details": details}}
    call = GenerateCall(model, body, stream=True)
    for chunk in chunks:
        assert call.encoded_events(chunk) == b"".join(map(sse.event, call.events(chunk)))
