"""The PodAutoscaler's reconciler: bounds, scale to zero, and where the traffic goes.

Knative `pkg/reconciler/autoscaling/kpa/kpa.go` and `scaler.go`, and the two conditions that other
objects contribute (`serverlessservice.go`). One `Revision` is one PodAutoscaler with its
ServerlessService and the replicas of its Deployment. Times are microseconds; condition times are
whole seconds, as they come back from the API server.
"""

import math
from enum import IntEnum

from keepwarm.kpa.model import MICROSECONDS, Policy

UNKNOWN_SCALE = -1
ACTIVATION_BUFFER_US = 30 * MICROSECONDS  # scaler.go: activationTimeoutBuffer
REQUEUE_PROXIED_US = 3 * MICROSECONDS
PROBE_PERIOD_US = MICROSECONDS
PROBE_TIMEOUT_US = 45 * MICROSECONDS
REQUEUE_PROBED_US = MICROSECONDS
MIN_ACTIVATORS = 2


class Active(IntEnum):
    """The Active condition: activating, active, inactive and inactive after a time-out."""

    UNKNOWN = 0
    TRUE = 1
    FALSE = 2
    TIMED_OUT = 3


def apply_bounds(least: int, most: int, scale: int) -> int:
    """The scale within bounds; most 0 is none, and least wins over most (scaler.go)."""
    if scale < least:
        return least
    return most if most != 0 and scale > most else scale


def activators(ready: int, burst: float, total_value: float, capacity: float) -> int:
    """How many activators stand before so many ready pods (kpa.go:354-368)."""
    if burst == 0:
        return MIN_ACTIVATORS
    return max(MIN_ACTIVATORS, math.ceil((ready * total_value + max(burst, 0.0)) / capacity))


def _floored(now_us: int) -> int:
    return now_us - now_us % MICROSECONDS


class Revision:
    """State of one PodAutoscaler. `wakes_us` are the times it asked to be reconciled again."""

    def __init__(self, policy: Policy, now_us: int, replicas: int) -> None:
        self.policy = policy
        self.replicas = replicas
        self.active = Active.UNKNOWN
        self.active_since_us = _floored(now_us)
        self.initialized = False  # ScaleTargetInitialized: initial scale was reached once
        self.has_service = False
        self.serving = False  # SKS mode Serve; else Proxy
        self.activators = MIN_ACTIVATORS
        self.proxied = False  # ActivatorEndpointsPopulated
        self.proxied_since_us = _floored(now_us)
        self.path_since_us = now_us  # since when traffic goes through the activator, exactly
        self.want = UNKNOWN_SCALE
        self.wakes_us: list[int] = []
        self.probe_until_us: int | None = None  # an async probe is in flight
        self.probe_next_us = 0
        self.probe_delay_us = 0

    def min_scale(self) -> int:
        """The lower bound; an unreachable revision has none."""
        return self.policy.min_scale if self.policy.reachable else 0

    def begin(self, now_us: int) -> None:
        """The first reconcile: there is no ServerlessService yet, one is made (kpa.go:100-109)."""
        self._compute_active(now_us, UNKNOWN_SCALE, 0)
        self.has_service = True

    def reconcile(self, now_us: int, ready: int, desired: int, excess_burst: int) -> bool:
        """One ReconcileKind; returns whether anything changed."""
        before = self._snapshot()
        self.want = self._scale(now_us, desired)
        self.serving = self.want > 0 and excess_burst >= 0
        policy = self.policy
        self.activators = activators(
            ready, policy.target_burst_capacity, policy.total_value, policy.activator_capacity
        )
        self._compute_active(now_us, self.want, ready)
        return before != self._snapshot()

    def observe_endpoints(self, now_us: int, ready: int) -> bool:
        """The ServerlessService's own reconcile: who stands behind it; whether that changed."""
        proxied = ready == 0 or not self.serving
        if proxied == self.proxied:
            return False
        self.proxied = proxied
        self.proxied_since_us = _floored(now_us)
        self.path_since_us = now_us
        return True

    def _snapshot(self) -> tuple[object, ...]:
        return (
            self.replicas, self.active, self.initialized, self.serving, self.activators, self.want
        )  # fmt: skip

    def _wake_at(self, time_us: int) -> None:
        if time_us not in self.wakes_us:
            self.wakes_us.append(time_us)

    def _scale(self, now_us: int, desired: int) -> int:
        if desired < 0 and self.active != Active.UNKNOWN:
            return desired  # no data yet; -1, unless the target is not a number
        policy, least = self.policy, self.min_scale()
        if policy.initial_scale > 1 and not self.initialized and policy.reachable:
            least = max(least, policy.initial_scale)
        scale, applied = self._zero(now_us, apply_bounds(least, policy.max_scale, desired))
        if applied:
            self.replicas = scale
        return scale

    def _zero(self, now_us: int, scale: int) -> tuple[int, bool]:
        """handleScaleToZero: the scale, and whether it is applied to the Deployment."""
        if scale != 0:
            return scale, True
        policy = self.policy
        if not policy.enable_scale_to_zero:
            return 1, True
        lasted = now_us - self.active_since_us
        if self.active == Active.UNKNOWN:
            return self._zero_activating(now_us, lasted)
        if self.active == Active.TRUE:
            return self._zero_active(now_us, lasted)
        return self._zero_inactive(now_us, lasted)

    def _zero_activating(self, now_us: int, lasted: int) -> tuple[int, bool]:
        timeout = _us(self.policy.progress_deadline_s) + ACTIVATION_BUFFER_US
        if lasted > timeout:
            return 0, True
        self._wake_at(now_us + timeout)
        return UNKNOWN_SCALE, False

    def _zero_active(self, now_us: int, lasted: int) -> tuple[int, bool]:
        window = self.policy.stable_window_s * MICROSECONDS
        if lasted >= window:
            if not self.serving:
                self._wake_at(now_us + REQUEUE_PROXIED_US)
            return 0, False
        # Active for less than a stable window: one pod stays for the rest of it.
        self._wake_at(now_us + window - lasted)
        return 1, True

    def _zero_inactive(self, now_us: int, lasted: int) -> tuple[int, bool]:
        policy = self.policy
        if policy.target_burst_capacity != -1 and not self._activator_answers(now_us):
            if self.probe_until_us is None:
                self.probe_until_us = now_us + PROBE_TIMEOUT_US
                self.probe_next_us = now_us
            return 0, False
        grace = _us(policy.scale_to_zero_grace_s)
        retention = _us(policy.pod_retention_s) if policy.reachable else 0
        if lasted >= max(grace, retention):
            return 0, True
        if retention > 0 and lasted < retention:
            self._wake_at(now_us + retention - lasted)
            return 0, False
        # The activator must have stood before the pods for the grace period, since whenever.
        rest = grace - (now_us - self.proxied_since_us if self.proxied else 0)
        if rest <= 0:
            return 0, True
        self._wake_at(now_us + rest)
        return 0, False

    def _activator_answers(self, now_us: int) -> bool:
        return self.proxied and now_us - self.path_since_us >= self.probe_delay_us

    def forget(self) -> None:
        """The autoscaler's process dies: timers and probes are gone."""
        self.wakes_us = []
        self.probe_until_us = None

    def take_wakes(self) -> list[int]:
        """When it asked to be reconciled again since this was last called."""
        wakes, self.wakes_us = self.wakes_us, []
        return wakes

    def probe_us(self) -> int | None:
        """When the asynchronous probe's next try is due, while one is in flight."""
        return self.probe_next_us if self.probe_until_us is not None else None

    def probe(self, now_us: int) -> None:
        """One try of the asynchronous probe, due at `probe_next_us`."""
        if self.probe_until_us is None:
            return
        if self._activator_answers(now_us) or now_us >= self.probe_until_us:
            self.probe_until_us = None
            self._wake_at(now_us + REQUEUE_PROBED_US)
        else:
            self.probe_next_us = min(now_us + PROBE_PERIOD_US, self.probe_until_us)

    def _compute_active(self, now_us: int, want: int, ready: int) -> None:
        policy, least = self.policy, self.min_scale()
        threshold = max(least, 1 if self.initialized else policy.initial_scale)
        if ready >= threshold and self.has_service:
            self.initialized = True
        inactive = self.active in {Active.FALSE, Active.TIMED_OUT}
        if want == 0 or threshold == 0:
            timed_out = self.active == Active.UNKNOWN and threshold > 0
            self._mark(now_us, Active.TIMED_OUT if timed_out else Active.FALSE)
        elif ready < threshold:
            self._mark(now_us, Active.UNKNOWN if want > 0 or not inactive else Active.FALSE)
        elif want > 0 or not inactive:
            self._mark(now_us, Active.TRUE)

    def _mark(self, now_us: int, active: Active) -> None:
        if active != self.active:
            self.active = active
            self.active_since_us = _floored(now_us)


def _us(seconds: float) -> int:
    return round(seconds * MICROSECONDS)
