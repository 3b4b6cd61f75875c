"""Bytes of HTTP/2 and gRPC, both ways."""

from itertools import pairwise

import hpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_transformer.h2 import frames, headers, plain_block
from llm_transformer.h2.frames import FrameReader, MessageReader, ProtocolError
from llm_transformer.h2.headers import HeaderReader

VISIBLE = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), max_size=400)
CUTS = st.lists(st.integers(0, 10**6), max_size=8)


def _pieces(data, cuts):
    places = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    return [data[a:b] for a, b in pairwise(places)] or [data]


@given(
    st.lists(
        st.tuples(
            st.sampled_from([frames.DATA, frames.HEADERS, frames.SETTINGS, 0x42]),
            st.sampled_from([0, frames.END_STREAM, frames.END_HEADERS]),
            st.integers(0, 2**31 - 1),
            st.binary(max_size=300),
        ),
        max_size=6,
    ),
    CUTS,
)
def test_frames_are_the_same_however_they_arrive(sent, cuts):
    reader = FrameReader()
    data = b"".join(frames.frame(*each) for each in sent)
    got = [frame for piece in _pieces(data, cuts) for frame in reader.feed(piece)]
    assert got == [(*each, len(each[3])) for each in sent]


def test_padding_is_taken_off_and_counted():
    data = frames.frame(frames.DATA, frames.PADDED, 1, b"\x03abc\0\0\0")
    assert list(FrameReader().feed(data)) == [(frames.DATA, frames.PADDED, 1, b"abc", 7)]


@pytest.mark.parametrize(
    "data",
    [
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        frames.frame(frames.DATA, frames.PADDED, 1, b"\x03ab"),
        frames.frame(frames.DATA, frames.PADDED, 1, b""),
        frames.frame(frames.PING, 0, 0, b"1234567"),
        frames.frame(frames.RST_STREAM, 0, 1, b"12345"),
        frames.frame(frames.WINDOW_UPDATE, 0, 1, b""),
        frames.frame(frames.DATA, 0, 1, bytes(frames.DEFAULT_FRAME_SIZE + 1)),
    ],
)
def test_what_is_no_frame_is_refused(data):
    with pytest.raises(ProtocolError):
        list(FrameReader().feed(data))


@pytest.mark.parametrize("payload", [b"12345", b"\0\x04\x80\0\0\0", b"\0\x05\0\0\0\x01"])
def test_settings_that_cannot_be_are_refused(payload):
    with pytest.raises(ProtocolError):
        frames.parse_settings(payload)


@given(st.lists(st.binary(max_size=200), max_size=6), CUTS)
def test_messages_are_the_same_however_they_arrive(sent, cuts):
    reader = MessageReader()
    data = b"".join(map(frames.prefixed, sent))
    assert [each for piece in _pieces(data, cuts) for each in reader.feed(piece)] == sent
    assert reader.partial == 0


def test_half_a_message_is_none_yet():
    reader = MessageReader()
    assert reader.feed(frames.prefixed(b"abc")[:-1]) == []
    assert reader.partial == 7
    assert reader.feed(b"c") == [b"abc"]


def test_a_compressed_message_is_refused():
    with pytest.raises(ProtocolError):
        MessageReader().feed(b"\x01\0\0\0\x01a")


@given(st.lists(st.tuples(VISIBLE, VISIBLE), max_size=5))
def test_a_header_block_of_ours_reads_as_what_was_meant(pairs):
    decoded = hpack.Decoder().decode(headers.metadata(pairs))
    assert [tuple(each) for each in decoded] == pairs


def test_a_call_opens_as_grpc_asks():
    block = headers.opening("http", "host:80", "/inference.Service/Method") + headers.timeout(1.5)
    assert [tuple(each) for each in hpack.Decoder().decode(block)] == [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", "/inference.Service/Method"),
        (":authority", "host:80"),
        ("te", "trailers"),
        ("content-type", "application/grpc"),
        ("user-agent", "grpc-python-keepwarm"),
        ("grpc-timeout", "1500000u"),
    ]


@given(st.floats(1e-7, 1e8))
def test_a_timeout_has_eight_digits_and_is_hardly_shorter_than_meant(seconds):
    ((_, value),) = hpack.Decoder().decode(headers.timeout(seconds))
    digits, unit = value[:-1], value[-1]
    assert len(digits) <= 8
    told = int(digits) * {"u": 1e-6, "m": 1e-3, "S": 1.0}[unit]
    assert 0.99 * seconds - 1e-6 <= told <= max(seconds, 1e-6) * 1.000001


@given(st.lists(st.lists(st.tuples(VISIBLE.filter(len), VISIBLE), max_size=4), max_size=6))
def test_blocks_of_a_peer_that_keeps_to_our_table_size_are_read(blocks):
    encoder, reader = hpack.Encoder(), HeaderReader()
    encoder.header_table_size = 0
    for fields in blocks * 2:
        assert list(reader.read(encoder.encode(fields)).pairs) == fields


@given(st.lists(st.tuples(VISIBLE, VISIBLE), max_size=5))
def test_what_grpcs_servers_write_is_read_without_hpack(pairs):
    block = b"\x88" + headers.metadata(pairs)
    is_plain = all(max(len(name), len(value)) < 127 for name, value in pairs)
    assert plain_block.read(block) == ([(":status", "200"), *pairs] if is_plain else None)


@given(
    st.lists(st.sampled_from(b"\0\1\2\5a\x10\x20\x3f\x40\x7e\x7f\x80\x88\xbd\xbe\xff"), max_size=12)
)
def test_what_is_read_without_hpack_is_what_hpack_reads(octets):
    block = bytes(octets)
    plain = plain_block.read(block)
    if plain is not None:
        decoder = hpack.Decoder()
        decoder.header_table_size = decoder.max_allowed_table_size = 0
        decoded = decoder.decode(block, raw=True)
        assert plain == [
            (name.decode("latin-1"), value.decode("latin-1")) for name, value in decoded
        ]


@pytest.mark.parametrize("block", [b"\xbe", b"\x3f\xe1\x1f", b"\x00\xff", b"\x80"])
def test_a_block_that_needs_a_dynamic_table_or_is_broken_is_refused(block):
    with pytest.raises(ProtocolError):
        HeaderReader().read(block)


def test_an_enormous_header_list_is_refused():
    field = headers.literal("a", "b" * 2**15)
    with pytest.raises(ProtocolError):
        HeaderReader().read(field * 3)
