"""Records: what goes in comes out, what is no record is none, and what they weigh is true."""

import gc
import tracemalloc

import orjson
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from llm_transformer.cache import record
from llm_transformer.cache.local import LocalCache
from llm_transformer.cache.record import Broken, Record, from_wire, to_wire
from openinference import errors
from openinference.generation import Chunk, FinishReason, GenerationRequest
from openinference.sampling import SamplingParams
from openinference.tokens import Token

from .scripted import HEL, LO, ask

MOST = 2**20


def _record(chunks=(HEL, LO), request=None, now=0.0):
    return record.answer(request or ask(), chunks, weights_id="w", ttl_s=400, made_at=now)


def _read(kept):
    return Record.read(from_wire(to_wire(kept.packed()), most=MOST), made_at=kept.made_at)


def test_chunks_come_back_as_they_came_or_whole():
    kept = _record()
    assert list(kept.chunks(stream=True)) == [HEL, LO]
    assert list(kept.chunks(stream=False)) == [Chunk(0, "Hello", 3, 2, FinishReason.EOS)]
    assert (kept.prompt_tokens, kept.completion_tokens) == (3, 2)
    assert (kept.weights_id, kept.ttl_s, kept.error) == ("w", 400, None)


def test_interleaved_sequences_keep_their_order_and_count_each_prompt_once():
    request = GenerationRequest("m", ("a", "b"), SamplingParams(n=2), stream=True)
    chunks = [Chunk(i, f"{i}x", 5, 1) for i in (2, 0, 3, 1)]
    chunks += [Chunk(i, "y", 5, 2, FinishReason.LENGTH) for i in (1, 3, 0, 2)]
    kept = _record(chunks, request)
    assert list(kept.chunks(stream=True)) == chunks
    assert [chunk.text for chunk in kept.chunks(stream=False)] == ["0xy", "1xy", "2xy", "3xy"]
    assert (kept.prompt_tokens, kept.completion_tokens) == (10, 8)


def test_log_probabilities_come_back_too():
    top = Token(1, "Hel", -0.5, top=(Token(1, "Hel", -0.5), Token(9, "Yo", -1.5)))
    chunks = [
        Chunk(0, "Hel", 3, 1, tokens=(top,)),
        Chunk(0, "lo", 3, 2, FinishReason.EOS, (Token(2, "lo", -0.1, special=True),)),
    ]
    kept = _record(chunks)
    assert list(kept.chunks(stream=True)) == chunks
    (whole,) = kept.chunks(stream=False)
    assert whole == Chunk(0, "Hello", 3, 2, FinishReason.EOS, chunks[0].tokens + chunks[1].tokens)
    again = _read(kept)
    assert list(again.chunks(stream=True)) == chunks


@pytest.mark.parametrize("chunks", [[], [HEL], [LO, LO], [HEL, LO, Chunk(1, "", 3, 1, "length")]])
def test_what_is_not_the_whole_answer_is_not_kept(chunks):
    assert record.answer(ask(), chunks, weights_id="w", ttl_s=400, made_at=0) is None


def test_only_errors_that_always_come_are_kept(every_error):
    always = set()
    for error in every_error:
        kept = record.failure(error, weights_id="w", ttl_s=60, made_at=0)
        if kept is not None:
            again = _read(kept).error
            assert (type(again), again.message) == (type(error), error.message)
            always.add(type(error))
    assert always == {errors.InvalidInput, errors.PayloadTooLarge, errors.Unsupported}


texts = st.text(max_size=40)


@given(st.lists(texts, min_size=1, max_size=30), st.booleans())
def test_a_record_survives_the_wire(parts, whole):
    if whole:
        parts = ["".join(parts)]
    chunks = [Chunk(0, text, 3, number) for number, text in enumerate(parts[:-1])]
    chunks.append(Chunk(0, parts[-1], 3, len(parts), FinishReason.EOS))
    kept = _record(chunks)
    again = _read(kept)
    assert list(again.chunks(stream=True)) == chunks
    assert again.etag == kept.etag


def test_large_records_are_compressed():
    packed = _record([Chunk(0, "word " * 2000, 3, 2000, FinishReason.EOS)]).packed()
    assert len(to_wire(packed)) < len(packed) / 20


@given(st.binary(max_size=200))
def test_no_bytes_but_a_record_are_a_record(wire):
    with pytest.raises(Broken):
        Record.read(from_wire(wire, most=MOST), made_at=0)


@given(st.data())
def test_a_changed_byte_is_found(data):
    wire = bytearray(to_wire(_record().packed()))
    at = data.draw(st.integers(0, len(wire) - 1))
    wire[at] ^= data.draw(st.integers(1, 255))
    with pytest.raises(Broken):
        from_wire(bytes(wire), most=MOST)


small = st.integers(-(2**60), 2**60)


@given(st.recursive(st.none() | small | st.text() | st.floats(allow_nan=False), st.lists))
def test_json_that_is_no_list_of_chunks_is_broken(content):
    assume(content != [])
    packed = {"weights": "w", "ttl": 1, "n": 1, "error": None, "chunks": content}
    with pytest.raises(Broken):
        Record.read(orjson.dumps(packed), made_at=0)


def test_a_bomb_is_broken():
    bomb = _record([Chunk(0, "a" * 2 * MOST, 3, 2, FinishReason.EOS)]).packed()
    wire = to_wire(bomb)
    assert len(wire) < MOST / 50
    with pytest.raises(Broken):
        from_wire(wire, most=MOST)


@pytest.mark.parametrize("is_asked_for", [False, True])
@pytest.mark.parametrize("tokens", [1, 40, 400])
@pytest.mark.parametrize("letter", ["a", "\u0142", "\U0001f600"])
def test_the_size_is_what_it_takes_in_memory(tokens, letter, is_asked_for):
    cache = LocalCache(2**30)
    keys = [number.to_bytes(21) for number in range(40)]
    gc.collect()
    tracemalloc.start()
    before = tracemalloc.take_snapshot()
    for key in keys:
        chunks = [Chunk(0, letter * 4, 300, 300 + n) for n in range(tokens - 1)]
        chunks.append(Chunk(0, letter * 4, 300, 300 + tokens, FinishReason.LENGTH))
        cache.put(bytes(memoryview(key)), _record(chunks))
        if is_asked_for:
            assert cache.get(key, 0).chunks(stream=False)[0].text == letter * 4 * tokens
    del chunks
    gc.collect()
    taken = sum(s.size_diff for s in tracemalloc.take_snapshot().compare_to(before, "filename"))
    tracemalloc.stop()
    assert 0.9 * cache.bytes <= taken <= 1.15 * cache.bytes


def test_an_answer_that_nobody_asks_for_again_is_no_work_for_the_garbage_collector():
    cache = LocalCache(2**30)
    gc.collect()
    before = len(gc.get_objects())
    for number in range(1000):
        cache.put(number.to_bytes(21), _record())
    gc.collect()
    assert len(gc.get_objects()) < before + 50


def _sizes():
    """Of an answer that nobody has asked for again, and of one that somebody has."""
    cache = LocalCache(2**20)
    cache.put(b"a", _record())
    packed = cache.bytes
    cache.get(b"a", 0)
    return packed, cache.bytes


def test_the_least_recently_used_leave_when_the_bytes_are_over():
    packed, asked_for = _sizes()
    cache = LocalCache(2 * packed + asked_for)
    for name in (b"a", b"b", b"c"):
        cache.put(name, _record())
    cache.get(b"a", 0)
    assert (cache.bytes, len(cache)) == (2 * packed + asked_for, 3)
    cache.put(b"d", _record())
    assert (cache.bytes, len(cache)) == (2 * packed + asked_for, 3)
    assert cache.get(b"b", 0) is None
    assert cache.get(b"a", 0) is not None


def test_an_answer_that_grows_when_it_is_asked_for_pushes_out_the_least_recently_used():
    packed, asked_for = _sizes()
    cache = LocalCache(packed + asked_for - 1)
    cache.put(b"a", _record())
    cache.put(b"b", _record())
    assert cache.get(b"a", 0) is not None
    assert (cache.bytes, len(cache)) == (asked_for, 1)
    assert cache.get(b"b", 0) is None


def test_an_answer_that_is_too_large_to_be_kept_at_hand_is_given_all_the_same():
    packed, asked_for = _sizes()
    cache = LocalCache(asked_for - 1)
    cache.put(b"a", _record())
    for _ in range(2):
        assert list(cache.get(b"a", 0).chunks(stream=True)) == [HEL, LO]
    assert (cache.bytes, len(cache)) == (packed, 1)


def test_a_record_that_fits_nowhere_pushes_nobody_out():
    cache = LocalCache(_record().size + 100)
    cache.put(b"a", _record())
    cache.put(b"b", _record([Chunk(0, "x" * 2000, 3, 2, FinishReason.EOS)]))
    assert cache.get(b"a", 0) is not None
    assert len(cache) == 1


def test_an_expired_record_is_gone_and_its_bytes_too():
    cache = LocalCache(2**20)
    cache.put(b"a", _record(now=100.0))
    assert cache.get(b"a", 499.9) is not None
    assert cache.get(b"a", 500.0) is None
    assert (cache.bytes, len(cache)) == (0, 0)
