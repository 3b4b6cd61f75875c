"""A moment as a person gives it: a date, a date with its time, or how far from now (`90d`)."""

import re
from datetime import UTC, datetime, timedelta
from typing import Final

_SPAN: Final = re.compile(r"([0-9]{1,5})([dhm])")
_UNITS: Final = {"d": "days", "h": "hours", "m": "minutes"}


def moment(text: str, now: datetime) -> datetime:
    """The moment that `text` names; without a time zone it is UTC. Raises ValueError."""
    span = _SPAN.fullmatch(text)
    if span is not None:
        return now.replace(microsecond=0) + timedelta(**{_UNITS[span[2]]: int(span[1])})
    try:
        named = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(
            f"{text!r:.40} is no date (2027-01-31), time (2027-01-31T12:00Z) or span (90d, 12h)"
        ) from None
    return named if named.tzinfo is not None else named.replace(tzinfo=UTC)
