"""API keys as they are made, written down and recognised: `kw_<id>_<secret>`.

Only the SHA-256 of a secret is kept. Secrets are 256 random bits, so a fast hash is enough: there
is nothing to guess, and no table of likely ones. The `keepwarm` command makes
keys, the transformer recognises them.
"""

import hashlib
import hmac
import re
import secrets
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import Final

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

ALL_MODELS: Final = "*"
_NAME: Final = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$"
_ID: Final = r"^[a-z0-9]{8,32}$"
_KEY: Final = re.compile(r"kw_([a-z0-9]{8,32})_([A-Za-z0-9_-]{43})", re.ASCII)
# Compared with where there is no such key, so that a guess takes as long as a hit.
_NOBODYS: Final = hashlib.sha256(secrets.token_bytes(32)).hexdigest()


class Key(BaseModel):
    """What is kept of a key."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: str = Field(description="Public part of the key.", pattern=_ID)
    sha256: str = Field(
        description="SHA-256 of its secret part, hexadecimal.",
        pattern=r"^[0-9a-f]{64}$",
        repr=False,
    )
    tenant: str = Field(description="Whose it is.", pattern=_NAME)
    plan: str = Field("default", description="Name in the plans file.", pattern=_NAME)
    models: frozenset[str] = Field(
        frozenset((ALL_MODELS,)), description="Names of models; * is all.", min_length=1
    )
    priority: int = Field(0, description="A higher one goes first.", ge=-1000, le=1000)
    not_before: AwareDatetime | None = Field(None, description="Not valid before.")
    expires: AwareDatetime | None = Field(None, description="Not valid from then on.")
    note: str = Field("", description="For people.", max_length=200)

    def is_valid_at(self, now: datetime | None) -> bool:
        """Whether it may be used at `now`; None is the present."""
        if self.not_before is None and self.expires is None:
            return True
        now = now or datetime.now(UTC)
        return (self.not_before is None or self.not_before <= now) and (
            self.expires is None or now < self.expires
        )


class KeyRing:
    """The keys of a file; raises ValueError when two have one id."""

    def __init__(self, keys: Iterable[Key]) -> None:
        self._keys: dict[str, Key] = {}
        for key in keys:
            if key.id in self._keys:
                raise ValueError(f"two keys have the id {key.id}")
            self._keys[key.id] = key

    def __len__(self) -> int:
        return len(self._keys)

    def __iter__(self) -> Iterator[Key]:
        return iter(self._keys.values())

    @property
    def plans(self) -> set[str]:
        """The plans that the keys name."""
        return {key.plan for key in self._keys.values()}

    def find(self, text: str, now: datetime | None = None) -> Key | None:
        """The valid key that `text` is, else None, for whatever reason."""
        match = _KEY.fullmatch(text)
        if match is None:
            return None
        key_id, secret = match.groups()
        key = self._keys.get(key_id)
        right = hmac.compare_digest(_digest(secret), _NOBODYS if key is None else key.sha256)
        if key is None or not right:
            return None
        return key if key.is_valid_at(now) else None


def is_key(text: str) -> bool:
    """Whether `text` has the form of a key."""
    return _KEY.fullmatch(text) is not None


def new_key(**members: object) -> tuple[str, Key]:
    """A new key for a caller, and what is kept of it; `members` are those of Key."""
    key_id, secret = secrets.token_hex(6), secrets.token_urlsafe(32)
    key = Key.model_validate({"id": key_id, "sha256": _digest(secret), **members})
    return f"kw_{key_id}_{secret}", key


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()
