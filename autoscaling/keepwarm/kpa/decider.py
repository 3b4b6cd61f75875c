"""The decider: how many pods the load of the last seconds asks for.

Knative `pkg/autoscaler/scaling/autoscaler.go` (Scale), `multiscaler.go` (what is kept between
ticks) and `metrics/collector.go` (what is recorded). Bounds and zero are not decided here but in
`revision`.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple, Self

from keepwarm.kpa.model import MICROSECONDS, Policy, go_max, go_min
from keepwarm.kpa.windows import DelayWindow, Window

INT32_MIN = -(1 << 31)


class Decision(NamedTuple):
    """One call of Scale(); the averages are of the metric that is scaled on."""

    ready: int
    stable: float
    panic: float
    valid: bool
    desired: int
    excess_burst: int
    panicking: bool
    max_panic_pods: int


@dataclass(frozen=True, slots=True)
class DeciderSpec:
    """What the decider is configured with, resolved (DeciderSpec and Metric in Knative)."""

    metric: str
    target_value: float  # aimed at per pod
    total_value: float  # what one pod takes
    burst: float  # target burst capacity
    panic_threshold: float  # a fraction of the ready pods
    max_scale_up_rate: float
    max_scale_down_rate: float
    stable_window_s: int
    panic_window_s: int
    scale_down_delay_s: int
    initial_scale: int
    activation_scale: int
    exponential: bool
    reachable: bool
    scraped: bool  # pods are asked for their load; not with a burst capacity of -1

    @classmethod
    def of(cls, policy: Policy) -> Self:
        """The spec of a policy."""
        return cls(
            metric=policy.metric,
            target_value=policy.target_value,
            total_value=policy.total_value,
            burst=policy.target_burst_capacity,
            panic_threshold=policy.panic_threshold_percentage / 100,
            max_scale_up_rate=policy.max_scale_up_rate,
            max_scale_down_rate=policy.max_scale_down_rate,
            stable_window_s=policy.stable_window_s,
            panic_window_s=policy.panic_window_s,
            scale_down_delay_s=policy.scale_down_delay_s,
            initial_scale=policy.initial_scale,
            activation_scale=policy.activation_scale,
            exponential=policy.aggregation == "weighted-exponential",
            reachable=policy.reachable,
            scraped=policy.target_burst_capacity != -1,
        )


def to_int32(value: float) -> int:
    """Go's int32(float64) on amd64: what does not fit becomes the smallest."""
    return int(value) if -(2.0**31) - 1 < value < 2.0**31 else INT32_MIN


class Collection:
    """What the autoscaler has been told: concurrency and requests per second, each twice."""

    def __init__(self, spec: DeciderSpec) -> None:
        # The algorithm is fixed when collecting begins (collector.go:275-300).
        exponential = spec.exponential
        stable, panic = spec.stable_window_s, spec.panic_window_s
        self.windows = {
            metric: (
                Window(stable, exponential=exponential),
                Window(panic, exponential=exponential),
            )
            for metric in ("concurrency", "rps")
        }

    def record(self, second: int, concurrency: float, rps: float) -> None:
        """Adds what pods or activator reported in that second, proxied requests subtracted."""
        for metric, value in (("concurrency", concurrency), ("rps", rps)):
            for window in self.windows[metric]:
                window.record(second, value)

    def averages(self, spec: DeciderSpec, second: int) -> tuple[float, float] | None:
        """Stable and panic average; None when there is no data to decide on."""
        stable, panic = self.windows[spec.metric]
        if spec.scraped and stable.is_empty(second):
            return None
        return stable.average(second), panic.average(second)

    def resize(self, spec: DeciderSpec, now_second: int) -> None:
        """A live change of the windows' lengths."""
        for stable, panic in self.windows.values():
            stable.resize(spec.stable_window_s, now_second)
            panic.resize(spec.panic_window_s, now_second)


class Decider:
    """Windows, and state between ticks. Times are microseconds since time zero."""

    def __init__(self, spec: DeciderSpec, now_us: int, ready: int) -> None:
        self.spec = spec
        # A restarted autoscaler has lost its metrics: it holds what is there, as in panic
        # (autoscaler.go:101-114).
        self.panic_since_us: int | None = now_us if ready > 1 else None
        self.max_panic_pods = ready
        delay = spec.scale_down_delay_s
        self.delay_window = DelayWindow(delay) if delay > 0 else None
        self.desired = -1
        self.excess_burst = initial_excess_burst(spec)
        self._collection: Collection | None = None

    def start_collecting(self) -> None:
        """The windows begin to exist; what came before is lost."""
        self._collection = Collection(self.spec)

    def record(self, second: int, concurrency: float, rps: float) -> None:
        """A report from pods or activator, proxied requests subtracted."""
        if self._collection:
            self._collection.record(second, concurrency, rps)

    def change(self, spec: DeciderSpec, now_us: int) -> None:
        """A live edit; the delay window and the algorithm stay as they were created."""
        self.spec = spec
        if self._collection:
            self._collection.resize(spec, now_us // MICROSECONDS)

    def scale(self, now_us: int, ready: int) -> Decision:
        """One tick. Without data nothing changes."""
        second = now_us // MICROSECONDS
        averages = self._collection.averages(self.spec, second) if self._collection else None
        if averages is None:
            panicking = self.panic_since_us is not None
            return Decision(ready, 0.0, 0.0, False, 0, 0, panicking, self.max_panic_pods)
        stable, panic = averages
        desired = self._pods(stable, panic, now_us, ready)
        if self.spec.reachable and self.delay_window:
            desired = self.delay_window.record(second, desired)
        return Decision(
            ready,
            stable,
            panic,
            True,
            desired,
            self._excess_burst(panic, ready),
            self.panic_since_us is not None,
            self.max_panic_pods,
        )

    def _pods(self, stable: float, panic: float, now_us: int, ready: int) -> int:
        spec = self.spec
        pods = max(1.0, float(ready))
        most = _ceil(spec.max_scale_up_rate * pods)
        least = _floor(pods / spec.max_scale_down_rate) if spec.reachable else 0.0
        target = spec.target_value
        # Ceiled first: one pod with any average above one target is over a threshold of 200 %.
        stable_pods, panic_pods = _ceil(stable / target), _ceil(panic / target)
        by_stable = to_int32(go_min(go_max(stable_pods, least), most))
        by_panic = to_int32(go_min(go_max(panic_pods, least), most))
        if spec.activation_scale > 1:
            if stable_pods > 0:
                by_stable = max(by_stable, spec.activation_scale)
            if panic_pods > 0:
                by_panic = max(by_panic, spec.activation_scale)
        if panic_pods / pods >= spec.panic_threshold:
            self.panic_since_us = now_us
        elif (
            self.panic_since_us is not None
            and self.panic_since_us + spec.stable_window_s * MICROSECONDS < now_us
        ):
            self.panic_since_us = None
            self.max_panic_pods = 0
        if self.panic_since_us is None:
            return by_stable
        self.max_panic_pods = max(self.max_panic_pods, by_stable, by_panic)
        return self.max_panic_pods

    def _excess_burst(self, panic: float, ready: int) -> int:
        burst = self.spec.burst
        if burst == 0:
            return 0
        if burst > 0:
            return to_int32(_floor(ready * self.spec.total_value - burst - panic))
        return -1

    def accept(self, decision: Decision) -> bool:
        """Keeps a decision for the reconciler; whether the reconciler is told.

        It is told when the desired scale or the sign of the excess burst capacity changed
        (multiscaler.go:161-176).
        """
        if not decision.valid:
            return False
        told = decision.desired != self.desired or (decision.excess_burst < 0) != (
            self.excess_burst < 0
        )
        self.desired, self.excess_burst = decision.desired, decision.excess_burst
        return told


def initial_excess_burst(spec: DeciderSpec) -> int:
    """What stands for the excess burst capacity until the first tick with data."""
    burst = spec.burst
    if burst in {-1, 0}:
        return int(burst)
    # As if the initial scale were up already (multiscaler.go:325-333).
    return to_int32(spec.initial_scale * spec.total_value - burst)


def _ceil(value: float) -> float:
    return float(math.ceil(value)) if math.isfinite(value) else value


def _floor(value: float) -> float:
    return float(math.floor(value)) if math.isfinite(value) else value
