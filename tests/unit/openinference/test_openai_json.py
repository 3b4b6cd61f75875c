import contextlib
import copy

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from openinference import openai_json, sse
from openinference.errors import InvalidInput
from openinference.generation import Chunk, Completion, Conversation, FinishReason, Usage
from openinference.openai_json import Endpoint, OpenAICall
from openinference.sampling import PARAMETERS, SamplingParams
from openinference.structured import Kind, StructuredOutputs
from openinference.tokens import Token

MESSAGES = [{"role": "user", "content": "Hi"}]


def _chat(**members):
    return OpenAICall(Endpoint.CHAT, {"model": "m", "messages": MESSAGES, **members})


def _schema(schema):
    return {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}}


def _completions(**members):
    return OpenAICall(Endpoint.COMPLETIONS, {"model": "m", "prompt": "Hi", **members})


BOTH = pytest.mark.parametrize("call", [_chat, _completions])


def test_a_chat_request_generates_until_the_models_context_ends():
    request = _chat().request
    assert (request.model, request.stream) == ("m", False)
    assert request.prompts == (Conversation(tuple(MESSAGES)),)
    assert request.sampling == SamplingParams(max_tokens=None)


def test_a_completion_request_generates_16_tokens():
    request = _completions(prompt=["Hi", "Ho"]).request
    assert request.prompts == ("Hi", "Ho")
    assert request.sampling == SamplingParams(max_tokens=16)


def test_max_completion_tokens_replaces_max_tokens():
    assert _chat(max_tokens=5, max_completion_tokens=7).request.sampling.max_tokens == 7


@BOTH
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("user", "ann"),
        ("metadata", {"a": "b"}),
        ("store", True),
        ("service_tier", "flex"),
        ("safety_identifier", "x"),
        ("prompt_cache_key", "x"),
        ("tools", []),
        ("tool_choice", "none"),
        ("functions", []),
        ("function_call", "none"),
        ("parallel_tool_calls", True),
        ("parallel_tool_calls", False),
        ("response_format", {"type": "text"}),
        ("logit_bias", {}),
        ("echo", False),
        ("best_of", 1),
        ("suffix", ""),
        ("modalities", ["text"]),
        *((name, None) for name in (*openai_json.HARMLESS, *openai_json.INERT_VALUES, "seed")),
    ],
)
def test_a_member_that_changes_nothing_is_left_out(call, name, value):
    assert call(**{name: value}).request == call().request


@BOTH
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("tools", [{"type": "function"}]),
        ("tool_choice", "auto"),
        ("functions", [{}]),
        ("function_call", "auto"),
        ("parallel_tool_calls", 1),
        ("echo", True),
        ("best_of", 2),
        ("suffix", "."),
        ("modalities", ["text", "audio"]),
        ("audio", {"voice": "ash"}),
        ("prediction", {"type": "content"}),
        ("reasoning_effort", "low"),
        ("verbosity", "low"),
        ("web_search_options", {}),
    ],
)
def test_a_member_that_would_change_the_answer_is_refused(call, name, value):
    with pytest.raises(InvalidInput, match=f"^'{name}' is not supported$"):
        call(**{name: value})


@pytest.mark.parametrize(
    ("call", "members", "told"),
    [
        (_chat, {"model": None}, "model must be a non-empty string"),
        (_chat, {"model": ""}, "model must be a non-empty string"),
        (_chat, {"model": 7}, "model must be a non-empty string"),
        (_chat, {"stream": "yes"}, "stream must be true or false"),
        (_chat, {"stream_options": {"include_usage": True}}, "only allowed when stream is true"),
        (_chat, {"stream": True, "stream_options": []}, "at most include_usage"),
        (_chat, {"stream": True, "stream_options": {"x": 1}}, "at most include_usage"),
        (_chat, {"stream": True, "stream_options": {"include_usage": 1}}, "include_usage must be"),
        (_chat, {"stream": True, "stream_options": {"include_obfuscation": True}}, "must be false"),
        (_chat, {"messages": None}, "messages must be a non-empty list"),
        (_chat, {"messages": [{"role": "user"}]}, "messages[0].content must be a string"),
        (_chat, {"prompt": "Hi"}, "parameter 'prompt' is unknown"),
        (_chat, {"temperature": 2.1}, "'temperature' must be a number from 0 to 2, got 2.1"),
        (_chat, {"temperature": "1"}, "'temperature' must be a number from 0, got '1'"),
        (_chat, {"temperature": "hot"}, "'temperature' must be a number"),
        (_chat, {"n": 0}, "parameter 'n' must be an integer from 1 to 128"),
        (_chat, {"max_completion_tokens": 0}, "parameter 'max_tokens' must be an integer"),
        (_chat, {"beam_width": 2}, "parameter 'beam_width' is unknown"),
        (_chat, {"logprobs": 3}, "logprobs must be true or false, got 3"),
        (_chat, {"top_logprobs": 2}, "top_logprobs is only allowed when logprobs is true"),
        (_chat, {"logprobs": True, "top_logprobs": 21}, "top_logprobs must be an integer from 0"),
        (_chat, {"logprobs": True, "top_logprobs": True}, "top_logprobs must be an integer"),
        (_completions, {"logprobs": False}, "'logprobs' must be an integer from 0 to 20"),
        (_completions, {"top_logprobs": 2}, "parameter 'top_logprobs' is unknown"),
        (_chat, {"logit_bias": {"a": 1}}, "parameter 'logit_bias' must be an object"),
        (_chat, {"response_format": {"type": "yaml"}}, "response_format must be an object whose"),
        (_chat, {"response_format": "json_object"}, "response_format must be an object whose"),
        (_chat, {"response_format": {"type": "json_schema"}}, "json_schema must be an object with"),
        (_chat, {"response_format": _schema(7)}, "json_schema.schema must be a JSON schema"),
        (_chat, {"response_format": _schema({}), "structured_outputs": {}}, "exclude each other"),
        (_chat, {"max_tokens": "5"}, "parameter 'max_tokens' must be an integer"),
        (_completions, {"prompt": None}, "prompt must be a string or a non-empty list of strings"),
        (_completions, {"prompt": []}, "prompt must be a string or a non-empty list of strings"),
        (_completions, {"prompt": [1, 2]}, "token ids are not supported"),
        (_completions, {"prompt": [[1, 2]]}, "token ids are not supported"),
        (_completions, {"messages": MESSAGES}, "parameter 'messages' is unknown"),
        (_completions, {"max_completion_tokens": 5}, "'max_completion_tokens' is unknown"),
    ],
)
def test_a_wrong_member_is_refused_by_name(call, members, told):
    with pytest.raises(InvalidInput) as error:
        call(**members)
    assert told in error.value.message


@pytest.mark.parametrize(
    ("call", "members", "logprobs"),
    [
        (_chat, {}, None),
        (_chat, {"logprobs": False}, None),
        (_chat, {"logprobs": False, "top_logprobs": 0}, None),
        (_chat, {"logprobs": True}, 0),
        (_chat, {"logprobs": True, "top_logprobs": 5}, 5),
        (_completions, {"logprobs": 0}, 0),
        (_completions, {"logprobs": 5}, 5),
    ],
)
def test_log_probabilities_are_asked_for_in_two_ways(call, members, logprobs):
    assert call(**members).request.sampling.logprobs == logprobs


@BOTH
def test_a_response_format_is_a_structured_output(call):
    def bound(value):
        return call(response_format=value).request.sampling.structured_outputs

    assert bound({"type": "text"}) is None
    assert bound({"type": "json_object"}) == StructuredOutputs(Kind.JSON_OBJECT)
    assert bound(_schema({"b": 1, "a": 2})) == StructuredOutputs(Kind.JSON, '{"b":1,"a":2}')


@pytest.mark.parametrize("endpoint", Endpoint)
@given(data=st.data())
def test_any_json_parses_or_is_invalid_input(endpoint, data, json_values):
    names = st.sampled_from(
        [*openai_json.INERT_VALUES, *PARAMETERS, "stream", "top_logprobs", "response_format"]
    )
    body = {
        "model": data.draw(st.just("m") | json_values),
        "messages": data.draw(st.just(MESSAGES) | json_values),
        "prompt": data.draw(st.just("Hi") | json_values),
        **data.draw(st.dictionaries(names, json_values, max_size=2)),
    }
    del body["prompt" if endpoint is Endpoint.CHAT else "messages"]
    with contextlib.suppress(InvalidInput):
        OpenAICall(endpoint, body)


COMPLETIONS = [
    Completion("Hello", FinishReason.LENGTH, 3, 2),
    Completion("Hey", FinishReason.EOS, 3, 4),
]
USAGE = {"prompt_tokens": 3, "completion_tokens": 6, "total_tokens": 9}


def test_a_chat_answer_has_openais_shape():
    answer = _chat(n=2).answer(COMPLETIONS)
    assert answer.pop("id").startswith("chatcmpl-")
    assert isinstance(answer.pop("created"), int)
    assert answer == {
        "object": "chat.completion",
        "model": "m",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "Hello", "refusal": None},
                "logprobs": None,
                "finish_reason": "length",
            },
            {
                "index": 1,
                "message": {"role": "assistant", "content": "Hey", "refusal": None},
                "logprobs": None,
                "finish_reason": "stop",
            },
        ],
        "usage": USAGE,
    }


@BOTH
@given(model=st.text(min_size=1, max_size=20))
def test_an_answer_put_together_is_the_same_with_an_id_of_its_own(call, model):
    again = call(model=model)
    done = [Completion("100 %", FinishReason.LENGTH, 3, 2)]
    plain = orjson.loads(orjson.dumps(again.answer(done)))
    rest = orjson.dumps(again.content(done))[1:]
    bodies = [orjson.loads(again.opening() + rest) for _ in range(3)]
    assert {tuple(body) for body in bodies} == {tuple(plain)}
    ids = {body.pop("id") for body in [*bodies, plain]}
    assert len(ids) == 4
    assert {(len(each), each.partition("-")[0]) for each in ids} == {
        (len(max(ids)), max(ids).partition("-")[0])
    }
    created = [body.pop("created") for body in bodies]
    assert 0 <= max(created) - plain.pop("created") < 60
    assert bodies == [plain] * 3


def test_a_completion_answer_has_openais_shape():
    answer = _completions(n=2).answer(COMPLETIONS)
    assert answer.pop("id").startswith("cmpl-")
    assert answer["object"] == "text_completion"
    assert [choice["text"] for choice in answer["choices"]] == ["Hello", "Hey"]
    assert answer["usage"] == USAGE


STREAM = [Chunk(0, "Hel", 3, 1), Chunk(0, "lo", 3, 2, FinishReason.STOP_SEQUENCE)]


def _events(call):
    return [event for chunk in STREAM for event in call.events(chunk)]


def test_a_chat_stream_begins_with_the_role_and_ends_with_the_reason():
    events = _events(_chat(stream=True))
    assert {event["object"] for event in events} == {"chat.completion.chunk"}
    assert len({event["id"] for event in events}) == 1
    choices = [event["choices"][0] for event in events]
    assert [(choice["delta"], choice["finish_reason"]) for choice in choices] == [
        ({"role": "assistant", "content": ""}, None),
        ({"content": "Hel"}, None),
        ({"content": "lo"}, None),
        ({}, "stop"),
    ]
    assert all("usage" not in event for event in events)


def test_each_choice_of_a_chat_stream_begins_with_the_role():
    call = _chat(stream=True, n=2)
    deltas = [
        (event["choices"][0]["index"], event["choices"][0]["delta"])
        for chunk in (Chunk(1, "a", 3, 1), Chunk(0, "b", 3, 1), Chunk(1, "c", 3, 2))
        for event in call.events(chunk)
    ]
    role = {"role": "assistant", "content": ""}
    assert deltas == [
        (1, role),
        (1, {"content": "a"}),
        (0, role),
        (0, {"content": "b"}),
        (1, {"content": "c"}),
    ]


def test_a_completion_stream_is_one_event_a_chunk():
    choices = [event["choices"][0] for event in _events(_completions(stream=True))]
    assert [(choice["text"], choice["finish_reason"]) for choice in choices] == [
        ("Hel", None),
        ("lo", "stop"),
    ]


CHUNKS = st.builds(
    Chunk,
    st.integers(0, 2),
    st.text() | st.sampled_from(['"content":""', '"text":""', '\\"text\\":\\"\\"']),
    st.just(3),
    st.integers(1, 9),
    st.none() | st.sampled_from(FinishReason),
    st.sampled_from([(), (Token(7, "é", -0.5),)]),
)


@pytest.mark.parametrize("endpoint", [_chat, _completions])
@given(
    st.lists(CHUNKS, max_size=8),
    st.text(min_size=1) | st.sampled_from(["content", "text", '"text":""', '"content":""']),
    st.booleans(),
)
def test_events_are_sent_as_their_json(endpoint, chunks, model, include_usage):
    options = {"include_usage": include_usage}
    call = endpoint(model=model, stream=True, stream_options=options)
    plain = copy.deepcopy(call)
    for chunk in chunks:
        assert call.encoded_events(chunk) == b"".join(map(sse.event, plain.events(chunk)))


@BOTH
def test_usage_comes_in_an_event_of_its_own_when_asked_for(call):
    asked = call(stream=True, stream_options={"include_usage": True})
    assert all(event["usage"] is None for event in _events(asked))
    event = asked.usage_event(Usage(1, 3, 2))
    assert event["choices"] == []
    assert event["usage"] == {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
    assert call(stream=True).usage_event(Usage(1, 3, 2)) is None


HEL = Token(5, "Hel", -0.5, top=(Token(7, "é", -0.25), Token(5, "Hel", -0.5)))
LO = Token(6, "lo", -1.5, top=(Token(6, "lo", -1.5), Token(8, "lo", -9.0)))


def test_a_chat_tells_each_tokens_probability_bytes_and_rivals():
    (choice,) = _chat(logprobs=True).answer(
        [Completion("Hello", FinishReason.LENGTH, 3, 2, (HEL, LO))]
    )["choices"]
    hel, lo = choice["logprobs"]["content"]
    assert hel == {
        "token": "Hel",
        "logprob": -0.5,
        "bytes": [72, 101, 108],
        "top_logprobs": [
            {"token": "é", "logprob": -0.25, "bytes": [0xC3, 0xA9]},
            {"token": "Hel", "logprob": -0.5, "bytes": [72, 101, 108]},
        ],
    }
    assert lo["token"] == "lo"


def test_a_completion_tells_of_its_tokens_in_four_lists():
    (choice,) = _completions(logprobs=2).answer(
        [Completion("Hello", FinishReason.LENGTH, 3, 2, (HEL, LO))]
    )["choices"]
    assert choice["logprobs"] == {
        "tokens": ["Hel", "lo"],
        "token_logprobs": [-0.5, -1.5],
        "top_logprobs": [{"é": -0.25, "Hel": -0.5}, {"lo": -1.5}],
        "text_offset": [0, 3],
    }


def test_streamed_tokens_come_with_their_text_and_go_on_counting():
    chunks = [
        Chunk(0, "", 3, 1, None, (HEL,)),
        Chunk(0, "Hello", 3, 2, FinishReason.LENGTH, (LO,)),
    ]
    call = _completions(stream=True, logprobs=0)
    told = [event["choices"][0]["logprobs"] for chunk in chunks for event in call.events(chunk)]
    assert [each["text_offset"] for each in told] == [[0], [3]]
    call = _chat(stream=True, logprobs=True)
    told = [event["choices"][0] for chunk in chunks for event in call.events(chunk)]
    assert [
        (each["delta"], each["logprobs"] and len(each["logprobs"]["content"])) for each in told
    ] == [
        ({"role": "assistant", "content": ""}, None),
        ({"content": ""}, 1),
        ({"content": "Hello"}, 1),
        ({}, None),
    ]


KINDS = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "invalid_request_error",
    429: "rate_limit_error",
    500: "server_error",
    503: "server_error",
    504: "server_error",
}


def test_errors_have_openais_shape_and_types(every_error):
    for error in every_error:
        body = openai_json.error(error)["error"]
        assert set(body) == {"message", "type", "param", "code"}
        assert body["message"] == error.message
        assert body["type"] == KINDS.get(error.http_status, body["type"])
        assert (body["code"] == "model_not_found") == (error.http_status == 404)


def test_models_are_listed():
    assert openai_json.models(["a"], 7) == {
        "object": "list",
        "data": [{"id": "a", "object": "model", "created": 7, "owned_by": "keepwarm"}],
    }
