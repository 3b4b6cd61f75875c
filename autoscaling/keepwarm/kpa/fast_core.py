"""The fast engine's decider and reconciler one call at a time, to replay recordings with.

The same compiled functions as in `fast_loop`, behind the interface that `twin` drives.
"""

import numpy as np

from keepwarm.kpa import fast_decider, fast_revision
from keepwarm.kpa.decider import DeciderSpec, Decision
from keepwarm.kpa.fast_decider import NOT_PANICKING
from keepwarm.kpa.fast_revision import IDLE
from keepwarm.kpa.fast_windows import MOST_SECONDS, window_record, window_resize
from keepwarm.kpa.model import MICROSECONDS, Policy
from keepwarm.kpa.revision import Active
from keepwarm.kpa.twin import Core
from keepwarm.kpa.windows import smoothing


class FastDecider:
    """`decider.Decider`, compiled. Both metrics are kept, for live changes of the metric."""

    def __init__(self, spec: DeciderSpec, now_us: int, ready: int) -> None:
        self._spec = spec
        self._scaler = fast_decider.new_scaler()
        fast_decider.reset(self._scaler, spec, now_us, ready)
        self._spare = np.zeros(MOST_SECONDS)
        self._windows = {
            metric: fast_decider.new_scaler()[2:6] for metric in ("concurrency", "rps")
        }

    @property
    def desired(self) -> int:
        """The latest valid answer."""
        return int(self._scaler.state["desired"])

    @property
    def excess_burst(self) -> int:
        """The latest valid one."""
        return int(self._scaler.state["excess_burst"])

    def start_collecting(self) -> None:
        """The windows begin to exist; what came before is lost."""
        spec = self._spec
        for stable, stable_ring, panic, panic_ring in self._windows.values():
            for window, ring, seconds in (
                (stable, stable_ring, spec.stable_window_s),
                (panic, panic_ring, spec.panic_window_s),
            ):
                fast_decider.reset_window(window, ring, seconds, exponential=spec.exponential)
        self._scaler.state["collecting"] = 1
        self._look_at(spec.metric)

    def _look_at(self, metric: str) -> None:
        stable, stable_ring, panic, panic_ring = self._windows[metric]
        self._scaler = self._scaler._replace(
            stable=stable, stable_ring=stable_ring, panic=panic, panic_ring=panic_ring
        )

    def record(self, second: int, concurrency: float, rps: float) -> None:
        """A report from pods or activator, proxied requests subtracted."""
        if not self._scaler.state["collecting"]:
            return
        for metric, value in (("concurrency", concurrency), ("rps", rps)):
            stable, stable_ring, panic, panic_ring = self._windows[metric]
            window_record(stable, stable_ring, second, float(value))
            window_record(panic, panic_ring, second, float(value))

    def change(self, spec: DeciderSpec, now_us: int) -> None:
        """A live edit; the delay window and the algorithm stay as they were created."""
        self._spec = spec
        fast_decider.set_spec(self._scaler.spec, spec)
        if not self._scaler.state["collecting"]:
            return
        second = now_us // MICROSECONDS
        for stable, stable_ring, panic, panic_ring in self._windows.values():
            for window, ring, seconds in (
                (stable, stable_ring, spec.stable_window_s),
                (panic, panic_ring, spec.panic_window_s),
            ):
                window_resize(window, ring, self._spare, seconds, second)
                window["coefficient"] = smoothing(seconds)
        self._look_at(spec.metric)

    def scale(self, now_us: int, ready: int) -> Decision:
        """One tick. Without data nothing changes."""
        valid = fast_decider.scale(self._scaler, now_us, ready)
        state = self._scaler.state
        return Decision(
            ready,
            float(state["stable"]) if valid else 0.0,
            float(state["panic"]) if valid else 0.0,
            valid,
            int(state["answer"]) if valid else 0,
            int(state["answer_burst"]) if valid else 0,
            bool(state["panic_since_us"] != NOT_PANICKING),
            int(state["max_panic_pods"]),
        )

    def accept(self, decision: Decision) -> bool:
        """Keeps a decision for the reconciler; whether the reconciler is told."""
        state = self._scaler.state
        state["valid"] = decision.valid
        state["answer"] = decision.desired
        state["answer_burst"] = decision.excess_burst
        return fast_decider.accept(state)


class FastRevision:
    """`revision.Revision`, compiled."""

    def __init__(self, policy: Policy, now_us: int, replicas: int) -> None:
        self._parts = fast_revision.new_reconciler()
        self._state = self._parts.state
        self.policy = policy
        fast_revision.reset(self._state, now_us, replicas)

    @property
    def policy(self) -> Policy:
        """What it reconciles towards."""
        return self._policy

    @policy.setter
    def policy(self, policy: Policy) -> None:
        self._policy = policy
        fast_revision.set_policy(self._parts.policy, policy)

    @property
    def probe_delay_us(self) -> int:
        """How long the activator must have stood before the pods until a probe meets it."""
        return int(self._state["probe_delay_us"])

    @probe_delay_us.setter
    def probe_delay_us(self, delay_us: int) -> None:
        self._state["probe_delay_us"] = delay_us

    @property
    def replicas(self) -> int:
        """The Deployment's."""
        return int(self._state["replicas"])

    @property
    def active(self) -> Active:
        """The Active condition."""
        return Active(int(self._state["active"]))

    @property
    def initialized(self) -> bool:
        """ScaleTargetInitialized."""
        return bool(self._state["initialized"])

    @property
    def serving(self) -> bool:
        """SKS mode Serve."""
        return bool(self._state["serving"])

    @property
    def activators(self) -> int:
        """How many activators stand before the pods."""
        return int(self._state["activators"])

    @property
    def want(self) -> int:
        """The scale after bounds and zero handling; -1 while unknown."""
        return int(self._state["want"])

    def begin(self, now_us: int) -> None:
        """The first reconcile, before there is a ServerlessService."""
        fast_revision.begin(self._parts, now_us)

    def reconcile(self, now_us: int, ready: int, desired: int, excess_burst: int) -> bool:
        """One ReconcileKind; whether anything changed."""
        return fast_revision.reconcile(self._parts, now_us, ready, desired, excess_burst)

    def observe_endpoints(self, now_us: int, ready: int) -> bool:
        """The ServerlessService follows; whether it changed."""
        return fast_revision.observe_endpoints(self._state, now_us, ready)

    def probe(self, now_us: int) -> None:
        """The asynchronous probe's next try."""
        fast_revision.probe(self._parts, now_us)

    def probe_us(self) -> int | None:
        """When that is due, while one is in flight."""
        due = int(self._state["probe_next_us"])
        return None if due == IDLE else due

    def take_wakes(self) -> list[int]:
        """When it asked to be reconciled again since this was last called."""
        wakes: list[int] = self._parts.wakes[: int(self._state["wakes"])].tolist()
        self._state["wakes"] = 0
        self._state["next_wake_us"] = IDLE
        return wakes

    def forget(self) -> None:
        """Timers and probes are gone."""
        self.take_wakes()
        self._state["probe_until_us"] = self._state["probe_next_us"] = IDLE


FAST = Core("fast", FastDecider, FastRevision)
