"""Which requests are the same request."""

import dataclasses
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_transformer.cache import key
from llm_transformer.cache.key import digest_of
from openinference import text_tensors
from openinference.generate_json import GenerateCall
from openinference.generation import Conversation, GenerationRequest
from openinference.openai_json import Endpoint, OpenAICall
from openinference.sampling import SamplingParams
from openinference.structured import Kind, StructuredOutputs
from openinference.v2_json import infer_request

BASE = GenerationRequest("m", ("Hi",), SamplingParams(max_tokens=20, temperature=0.7), stream=False)
OTHER = {
    "max_tokens": 21,
    "min_tokens": 1,
    "temperature": 0.8,
    "top_p": 0.9,
    "top_k": 5,
    "min_p": 0.1,
    "presence_penalty": 0.1,
    "frequency_penalty": 0.1,
    "repetition_penalty": 1.1,
    "stop": ("a",),
    "stop_token_ids": (1,),
    "ignore_eos": True,
    "skip_special_tokens": False,
    "seed": 7,
    "n": 2,
    "logprobs": 0,
    "logit_bias": ((1, 2.0),),
    "structured_outputs": StructuredOutputs(Kind.CHOICE, '["a","b"]'),
    "max_prompt_tokens": 5,
}


def _with(**sampling):
    return dataclasses.replace(BASE, sampling=dataclasses.replace(BASE.sampling, **sampling))


def _infer(parameters, **tensor):
    tensor = {"name": "text_input", "shape": [1], "datatype": "BYTES", "data": ["Hi"], **tensor}
    body = json.dumps({"id": "1", "inputs": [tensor], "parameters": parameters})
    return text_tensors.generation_request(
        infer_request("m", None, body.encode(), None), stream=False
    )


def test_every_sampling_parameter_counts():
    names = [field.name for field in dataclasses.fields(SamplingParams)]
    assert list(OTHER) == names
    digests = {digest_of(_with(**{name: OTHER[name]}), "t") for name in names}
    assert len(digests | {digest_of(BASE, "t")}) == len(names) + 1


def test_model_prompt_kind_of_prompt_and_tenant_count():
    others = [
        dataclasses.replace(BASE, model="n"),
        dataclasses.replace(BASE, prompts=("Hi ",)),
        dataclasses.replace(BASE, prompts=("Hi", "Hi")),
        dataclasses.replace(BASE, prompts=(Conversation(({"role": "user", "content": "Hi"},)),)),
        dataclasses.replace(BASE, prompts=(Conversation(({"role": "system", "content": "Hi"},)),)),
    ]
    digests = {digest_of(request, "t") for request in [BASE, *others]}
    digests |= {digest_of(BASE, "u"), digest_of(BASE, ""), digest_of(BASE, None)}
    assert len(digests) == 9


def test_streaming_does_not_count():
    assert digest_of(dataclasses.replace(BASE, stream=True), "t") == digest_of(BASE, "t")


@pytest.mark.parametrize("name", ["seed", "top_p", "top_k", "min_p"])
def test_at_temperature_0_what_shapes_chance_does_not_count(name):
    greedy = digest_of(_with(temperature=0.0), None)
    assert digest_of(_with(temperature=0.0, **{name: OTHER[name]}), None) == greedy
    assert digest_of(_with(temperature=-0.0), None) == greedy


@pytest.mark.parametrize("first", [0.0, -0.0])
def test_both_zeros_are_the_same_whichever_came_first(monkeypatch, first):
    monkeypatch.setattr(key, "_remembered", {})
    digests = {
        digest_of(_with(presence_penalty=zero, temperature=0.5, seed=1), None)
        for zero in (first, -first)
    }
    monkeypatch.setattr(key, "_remembered", {})
    digests.add(digest_of(_with(presence_penalty=-first, temperature=0.5, seed=1), None))
    assert len(digests) == 1


def test_what_is_remembered_of_samplings_is_bounded(monkeypatch):
    monkeypatch.setattr(key, "_remembered", {})
    for seed in range(key.REMEMBERED + 10):
        digest_of(_with(temperature=0.5, seed=seed), None)
    assert len(key._remembered) <= key.REMEMBERED
    before = dict(key._remembered)
    digest_of(_with(stop=("x" * key.REMEMBERED_BYTES,)), None)
    assert key._remembered == before


def test_the_same_request_by_another_protocol_is_the_same():
    chat = {"messages": [{"role": "user", "content": [{"type": "text", "text": "Hi"}]}]}
    same = [
        [
            _infer({"max_tokens": "20", "temperature": 0}),
            _infer({"temperature": "0.0"}),
            GenerateCall(
                "m", {"text_input": "Hi", "parameters": {"temperature": 0}}, stream=True
            ).request,
            OpenAICall(
                Endpoint.COMPLETIONS,
                {"model": "m", "prompt": "Hi", "max_tokens": 20, "temperature": 0, "user": "me"},
            ).request,
        ],
        [
            OpenAICall(Endpoint.CHAT, {"model": "m", **chat, "temperature": 0}).request,
            _infer(
                {"temperature": 0, "max_tokens": 2**31 - 1},
                name="messages",
                data=['[{"content":"Hi","role":"user"}]'],
            ),
        ],
    ]
    for requests in same:
        assert len({digest_of(request, "t") for request in requests}) == 1


@given(st.text(), st.text(), st.one_of(st.none(), st.text()), st.one_of(st.none(), st.text()))
def test_no_text_passes_for_another(prompt, other, scope, other_scope):
    same = (prompt, scope) == (other, other_scope)
    digests = {
        digest_of(dataclasses.replace(BASE, prompts=(text,)), tenant)
        for text, tenant in ((prompt, scope), (other, other_scope))
    }
    assert len(digests) == (1 if same else 2)
