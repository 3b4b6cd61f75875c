"""Header blocks as gRPC's own servers write them to us, read several times as fast as by `hpack`.

They use new names, short strings and no Huffman coding, for we offer no table to put anything in.
Trailers tell of their call, so that no two are the same bytes.
"""

from typing import Final

from hpack.table import HeaderTable

from llm_transformer.h2.status import Headers

# RFC 7541: the static table (appendix A); an indexed field begins with this bit (6.1).
_STATIC: Final = [
    (name.decode("latin-1"), value.decode("latin-1")) for name, value in HeaderTable.STATIC_TABLE
]
_INDEXED: Final = 0x80
# Fields with a new name: without indexing (6.2.2), never indexed (6.2.3), with indexing (6.2.1),
# which a table of size 0 forgets at once (4.4).
_NEW_NAME: Final = (0x00, 0x10, 0x40)
# A length from here on is continued, or that of a Huffman-coded string (5.1, 5.2).
_NOT_SHORT: Final = 0x7F


def read(block: bytes) -> Headers | None:
    """The block's fields; None where that is for `hpack` to say, or to refuse."""
    text = block.decode("latin-1")
    fields = []
    at, end = 0, len(block)
    while at < end:
        first = block[at]
        at += 1
        if first > _INDEXED:
            if first - _INDEXED > len(_STATIC):
                return None
            fields.append(_STATIC[first - _INDEXED - 1])
            continue
        if first not in _NEW_NAME or at == end or block[at] >= _NOT_SHORT:
            return None
        name = at + 1
        value = name + block[at] + 1
        if value > end or block[value - 1] >= _NOT_SHORT:
            return None
        at = value + block[value - 1]
        if at > end:
            return None
        fields.append((text[name : value - 1], text[value:at]))
    return fields
