"""One look at the world, and the next step towards what a WarmPool declares.

Pure: the same observed objects and the same `now` give the same status, actions and Events. Every
step is safe to repeat and to lose; what follows from it is decided when it has been observed.
"""

from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from keepwarm.warmpool import wake
from keepwarm.warmpool.api import Spec
from keepwarm.warmpool.lead import lead, remembered
from keepwarm.warmpool.observed import Pool
from keepwarm.warmpool.ownership import Apply, Conflict, Record, Restore, settle
from keepwarm.warmpool.schedule import Change, Schedule, Wake
from keepwarm.warmpool.status import Event, Verdict, events, status
from keepwarm.warmpool.traffic import shares
from keepwarm.warmpool.wanted import Wanted, wanted
from keepwarm.warmpool.world import World, records


@dataclass(frozen=True, slots=True)
class Finalizer:
    """Add or take away the finalizer."""

    wanted: bool


@dataclass(frozen=True, slots=True)
class UseUp:
    """Remove the wake annotation, if it still says this."""

    value: str


Action = Finalizer | UseUp | Apply | Restore


@dataclass(frozen=True, slots=True)
class Step:
    """What to do now, in this order: the status (None: nothing to say), actions, Events."""

    status: dict[str, Any] | None = None
    actions: tuple[Action, ...] = ()
    events: tuple[Event, ...] = ()
    again: datetime | None = None
    """When to look again though nothing was seen to change."""


def reconcile(world: World, now: datetime) -> Step:
    """The next step of `world.pool` at `now`."""
    pool = world.pool
    if pool.deleting:
        return _delete(world)
    if not pool.finalizer:
        # Alone and first: nothing is set that could not be put back.
        return Step(actions=(Finalizer(wanted=True),))
    if pool.spec is None:
        verdict = Verdict("InvalidSpec", pool.invalid or "")
        return _step(pool, status(pool, verdict, now, kept=pool.status))
    return _keep(world, pool.spec, now)


def _keep(world: World, spec: Spec, now: datetime) -> Step:
    pool = world.pool
    woken, told_wake, used_up = _wake(pool, spec, now)
    cold_starts = remembered(pool.status.get("coldStartSeconds") or (), world.cold_starts_s)
    most = world.service.most.get(spec.target.component) if world.service else None
    schedule = Schedule(spec, lead(spec.lead, cold_starts), woken, most)
    level = schedule.at(now)
    anything, replicas = schedule.next_changes(now)
    asked = wanted(world, spec, level, now)
    if most is not None and replace(schedule, most=None).at(now).replicas > most:
        note = f"maxReplicas of the InferenceService allows at most {most}"
        asked = replace(asked, verdict=asked.verdict.but(asked.verdict.reason, note))
    remember, moves, conflicts = _settle(world, asked, force=spec.on_conflict == "Force")
    verdict = _judge(world, asked, conflicts)
    kept: dict[str, Any] = {
        "have": _have(world, asked),
        "revision": _main_revision(world),
        "revisions": _revisions(world, asked),
        "leadSeconds": schedule.lead.total_seconds(),
        "coldStartSeconds": cold_starts or None,
        "wake": told_wake,
        "owned": [record.kept() for record in remember] or None,
        "lastError": world.error,
    }
    if verdict.reason not in {"Suspended", "TargetTaken"}:
        kept |= {"activeWindow": level.label, "want": level.replicas}
        kept |= {"nextChange": replicas and _next(replicas)}
    times = [change.at for change in (anything, replicas) if change]
    times += [asked.again] if asked.again else []
    again = min(times, default=None)
    told = world.error in {None, pool.status.get("lastError")}
    if moves and not used_up and told and spec.on_conflict == "Report":
        # Replicas before words: when many windows open at once, all of them are set first. What
        # was done is told when it has been seen.
        return Step(None, moves, (), again)
    body = status(pool, verdict, now, kept=kept)
    return _step(pool, body, (*used_up, *moves), again)


def _step(
    pool: Pool,
    body: dict[str, Any],
    actions: tuple[Action, ...] = (),
    again: datetime | None = None,
) -> Step:
    if body == pool.status:
        return Step(None, actions, (), again)
    return Step(body, actions, events(pool.status, body), again)


def _delete(world: World) -> Step:
    pool = world.pool
    if not pool.finalizer:
        return Step()
    remember, moves, _ = _settle(world, Wanted(Verdict("Deleting", "")), force=False)
    if remember:
        body = {**pool.status, "owned": [record.kept() for record in remember]}
        if world.error:
            body["lastError"] = world.error
        return _step(pool, body, moves)
    released = Event("Normal", "Released", "what was there before is there again")
    return Step(actions=(Finalizer(wanted=False),), events=(released,))


def _wake(
    pool: Pool, spec: Spec, now: datetime
) -> tuple[Wake | None, dict[str, Any] | None, tuple[Action, ...]]:
    """The wake in force, what the status tells of it, and the annotation's removal."""
    text, told = pool.wake, pool.status.get("wake")
    if text is not None and (not told or told.get("value") != text):
        try:
            fresh = wake.parse(text).wake(spec.prewarm, now)
            told = {"value": text, "replicas": fresh.replicas, "until": _text(fresh.until)}
        except wake.InvalidWake as error:
            # One that goes on goes on.
            held = told or {"replicas": 0, "until": _text(now)}
            told = {**held, "value": text, "error": str(error)}
    known = wake.recorded(told) if told else None
    if known is not None and (known.until <= now or not known.replicas):
        known = None
    if text is not None:
        # It stays in the status until the annotation is seen to be gone, and counts once.
        return known, told, (UseUp(text),)
    if known is None or told is None:
        return None, None, ()
    return known, {name: value for name, value in told.items() if name != "value"}, ()


def _settle(
    world: World, asked: Wanted, *, force: bool
) -> tuple[list[Record], tuple[Action, ...], tuple[Conflict, ...]]:
    """Each object one step further: those that were written to and those that shall be."""
    mine = {record.uid: record for record in world.records}
    theirs = {record.uid: record for other in world.neighbours for record in records(other)}
    handed_over = {record.uid for record in records(world.winner)} if world.winner else set()
    remember: list[Record] = []
    actions: list[Action] = []
    conflicts: list[Conflict] = []
    for uid in sorted(mine.keys() | asked.values.keys()):
        holder, other = world.holders.get(uid), theirs.get(uid)
        if holder is None:
            continue  # deleted, and with it what was set
        if uid in handed_over:
            continue  # to an older WarmPool, which remembers what was there before
        template = world.knative.template if world.knative else {}
        settled = settle(
            holder,
            asked.values.get(uid, {}),
            mine.get(uid),
            force=force,
            origin=other.before if other else template,
        )
        remember += [settled.record] if settled.record else []
        actions += [settled.action] if settled.action else []
        conflicts += settled.conflicts
    return remember, tuple(actions), tuple(conflicts)


def _judge(world: World, asked: Wanted, conflicts: tuple[Conflict, ...]) -> Verdict:
    """The verdict with what was seen: conflicts, values and replicas that are not there yet."""
    verdict = asked.verdict.with_conflicts(conflicts)
    if verdict.reason != "Kept":
        return verdict
    if conflicts:
        return verdict.but("Conflict", "; ".join(verdict.conflicts))
    unset = [
        world.holders[uid].key.name
        for uid, values in asked.values.items()
        if any(world.holders[uid].values.get(name) != value for name, value in values.items())
    ]
    if unset:
        return verdict.but("Setting", f"to be set on {', '.join(sorted(unset))}")
    missing = [
        f"{name}: {world.ready(name)} of {count} ready"
        for name, count in sorted(asked.replicas.items())
        if world.ready(name) < count
    ]
    return verdict.but("Starting", "; ".join(missing)) if missing else verdict


def _have(world: World, asked: Wanted) -> int | None:
    """Ready replicas of everything that serves or is kept."""
    if world.knative is None:
        return None if world.deployment is None else world.deployment.ready
    names = asked.replicas.keys() | shares(world.knative, world.revisions).keys()
    return sum(world.ready(name) for name in names)


def _main_revision(world: World) -> str | None:
    serving = world.knative.serving if world.knative else {}
    return max(sorted(serving), key=lambda name: serving[name], default=None)


def _revisions(world: World, asked: Wanted) -> list[dict[str, Any]] | None:
    if world.knative is None:
        return None
    serving = world.knative.serving
    told = [
        {
            "name": name,
            "trafficPercent": serving.get(name, 0),
            "want": count,
            "have": world.ready(name),
        }
        for name, count in sorted(asked.replicas.items())
    ]
    return told or None


def _next(change: Change) -> dict[str, Any]:
    level = change.level
    return {"at": _text(change.at), "replicas": level.replicas, "window": level.label}


def _text(at: datetime) -> str:
    return at.strftime("%Y-%m-%dT%H:%M:%SZ")
