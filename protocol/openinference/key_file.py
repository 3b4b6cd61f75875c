"""Key files: YAML with a list of keys, plain or inside the manifest of a Kubernetes Secret."""

import base64
import binascii
from collections.abc import Iterable
from typing import Any, Final

import yaml
from pydantic import TypeAdapter, ValidationError

from openinference.api_keys import Key

# The file's name in a Secret, and so where it is mounted.
FILE_NAME: Final = "keys.yaml"
_KEYS: Final = TypeAdapter(list[Key])
_LOADER: Final = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class UnusableKeyFileError(ValueError):
    """A key file that cannot be meant; the message says where and why, and repeats no value."""


def parse(text: str) -> list[Key]:
    """The keys in a plain file; raises UnusableKeyFileError."""
    content = _yaml(text)
    if not isinstance(content, dict) or set(content) != {"keys"}:
        raise UnusableKeyFileError("must be a mapping with one member, keys")
    try:
        return _KEYS.validate_python(content["keys"])
    except ValidationError as error:
        problem = error.errors(include_input=False, include_url=False)[0]
        where = ".".join(map(str, problem["loc"]))
        raise UnusableKeyFileError(f"keys.{where}: {problem['msg']}") from None


def dump(keys: Iterable[Key]) -> str:
    """A plain file."""
    return _text({"keys": [_members(key) for key in keys]})


def secret_manifest(name: str, namespace: str | None, keys: Iterable[Key]) -> str:
    """The manifest of a Secret with these keys."""
    metadata = {"name": name, "labels": {"app.kubernetes.io/part-of": "keepwarm"}}
    if namespace is not None:
        metadata["namespace"] = namespace
    return _manifest({"apiVersion": "v1", "kind": "Secret", "metadata": metadata}, keys)


def parse_any(text: str) -> tuple[list[Key], dict[str, Any] | None]:
    """The keys of a file of either kind, and the manifest when it is one."""
    content = _yaml(text)
    if not isinstance(content, dict) or content.get("kind") != "Secret":
        return parse(text), None
    return parse(_inner(content)), content


def dump_any(keys: Iterable[Key], manifest: dict[str, Any] | None) -> str:
    """A file of the kind that `parse_any` read."""
    return dump(keys) if manifest is None else _manifest(manifest, keys)


def _manifest(manifest: dict[str, Any], keys: Iterable[Key]) -> str:
    kept = {name: value for name, value in manifest.items() if name not in ("data", "stringData")}
    data = {name: v for name, v in (manifest.get("data") or {}).items() if name != FILE_NAME}
    if data:
        kept["data"] = data
    plain = {**(manifest.get("stringData") or {}), FILE_NAME: dump(keys)}
    return _text({**kept, "stringData": plain})


def _inner(manifest: dict[str, Any]) -> str:
    plain = (manifest.get("stringData") or {}).get(FILE_NAME)
    encoded = (manifest.get("data") or {}).get(FILE_NAME, "?")
    if isinstance(plain, str):
        return plain
    try:
        return base64.b64decode(encoded, validate=True).decode()
    except (TypeError, ValueError, binascii.Error):
        raise UnusableKeyFileError(f"the Secret has no {FILE_NAME}") from None


def _yaml(text: str) -> Any:
    try:
        # A subclass of SafeLoader, in C where PyYAML has it: ten times as fast.
        return yaml.load(text, Loader=_LOADER)  # noqa: S506
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = "" if mark is None else f" (line {mark.line + 1})"
        raise UnusableKeyFileError(f"is not YAML{where}") from None


def _text(content: dict[str, Any]) -> str:
    return str(yaml.safe_dump(content, sort_keys=False, allow_unicode=True))


def _members(key: Key) -> dict[str, Any]:
    members = key.model_dump(mode="json", exclude_defaults=True)
    if "models" in members:
        members["models"] = sorted(members["models"])
    return members
