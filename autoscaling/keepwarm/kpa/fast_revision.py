"""The reconciler of `revision`, compiled.

State is a record; wake-ups are an array without order.
"""

import math
from typing import Any, NamedTuple

import numpy as np

from keepwarm.kpa.fast_jit import jit
from keepwarm.kpa.model import MICROSECONDS, Policy
from keepwarm.kpa.revision import (
    ACTIVATION_BUFFER_US,
    MIN_ACTIVATORS,
    PROBE_PERIOD_US,
    PROBE_TIMEOUT_US,
    REQUEUE_PROBED_US,
    REQUEUE_PROXIED_US,
    UNKNOWN_SCALE,
    Active,
)

IDLE = 1 << 62  # later than anything: nothing is due
MOST_WAKES = 4096
UNKNOWN, TRUE, FALSE, TIMED_OUT = (
    int(Active.UNKNOWN),
    int(Active.TRUE),
    int(Active.FALSE),
    int(Active.TIMED_OUT),
)

POLICY = np.dtype(
    [
        ("min_scale", "i8"),
        ("max_scale", "i8"),
        ("initial_scale", "i8"),
        ("enable_scale_to_zero", "i8"),
        ("reachable", "i8"),
        ("burst", "f8"),
        ("total_value", "f8"),
        ("activator_capacity", "f8"),
        ("progress_deadline_us", "i8"),
        ("stable_window_us", "i8"),
        ("grace_us", "i8"),
        ("retention_us", "i8"),
    ]
)
STATE = np.dtype(
    [
        ("replicas", "i8"),
        ("active", "i8"),
        ("active_since_us", "i8"),
        ("initialized", "i8"),
        ("has_service", "i8"),
        ("serving", "i8"),
        ("activators", "i8"),
        ("proxied", "i8"),
        ("proxied_since_us", "i8"),
        ("path_since_us", "i8"),
        ("want", "i8"),
        ("probe_until_us", "i8"),  # IDLE: no probe is in flight
        ("probe_next_us", "i8"),  # IDLE likewise
        ("probe_delay_us", "i8"),
        ("wakes", "i8"),  # how many
        ("next_wake_us", "i8"),
    ]
)


class Reconciler(NamedTuple):
    """A PodAutoscaler's parts, all written in place."""

    policy: Any
    state: Any
    wakes: Any


def new_reconciler() -> Reconciler:
    """Memory for one reconciler; `set_policy` and `reset` fill it."""
    return Reconciler(np.zeros(1, POLICY)[0], np.zeros(1, STATE)[0], np.zeros(MOST_WAKES, np.int64))


def set_policy(record: Any, policy: Policy) -> None:
    """The reconciler's part of a policy as a record."""
    for name in ("min_scale", "max_scale", "initial_scale", "enable_scale_to_zero", "reachable"):
        record[name] = getattr(policy, name)
    record["burst"] = policy.target_burst_capacity
    record["total_value"] = policy.total_value
    record["activator_capacity"] = policy.activator_capacity
    for name, seconds in (
        ("progress_deadline_us", policy.progress_deadline_s),
        ("stable_window_us", policy.stable_window_s),
        ("grace_us", policy.scale_to_zero_grace_s),
        ("retention_us", policy.pod_retention_s),
    ):
        record[name] = round(seconds * MICROSECONDS)


def reset(record: Any, now_us: int, replicas: int) -> None:
    """A PodAutoscaler that is being created."""
    for name in STATE.names or ():
        record[name] = 0
    record["replicas"] = replicas
    record["active_since_us"] = record["proxied_since_us"] = now_us - now_us % MICROSECONDS
    record["path_since_us"] = now_us
    record["activators"] = MIN_ACTIVATORS
    record["want"] = UNKNOWN_SCALE
    record["probe_until_us"] = record["probe_next_us"] = record["next_wake_us"] = IDLE


@jit
def _wake_at(r: Reconciler, time_us: int) -> None:
    state = r.state
    for index in range(state.wakes):
        if r.wakes[index] == time_us:
            return
    if state.wakes < len(r.wakes):
        r.wakes[state.wakes] = time_us
    state.wakes += 1  # past the end: the caller sees that there was no room
    state.next_wake_us = min(state.next_wake_us, time_us)


@jit
def woken(r: Reconciler, now_us: int) -> None:
    """Takes the wake-ups of this time off."""
    kept = 0
    following = IDLE
    for index in range(r.state.wakes):
        if r.wakes[index] != now_us:
            r.wakes[kept] = r.wakes[index]
            following = min(following, r.wakes[index])
            kept += 1
    r.state.wakes = kept
    r.state.next_wake_us = following


@jit
def _min_scale(policy: Any) -> int:
    return int(policy.min_scale) if policy.reachable else 0


@jit
def begin(r: Reconciler, now_us: int) -> None:
    """The first reconcile, before there is a ServerlessService."""
    _compute_active(r, now_us, UNKNOWN_SCALE, 0)
    r.state.has_service = 1


@jit
def reconcile(r: Reconciler, now_us: int, ready: int, desired: int, excess_burst: int) -> bool:
    """One ReconcileKind; whether anything changed."""
    policy, state = r.policy, r.state
    replicas, active, initialized = state.replicas, state.active, state.initialized
    serving, activators, want = state.serving, state.activators, state.want
    state.want = _scale(r, now_us, desired)
    state.serving = 1 if state.want > 0 and excess_burst >= 0 else 0
    state.activators = MIN_ACTIVATORS
    if policy.burst != 0:
        load = ready * policy.total_value + max(policy.burst, 0.0)
        state.activators = max(MIN_ACTIVATORS, math.ceil(load / policy.activator_capacity))
    _compute_active(r, now_us, state.want, ready)
    same = (
        replicas == state.replicas
        and active == state.active
        and initialized == state.initialized
        and serving == state.serving
        and activators == state.activators
        and want == state.want
    )
    return not same


@jit
def observe_endpoints(state: Any, now_us: int, ready: int) -> bool:
    """The ServerlessService follows; whether it changed."""
    proxied = 1 if ready == 0 or not state.serving else 0
    if proxied == state.proxied:
        return False
    state.proxied = proxied
    state.proxied_since_us = now_us - now_us % MICROSECONDS
    state.path_since_us = now_us
    return True


@jit
def _bounded(r: Reconciler, desired: int) -> int:
    policy = r.policy
    least = _min_scale(policy)
    if policy.initial_scale > 1 and not r.state.initialized and policy.reachable:
        least = max(least, policy.initial_scale)
    if desired < least:
        return least
    return int(policy.max_scale) if 0 != policy.max_scale < desired else desired


@jit
def _scale(r: Reconciler, now_us: int, desired: int) -> int:
    state = r.state
    if desired < 0 and state.active != UNKNOWN:
        return desired
    scale = _bounded(r, desired)
    if scale == 0 and not r.policy.enable_scale_to_zero:
        scale = 1
    if scale != 0:
        state.replicas = scale
        return scale
    lasted = now_us - state.active_since_us
    if state.active == UNKNOWN:
        return _zero_activating(r, now_us, lasted)
    if state.active == TRUE:
        return _zero_active(r, now_us, lasted)
    return _zero_inactive(r, now_us, lasted)


@jit
def _zero_activating(r: Reconciler, now_us: int, lasted: int) -> int:
    timeout = r.policy.progress_deadline_us + ACTIVATION_BUFFER_US
    if lasted > timeout:
        r.state.replicas = 0
        return 0
    _wake_at(r, now_us + timeout)
    return UNKNOWN_SCALE


@jit
def _zero_active(r: Reconciler, now_us: int, lasted: int) -> int:
    window = r.policy.stable_window_us
    if lasted >= window:
        if not r.state.serving:
            _wake_at(r, now_us + REQUEUE_PROXIED_US)
        return 0
    _wake_at(r, now_us + window - lasted)
    r.state.replicas = 1
    return 1


@jit
def _zero_inactive(r: Reconciler, now_us: int, lasted: int) -> int:
    policy, state = r.policy, r.state
    if policy.burst != -1 and not _activator_answers(state, now_us):
        if state.probe_until_us == IDLE:
            state.probe_until_us = now_us + PROBE_TIMEOUT_US
            state.probe_next_us = now_us
        return 0
    retention = policy.retention_us if policy.reachable else 0
    if lasted >= max(policy.grace_us, retention):
        state.replicas = 0
    elif retention > 0 and lasted < retention:
        _wake_at(r, now_us + retention - lasted)
    else:
        rest = policy.grace_us - (now_us - state.proxied_since_us if state.proxied else 0)
        if rest <= 0:
            state.replicas = 0
        else:
            _wake_at(r, now_us + rest)
    return 0


@jit
def _activator_answers(state: Any, now_us: int) -> bool:
    return bool(state.proxied and now_us - state.path_since_us >= state.probe_delay_us)


@jit
def probe(r: Reconciler, now_us: int) -> None:
    """One try of the asynchronous probe."""
    state = r.state
    if state.probe_until_us == IDLE:
        return
    if _activator_answers(state, now_us) or now_us >= state.probe_until_us:
        state.probe_until_us = IDLE
        state.probe_next_us = IDLE
        _wake_at(r, now_us + REQUEUE_PROBED_US)
    else:
        state.probe_next_us = min(now_us + PROBE_PERIOD_US, state.probe_until_us)


@jit
def _compute_active(r: Reconciler, now_us: int, want: int, ready: int) -> None:
    state = r.state
    least = 1 if state.initialized else r.policy.initial_scale
    threshold = max(_min_scale(r.policy), least)
    if ready >= threshold and state.has_service:
        state.initialized = 1
    active = state.active
    inactive = active in (FALSE, TIMED_OUT)
    if want == 0 or threshold == 0:
        active = TIMED_OUT if active == UNKNOWN and threshold > 0 else FALSE
    elif ready < threshold:
        active = UNKNOWN if want > 0 or not inactive else FALSE
    elif want > 0 or not inactive:
        active = TRUE
    if active != state.active:
        state.active = active
        state.active_since_us = now_us - now_us % MICROSECONDS
