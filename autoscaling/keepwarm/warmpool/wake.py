"""Wakes: replicas that somebody asks for until a moment, in an annotation that is used up.

`2/30m` asks for two replicas for half an hour, `2/2026-11-25T18:00:00Z` until then, `0/0s` takes
the last wake back. What was read is kept in the status, so the same text can be asked again.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from keepwarm.warmpool import durations
from keepwarm.warmpool.api import Prewarm
from keepwarm.warmpool.schedule import Wake

LONGEST = timedelta(hours=4)
_SHAPE = re.compile(r"([0-9]{1,4})/(\S{1,40})")


class InvalidWake(ValueError):
    """A sentence that says how a wake is written."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A wake as it was asked for; without a moment, from when it is read."""

    replicas: int
    length: timedelta | None
    until: datetime | None

    def wake(self, rules: Prewarm, now: datetime) -> Wake:
        """Bounded by what the spec allows, in whole seconds."""
        longest = LONGEST if rules.max_wake is None else rules.max_wake
        until = now + longest
        if self.length is not None:
            until = now + min(self.length, longest)
        elif self.until is not None:
            until = min(self.until, until)
        return Wake(self.replicas, until.replace(microsecond=0))


def parse(text: str) -> Asked:
    """A wake's text. Raises InvalidWake."""
    found = _SHAPE.fullmatch(text.strip())
    if found is None or int(found[1]) > 1000:
        raise _invalid(text)
    try:
        return Asked(int(found[1]), durations.parse(found[2]), None)
    except ValueError:
        pass
    try:
        until = datetime.fromisoformat(found[2])
        # Without an offset, it would be this machine's local time.
        if until.tzinfo is not None:
            return Asked(int(found[1]), None, until.astimezone(UTC))
    except (ValueError, OverflowError):
        pass
    raise _invalid(text)


def _invalid(text: str) -> InvalidWake:
    return InvalidWake(
        f"{text!r} is no wake: write REPLICAS/DURATION such as 2/30m, or"
        " REPLICAS/MOMENT such as 2/2026-11-25T18:00:00Z"
    )


def recorded(told: Mapping[str, Any]) -> Wake:
    """The wake that a WarmPool's status tells of."""
    return Wake(int(told["replicas"]), datetime.fromisoformat(told["until"]))
