"""Where fields are, and what is not a manifest."""

from fractions import Fraction

import pytest

from manifest_lint.documents import InputError, dotted, parse
from manifest_lint.quantities import duration_s, number, whole

TEXT = """# a comment
a:
  b:
    - c: 1
    - c: 2
---
kind: List
items:
  - {kind: A}
  - kind: B
    spec: {x: 1}
"""


@pytest.mark.parametrize(
    ("path", "line"),
    [(("a",), 2), (("a", "b"), 3), (("a", "b", 1, "c"), 5), (("a", "missing", "b"), 2), ((), 2)],
)
def test_the_line_is_that_of_the_deepest_part_there(path, line):
    assert next(parse(TEXT, "x")).line(path) == line


def test_the_items_of_a_list_are_objects_with_their_lines():
    _, first, second = parse(TEXT, "x")
    assert (first.value, second.value["kind"]) == ({"kind": "A"}, "B")
    assert second.line(("spec", "x")) == 11


def test_rendered_objects_have_no_lines():
    assert next(parse(TEXT, "x", lines=False)).line(("a",)) is None


def test_empty_documents_and_json_are_read():
    documents = list(parse('---\n---\n{"kind": "A"}\n', "x"))
    assert [document.value for document in documents] == [{"kind": "A"}]


@pytest.mark.parametrize(
    "text", ["a: [", "a: b: c", "- 1", "words", "a: &x [*y]", "\x00", "a: 2026-13-01", "[" * 9999]
)
def test_what_is_no_manifest_is_named(text):
    with pytest.raises(InputError, match=r"^file\.yaml "):
        list(parse(text, "file.yaml"))


def test_paths_are_written_as_people_write_them():
    path = ("spec", "predictor", "containers", 0, "image")
    assert dotted(path) == "spec.predictor.containers[0].image"
    assert dotted(("metadata", "annotations", "a.dev/b")) == "metadata.annotations['a.dev/b']"


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1m30s", 90),
        ("1.5h", 5400),
        ("-2s", -2),
        ("0", 0),
        ("250ms", Fraction(1, 4)),
        ("60", None),
        ("", None),
        ("1d", None),
        (f"{'9' * 400}h", None),
        ("s", None),
    ],
)
def test_durations_are_gos(text, seconds):
    assert duration_s(text) == seconds


@pytest.mark.parametrize(
    ("value", "as_number", "as_whole"),
    [
        (1, 1, 1),
        ("1.5", 1.5, None),
        (True, None, None),
        ("x", None, None),
        ([], None, None),
        ("inf", float("inf"), None),
        ("1_000", None, None),
        (" 1", None, None),
        (10**400, None, None),
    ],
)
def test_numbers(value, as_number, as_whole):
    assert (number(value), whole(value)) == (as_number, as_whole)
