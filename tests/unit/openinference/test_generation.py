import pytest

from openinference.errors import InternalError, InvalidInput
from openinference.generation import (
    Chunk,
    Completion,
    Conversation,
    FinishReason,
    GenerationRequest,
    Usage,
    collect,
    parse_conversation,
)
from openinference.sampling import SamplingParams


def _request(prompts=1, n=1):
    return GenerationRequest("m", ("Hi",) * prompts, SamplingParams(n=n), stream=True)


@pytest.mark.parametrize(("prompts", "n"), [(0, 1), (257, 1), (129, 2), (3, 128)])
def test_a_request_asks_for_1_to_256_sequences(prompts, n):
    with pytest.raises(InvalidInput, match="must be from 1 to 256 sequences"):
        _request(prompts, n)


def test_sequences_are_prompts_times_choices():
    assert _request(2, 128).sequences == 256


async def _chunks(*chunks):
    for chunk in chunks:
        yield chunk


async def test_interleaved_chunks_are_collected_by_sequence():
    completions = await collect(
        _request(2),
        _chunks(
            Chunk(1, "a", 5, 1),
            Chunk(0, "x", 3, 1),
            Chunk(1, "b", 5, 2, FinishReason.EOS),
            Chunk(0, "y", 3, 2),
            Chunk(0, "", 3, 3, FinishReason.STOP_SEQUENCE),
        ),
    )
    assert completions == [
        Completion("xy", FinishReason.STOP_SEQUENCE, 3, 3),
        Completion("ab", FinishReason.EOS, 5, 2),
    ]


@pytest.mark.parametrize("chunks", [[], [Chunk(0, "a", 1, 1, FinishReason.EOS)]])
async def test_a_sequence_that_never_ends_is_an_internal_error(chunks):
    with pytest.raises(InternalError):
        await collect(_request(2), _chunks(*chunks))


def test_usage_counts_each_prompt_once_and_each_sequence_when_it_ends():
    usage = Usage(n=2)
    for chunk in (
        Chunk(0, "a", 3, 1),
        Chunk(0, "b", 3, 2, FinishReason.EOS),
        Chunk(1, "c", 3, 4, FinishReason.EOS),
        Chunk(2, "d", 5, 1, FinishReason.EOS),
        Chunk(3, "e", 5, 1),
    ):
        usage.add(chunk)
    assert (usage.prompt_tokens, usage.completion_tokens) == (8, 7)


def test_text_parts_are_joined_and_names_are_kept():
    parts = [{"type": "text", "text": "Hel"}, {"type": "text", "text": "lo"}]
    assert parse_conversation(
        [
            {"role": "system", "content": "Be short."},
            {"role": "user", "name": "ann", "content": parts, "tool_calls": None, "refusal": ""},
        ]
    ) == Conversation(
        (
            {"role": "system", "content": "Be short."},
            {"role": "user", "content": "Hello", "name": "ann"},
        )
    )


@pytest.mark.parametrize(
    ("messages", "told"),
    [
        (None, "messages must be a non-empty list"),
        ([], "messages must be a non-empty list"),
        ("Hi", "messages must be a non-empty list"),
        (["Hi"], "messages[0] must be an object"),
        ([{"content": "Hi"}], "messages[0].role must be one of system, developer, user"),
        ([{"role": "robot", "content": "Hi"}], "messages[0].role must be one of"),
        ([{"role": ["user"], "content": "Hi"}], "messages[0].role must be one of"),
        ([{"role": "user"}], "messages[0].content must be a string or a list"),
        ([{"role": "user", "content": None}], "messages[0].content must be a string"),
        ([{"role": "user", "content": ["Hi"]}], "messages[0].content[0] must be a text part"),
        (
            [{"role": "user", "content": [{"type": "image_url"}]}],
            "messages[0].content[0] must be a text part",
        ),
        (
            [{"role": "user", "content": [{"type": "text", "text": 7}]}],
            "messages[0].content[0] must be a text part",
        ),
        (
            [{"role": "user", "content": "a"}, {"role": "user", "content": "b", "tool_calls": [1]}],
            "messages[1].tool_calls is not supported",
        ),
        ([{"role": "user", "content": "a", "name": 7}], "messages[0].name is not supported"),
    ],
)
def test_a_malformed_message_is_refused_naming_it(messages, told):
    with pytest.raises(InvalidInput) as error:
        parse_conversation(messages)
    assert told in error.value.message
