"""What is set on other people's objects, what was there before, and who else wants a say.

managedFields tell which values are this controller's; a record in the WarmPool's status keeps what
was there before, and is written before the first value is. So a restart at any point loses nothing.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from keepwarm.warmpool.observed import Holder, Object


@dataclass(frozen=True, slots=True)
class Record:
    """What a WarmPool has set on one object; `pending` was announced and not seen there yet."""

    kind: str
    name: str
    uid: str
    values: Mapping[str, str] = field(default_factory=dict)
    before: Mapping[str, str] = field(default_factory=dict)
    pending: frozenset[str] = frozenset()

    @classmethod
    def of(cls, kept: Object) -> Self:
        """A record as the status holds it."""
        return cls(
            kept["kind"],
            kept["name"],
            kept.get("uid", ""),
            kept.get("values") or {},
            kept.get("before") or {},
            frozenset(kept.get("pending") or ()),
        )

    def kept(self) -> dict[str, Any]:
        """As the status holds it."""
        parts: dict[str, Any] = {"kind": self.kind, "name": self.name, "uid": self.uid}
        parts |= {"values": dict(self.values), "before": dict(self.before)}
        return parts | ({"pending": sorted(self.pending)} if self.pending else {})


@dataclass(frozen=True, slots=True)
class Apply:
    """Set `values`, and nothing else, by server-side apply; only if nobody was there since."""

    holder: Holder
    values: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Restore:
    """Put back what was there (None: nothing), and give up ownership in the same request."""

    holder: Holder
    before: Mapping[str, str | None]


@dataclass(frozen=True, slots=True)
class Conflict:
    """Somebody else has set a value that was this controller's."""

    holder: Holder
    name: str
    wanted: str
    by: tuple[str, ...]

    def __str__(self) -> str:
        where = f"{self.name} of {self.holder.kind} {self.holder.key.name}"
        return (
            f"{' and '.join(self.by)} set {where} to {self.holder.values[self.name]},"
            f" wanted is {self.wanted}"
        )


@dataclass(frozen=True, slots=True)
class Settled:
    """What to do next for one object, and what to remember of it."""

    record: Record | None
    action: Apply | Restore | None
    conflicts: tuple[Conflict, ...] = ()


def contested(holder: Holder, name: str, wanted: str) -> Conflict | None:
    """The conflict over a value that was this controller's, when somebody else's is there now."""
    by, value = holder.owners.others.get(name, ()), holder.values.get(name)
    if name in holder.owners.mine or not by or value == wanted:
        return None
    return Conflict(holder, name, wanted, by)


def settle(
    holder: Holder,
    wanted: Mapping[str, str],
    record: Record | None,
    *,
    force: bool = False,
    origin: Mapping[str, str] | None = None,
) -> Settled:
    """Brings `holder` one step nearer to `wanted`; what is not wanted any more is put back.

    A first write takes the value from whoever made the object. After that somebody else's value
    is a conflict, left alone unless `force`. `origin` tells what was there before where the
    record was lost.
    """
    old = record or Record(holder.kind, holder.key.name, holder.uid)
    mine = holder.owners.mine
    values, before, pending = dict(old.values), dict(old.before), set(old.pending - mine)
    conflicts: list[Conflict] = []
    written: dict[str, str] = {}
    for name in mine - values.keys():
        values[name] = holder.values[name]
        if origin and name in origin:
            before[name] = origin[name]
    for name, value in wanted.items():
        if name not in values:
            pending.add(name)
            if name in holder.values:
                before[name] = holder.values[name]
        elif name not in pending and not force and (conflict := contested(holder, name, value)):
            conflicts.append(conflict)
            continue
        values[name] = written[name] = value
    released = {name: before.get(name) for name in values if name not in wanted and name in mine}
    gone = values.keys() - wanted.keys() - mine
    values = {name: value for name, value in values.items() if name not in gone}
    before = {name: value for name, value in before.items() if name not in gone}
    action: Apply | Restore | None = None
    if released:
        action = Restore(holder, released)
    elif pending <= old.pending and any(
        name not in mine or holder.values[name] != value for name, value in written.items()
    ):
        action = Apply(holder, written)
    kept = Record(old.kind, old.name, old.uid, values, before, frozenset(pending - gone))
    return Settled(kept if values else None, action, tuple(conflicts))
