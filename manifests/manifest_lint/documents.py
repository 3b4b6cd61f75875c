"""Kubernetes objects as parsed YAML that still knows the line of every field."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml

Path = tuple[str | int, ...]


class InputError(Exception):
    """A sentence that says why the input cannot be read; the command exits with status 2."""


@dataclass(frozen=True)
class Document:
    """One object; `source` is the file that holds it, or the folder it was rendered from.

    `lines` is false for rendered objects, whose lines are those of no file.
    """

    source: str
    value: Mapping[str, Any]
    lines: bool = True
    _node: yaml.Node | None = field(default=None, repr=False, compare=False)
    _prefix: Path = ()

    def line(self, path: Path) -> int | None:
        """The line, from 1, of the deepest part of `path` that the document holds."""
        if not self.lines or self._node is None:
            return None
        node, line = self._node, self._node.start_mark.line
        for step in (*self._prefix, *path):
            found = _child(node, step)
            if found is None:
                break
            node, line = found
        return int(line) + 1


def parse(text: str, source: str, *, lines: bool = True) -> Iterator[Document]:
    """The objects of a YAML or JSON text, the items of a List one by one. Raises InputError."""
    try:
        loaded = list(_load(text))
    # ValueError: a date that is none, such as 2026-13-01.
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise InputError(f"{source} is not YAML: {' '.join(str(error).split())}.") from None
    for value, node in loaded:
        if value is not None:
            yield from _objects(Document(source, _mapping(value, source), lines, node))


def dotted(path: Path) -> str:
    """The path as people write it: `spec.predictor.containers[0].image`."""
    text = ""
    for step in path:
        if isinstance(step, int):
            text += f"[{step}]"
        elif "." in step:
            text += f"[{step!r}]"
        else:
            text += f".{step}" if text else step
    return text


def _load(text: str) -> Iterator[tuple[Any, yaml.Node]]:
    loader = yaml.SafeLoader(text)
    while loader.check_node():
        node = loader.get_node()
        yield loader.construct_document(node), node


def _mapping(value: object, source: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise InputError(
            f"{source} holds a {type(value).__name__} where a Kubernetes object was expected."
        )
    return value


def _objects(document: Document) -> Iterator[Document]:
    items = document.value.get("items")
    if document.value.get("kind") == "List" and isinstance(items, list):
        for index, item in enumerate(items):
            yield Document(
                document.source,
                _mapping(item, document.source),
                document.lines,
                document._node,  # noqa: SLF001 (its own class)
                ("items", index),
            )
    else:
        yield document


def _child(node: yaml.Node, step: str | int) -> tuple[yaml.Node, int] | None:
    if isinstance(step, int) and isinstance(node, yaml.SequenceNode):
        if step < len(node.value):
            return node.value[step], node.value[step].start_mark.line
    elif isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if key.value == step:
                return value, key.start_mark.line
    return None
