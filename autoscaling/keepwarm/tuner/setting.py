"""One point of the search: Knative's knobs, a weekly schedule on top, and when pods sleep."""

from dataclasses import dataclass, replace

from keepwarm.kpa.model import Policy
from keepwarm.tuner.week import Week, schedule
from keepwarm.tuner.workload import Workload


@dataclass(frozen=True)
class Setting:
    """`policy` has no schedule of its own; `week` is laid over its min-scale.

    On the training days a setting with `folds` runs each block under the week that the other
    blocks would have made, so that a schedule is not judged by the days it was made of.
    """

    policy: Policy
    week: Week | None = None
    sleep_after_s: float | None = None
    folds: tuple[Week, ...] = ()

    def twin(self, workload: Workload, lead_s: float) -> Policy:
        """What the twin simulates."""
        if self.week is None:
            return self.policy
        steps = schedule(
            self.folds or (self.week,),
            workload.begins,
            workload.zone,
            workload.requests.duration_s,
            block_s=workload.block_s,
            lead_s=lead_s,
            floor=self.policy.min_scale,
        )
        return replace(self.policy, schedule=steps)

    def with_knobs(self, **changes: object) -> "Setting":
        """The same with some of the policy's fields changed."""
        return replace(self, policy=replace(self.policy, **changes))  # type: ignore[arg-type]

    @property
    def final(self) -> "Setting":
        """As it would be applied: one week, made of all training days."""
        return replace(self, folds=())
