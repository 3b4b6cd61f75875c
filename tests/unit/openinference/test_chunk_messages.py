"""Chunks out of stream messages: the short way says what the long way says."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openinference import text_tensors, v2_grpc
from openinference.chunk_messages import AnswerReader, StreamReader
from openinference.errors import InternalError
from openinference.generation import Chunk, Completion, FinishReason, GenerationRequest
from openinference.proto import inference_pb2 as pb
from openinference.sampling import SamplingParams

REQUEST = text_tensors.infer_request(GenerationRequest("m", ("Hi",), SamplingParams(), True))
CHUNKS = st.builds(
    Chunk,
    st.integers(0, 127),
    st.text(max_size=300),
    st.integers(0, 2**32 - 1),
    st.integers(0, 2**32 - 1),
    st.none() | st.sampled_from(FinishReason),
    st.just(()),
)


def _message(chunk, *, final=False, raw=True, request=REQUEST):
    response = text_tensors.chunk_response(request, None, chunk, final=final)
    encoded = v2_grpc.encode_response(response, raw=raw)
    return pb.ModelStreamInferResponse(infer_response=encoded).SerializeToString()


def _whole(message):
    response = pb.ModelStreamInferResponse.FromString(message).infer_response
    return text_tensors.chunks(v2_grpc.decode_response(response))


@given(st.lists(st.tuples(CHUNKS, st.booleans(), st.booleans()), min_size=1, max_size=6))
def test_every_message_says_what_it_says_read_whole(said):
    reader = StreamReader()
    for chunk, final, raw in said:
        message = _message(chunk, final=final, raw=raw)
        assert reader.read(message) == _whole(message) == [chunk]


@pytest.mark.parametrize("length", [0, 1, 123, 124, 200, 16379, 16380, 2**21])
def test_what_has_begun_alike_is_not_decoded_again(length, monkeypatch):
    reader = StreamReader()
    reader.read(_message(Chunk(0, "a", 3, 1)))
    monkeypatch.setattr(v2_grpc, "decode_response", None)
    for reason in (None, *FinishReason):
        chunk = Chunk(0, "b" * length, 3, 2, reason)
        assert reader.read(_message(chunk)) == [chunk]


@given(st.permutations(REQUEST.outputs), st.lists(CHUNKS, min_size=2, max_size=2))
def test_outputs_may_come_in_any_order(outputs, said):
    reader = StreamReader()
    for chunk in said:
        message = _message(chunk, request=REQUEST._replace(outputs=outputs))
        assert reader.read(message) == [chunk]


@given(st.data())
def test_a_message_that_is_not_whole_or_not_ours_gets_its_error_or_its_meaning(data):
    """Cut, changed or lengthened anywhere, a message is read as if it were the stream's first."""
    reader = StreamReader()
    reader.read(_message(Chunk(0, "a", 3, 1)))
    message = bytearray(_message(Chunk(0, "text", 3, 2)))
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, len(message) - 1))
        if data.draw(st.booleans()):
            message[place] = data.draw(st.integers(0, 255))
        else:
            del message[place : place + data.draw(st.integers(1, 4))]
        if not message:
            break
    results = []
    for each in (reader, StreamReader()):
        try:
            results.append(each.read(bytes(message)))
        except InternalError as error:
            results.append(error.message)
    assert results[0] == results[1]


@pytest.mark.parametrize("message", [b"", b"\x12", b"\x12\xff\xff\xff\xff\xff", b"nothing of ours"])
def test_what_is_no_answer_at_all_is_an_internal_error(message):
    reader = StreamReader()
    with pytest.raises(InternalError):
        reader.read(message)


@given(st.lists(st.tuples(st.sampled_from("ab"), st.text(max_size=99)), min_size=1, max_size=6))
def test_whole_answers_say_what_they_say_read_whole(said):
    reader = AnswerReader()
    for model, text in said:
        completion = Completion(text, FinishReason.EOS, 3, 2)
        request = GenerationRequest(model, ("Hi",), SamplingParams(), False)
        infer = text_tensors.infer_request(request)
        response = text_tensors.infer_response(infer, None, [completion])
        message = v2_grpc.encode_response(response, raw=True).SerializeToString()
        assert reader.read(message, model) == [Chunk(0, text, 3, 2, FinishReason.EOS)]


def test_an_answer_of_several_sequences_is_read_too():
    reader = AnswerReader()
    for count in (1, 3, 1):
        completions = [Completion(f"{n}", FinishReason.EOS, 3, 2) for n in range(count)]
        response = text_tensors.infer_response(REQUEST, None, completions)
        message = v2_grpc.encode_response(response, raw=True).SerializeToString()
        chunks = reader.read(message, "m")
        assert [(chunk.index, chunk.text) for chunk in chunks] == [
            (n, f"{n}") for n in range(count)
        ]
