"""A whole answer, before it is known how it goes out."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import orjson

JSON: Final = "application/json"


@dataclass(slots=True)
class Answer:
    """A body with its HTTP status, media type and further headers (lower-case names)."""

    body: bytes
    status: int = 200
    media_type: str = JSON
    headers: Mapping[str, str] = field(default_factory=dict)


def json_answer(value: Any, status: int = 200) -> Answer:
    """A JSON answer."""
    return Answer(orjson.dumps(value), status)
