"""The bound on tokens: never below what tokenizers make of a text, and answers cut to fit."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_transformer.limits import tokens
from openinference import openai_json, sampling, text_tensors
from openinference.errors import InvalidInput, PayloadTooLarge
from openinference.generation import Conversation, GenerationRequest
from openinference.sampling import SamplingParams
from openinference.text_tensors import TEXT_INPUT
from openinference.v2_json import infer_request


def _bound(*prompts, template_tokens=0):
    return tokens.prompt_bound(prompts, template_tokens=template_tokens)


def _fitted(request, prompt=10, longest=None, budget=None, longest_prompt=None):
    return tokens.fitted(
        request, prompt, longest=longest, longest_prompt=longest_prompt, budget=budget
    ).sampling


def _request(max_tokens=None, n=1, prompts=("Hi",), **options):
    return GenerationRequest("m", prompts, SamplingParams(max_tokens, n=n, **options), stream=False)


@given(st.text())
def test_no_byte_of_a_text_is_left_out_whatever_the_tokenizer_normalises_with(text):
    bound = _bound(text)
    for normal in (text, *(unicodedata.normalize(form, text) for form in ("NFC", "NFKC"))):
        assert bound >= len(normal.encode()) + tokens.TEXT_EXTRA


@pytest.mark.parametrize(
    ("text", "at_least"),
    [
        ("", 4),
        ("hello", 9),
        ("é", 6),
        # NFC takes this apart (composition exclusions): 4 bytes become 12.
        ("\U0001d160" * 10, 120),
        # NFKC writes this ligature out: 3 bytes become 33.
        ("\ufdfa" * 10, 330),
    ],
)
def test_the_bound_of_a_text(text, at_least):
    assert _bound(text) >= at_least


def test_a_conversation_counts_every_text_its_messages_and_the_template():
    chat = Conversation(({"role": "user", "content": "hello", "name": "ann"},) * 2)
    assert _bound(chat, template_tokens=100) == 100 + 2 * (16 + 4 + 5 + 3)
    assert _bound(chat, "abc", template_tokens=100) == 156 + 7


def test_every_prompt_counts_once_and_every_answer_n_times():
    request = _request(max_tokens=7, n=3, prompts=("ab", "cd"))
    assert _bound(*request.prompts) == 2 * 6
    assert tokens.answer_bound(request) == 7 * 3 * 2


@pytest.mark.parametrize(
    ("asked", "n", "longest", "budget", "given"),
    [
        (None, 1, None, None, None),
        (50, 1, None, None, 50),
        (50, 1, 20, None, 20),
        (10, 1, 20, None, 10),
        (None, 1, 20, None, 20),
        (None, 1, None, 100, 90),
        (None, 3, None, 100, 30),
        (500, 2, 400, 100, 45),
        (5, 2, 400, 100, 5),
    ],
)
def test_answers_are_cut_to_the_plan(asked, n, longest, budget, given):
    assert _fitted(_request(asked, n), longest=longest, budget=budget).max_tokens == given


def test_a_cut_takes_min_tokens_along():
    cut = _fitted(_request(50, min_tokens=40), longest=20)
    assert (cut.max_tokens, cut.min_tokens) == (20, 20)


def test_a_prompt_that_cannot_be_too_long_is_not_counted_again():
    assert _fitted(_request(5), prompt=9, longest_prompt=9).max_prompt_tokens is None


@pytest.mark.parametrize(
    ("asked", "plan", "sent"),
    [(None, None, None), (None, 9, 9), (5, 9, 5), (20, 9, 9), (5, None, 5)],
)
def test_the_predictor_is_told_the_longest_prompt(asked, plan, sent):
    request = _request(5, max_prompt_tokens=asked)
    assert _fitted(request, longest_prompt=plan).max_prompt_tokens == sent


def test_litellm_29191_29193_28805_a_small_limit_lets_the_first_request_without_max_tokens_pass():
    cut = _fitted(_request(None), prompt=10, budget=60)
    assert cut.max_tokens == 50


def test_what_can_never_pass_is_told_so_and_not_to_try_again():
    with pytest.raises(PayloadTooLarge, match="60 tokens that your plan allows at once") as refused:
        _fitted(_request(None, n=2), prompt=59, budget=60)
    assert refused.value.retry_after_s is None


def test_litellm_34223_37001_the_larger_of_two_names_for_the_answers_length_is_what_is_reserved():
    call = openai_json.OpenAICall(
        openai_json.Endpoint.CHAT,
        {
            "model": "m",
            "messages": [{"role": "user", "content": "Hi"}],
            "max_tokens": 1,
            "max_completion_tokens": 10_000,
        },
    )
    # What is reserved is what the engine will be told: there is one number.
    assert tokens.answer_bound(call.request) == call.request.sampling.max_tokens == 10_000


@pytest.mark.parametrize(
    ("endpoint", "body"),
    [
        (openai_json.Endpoint.CHAT, {}),
        (openai_json.Endpoint.CHAT, {"messages": []}),
        (openai_json.Endpoint.CHAT, {"prompt": "Hi"}),
        (openai_json.Endpoint.COMPLETIONS, {}),
        (openai_json.Endpoint.COMPLETIONS, {"prompt": []}),
        (openai_json.Endpoint.COMPLETIONS, {"messages": [{"role": "user", "content": "x"}]}),
        (openai_json.Endpoint.COMPLETIONS, {"prompt": [1, 2, 3]}),
        (openai_json.Endpoint.COMPLETIONS, {"input": "Hi"}),
    ],
)
def test_litellm_27001_no_body_without_a_counted_prompt_gets_through(endpoint, body):
    with pytest.raises(InvalidInput):
        openai_json.OpenAICall(endpoint, {"model": "m", **body})


@pytest.mark.parametrize("text", ["word ", "é", "日本", "\U0001f600"])
def test_litellm_40002_a_long_prompt_is_reserved_at_the_same_rate_as_a_short_one(text):
    assert _bound(text * 100_000) - tokens.TEXT_EXTRA == 100_000 * len(text.encode())


def test_litellm_17706_v2_and_openai_requests_are_reserved_alike():
    body = b'{"inputs":[{"name":"text_input","shape":[1],"datatype":"BYTES","data":["Hello"]}],'
    body += b'"parameters":{"max_tokens":"16"}}'
    infer = infer_request("m", None, body, None)
    assert infer.inputs[0].name == TEXT_INPUT
    v2 = text_tensors.generation_request(infer, stream=False)
    openai = openai_json.OpenAICall(
        openai_json.Endpoint.COMPLETIONS, {"model": "m", "prompt": "Hello", "max_tokens": 16}
    ).request
    assert _bound(*v2.prompts) == _bound(*openai.prompts)
    assert tokens.answer_bound(v2) == tokens.answer_bound(openai)


def test_without_max_tokens_the_protocols_defaults_are_what_is_reserved():
    assert sampling.parse({}, default_max_tokens=text_tensors.DEFAULT_MAX_TOKENS).max_tokens == 20
