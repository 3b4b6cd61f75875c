"""Structured outputs: what an answer's text must be, and the JSON in which a request says so.

Source of the five kinds: vLLM's `structured_outputs`; OpenAI's `response_format` is one of them.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

import orjson

from openinference.errors import InvalidInput, shown

# A grammar is compiled before the first token; a longer one is no honest request.
MAX_SPEC_BYTES: Final = 32 * 2**10
# vLLM's own bound on a schema.
MAX_DEPTH: Final = 64


class Kind(StrEnum):
    """How a text is bounded."""

    JSON = "json"
    JSON_OBJECT = "json_object"
    REGEX = "regex"
    CHOICE = "choice"
    GRAMMAR = "grammar"


def _one(name: Kind, schema: Mapping[str, Any]) -> Mapping[str, Any]:
    return {
        "type": "object",
        "properties": {name.value: schema},
        "required": [name.value],
        "additionalProperties": False,
    }


_TEXT: Final = {"type": "string", "minLength": 1, "maxLength": MAX_SPEC_BYTES}
# What a request may say, as JSON schema.
SCHEMA: Final[Mapping[str, Any]] = {
    "oneOf": [
        _one(Kind.JSON, {"type": "object", "description": "A JSON schema."}),
        _one(Kind.JSON_OBJECT, {"const": True}),
        _one(Kind.REGEX, _TEXT),
        _one(Kind.CHOICE, {"type": "array", "items": _TEXT, "minItems": 1}),
        _one(Kind.GRAMMAR, _TEXT),
    ]
}


@dataclass(frozen=True, slots=True)
class StructuredOutputs:
    """One bound: `spec` is a JSON schema, a regex, a JSON list of texts or a grammar (EBNF).

    It is "" where any JSON object will do.
    """

    kind: Kind
    spec: str = ""

    def members(self) -> dict[str, Any]:
        """As a request says it."""
        match self.kind:
            case Kind.JSON_OBJECT:
                return {self.kind.value: True}
            case Kind.CHOICE:
                return {self.kind.value: orjson.loads(self.spec)}
            case _:
                return {self.kind.value: self.spec}


def parse(value: Any) -> StructuredOutputs:
    """What `structured_outputs` says: an object with one member; raises ValueError otherwise."""
    if not isinstance(value, dict) or len(value) != 1:
        raise ValueError(value)
    ((name, spec),) = value.items()
    kind = Kind(name)
    match kind:
        case Kind.JSON_OBJECT:
            if spec is not True:
                raise ValueError(spec)
            spec = ""
        case Kind.JSON:
            spec = _schema(spec)
        case Kind.CHOICE:
            if not isinstance(spec, list) or not spec or not all(map(_is_text, spec)):
                raise ValueError(spec)
            spec = orjson.dumps(spec).decode()
        case _:
            if not _is_text(spec):
                raise ValueError(spec)
    if len(spec.encode()) > MAX_SPEC_BYTES:
        raise ValueError(name)
    return StructuredOutputs(kind, spec)


def from_response_format(value: Any) -> StructuredOutputs | None:
    """What OpenAI's `response_format` says; None is any text. Raises InvalidInput."""
    kind = value.get("type") if isinstance(value, dict) else None
    if kind == "text":
        return None
    if kind == "json_object":
        return StructuredOutputs(Kind.JSON_OBJECT)
    if kind != "json_schema":
        raise InvalidInput(
            "response_format must be an object whose type is text, json_object or json_schema, "
            f"got {shown(value)}"
        )
    described = value.get("json_schema")
    if not isinstance(described, Mapping) or not isinstance(described.get("name"), str):
        raise InvalidInput("response_format.json_schema must be an object with a name")
    try:
        return parse({Kind.JSON.value: described.get("schema")})
    except ValueError:
        raise InvalidInput(
            "response_format.json_schema.schema must be a JSON schema, an object of at most "
            f"{MAX_SPEC_BYTES} bytes and {MAX_DEPTH} levels, got {shown(described.get('schema'))}"
        ) from None


def _schema(schema: Any) -> str:
    """A JSON schema's text, whose members keep their order: it is that of the answer's."""
    text = schema if isinstance(schema, str) else None
    if text is not None:
        schema = orjson.loads(text)
    if not isinstance(schema, dict) or _is_deep(schema):
        raise ValueError(schema)
    return orjson.dumps(schema).decode() if text is None else text


def _is_deep(value: Any) -> bool:
    level = [value]
    for _ in range(MAX_DEPTH):
        level = [
            child
            for node in level
            for child in (node.values() if isinstance(node, dict) else node)
            if isinstance(child, dict | list)
        ]
        if not level:
            return False
    return True


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and value != ""
