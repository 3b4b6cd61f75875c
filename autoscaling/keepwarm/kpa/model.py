"""What goes into a simulation and what comes out: policies, requests, pods, results.

Units are in the names: `_s` are seconds (floats, measured from the trace's time zero), counts have
no suffix. Inside the engines time is whole microseconds; inputs are rounded to that.

    from keepwarm.kpa import Policy, Pods, Requests, simulate

    requests = Requests(arrival_s=[1.0, 2.5], service_s=[0.8, 4.0], duration_s=600.0)
    pods = Pods(start_s=(38.0, 41.5, 55.0))
    for result in simulate([Policy(), Policy(stable_window_s=600)], requests, pods):
        print(result.policy.stable_window_s, result.cold_fraction, result.pod_seconds)

Shapes: n requests, m changes of the pod count.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from itertools import pairwise

import numpy as np
from numpy.typing import ArrayLike, NDArray

from keepwarm.kpa.errors import InputError

MICROSECONDS = 1_000_000

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bytes = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class MinScaleSchedule:
    """min-scale over time, as the warm pool applies it to the live Revision.

    `steps` are (offset_s, min_scale) with rising offsets in [0, period_s): from that offset on,
    measured from the trace's time zero modulo `period_s`, min-scale has that value. Before the
    first step of the first period the policy's own `min_scale` holds.
    """

    steps: tuple[tuple[float, int], ...]
    period_s: float = 7 * 86400.0

    def __post_init__(self) -> None:
        offsets = [offset for offset, _ in self.steps]
        if any(b <= a for a, b in pairwise(offsets)):
            raise InputError(f"The schedule's offsets {offsets} must rise.")
        if offsets and not (offsets[0] >= 0 and offsets[-1] < self.period_s):
            raise InputError(f"The schedule's offsets {offsets} must lie in [0, {self.period_s}).")
        if any(scale < 0 for _, scale in self.steps):
            raise InputError("A schedule's min-scale cannot be negative.")

    def until(self, end_us: int) -> list[tuple[int, int]]:
        """Every change (microseconds, min-scale) before `end_us`."""
        period = round(self.period_s * MICROSECONDS)
        steps = [(round(offset * MICROSECONDS), scale) for offset, scale in self.steps]
        return [
            (begin + offset, scale)
            for begin in range(0, end_us, period)
            for offset, scale in steps
            if begin + offset < end_us
        ]

    def at(self, now_us: int, before: int) -> int:
        """The min-scale that holds at a time; `before` until the first step."""
        changes = self.until(now_us + 1)
        return changes[-1][1] if changes else before


@dataclass(frozen=True, slots=True)
class Policy:
    """What Knative's autoscaler is told about one revision. Defaults: Knative's own.

    `annotations.resolve` makes one from annotations and config-autoscaler; `validated()` tells
    whether Knative would accept it.
    """

    metric: str = "concurrency"  # or "rps"
    target: float = 100.0  # requests in flight (or per second) per pod, before utilization
    utilization: float = 0.7  # fraction of target that is aimed at, (0, 1]
    container_concurrency: int = 0  # requests a pod runs at once, the rest queue; 0: no limit
    target_burst_capacity: float = 211.0  # -1: the activator stays in the path; 0: only at zero
    stable_window_s: int = 60  # 6..3600
    panic_window_percentage: float = 10.0  # of the stable window
    panic_threshold_percentage: float = 200.0  # of the ready pods
    max_scale_up_rate: float = 1000.0
    max_scale_down_rate: float = 2.0
    scale_down_delay_s: int = 0  # 0..3600
    scale_to_zero_grace_s: float = 30.0
    pod_retention_s: float = 0.0  # scale-to-zero-pod-retention-period, 0..3600
    enable_scale_to_zero: bool = True
    initial_scale: int = 1  # pods of the new revision, at the trace's start
    activation_scale: int = 0  # floor of every demand above zero; 0: none
    min_scale: int = 0
    max_scale: int = 0  # 0: no limit
    aggregation: str = "linear"  # or "weighted-exponential"
    activator_capacity: float = 100.0
    progress_deadline_s: float = 600.0
    reachable: bool = True
    schedule: MinScaleSchedule | None = None

    @property
    def total_value(self) -> float:
        """What one pod takes: the target, capped by containerConcurrency (target.go:31-64)."""
        if self.metric == "concurrency" and self.container_concurrency:
            return go_min(self.target, float(self.container_concurrency))
        return self.target

    @property
    def target_value(self) -> float:
        """What the decider aims at per pod."""
        return go_max(0.01, self.total_value * self.utilization)

    @property
    def panic_window_s(self) -> int:
        """Whole seconds, half away from zero, at least 1 (resources/metric.go:49-52)."""
        if math.isnan(self.panic_window_percentage):  # which the webhook lets pass
            return 1
        nanoseconds = int(float(self.stable_window_s * 10**9) * self.panic_window_percentage / 100)
        return max(1, (nanoseconds + 5 * 10**8) // 10**9)


def whole_us(seconds: ArrayLike) -> list[int]:
    """Seconds as whole microseconds, halves to even."""
    times: list[int] = np.rint(np.asarray(seconds, np.float64) * MICROSECONDS).astype(int).tolist()
    return times


def go_min(a: float, b: float) -> float:
    """Go's math.Min: NaN wins."""
    return math.nan if math.isnan(a) or math.isnan(b) else min(a, b)


def go_max(a: float, b: float) -> float:
    """Go's math.Max: NaN wins."""
    return math.nan if math.isnan(a) or math.isnan(b) else max(a, b)


@dataclass(frozen=True, slots=True, eq=False)
class Requests:
    """A request log: when each request came and how long a pod alone with it works on it.

    `arrival_s` [n] is sorted and not negative; `service_s` [n] is the time from being let into the
    pod to the last byte, with nobody else in the pod; `duration_s` is the length of the observed
    stretch, not before the last arrival.
    """

    arrival_s: Floats
    service_s: Floats
    duration_s: float

    def __init__(self, arrival_s: ArrayLike, service_s: ArrayLike, duration_s: float) -> None:
        arrival = np.ascontiguousarray(arrival_s, dtype=np.float64)
        service = np.ascontiguousarray(service_s, dtype=np.float64)
        object.__setattr__(self, "arrival_s", arrival)
        object.__setattr__(self, "service_s", service)
        object.__setattr__(self, "duration_s", float(duration_s))
        _check_requests(arrival, service, self.duration_s)

    def __len__(self) -> int:
        return len(self.arrival_s)


def _check_requests(arrival: Floats, service: Floats, duration: float) -> None:
    if arrival.ndim != 1 or arrival.shape != service.shape:
        raise InputError(
            f"arrival_s has shape {arrival.shape} and service_s {service.shape};"
            " both must be one-dimensional and equally long."
        )
    if not (math.isfinite(duration) and duration > 0):
        raise InputError(f"duration_s is {duration}; it must be a positive number of seconds.")
    for name, values in (("arrival_s", arrival), ("service_s", service)):
        bad = ~np.isfinite(values) | (values < 0)
        if bad.any():
            row = int(np.argmax(bad))
            raise InputError(f"Request {row}: {name} is {values[row]}; it must be 0 or more.")
    falls = np.diff(arrival) < 0
    if falls.any():
        row = int(np.argmax(falls)) + 1
        raise InputError(
            f"Request {row} comes at {arrival[row]} s, before request {row - 1} at"
            f" {arrival[row - 1]} s; sort the requests by arrival."
        )
    if len(arrival) and arrival[-1] > duration:
        raise InputError(f"The last request comes at {arrival[-1]} s, after duration_s {duration}.")


@dataclass(frozen=True, slots=True)
class Pods:
    """How a pod of the revision starts, works and ends.

    `start_s` are measured start-up times (created to ready); the k-th pod that is started takes
    `start_s[k % len]`, so shuffle them by your seed. `slowdown` is what each further request in a
    pod adds to a request's service time when it enters, as a fraction (0.05: with 10 others it
    takes 1.5 times as long). On TERM queue-proxy stays for `drain_quiet_s`, then until its last
    request ends, at most `termination_grace_s` (Knative: the request timeout).
    """

    start_s: tuple[float, ...]
    slowdown: float = 0.0
    request_timeout_s: float = 300.0
    drain_quiet_s: float = 30.0
    termination_grace_s: float = 300.0

    def __post_init__(self) -> None:
        if not self.start_s or any(not (math.isfinite(s) and s >= 0) for s in self.start_s):
            raise InputError(
                f"start_s is {self.start_s}; give at least one time of 0 s or more, all finite."
            )
        for name in ("slowdown", "drain_quiet_s", "termination_grace_s"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0):
                raise InputError(f"{name} is {value}; it must be 0 or more.")
        if not (math.isfinite(self.request_timeout_s) and self.request_timeout_s > 0):
            raise InputError(f"request_timeout_s is {self.request_timeout_s}; it must be above 0.")


@dataclass(frozen=True, slots=True)
class Phases:
    """Where in the second Knative's loops beat; they are independent of each other.

    `tick_s` is when the revision (and so its decider) is created, [0, 2); the others are in [0, 1).
    """

    tick_s: float = 0.6
    scrape_s: float = 0.3
    activator_s: float = 0.1
    queue_proxy_s: float = 0.0

    def __post_init__(self) -> None:
        for name, period in (
            ("tick_s", 2),
            ("scrape_s", 1),
            ("activator_s", 1),
            ("queue_proxy_s", 1),
        ):
            if not 0 <= getattr(self, name) < period:
                raise InputError(f"{name} is {getattr(self, name)}; it must be in [0, {period}).")


class Verdict(IntEnum):
    """How a request met the pods when it came."""

    WARM = 0  # a ready pod had room: it did not wait
    QUEUED = 1  # pods were ready, all at containerConcurrency: it waited for room or a new pod
    COLD = 2  # no pod was ready: it waited for one to start


class Outcome(IntEnum):
    """How a request ended."""

    SERVED = 0
    TIMED_OUT = 1  # request_timeout_s passed, waiting or in service: 504
    REJECTED = 2  # the pod's queue of 10 x containerConcurrency was full: 503
    UNFINISHED = 3  # still waiting or in service at duration_s
    CUT = 4  # its pod was terminated and the grace ended first


@dataclass(frozen=True, slots=True, eq=False)
class Timeline:
    """Pods over time: row i holds from `t_s[i]` to `t_s[i+1]` (the last: to duration_s). [m] each.

    `ready + starting` is the Deployment's replicas; `draining` are terminating pods, which still
    hold their GPU.
    """

    t_s: Floats
    ready: Ints
    starting: Ints
    draining: Ints


@dataclass(frozen=True, slots=True, eq=False)
class Result:
    """What one policy does to the requests, and what it costs."""

    policy: Policy
    duration_s: float
    wait_s: Floats  # [n] arrival to entering service; for one never let in, to its end
    verdict: Bytes  # [n] of Verdict
    outcome: Bytes  # [n] of Outcome
    timeline: Timeline
    ready_pod_seconds: float
    starting_pod_seconds: float
    draining_pod_seconds: float
    pods_started: int
    ticks: int  # decisions of the autoscaler in duration_s, skipped idle ones included
    stepped_ticks: int = field(default=0)  # those that were computed one by one

    @property
    def pod_seconds(self) -> float:
        """Everything that held a GPU: starting, ready and draining."""
        return self.ready_pod_seconds + self.starting_pod_seconds + self.draining_pod_seconds

    @property
    def cold_fraction(self) -> float:
        """Share of requests that found no ready pod; 0 for no requests."""
        return float(np.mean(self.verdict == Verdict.COLD)) if len(self.verdict) else 0.0


def checked(policies: Sequence[Policy]) -> Sequence[Policy]:
    """The policies. Raises InputError naming the first that Knative would not accept."""
    for number, policy in enumerate(policies):
        try:
            _check_policy(policy)
        except InputError as error:
            raise InputError(f"Policy {number}: {error}") from None
    return policies


_BOUNDS = (
    ("target", 0.01, math.inf),
    ("utilization", 1e-9, 1.0),
    ("container_concurrency", 0, 1000),
    ("stable_window_s", 6, 3600),
    ("panic_window_percentage", 1, 100),
    ("panic_threshold_percentage", -math.inf, math.inf),
    ("scale_down_delay_s", 0, 3600),
    ("pod_retention_s", 0, 3600),
    ("initial_scale", 0, 2**31 - 1),
    ("activation_scale", 0, 2**31 - 1),
    ("min_scale", 0, 2**31 - 1),
    ("max_scale", 0, 2**31 - 1),
    ("activator_capacity", 1, math.inf),
)
_CHOICES = {
    "metric": ("concurrency", "rps"),
    "aggregation": ("linear", "weighted-exponential"),
}


def _check_policy(policy: Policy) -> None:
    for name, low, high in _BOUNDS:
        value = getattr(policy, name)
        if not low <= value <= high:
            raise InputError(f"{name} is {value}; it must be from {low:g} to {high:g}.")
    for name in ("stable_window_s", "scale_down_delay_s"):
        if getattr(policy, name) % 1:
            raise InputError(f"{name} is {getattr(policy, name)}; it must be whole seconds.")
    for name, above in (
        ("max_scale_up_rate", 1),
        ("max_scale_down_rate", 1),
        ("scale_to_zero_grace_s", 0),
    ):
        if not getattr(policy, name) > above:
            raise InputError(f"{name} is {getattr(policy, name)}; it must be above {above}.")
    burst = policy.target_burst_capacity
    if not (burst >= 0 or burst == -1):
        raise InputError(f"target_burst_capacity is {burst}; it must be 0 or more, or -1.")
    for name, choices in _CHOICES.items():
        if getattr(policy, name) not in choices:
            raise InputError(
                f"{name} is {getattr(policy, name)!r}; it must be {' or '.join(choices)}."
            )
