"""Files, folders, kustomize folders and stdin."""

import io

import pytest

from manifest_lint.documents import InputError
from manifest_lint.sources import read


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
