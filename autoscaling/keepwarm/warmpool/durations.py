"""Durations as Kubernetes and Knative write them: `90s`, `1h30m`."""

import re
from datetime import timedelta

_SHAPE = re.compile(r"(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?")


def parse(text: str) -> timedelta:
    """The duration of `1h30m`. Raises ValueError."""
    found = _SHAPE.fullmatch(text)
    if not text or found is None:
        raise ValueError(f"{text!r} is no duration such as 90s, 10m or 1h30m")
    hours, minutes, seconds = (int(part or 0) for part in found.groups())
    try:
        return timedelta(hours=hours, minutes=minutes, seconds=seconds)
    except OverflowError:
        raise ValueError(f"{text!r} is longer than any calendar") from None


def show(duration: timedelta) -> str:
    """The shortest text of whole seconds: `1h30m`, `45s`, `0s`."""
    seconds = round(duration.total_seconds())
    parts = ((seconds // 3600, "h"), (seconds // 60 % 60, "m"), (seconds % 60, "s"))
    return "".join(f"{count}{unit}" for count, unit in parts if count) or "0s"
