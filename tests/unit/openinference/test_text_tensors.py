import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from openinference import text_tensors, v2_grpc
from openinference.datatypes import BYTES, UINT32
from openinference.errors import InternalError, InvalidInput
from openinference.generation import (
    Chunk,
    Completion,
    Conversation,
    FinishReason,
    GenerationRequest,
)
from openinference.messages import (
    InferRequest,
    InferResponse,
    RequestedOutput,
    Tensor,
    bytes_tensor,
    number_tensor,
)
from openinference.sampling import SamplingParams
from openinference.structured import Kind, StructuredOutputs
from openinference.tokens import Token

TEXT = bytes_tensor("text_input", ["Hi"])
ALL = [RequestedOutput(name) for name in text_tensors.OUTPUTS]


def _messages(*texts):
    return bytes_tensor("messages", texts)


def _request(*inputs, stream=False, **members):
    return text_tensors.generation_request(InferRequest("m", inputs, **members), stream=stream)


PROMPTS = st.lists(st.text(), min_size=1, max_size=3).map(tuple)
MESSAGE = st.fixed_dictionaries(
    {"role": st.sampled_from(["system", "user", "assistant"]), "content": st.text()},
    optional={"name": st.text()},
)
CONVERSATIONS = st.lists(
    st.lists(MESSAGE, min_size=1, max_size=3).map(tuple).map(Conversation), min_size=1, max_size=3
).map(tuple)
SAMPLINGS = st.builds(
    SamplingParams,
    max_tokens=st.integers(1, 2**31 - 1),
    temperature=st.floats(0, 2),
    stop=st.lists(st.text(min_size=1), max_size=3).map(tuple),
    seed=st.none() | st.integers(0, 2**63 - 1),
    ignore_eos=st.booleans(),
    n=st.integers(1, 4),
    logprobs=st.none() | st.integers(0, 20),
    logit_bias=st.sampled_from([(), ((0, -1.5), (7, 100.0))]),
    structured_outputs=st.sampled_from(
        [
            None,
            StructuredOutputs(Kind.JSON, '{"type": "object"}'),
            StructuredOutputs(Kind.CHOICE, '["a","b"]'),
        ]
    ),
)
REQUESTS = st.builds(
    GenerationRequest, st.just("m"), PROMPTS | CONVERSATIONS, SAMPLINGS, st.booleans()
)


@given(request=REQUESTS)
def test_a_request_is_the_same_after_the_hop(request):
    wire = v2_grpc.encode_request(text_tensors.infer_request(request)).SerializeToString()
    message = v2_grpc.pb.ModelInferRequest.FromString(wire)
    again = text_tensors.generation_request(v2_grpc.decode_request(message), stream=request.stream)
    assert again == request


def test_as_many_tokens_as_fit_is_told_as_a_number():
    request = GenerationRequest("m", ("Hi",), SamplingParams(max_tokens=None), stream=False)
    again = text_tensors.generation_request(text_tensors.infer_request(request), stream=False)
    assert again.sampling.max_tokens == text_tensors.UNBOUNDED


def test_without_max_tokens_infer_generates_20():
    assert _request(TEXT).sampling == SamplingParams(max_tokens=20)


def test_asking_for_the_output_logprobs_asks_for_the_chosen_tokens():
    assert _request(TEXT, outputs=ALL).sampling.logprobs == 0
    assert _request(TEXT, outputs=ALL, parameters={"logprobs": "3"}).sampling.logprobs == 3


def test_parameters_of_the_protocol_are_not_sampling():
    parameters = {
        "timeout": 5,
        "priority": 1,
        "binary_data_output": True,
        "triton_enable_empty_final_response": True,
        "temperature": "0",
    }
    assert _request(TEXT, parameters=parameters).sampling == SamplingParams(
        max_tokens=20, temperature=0.0
    )


@pytest.mark.parametrize(
    ("inputs", "members", "told"),
    [
        ([], {}, "inputs must be one tensor, 'text_input' or 'messages', got []"),
        ([bytes_tensor("x", ["Hi"])], {}, "inputs must be one tensor"),
        ([TEXT, _messages("[]")], {}, "inputs must be one tensor"),
        ([TEXT, TEXT], {}, "inputs: two inputs have the same name"),
        ([number_tensor("text_input", UINT32, [1])], {}, "datatype must be BYTES, got UINT32"),
        ([bytes_tensor("text_input", [], [0])], {}, "'text_input': must hold at least one element"),
        ([Tensor("text_input", BYTES, (1,), (b"\xff",))], {}, "element 0 is not UTF-8"),
        ([_messages("[", "")], {}, "input 'messages': element 0 is not JSON"),
        ([_messages("{}")], {}, "input 'messages'[0] must be a non-empty list of messages"),
        ([TEXT], {"outputs": [RequestedOutput("logits")]}, "outputs: 'logits' is unknown; allowed"),
        ([TEXT], {"outputs": [ALL[0], ALL[0]]}, "outputs: two outputs have the same name"),
        ([TEXT], {"parameters": {"beam": 1}}, "parameter 'beam' is unknown"),
        ([TEXT], {"parameters": {"priority": -1}}, "'priority' must be an integer, 0 or more"),
        ([TEXT], {"parameters": {"priority": "high"}}, "'priority' must be an integer"),
        ([TEXT], {"parameters": {"triton_enable_empty_final_response": 1}}, "must be true or f"),
        ([TEXT], {"parameters": {"logprobs": 1}}, "'logprobs' needs the output 'logprobs'"),
        ([bytes_tensor("text_input", ["Hi"] * 257)], {}, "must be from 1 to 256 sequences"),
    ],
)
def test_tensors_that_a_text_model_does_not_have_are_refused(inputs, members, told):
    with pytest.raises(InvalidInput) as error:
        _request(*inputs, **members)
    assert told in error.value.message


@pytest.mark.parametrize(
    ("value", "timeout_s"),
    [
        (0, None),
        (0.0, None),
        (2e6, 2.0),
        (1_500_000, 1.5),
        (1, 1e-6),
        (2**64 - 1, (2**64 - 1) / 1e6),
    ],
)
def test_tritons_timeout_is_in_microseconds(value, timeout_s):
    assert text_tensors.timeout_s({"timeout": value}) == timeout_s
    assert text_tensors.timeout_s({}) is None


@pytest.mark.parametrize("value", [-1, 1.5, "5", True])
def test_an_unusable_timeout_is_refused(value):
    with pytest.raises(InvalidInput, match="parameter 'timeout' must be microseconds"):
        text_tensors.timeout_s({"timeout": value})


COMPLETIONS = [
    Completion("Hello", FinishReason.LENGTH, 3, 2),
    Completion("", FinishReason.EOS, 4, 1),
]


def test_an_answer_holds_text_output_unless_asked_for_more():
    response = text_tensors.infer_response(InferRequest("m", [], id="a"), "1", COMPLETIONS)
    (tensor,) = response.outputs
    assert (tensor.name, tensor.shape, tensor.data) == ("text_output", (2,), (b"Hello", b""))
    assert (response.model, response.version, response.id) == ("m", "1", "a")


def test_an_answer_holds_what_was_asked_for_in_that_order():
    outputs = [RequestedOutput("num_output_tokens"), RequestedOutput("finish_reason")]
    infer = InferRequest("m", [], outputs=outputs)
    counts, reasons = text_tensors.infer_response(infer, None, COMPLETIONS).outputs
    assert (counts.name, counts.datatype, list(counts.data)) == (
        "num_output_tokens",
        UINT32,
        [2, 1],
    )
    assert (reasons.name, reasons.data) == ("finish_reason", (b"length", b"eos_token"))


LOGPROBS = st.floats(-1e4, 0)
TOKENS = st.builds(
    Token,
    st.integers(0, 2**31 - 1),
    st.text(),
    LOGPROBS,
    st.booleans(),
    st.lists(
        st.builds(Token, st.integers(0, 2**31 - 1), st.text(), LOGPROBS, st.booleans()), max_size=3
    ).map(tuple),
)
CHUNKS = st.builds(
    Chunk,
    st.integers(0, 255),
    st.text(),
    st.integers(0, 2**32 - 1),
    st.integers(0, 2**32 - 1),
    st.none() | st.sampled_from(FinishReason),
    st.lists(TOKENS, max_size=3).map(tuple),
)


@given(chunk=CHUNKS, final=st.booleans())
def test_a_chunk_is_the_same_after_the_hop(chunk, final):
    infer = InferRequest("m", [], outputs=ALL)
    response = text_tensors.chunk_response(infer, None, chunk, final=final)
    message = v2_grpc.encode_response(response, raw=True)
    again = v2_grpc.decode_response(message)
    assert text_tensors.chunks(again) == [chunk]
    assert again.parameters == {"triton_final_response": final}


def test_a_whole_answer_is_read_as_one_final_chunk_a_sequence():
    response = text_tensors.infer_response(InferRequest("m", [], outputs=ALL), None, COMPLETIONS)
    assert text_tensors.chunks(response) == [
        Chunk(0, "Hello", 3, 2, FinishReason.LENGTH),
        Chunk(1, "", 4, 1, FinishReason.EOS),
    ]


ODD_TOKEN = '{"id": "1", "text": "a", "logprob": -1, "special": false, "top": []}'
GOOD = text_tensors.chunk_response(
    InferRequest("m", [], outputs=ALL[:-1]), None, Chunk(0, "a", 1, 1), final=False
).outputs


@pytest.mark.parametrize(
    "outputs",
    [
        [],
        GOOD[1:],
        [*GOOD[:-1], number_tensor("output_index", UINT32, [0, 1])],
        [*GOOD, bytes_tensor("finish_reason", ["bored"])],
        [*GOOD, number_tensor("text_output", UINT32, [1])],
        [*GOOD, Tensor("text_output", BYTES, (1,), (b"\xff",))],
        [*GOOD, bytes_tensor("output_index", ["first"])],
        [*GOOD, Tensor("output_index", UINT32, (1,), np.array([np.inf]))],
        *(
            [*GOOD, bytes_tensor("logprobs", [text])]
            for text in ("{", "{}", "[7]", "[{}]", '[{"id": 1, "top": []}]', f"[{ODD_TOKEN}]")
        ),
    ],
)
def test_an_answer_of_another_shape_is_an_internal_error(outputs):
    with pytest.raises(InternalError):
        text_tensors.chunks(InferResponse("m", outputs))


def test_metadata_tells_what_every_request_has_and_gets_and_names_the_rest():
    metadata = text_tensors.model_metadata("m", "p")
    assert [tensor.name for tensor in metadata.inputs] == ["text_input"]
    assert [tensor.name for tensor in metadata.outputs] == ["text_output"]
    assert {tensor.shape for tensor in (*metadata.inputs, *metadata.outputs)} == {(-1,)}
    assert "messages" in metadata.properties["input_instead_of_text_input"]
    for name in set(text_tensors.OUTPUTS) - {"text_output"}:
        assert name in metadata.properties["outputs_on_request"]


def test_a_raw_body_is_one_text_answered_in_binary():
    infer = text_tensors.raw_request("m", None, "héllo".encode())
    assert text_tensors.generation_request(infer, stream=False).prompts == ("héllo",)
    assert infer.parameters == {"binary_data_output": True}


@pytest.mark.parametrize("name", ["shared_memory_region", "classification"])
@pytest.mark.parametrize("kind", ["input", "output"])
def test_what_another_extension_would_do_is_refused(name, kind):
    told = {name: 1}
    tensor = Tensor("text_input", BYTES, (1,), (b"Hi",), told if kind == "input" else {})
    outputs = [RequestedOutput("text_output", told)] if kind == "output" else None
    with pytest.raises(InvalidInput, match=f"{kind} .*'{name}' is not supported"):
        text_tensors.generation_request(InferRequest("m", [tensor], outputs=outputs), stream=False)


def test_messages_are_read_from_their_json():
    messages = [{"role": "user", "content": "Hi"}]
    request = _request(_messages(orjson.dumps(messages).decode()))
    assert request.prompts == (Conversation(tuple(messages)),)
