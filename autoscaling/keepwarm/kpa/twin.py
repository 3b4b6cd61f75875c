"""One revision's twin: its scaler (windows and decider) and its reconciler, by either engine.

Whoever drives a twin owns the clock, the pods and the traffic. Times are microseconds.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from keepwarm.kpa.decider import Decider, DeciderSpec, Decision
from keepwarm.kpa.model import Policy
from keepwarm.kpa.revision import Active, Revision


class ScalerCore(Protocol):
    """Windows and decider; `desired` and `excess_burst` are the latest valid ones."""

    @property
    def desired(self) -> int: ...

    @property
    def excess_burst(self) -> int: ...

    def start_collecting(self) -> None:
        """The windows begin to exist; what came before is lost."""

    def record(self, second: int, concurrency: float, rps: float) -> None:
        """A report from pods or activator, proxied requests subtracted."""

    def scale(self, now_us: int, ready: int) -> Decision:
        """One Scale()."""

    def accept(self, decision: Decision) -> bool:
        """Keeps a decision for the reconciler; whether the reconciler is told."""

    def change(self, spec: DeciderSpec, now_us: int) -> None:
        """A live edit."""


class RevisionCore(Protocol):
    """The reconciler and the ServerlessService."""

    policy: Policy
    probe_delay_us: int

    @property
    def replicas(self) -> int: ...

    @property
    def active(self) -> Active: ...

    @property
    def initialized(self) -> bool: ...

    @property
    def serving(self) -> bool: ...

    @property
    def activators(self) -> int: ...

    @property
    def want(self) -> int: ...

    def begin(self, now_us: int) -> None:
        """The first reconcile, before there is a ServerlessService."""

    def reconcile(self, now_us: int, ready: int, desired: int, excess_burst: int) -> bool:
        """One ReconcileKind; whether anything changed."""

    def observe_endpoints(self, now_us: int, ready: int) -> bool:
        """The ServerlessService follows; whether it changed."""

    def probe(self, now_us: int) -> None:
        """The asynchronous probe's next try."""

    def probe_us(self) -> int | None:
        """When that is due, while one is in flight."""

    def take_wakes(self) -> list[int]:
        """When it asked to be reconciled again since this was last called."""

    def forget(self) -> None:
        """Timers and probes are gone."""


@dataclass(frozen=True, slots=True)
class Core:
    """An engine's two parts."""

    name: str
    scaler: Callable[[DeciderSpec, int, int], ScalerCore]  # spec, now_us, ready pods
    revision: Callable[[Policy, int, int], RevisionCore]  # policy, now_us, replicas


REFERENCE = Core("reference", Decider, Revision)


class Twin:
    """A revision under a policy, as the autoscaler's process sees it."""

    def __init__(self, policy: Policy, now_us: int, replicas: int, core: Core = REFERENCE) -> None:
        self._core = core
        self.revision = core.revision(policy, now_us, replicas)
        self.scaler: ScalerCore | None = None

    @property
    def desired(self) -> int:
        """The decider's latest; -1 while it has none."""
        return self.scaler.desired if self.scaler else -1

    @property
    def excess_burst(self) -> int:
        """The decider's latest."""
        return self.scaler.excess_burst if self.scaler else 0

    def create_decider(self, now_us: int, ready: int) -> None:
        """The autoscaler takes the revision up, or up again after its restart."""
        self.scaler = self._core.scaler(DeciderSpec.of(self.revision.policy), now_us, ready)

    def forget(self) -> None:
        """The autoscaler's process dies: windows, decider, timers and probes are gone."""
        self.scaler = None
        self.revision.forget()

    def change(self, policy: Policy, now_us: int) -> None:
        """A live edit of annotations or reachability."""
        self.revision.policy = policy
        if self.scaler:
            self.scaler.change(DeciderSpec.of(policy), now_us)

    def record(self, second: int, concurrency: float, rps: float) -> None:
        """A report; lost while nobody collects."""
        if self.scaler:
            self.scaler.record(second, concurrency, rps)

    def reconcile(self, now_us: int, ready: int) -> bool:
        """One ReconcileKind; whether anything changed."""
        return self.revision.reconcile(now_us, ready, self.desired, self.excess_burst)
