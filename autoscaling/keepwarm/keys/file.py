"""A key file on disk: read, changed as a whole, and readable by its owner only."""

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from openinference import key_file
from openinference.api_keys import Key
from openinference.key_file import UnusableKeyFileError


class KeyFile:
    """The file at `path`, plain or a Secret's manifest; raises UnusableKeyFileError."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.keys: list[Key] = []
        self._manifest: dict[str, Any] | None = None
        self.exists = path.exists()
        if self.exists:
            try:
                self.keys, self._manifest = key_file.parse_any(path.read_text(encoding="utf-8"))
            except (OSError, UnicodeDecodeError, UnusableKeyFileError) as error:
                raise UnusableKeyFileError(f"{path}: {error}") from None

    def write(self, keys: Sequence[Key]) -> None:
        """Replaces the keys and leaves the rest of a manifest as it is."""
        self._replace(key_file.dump_any(keys, self._manifest))

    def write_secret(self, keys: Sequence[Key], *, name: str, namespace: str | None) -> None:
        """Makes the file a Secret's manifest."""
        self._replace(key_file.secret_manifest(name, namespace, keys))

    def _replace(self, text: str) -> None:
        """At once, so that a transformer that watches the file never reads half of it."""
        descriptor, temporary = tempfile.mkstemp(dir=self.path.parent, prefix=f".{self.path.name}.")
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                file.write(text)
            Path(temporary).replace(self.path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
