"""A kept answer: the chunks of a finished generation, or the error that it will always end in.

It is packed as JSON, which takes a tenth of the memory that chunks take; the same bytes go to
Redis, compressed where that pays, with a checksum. What cannot be read again is not an answer.
"""

import hashlib
import struct
import sys
import zlib
from collections.abc import Sequence
from operator import attrgetter
from typing import Any, Final

import orjson

from openinference import errors, tokens
from openinference.errors import ServingError
from openinference.generation import Chunk, FinishReason, GenerationRequest, Usage

# Errors that the same request to the same weights always gets. Not NotFound: adapters come and go.
DETERMINISTIC: Final[dict[str, type[ServingError]]] = {
    kind.__name__: kind
    for kind in (errors.InvalidInput, errors.PayloadTooLarge, errors.Unsupported)
}

_HEAD: Final = struct.Struct(">3sBI")
_MAGIC: Final = b"kw1"
_PLAIN, _DEFLATED = 0, 1
# Below this a network packet is saved at best.
_WORTH_COMPRESSING: Final = 1024
_WORTH_KEEPING: Final = 0.9
# What a record's place in the table, its numbers and its etag take, bytes.
_PLACE_BYTES: Final = 600
_NUMBERS_BYTES: Final = 64
_tokens: Final = attrgetter("tokens")


class Broken(Exception):
    """Bytes that are no record."""


class Record:
    """An answer that may be given again until `expires_at` (seconds on the monotonic clock).

    `etag` is a weak validator of the contents.
    """

    __slots__ = (
        "_choices",
        "_packed",
        "_whole",
        "completion_tokens",
        "error",
        "etag",
        "made_at",
        "prompt_tokens",
        "ttl_s",
        "weights_id",
    )

    def __init__(
        self,
        chunks: Sequence[Chunk],
        *,
        choices: int,
        weights_id: str,
        ttl_s: float,
        made_at: float,
        error: ServingError | None = None,
        whole: tuple[Chunk, ...] | None = None,
        packed: bytes | None = None,
    ) -> None:
        """Of `chunks`, `choices` sequences for a prompt, or an error.

        `whole` are the same with one for each sequence, where they are at hand; `packed` what it
        was read from.

        pre: `chunks` is a whole answer, or there is an error.
        """
        self.weights_id = weights_id
        self.ttl_s = ttl_s
        self.made_at = made_at
        self.error = error
        self._choices = choices
        usage = Usage(choices)
        for chunk in chunks:
            usage.add(chunk)
        self.prompt_tokens = usage.prompt_tokens
        self.completion_tokens = usage.completion_tokens
        if whole is None:
            whole = _whole(chunks)
        self.etag = _etag(weights_id, whole)
        self._packed: bytes | None = self._pack(chunks) if packed is None else packed
        # Log probabilities are many objects, and stay packed.
        has_tokens = any(map(_tokens, chunks))
        self._whole = None if has_tokens else whole
        if packed is not None and not has_tokens and len(whole) == len(chunks):
            # Texts of whole sequences are not kept twice.
            self._packed = None

    @classmethod
    def read(cls, packed: bytes, *, made_at: float) -> "Record":
        """The record that was packed; raises Broken for what is none."""
        try:
            content = orjson.loads(packed)
            failure = content["error"]
            return cls(
                [_chunk(values) for values in _list(content["chunks"])],
                choices=int(content["n"]),
                weights_id=content["weights"],
                ttl_s=float(content["ttl"]),
                made_at=made_at,
                error=None if failure is None else DETERMINISTIC[failure[0]](failure[1]),
                packed=packed,
            )
        except (ValueError, KeyError, TypeError, errors.InternalError) as error:
            raise Broken from error

    @property
    def size(self) -> int:
        """What it takes in memory, in bytes, with its place in a table."""
        return (
            _PLACE_BYTES
            + (0 if self._packed is None else sys.getsizeof(self._packed))
            + sum(
                sys.getsizeof(c) + sys.getsizeof(c.text) + _NUMBERS_BYTES for c in self._whole or ()
            )
        )

    @property
    def expires_at(self) -> float:
        """When it may no longer be given."""
        return self.made_at + self.ttl_s

    def age_s(self, now: float) -> float:
        """Seconds since it was made."""
        return max(0.0, now - self.made_at)

    def packed(self) -> bytes:
        """The bytes that `read` makes the same of."""
        if self._packed is not None:
            return self._packed
        assert self._whole is not None, "what is not packed is whole"
        return self._pack(self._whole)

    def chunks(self, *, stream: bool) -> tuple[Chunk, ...]:
        """The chunks as they once came; with `stream` false one last chunk for each sequence."""
        if self._whole is not None and (not stream or self._packed is None):
            return self._whole
        assert self._packed is not None, "what is not whole is packed"
        chunks = tuple(map(_chunk, orjson.loads(self._packed)["chunks"]))
        return chunks if stream else _whole(chunks)

    def _pack(self, chunks: Sequence[Chunk]) -> bytes:
        values = [
            (
                *(c.index, c.text, c.num_input_tokens, c.num_output_tokens, c.finish_reason),
                tokens.encode(c.tokens).decode() if c.tokens else None,
            )
            for c in chunks
        ]
        error = None if self.error is None else (type(self.error).__name__, self.error.message)
        return orjson.dumps(
            {
                "weights": self.weights_id,
                "ttl": self.ttl_s,
                "n": self._choices,
                "chunks": values,
                "error": error,
            }
        )


def answer(
    request: GenerationRequest,
    chunks: Sequence[Chunk],
    *,
    weights_id: str,
    ttl_s: float,
    made_at: float,
) -> Record | None:
    """`chunks` as a record; None unless they are the whole answer to `request`."""
    whole = _whole(chunks)
    if [chunk.index for chunk in whole] != list(range(request.sequences)):
        return None
    return Record(
        chunks,
        choices=request.sampling.n,
        weights_id=weights_id,
        ttl_s=ttl_s,
        made_at=made_at,
        whole=whole,
    )


def failure(error: ServingError, *, weights_id: str, ttl_s: float, made_at: float) -> Record | None:
    """`error` as a record; None unless the same request always ends in it."""
    if DETERMINISTIC.get(type(error).__name__) is not type(error):
        return None
    return Record((), choices=1, weights_id=weights_id, ttl_s=ttl_s, made_at=made_at, error=error)


def to_wire(packed: bytes) -> bytes:
    """A packed record as Redis keeps it: magic, how it is coded, checksum, contents."""
    coding, body = _PLAIN, packed
    if len(packed) >= _WORTH_COMPRESSING:
        deflated = zlib.compress(packed, 1)
        if len(deflated) < _WORTH_KEEPING * len(packed):
            coding, body = _DEFLATED, deflated
    return _HEAD.pack(_MAGIC, coding, zlib.crc32(body)) + body


def from_wire(wire: bytes, *, most: int) -> bytes:
    """The packed record in `wire`, at most `most` bytes; raises Broken."""
    body = wire[_HEAD.size :]
    try:
        magic, coding, checksum = _HEAD.unpack_from(wire)
        if magic != _MAGIC or coding not in (_PLAIN, _DEFLATED) or checksum != zlib.crc32(body):
            raise Broken
        if coding == _DEFLATED:
            inflater = zlib.decompressobj()
            body = inflater.decompress(body, most + 1)
    except (struct.error, zlib.error) as error:
        raise Broken from error
    if len(body) > most:
        raise Broken
    return body


def _list(value: Any) -> list[Any]:
    if type(value) is not list:
        raise Broken
    return value


def _etag(weights_id: str, whole: Sequence[Chunk]) -> str:
    """A weak validator: answers that say the same have the same one."""
    said = orjson.dumps([weights_id, [(c.text, c.finish_reason) for c in whole]])
    return f'W/"{hashlib.blake2b(said, digest_size=8).hexdigest()}"'


def _chunk(values: Any) -> Chunk:
    index, text, num_input_tokens, num_output_tokens, reason, told = _list(values)
    if type(text) is not str:
        raise Broken
    return Chunk(
        int(index),
        text,
        int(num_input_tokens),
        int(num_output_tokens),
        None if reason is None else FinishReason(reason),
        () if told is None else tokens.decode(told),
    )


def _whole(chunks: Sequence[Chunk]) -> tuple[Chunk, ...]:
    if len(chunks) == 1 and chunks[0].finish_reason is not None:
        return (chunks[0],)
    texts: dict[int, list[str]] = {}
    told: dict[int, tuple[tokens.Token, ...]] = {}
    ends: list[Chunk] = []
    for chunk in chunks:
        texts.setdefault(chunk.index, []).append(chunk.text)
        if chunk.tokens:
            told[chunk.index] = told.get(chunk.index, ()) + chunk.tokens
        if chunk.finish_reason is not None:
            ends.append(chunk)
    return tuple(
        Chunk(
            end.index,
            "".join(texts[end.index]),
            end.num_input_tokens,
            end.num_output_tokens,
            end.finish_reason,
            told.get(end.index, ()),
        )
        for end in sorted(ends, key=lambda end: end.index)
    )
