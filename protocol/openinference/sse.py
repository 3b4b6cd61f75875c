"""Server-sent events: how one is written on the wire.

Source: WHATWG HTML "Server-sent events"; only `data` fields and comments are used here.
"""

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
