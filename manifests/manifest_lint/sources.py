"""Where manifests come from: files, folders, kustomize folders and standard input."""

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from manifest_lint.documents import Document, InputError, parse

STDIN = "-"
KUSTOMIZATIONS = ("kustomization.yaml", "kustomization.yml", "Kustomization")
ENDINGS = (".yaml", ".yml", ".json")
RENDER_TIMEOUT_S = 120


def read(name: str) -> Iterator[Document]:
    """The objects that `name` holds. Raises InputError."""
    path = Path(name)
    if name == STDIN:
        yield from parse(sys.stdin.read(), "stdin")
    elif path.is_file():
        yield from _file(path)
    elif not path.is_dir():
        raise InputError(f"{name} is neither a file nor a folder.")
    elif found := next((path / k for k in KUSTOMIZATIONS if (path / k).is_file()), None):
        yield from parse(_kustomize(path), str(found), lines=False)
    else:
        files = sorted(file for file in path.rglob("*") if file.suffix in ENDINGS)
        if not files:
            raise InputError(f"The folder {name} holds neither a kustomization nor a YAML file.")
        for file in files:
            yield from _file(file)


def _file(path: Path) -> Iterator[Document]:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read: {error}.") from None
    yield from parse(text, str(path))


def _kustomize(folder: Path) -> str:
    kubectl = shutil.which("kubectl")
    if kubectl is None:
        raise InputError(
            f"{folder} is a kustomize folder and kubectl is not there to render it: install"
            " kubectl, or hand over the rendered manifests as a file."
        )
    try:
        done = subprocess.run(  # noqa: S603 (kubectl, with a folder that the user named)
            [kubectl, "kustomize", str(folder)],
            capture_output=True,
            text=True,
            check=False,
            timeout=RENDER_TIMEOUT_S,
        )
    except subprocess.TimeoutExpired:
        raise InputError(
            f"kubectl kustomize {folder} did not end within {RENDER_TIMEOUT_S} s."
        ) from None
    if done.returncode:
        raise InputError(f"kubectl cannot render {folder}: {done.stderr.strip()}")
    return done.stdout
