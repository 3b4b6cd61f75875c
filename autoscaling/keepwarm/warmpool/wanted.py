"""What a level means for a target: which values on which objects, or why none."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from keepwarm.warmpool import durations
from keepwarm.warmpool.api import Knobs, Spec
from keepwarm.warmpool.observed import AUTOSCALING, Revision
from keepwarm.warmpool.schedule import Level
from keepwarm.warmpool.status import Verdict
from keepwarm.warmpool.traffic import floors
from keepwarm.warmpool.world import World

MIN_SCALE = AUTOSCALING + "min-scale"
# Knative copies a live annotation within a second; longer than this, it never will.
FOLLOWS_WITHIN = timedelta(seconds=60)
# Reason, why a live Revision cannot be changed, and what editing minReplicas costs there.
STANDARD = (
    "StandardMode",
    "in Standard mode there is no live Revision",
    "KServe changes the minimum of the HPA or Deployment, and no pod restarts",
)
NOT_PROPAGATED = (
    "NotPropagated",
    "Knative does not copy a live Revision's annotations to its PodAutoscaler (it does since 1.21)",
    "every change starts a new Revision: for one cold start the replicas use twice the GPUs",
)


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is to be set where."""

    verdict: Verdict
    values: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """By the object's uid."""
    replicas: Mapping[str, int] = field(default_factory=dict)
    """By the name of the Revision, or in Standard mode of the Deployment."""
    again: datetime | None = None
    """When to look again whether Knative follows."""


def wanted(world: World, spec: Spec, level: Level, now: datetime) -> Wanted:
    """What `level` means for the target of `world`."""
    if hindrance := _hindrance(world, spec):
        return Wanted(hindrance)
    assert world.service is not None
    found = Wanted(Verdict("Kept", "", live=True))
    if not world.standard:
        found = _on_revisions(world, level, now)
    fallen_back = any(record.kind == "InferenceService" for record in world.records)
    if world.standard or fallen_back or not found.verdict.live:
        allowed = spec.when_not_live == "MinReplicas"
        verdict = _not_live(STANDARD if world.standard else NOT_PROPAGATED, allowed=allowed)
        values = dict(found.values)
        if allowed:
            name = f"{spec.target.component}.minReplicas"
            values[world.service.holder.uid] = {name: str(level.replicas)}
        replicas = {spec.target.service: level.replicas} if world.standard else found.replicas
        found = Wanted(verdict, values, replicas, found.again)
    if spec.dry_run:
        return Wanted(Verdict("DryRun", _would(world, found.values), found.verdict.live))
    return found


def _hindrance(world: World, spec: Spec) -> Verdict | None:
    """Why nothing is to be set at all."""
    target = spec.target
    if spec.suspend:
        return Verdict("Suspended", "spec.suspend is true: everything is given back")
    if world.winner is not None:
        return Verdict("TargetTaken", f"WarmPool {world.winner.key.name} is older")
    if world.service is None:
        missing = f"InferenceService {target.inference_service} is not there"
        return Verdict("TargetNotFound", missing)
    if target.component not in world.service.most:
        missing = f"InferenceService {target.inference_service} has no {target.component}"
        return Verdict("TargetNotFound", missing)
    if not world.standard and (world.knative is None or not world.revisions):
        return Verdict("TargetNotReady", f"{target.service} has no Revision yet")
    return None


def _on_revisions(world: World, level: Level, now: datetime) -> Wanted:
    """The floors as annotations of the live Revisions; not `live` when Knative ignores them."""
    assert world.knative is not None
    replicas = floors(level.replicas, world.knative, world.revisions)
    kept = [revision for revision in world.revisions if revision.key.name in replicas]
    knobs = annotations(level.knobs)
    values = {
        revision.holder.uid: {MIN_SCALE: str(replicas[revision.key.name]), **knobs}
        for revision in kept
    }
    due = [moment for revision in kept if (moment := _follows_by(world, revision))]
    ignored = any(moment <= now for moment in due)
    notes = [
        f"{revision.key.name} allows at most {revision.most} (its max-scale or activation-scale)"
        for revision in kept
        if replicas[revision.key.name] == revision.most != level.replicas
    ]
    if level.knobs is not None and level.knobs.scale_down_delay is not None:
        notes.append("Knative reads scale-down-delay when its autoscaler starts, not before")
    verdict = Verdict("Kept", "; ".join(notes), live=not ignored)
    again = min((moment for moment in due if moment > now), default=None)
    return Wanted(verdict, values, replicas, again)


def _follows_by(world: World, revision: Revision) -> datetime | None:
    """The moment by which the PodAutoscaler must have the minimum; None when it has it."""
    owners, autoscaler = revision.holder.owners, world.autoscalers.get(revision.key.name)
    if MIN_SCALE not in owners.mine or owners.since is None or autoscaler is None:
        return None
    if autoscaler.annotations.get(MIN_SCALE) == revision.holder.values[MIN_SCALE]:
        return None
    return owners.since + FOLLOWS_WITHIN


def _not_live(case: tuple[str, str, str], *, allowed: bool) -> Verdict:
    reason, why, cost = case
    said = f"{why}; minReplicas of the InferenceService is edited instead: {cost}"
    if not allowed:
        said = f"{why}; spec.whenNotLive: MinReplicas would edit the InferenceService: {cost}"
    ready = Verdict("Kept", "") if allowed else Verdict("NotLive", said)
    return replace(ready, live=False, live_reason=reason, live_message=said)


def _would(world: World, values: Mapping[str, Mapping[str, str]]) -> str:
    changes = [
        f"{name} of {world.holders[uid].key.name}: {world.holders[uid].values.get(name, 'none')}"
        f" to {value}"
        for uid, named in sorted(values.items())
        for name, value in named.items()
        if world.holders[uid].values.get(name) != value
    ]
    return f"would set {'; '.join(changes)}" if changes else "would set nothing: all is as wanted"


def annotations(knobs: Knobs | None) -> dict[str, str]:
    """Knobs as Knative's annotations."""
    if knobs is None:
        return {}
    found = {}
    for name in sorted(knobs.model_fields_set):
        value = getattr(knobs, name)
        if isinstance(value, timedelta):
            value = durations.show(value)
        elif isinstance(value, float):
            value = str(int(value)) if value.is_integer() else repr(value)
        if value is not None:
            found[AUTOSCALING + name.replace("_", "-")] = value
    return found
