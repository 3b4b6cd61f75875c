"""What a caller says about caching in `Cache-Control`, on HTTP and in gRPC metadata alike.

Source: RFC 9111 5.2.1. Unknown directives are ignored, as it asks; `sampled` is an extension
directive (5.2.3) of ours.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Final

SAMPLED: Final = "sampled"


@dataclass(frozen=True, slots=True)
class Directives:
    """`no_store`: neither look nor keep. `no_cache`: do not look, but keep the new answer.

    `only_if_cached`: never ask the engine. `max_age_s`: the oldest answer that will do, in seconds.
    `sampled`: an answer that was drawn at random for another request will do.
    """

    no_store: bool = False
    no_cache: bool = False
    only_if_cached: bool = False
    max_age_s: float | None = None
    sampled: bool = False

    def accepts(self, age_s: float) -> bool:
        """Whether a kept answer of this age will do."""
        return not self.no_cache and (self.max_age_s is None or age_s <= self.max_age_s)


NONE: Final = Directives()


# What clients send is short and always the same.
_COMMON_LENGTH: Final = 64


def parse(header: str | None) -> Directives:
    """The directives in a header; an unusable max-age asks for a new answer, always a right one."""
    if header is None:
        return NONE
    return _common(header) if len(header) <= _COMMON_LENGTH else _parsed(header)


@lru_cache(maxsize=256)
def _common(header: str) -> Directives:
    return _parsed(header)


def _parsed(header: str) -> Directives:
    names: dict[str, str] = {}
    for part in header.split(","):
        name, _, value = part.partition("=")
        names[name.strip().lower()] = value.strip().strip('"')
    max_age = names.get("max-age")
    max_age_s: float | None = None
    if max_age is not None:
        max_age_s = float(max_age[:10]) if max_age.isascii() and max_age.isdigit() else 0.0
    return Directives(
        no_store="no-store" in names,
        no_cache="no-cache" in names or max_age_s == 0,
        only_if_cached="only-if-cached" in names,
        max_age_s=max_age_s,
        sampled=SAMPLED in names,
    )
