"""Everything that one WarmPool's next step depends on, as it was last seen."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from keepwarm.warmpool.observed import (
    Deployment,
    Holder,
    InferenceService,
    KnativeService,
    PodAutoscaler,
    Pool,
    Revision,
)
from keepwarm.warmpool.ownership import Record


@dataclass(frozen=True, slots=True)
class World:
    """A WarmPool, its target, and what else is in its namespace."""

    pool: Pool
    neighbours: tuple[Pool, ...] = ()
    """The other WarmPools of its namespace."""
    service: InferenceService | None = None
    knative: KnativeService | None = None
    revisions: tuple[Revision, ...] = ()
    autoscalers: Mapping[str, PodAutoscaler] = field(default_factory=dict)
    """By the Revision's name, which is theirs too."""
    deployment: Deployment | None = None
    holders: Mapping[str, Holder] = field(default_factory=dict)
    """By uid: every object of the namespace that can be or could have been written to."""
    cold_starts_s: tuple[float, ...] = ()
    """Measured since the last status was written."""
    error: str | None = None
    """Why the last step failed, if it did."""

    @property
    def standard(self) -> bool:
        """Whether KServe runs the target without Knative."""
        return self.knative is None and self.service is not None and self.service.standard

    @property
    def records(self) -> tuple[Record, ...]:
        """What this WarmPool has set."""
        return records(self.pool)

    @property
    def winner(self) -> Pool | None:
        """The oldest of the WarmPools with this target, unless it is this one."""
        older = [
            other
            for other in self.neighbours
            if other.spec is not None
            and self.pool.spec is not None
            and other.spec.target == self.pool.spec.target
            and not other.deleting
            and _age(other) < _age(self.pool)
        ]
        return min(older, key=_age, default=None)

    def ready(self, name: str) -> int:
        """Ready replicas of the Revision, or in Standard mode the Deployment, of that name."""
        if name in self.autoscalers:
            return self.autoscalers[name].ready
        found = self.deployment
        return found.ready if found is not None and found.key.name == name else 0


def records(pool: Pool) -> tuple[Record, ...]:
    """What `pool` has set, as its status remembers it."""
    return tuple(Record.of(kept) for kept in pool.status.get("owned") or ())


def _age(pool: Pool) -> tuple[str, str]:
    return pool.created, pool.key.name
