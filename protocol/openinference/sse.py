"""Server-sent events: how one is written on the wire.

Source: WHATWG HTML "Server-sent events"; only `data` fields and comments are used here.
"""

from collections.abc import Iterable
from typing import Any, Final

import orjson

CONTENT_TYPE: Final = "text/event-stream; charset=utf-8"
DONE: Final = b"data: [DONE]\n\n"


def comment(text: str) -> bytes:
    """A line that readers skip; it shows proxies that the stream lives."""
    return f": {' '.join(text.split())}\n\n".encode()


def event(data: Any) -> bytes:
    """One event whose data is JSON."""
    return b"data: " + orjson.dumps(data) + b"\n\n"


def events(data: Iterable[Any]) -> bytes:
    """Several events, one after another."""
    return b"".join([event(each) for each in data])


class TextEvent:
    """An event that is sent again and again, each time with another text in one of its members."""

    def __init__(self, data: Any, member: str) -> None:
        """`data` with the empty text in `member`, a name that only this member has."""
        # Nothing within a JSON string reads so: a quote has a backslash before it there.
        before, name, after = event(data).partition(f'"{member}":""'.encode())
        self._before, self._after = before + name[:-2], after

    def with_text(self, text: str) -> bytes:
        """The event with this text."""
        return b"%b%b%b" % (self._before, orjson.dumps(text), self._after)
