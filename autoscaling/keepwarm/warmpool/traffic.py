"""How much of the minimum each Revision carries: those with traffic and the one about to get it."""

from collections.abc import Iterable, Mapping

from keepwarm.warmpool.observed import LATEST, KnativeService, Revision


def shares(service: KnativeService, revisions: Iterable[Revision]) -> dict[str, int]:
    """The percent of traffic that each Revision has or is about to have, whichever is more.

    A new Revision counts from its creation, with what its Service wishes for the newest, so that
    it is warm before traffic moves. One that has failed counts only for what it still serves.
    """
    known = {revision.key.name: revision for revision in revisions}
    found = {name: percent for name, percent in service.serving.items() if percent}
    for name, percent in service.wished.items():
        named = service.latest_created if name == LATEST else name
        revision = known.get(named)
        if percent and revision is not None and not revision.failed:
            found[named] = max(found.get(named, 0), percent)
    return {name: percent for name, percent in found.items() if name in known}


def floors(
    replicas: int, service: KnativeService, revisions: Iterable[Revision]
) -> Mapping[str, int]:
    """The minimum of each Revision: its share of `replicas`, rounded up, within its own bounds."""
    listed = list(revisions)
    bounds = {revision.key.name: revision.most for revision in listed}
    found = {}
    for name, percent in shares(service, listed).items():
        part = -(-replicas * percent // 100)
        bound = bounds[name]
        found[name] = part if bound is None else min(part, bound)
    return found
