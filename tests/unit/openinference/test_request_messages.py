"""Requests to a predictor: what is put together from parts is what would be encoded whole."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openinference import text_tensors, v2_grpc
from openinference.generation import Conversation, GenerationRequest
from openinference.proto import inference_pb2 as pb
from openinference.request_messages import _HEAD_BYTES, _REMEMBERED, RequestWriter
from openinference.sampling import SamplingParams
from openinference.structured import Kind, StructuredOutputs

MESSAGES = st.fixed_dictionaries(
    {"role": st.sampled_from(["system", "user", "assistant"]), "content": st.text()},
    optional={"name": st.text()},
)
CONVERSATIONS = st.lists(MESSAGES, max_size=3).map(tuple).map(Conversation)
# Lengths about those where a length takes one byte more.
LONG = st.sampled_from([119, 120, 123, 124, 16379, 16380, 70_000]).map("a".__mul__)
PROMPTS = st.lists(st.text() | LONG, min_size=1, max_size=4) | st.lists(
    CONVERSATIONS, min_size=1, max_size=4
)
# Few values each, so that many requests are of one kind.
SAMPLINGS = st.builds(
    SamplingParams,
    max_tokens=st.sampled_from([None, 16]),
    temperature=st.sampled_from([0.0, 0.7, 1.0]),
    stop=st.sampled_from([(), ("é\n",), ("a", "b" * 2000)]),
    seed=st.sampled_from([None, 0, -(2**63)]),
    ignore_eos=st.booleans(),
    n=st.sampled_from([1, 3]),
    logprobs=st.sampled_from([None, 0, 5]),
    logit_bias=st.sampled_from([(), ((0, -1.5), (7, 100.0))]),
    structured_outputs=st.sampled_from([None, StructuredOutputs(Kind.CHOICE, '["a","b"]')]),
)
REQUESTS = st.builds(GenerationRequest, st.just("m"), PROMPTS.map(tuple), SAMPLINGS, st.booleans())
GREEDY = GenerationRequest("m", ("Hi",), SamplingParams(16, temperature=0.0), stream=False)


def _encoded_whole(request, model):
    message = v2_grpc.encode_request(text_tensors.infer_request(request))
    message.model_name = model
    return message


@given(st.lists(st.tuples(REQUESTS, st.sampled_from(["m", "m:lora", "ü", ""])), max_size=8))
def test_every_request_says_what_it_says_encoded_whole(requests):
    writer = RequestWriter()
    for request, model in requests * 2:
        message = pb.ModelInferRequest.FromString(writer.write(request, model))
        assert message == _encoded_whole(request, model)


@given(st.text(), st.text())
def test_its_bytes_are_those_encoded_whole(first, second):
    """Of one parameter: those of a map have no order."""
    writer = RequestWriter()
    for text in (first, second):
        request = replace(GREEDY, prompts=(text,), sampling=SamplingParams(16))
        assert writer.write(request, "m") == _encoded_whole(request, "m").SerializeToString()


def test_a_second_request_of_a_kind_is_not_encoded_again(monkeypatch):
    writer = RequestWriter()
    writer.write(GREEDY, "m")
    monkeypatch.setattr(v2_grpc, "encode_request", None)
    message = pb.ModelInferRequest.FromString(writer.write(replace(GREEDY, prompts=("Ho",)), "m"))
    assert list(message.raw_input_contents) == [b"\2\0\0\0Ho"]


def test_only_so_much_is_remembered():
    writer = RequestWriter()
    for seed in range(_REMEMBERED + 2):
        writer.write(replace(GREEDY, sampling=SamplingParams(16, seed=seed)), "m")
    long = SamplingParams(16, stop=("a" * _HEAD_BYTES,))
    writer.write(replace(GREEDY, sampling=long), "m")
    assert len(writer._heads) == 2


@pytest.mark.parametrize("prompts", [("\ud800",), ("Hi", "\ud800")])
def test_what_is_no_text_is_refused_each_time(prompts):
    writer = RequestWriter()
    for _ in range(2):
        with pytest.raises(UnicodeEncodeError):
            writer.write(replace(GREEDY, prompts=prompts), "m")
