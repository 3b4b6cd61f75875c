"""Server-sent events as they come off a socket: read whole where somebody looks, else counted."""

from collections.abc import Callable
from typing import Any

import orjson

Event = dict[str, Any]


class EventReader:
    """The `data:` events of one answer. Comments and other fields are skipped.

    Until `has_text` has seen the first event with text each is parsed; from then on they are
    counted only, which costs a tenth, unless `keep`. The last ones are parsed by `last`.
    """

    def __init__(self, has_text: Callable[[Event], bool], *, keep: bool = False) -> None:
        self._has_text = has_text
        self._keep = keep
        self._rest = b""
        self._tail: tuple[bytes, bytes] = (b"", b"")
        self.begun = False
        self.events: list[Event] = []

    def feed(self, piece: bytes) -> int:
        """How many events have become whole by `piece`, [DONE] among them."""
        if not self._rest and piece.endswith(b"\n\n"):
            whole = piece
        else:
            joined = self._rest + piece
            # Carriage returns are allowed too (WHATWG HTML, 9.2.5), and JSON has none of its own.
            if b"\r" in joined:
                joined = joined.replace(b"\r\n", b"\n")
            end = joined.rfind(b"\n\n") + 2
            if end < 2:
                self._rest = joined
                return 0
            whole, self._rest = joined[:end], joined[end:]
        self._tail = (self._tail[1], whole)
        if self._keep or not self.begun:
            parsed = _parsed(whole)
            if self._keep:
                self.events += parsed
            self.begun = self.begun or any(map(self._has_text, parsed))
        return whole.startswith(b"data:") + whole.count(b"\ndata:")

    def last(self) -> list[Event]:
        """The events of the last two pieces, where an answer tells why it ended and what it used.

        Two: a server sends the last token, the reason, the usage and [DONE] as it likes.
        """
        return _parsed(b"".join(self._tail))


def _parsed(whole: bytes) -> list[Event]:
    """The JSON objects among whole events; what is no JSON is an event that tells an error."""
    found: list[Event] = []
    # A line is an event: neither vLLM nor we spread one over several.
    for line in whole.split(b"\n"):
        data = line[5:].strip()
        if not line.startswith(b"data:") or data == b"[DONE]":
            continue
        try:
            value = orjson.loads(data)
        except orjson.JSONDecodeError:
            value = {"error": "an event that is no JSON"}
        found.append(value if isinstance(value, dict) else {"error": "an event that is no object"})
    return found
