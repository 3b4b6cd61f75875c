"""A WarmPool's status: its conditions, and the Events that follow from what changed in it.

Events come from the difference of two statuses, so a restart repeats none and loses none that the
status does not tell as well.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Literal, Self

from keepwarm.warmpool.observed import Object, Pool

NOT_READY = ("Starting", "Setting")


@dataclass(frozen=True, slots=True)
class Event:
    """What is told once, beside the object."""

    type: Literal["Normal", "Warning"]
    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """How things stand; `live` is None where it was not looked at."""

    reason: str
    message: str
    live: bool | None = None
    live_reason: str = "FollowsRevision"
    live_message: str = "the PodAutoscaler follows the live Revision"
    conflicts: tuple[str, ...] = ()

    def but(self, reason: str, message: str) -> Self:
        """The same with another outcome; a message that was there is kept."""
        both = "; ".join(part for part in (message, self.message) if part)
        return replace(self, reason=reason, message=both)

    def with_conflicts(self, conflicts: tuple[object, ...]) -> Self:
        """The same with what others have set."""
        return replace(self, conflicts=tuple(map(str, conflicts)))


def status(
    pool: Pool, verdict: Verdict, now: datetime, *, kept: Mapping[str, Any]
) -> dict[str, Any]:
    """The whole status: what is `kept` (None is left out), and conditions for `verdict`."""
    live = {True: "True", False: "False", None: "Unknown"}[verdict.live]
    live_reason = "NotLooked" if verdict.live is None else verdict.live_reason
    live_message = "" if verdict.live is None else verdict.live_message
    ready = "True" if verdict.reason == "Kept" else "False"
    conflict = "True" if verdict.conflicts else "False"
    writer = "OtherWriter" if verdict.conflicts else "NoOtherWriter"
    conditions = (
        ("Ready", ready, verdict.reason, verdict.message),
        ("Live", live, live_reason, live_message),
        ("Conflict", conflict, writer, "; ".join(verdict.conflicts)),
    )
    body = {name: value for name, value in kept.items() if value is not None}
    body["observedGeneration"] = pool.generation
    changed = now.strftime("%Y-%m-%dT%H:%M:%SZ")
    body["conditions"] = [
        {
            "type": kind,
            "status": value,
            "reason": reason,
            "message": message,
            "observedGeneration": pool.generation,
            "lastTransitionTime": _since(pool, kind, value) or changed,
        }
        for kind, value, reason, message in conditions
    ]
    return body


def _since(pool: Pool, kind: str, value: str) -> str | None:
    """Since when the condition has been `value`, if it has been."""
    old = condition(pool.status, kind)
    return old["lastTransitionTime"] if old.get("status") == value else None


def condition(status: Object, kind: str) -> Object:
    """The condition of that type, or nothing."""
    for found in status.get("conditions") or ():
        if found["type"] == kind:
            return dict(found)
    return {}


def events(old: Object, new: Object) -> tuple[Event, ...]:
    """What is worth telling of a status that became another."""
    found: list[Event] = []
    if "want" in new and new["want"] != old.get("want"):
        before = old.get("want", "none")
        found.append(
            Event("Normal", "Wanted", f"{before} to {new['want']} replicas: {new['activeWindow']}")
        )
    wake, was = new.get("wake") or {}, old.get("wake") or {}
    if wake.get("error") and wake["error"] != was.get("error"):
        found.append(Event("Warning", "InvalidWake", wake["error"]))
    elif wake and wake["until"] != was.get("until"):
        found.append(Event("Normal", "Woken", f"{wake['replicas']} replicas until {wake['until']}"))
    ready, before_ready = condition(new, "Ready"), condition(old, "Ready")
    if ready.get("reason") != before_ready.get("reason"):
        found += _turned(ready, new)
    conflict, before_conflict = condition(new, "Conflict"), condition(old, "Conflict")
    if conflict.get("message") != before_conflict.get("message"):
        if conflict.get("status") == "True":
            found.append(Event("Warning", "Conflict", conflict["message"]))
        elif before_conflict.get("status") == "True":
            found.append(Event("Normal", "ConflictOver", "nobody else sets what is wanted"))
    if new.get("lastError") and new.get("lastError") != old.get("lastError"):
        found.append(Event("Warning", "Failed", new["lastError"]))
    return tuple(found)


def _turned(ready: Object, new: Object) -> list[Event]:
    """An Event for a reason that Ready has now and had not before."""
    reason, message = ready["reason"], ready["message"]
    if reason == "Kept":
        if not new.get("want"):
            return []
        said = f"{new.get('have', 0)} ready, {new['want']} wanted"
        return [Event("Normal", "Warm", f"{said}; {message}" if message else said)]
    if reason in {*NOT_READY, "Conflict"}:
        return []
    normal = reason in {"Suspended", "DryRun"}
    return [Event("Normal" if normal else "Warning", reason, message)]
