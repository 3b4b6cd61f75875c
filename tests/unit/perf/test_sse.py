"""Events are read the same however the network cuts them."""

import itertools

from hypothesis import given
from hypothesis import strategies as st
from sse import EventReader

STREAM = (
    b": still waiting\n\n"
    b'data: {"text": ""}\n\n'
    b'data: {"text": "a data: b"}\n\n'
    b": a comment\n\n"
    b'data: {"text": "c\\n\\ndata: d"}\n\n'
    b'event: message\ndata: {"text": "e", "usage": {"completion_tokens": 3}}\n\n'
    b"data: [DONE]\n\n"
)
TEXTS = ["", "a data: b", "c\n\ndata: d", "e"]


def pieces(stream: bytes, cuts: list[int]) -> list[bytes]:
    edges = [0, *sorted(cut % len(stream) for cut in cuts), len(stream)]
    return [stream[a:b] for a, b in itertools.pairwise(edges) if a < b]


def has_text(event):
    return bool(event.get("text"))


@given(st.lists(st.integers(0, 10_000), max_size=12), st.booleans())
def test_all_events_are_counted_and_kept_wherever_the_stream_is_cut(cuts, crlf):
    stream = STREAM.replace(b"\n", b"\r\n") if crlf else STREAM
    reader = EventReader(has_text, keep=True)
    assert sum(map(reader.feed, pieces(stream, cuts))) == 5
    assert [event["text"] for event in reader.events] == TEXTS


@given(st.lists(st.integers(0, 10_000), max_size=12), st.booleans())
def test_counting_only_finds_the_same_number_and_the_first_text(cuts, crlf):
    stream = STREAM.replace(b"\n", b"\r\n") if crlf else STREAM
    reader = EventReader(has_text)
    first_text = stream.index(b"a data: b")
    fed = counted = 0
    for piece in pieces(stream, cuts):
        counted += reader.feed(piece)
        fed += len(piece)
        assert reader.begun <= (fed > first_text)
    assert counted == 5
    assert reader.begun
    assert reader.events == []
    assert reader.last()[-1]["usage"] == {"completion_tokens": 3}


def test_the_last_events_are_known_when_done_comes_alone():
    reader = EventReader(has_text)
    for piece in (b'data: {"text": "a"}\n\n', b'data: {"text": "b"}\n\n', b"data: [DONE]\n\n"):
        reader.feed(piece)
    assert reader.last() == [{"text": "b"}]


def test_what_is_no_json_is_an_error():
    reader = EventReader(has_text, keep=True)
    reader.feed(b"data: {\n\ndata: 3\n\n")
    assert all("error" in event for event in reader.events)
    assert len(reader.events) == 2
