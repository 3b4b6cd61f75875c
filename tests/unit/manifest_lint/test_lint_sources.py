"""Files, folders, kustomize folders and stdin."""

import io
import shutil
from pathlib import Path

import pytest

from manifest_lint.documents import InputError
from manifest_lint.linter import lint
from manifest_lint.rule import Severity
from manifest_lint.sources import read

REPOSITORY = Path(__file__).parents[3]
needs_kubectl = pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not here")


def test_a_plain_folder_gives_the_objects_of_all_its_files(tmp_path):
    (tmp_path / "deeper").mkdir()
    (tmp_path / "a.yaml").write_text("kind: A")
    (tmp_path / "deeper" / "b.json").write_text('{"kind": "B"}')
    (tmp_path / "notes.txt").write_text("not: [yaml")
    assert [document.value["kind"] for document in read(str(tmp_path))] == ["A", "B"]


def test_stdin_is_read(monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO("kind: A"))
    (document,) = read("-")
    assert (document.source, document.value) == ("stdin", {"kind": "A"})


@pytest.mark.parametrize("name", ["missing", "."])
def test_what_is_not_there_is_named(name, tmp_path):
    with pytest.raises(InputError, match=name):
        list(read(str(tmp_path / name)))


def test_a_file_that_is_no_text_is_named(tmp_path):
    (tmp_path / "a.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match=r"a\.yaml cannot be read"):
        list(read(str(tmp_path / "a.yaml")))


def test_a_kustomize_folder_without_kubectl_says_what_to_do(tmp_path, monkeypatch):
    (tmp_path / "kustomization.yaml").write_text("resources: []")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InputError, match="install kubectl"):
        list(read(str(tmp_path)))


@needs_kubectl
def test_a_kustomization_that_does_not_render_is_an_input_error(tmp_path):
    (tmp_path / "kustomization.yaml").write_text("resources: [missing.yaml]")
    with pytest.raises(InputError, match="kubectl cannot render"):
        list(read(str(tmp_path)))


@needs_kubectl
@pytest.mark.parametrize(
    "overlay", sorted((REPOSITORY / "manifests" / "overlays").iterdir()), ids=lambda path: path.name
)
def test_our_own_overlays_have_no_errors(overlay):
    result = lint(read(str(overlay)))
    assert result.services >= 1
    assert [f for f in result.findings if f.rule.severity is Severity.ERROR] == []
