"""Where Redis is: one URL for a server, a master that Sentinels know, or a Cluster.

The form says which: `redis://HOST[:PORT][/DB]`, `redis+sentinel://HOST[:PORT][,HOST...]/MASTER[/DB]`
and `redis+cluster://HOST[:PORT][,HOST...]`; with `rediss` for TLS, `USER:PASSWORD@` before the
hosts, and `?ca_file=PATH` and, for Sentinels that ask for one, `?sentinel_password=TEXT`.
"""

import re
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

REDIS_PORT: Final = 6379
SENTINEL_PORT: Final = 26379
_FORMS: Final = "redis://, redis+sentinel:// or redis+cluster:// (rediss... for TLS)"
_HOST: Final = re.compile(r"(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9._-]+)(?::([0-9]{1,5}))?")


class UnusableAddressError(ValueError):
    """The URL is none of the forms; its message never holds the URL, which holds a password."""


class Kind(StrEnum):
    """What answers at the address."""

    SINGLE = "redis"
    SENTINEL = "redis+sentinel"
    CLUSTER = "redis+cluster"


@dataclass(frozen=True, slots=True)
class RedisAddress:
    """A parsed URL; `hosts` are the server's, the Sentinels' or some nodes' of the Cluster."""

    kind: Kind
    hosts: tuple[tuple[str, int], ...]
    tls: bool = False
    master: str = ""
    db: int = 0
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    sentinel_password: str | None = field(default=None, repr=False)
    ca_file: str | None = None

    @classmethod
    def parse(cls, url: str) -> "RedisAddress":
        """The address that `url` names; raises UnusableAddressError."""
        try:
            parts = urlsplit(url)
        except ValueError:
            raise UnusableAddressError(f"is not a URL; allowed: {_FORMS}") from None
        tls = parts.scheme.startswith("rediss")
        scheme = parts.scheme.replace("rediss", "redis", 1)
        if scheme not in list(Kind):
            raise UnusableAddressError(f"must start with {_FORMS}")
        kind = Kind(scheme)
        credentials, _, hosts = parts.netloc.rpartition("@")
        username, _, password = credentials.partition(":")
        master, db = _path(kind, parts)
        options = _options(kind, parts, tls=tls)
        return cls(
            kind,
            _hosts(kind, hosts),
            tls,
            master,
            db,
            unquote(username) or None,
            unquote(password) or None,
            options.get("sentinel_password"),
            options.get("ca_file"),
        )

    def __str__(self) -> str:
        """The address without its secrets, for logs."""
        hosts = ",".join(f"{host}:{port}" for host, port in self.hosts)
        return f"{self.kind}://{hosts}" + (f"/{self.master}" if self.master else "")


def _hosts(kind: Kind, text: str) -> tuple[tuple[str, int], ...]:
    names = text.split(",")
    if kind is Kind.SINGLE and len(names) > 1:
        raise UnusableAddressError(
            "names several hosts: that is redis+sentinel:// or redis+cluster://"
        )
    default = SENTINEL_PORT if kind is Kind.SENTINEL else REDIS_PORT
    hosts = []
    for name in names:
        match = _HOST.fullmatch(name)
        if match is None or int(match[2] or default) not in range(1, 65536):
            raise UnusableAddressError("must name hosts as HOST or HOST:PORT, with commas between")
        hosts.append((match[1].strip("[]"), int(match[2] or default)))
    return tuple(hosts)


def _path(kind: Kind, parts: SplitResult) -> tuple[str, int]:
    names = [unquote(name) for name in parts.path.split("/")[1:] if name]
    master = ""
    if kind is Kind.SENTINEL:
        if not names:
            raise UnusableAddressError("must name the master after the Sentinels: .../MASTER[/DB]")
        master = names.pop(0)
    db = names.pop(0) if names and kind is not Kind.CLUSTER else "0"
    if names or not db.isdecimal():
        raise UnusableAddressError("has a path that is not a database's number")
    return master, int(db)


def _options(kind: Kind, parts: SplitResult, *, tls: bool) -> dict[str, str]:
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    allowed = {"ca_file"} if tls else set()
    if kind is Kind.SENTINEL:
        allowed.add("sentinel_password")
    unknown = sorted(set(options) - allowed)
    if unknown:
        names = ", ".join(sorted(allowed)) or "none"
        raise UnusableAddressError(f"has the option {unknown[0]!r:.40}; allowed here: {names}")
    return options
