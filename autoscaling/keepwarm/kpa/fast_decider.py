"""The decider of `decider`, compiled.

State is a record; the windows are those of the metric that is scaled on.
"""

import math
from typing import Any, NamedTuple

import numpy as np

from keepwarm.kpa.decider import INT32_MIN, DeciderSpec, initial_excess_burst
from keepwarm.kpa.fast_jit import jit
from keepwarm.kpa.fast_windows import (
    DELAY,
    MOST_DELAY_SLOTS,
    MOST_SECONDS,
    WINDOW,
    delay_record,
    window_average,
    window_is_empty,
)
from keepwarm.kpa.model import MICROSECONDS
from keepwarm.kpa.windows import DELAY_SLOT_S, NEVER, smoothing

NOT_PANICKING = -(1 << 62)

SPEC = np.dtype(
    [
        ("target_value", "f8"),
        ("total_value", "f8"),
        ("burst", "f8"),
        ("panic_threshold", "f8"),
        ("max_scale_up_rate", "f8"),
        ("max_scale_down_rate", "f8"),
        ("stable_window_us", "i8"),
        ("activation_scale", "i8"),
        ("reachable", "i8"),
        ("scraped", "i8"),
        ("rps", "i8"),
    ]
)
STATE = np.dtype(
    [
        ("panic_since_us", "i8"),
        ("max_panic_pods", "i8"),
        ("desired", "i8"),
        ("excess_burst", "i8"),
        ("collecting", "i8"),  # the windows exist
        # The latest answer of scale(); `wanted` is it before the delay window:
        ("ready", "i8"),
        ("wanted", "i8"),
        ("stable", "f8"),
        ("panic", "f8"),
        ("valid", "i8"),
        ("answer", "i8"),
        ("answer_burst", "i8"),
    ]
)


class Scaler(NamedTuple):
    """A decider's parts: records and rings, all written in place."""

    spec: Any
    state: Any
    stable: Any
    stable_ring: Any
    panic: Any
    panic_ring: Any
    delay: Any
    delay_slots: Any
    delay_values: Any


def new_scaler() -> Scaler:
    """Memory for one decider; `set_spec` and `reset` fill it."""
    return Scaler(
        np.zeros(1, SPEC)[0],
        np.zeros(1, STATE)[0],
        np.zeros(1, WINDOW)[0],
        np.zeros(MOST_SECONDS),
        np.zeros(1, WINDOW)[0],
        np.zeros(MOST_SECONDS),
        np.zeros(1, DELAY)[0],
        np.zeros(MOST_DELAY_SLOTS, np.int64),
        np.zeros(MOST_DELAY_SLOTS, np.int64),
    )


def set_spec(record: Any, spec: DeciderSpec) -> None:
    """The resolved settings as a record."""
    for name in ("target_value", "total_value", "burst", "panic_threshold", "max_scale_up_rate"):
        record[name] = getattr(spec, name)
    record["max_scale_down_rate"] = spec.max_scale_down_rate
    record["stable_window_us"] = spec.stable_window_s * MICROSECONDS
    record["activation_scale"] = spec.activation_scale
    record["reachable"] = spec.reachable
    record["scraped"] = spec.scraped
    record["rps"] = spec.metric == "rps"


def reset(scaler: Scaler, spec: DeciderSpec, now_us: int, ready: int) -> None:
    """A new decider, with windows that were never written."""
    set_spec(scaler.spec, spec)
    state = scaler.state
    state["panic_since_us"] = now_us if ready > 1 else NOT_PANICKING
    state["max_panic_pods"] = ready
    state["desired"] = -1
    state["collecting"] = state["valid"] = 0
    state["excess_burst"] = initial_excess_burst(spec)
    for window, ring, seconds in (
        (scaler.stable, scaler.stable_ring, spec.stable_window_s),
        (scaler.panic, scaler.panic_ring, spec.panic_window_s),
    ):
        reset_window(window, ring, seconds, exponential=spec.exponential)
    delay = spec.scale_down_delay_s
    scaler.delay["slots"] = -(-delay // DELAY_SLOT_S)
    scaler.delay["head"] = scaler.delay["count"] = 0


def reset_window(window: Any, ring: Any, seconds: int, *, exponential: bool) -> None:
    """A window that was never written."""
    for name in WINDOW.names or ():
        window[name] = 0
    ring[:] = 0.0
    window["size"] = seconds
    window["exponential"] = exponential
    window["first_write"] = window["last_write"] = NEVER
    window["coefficient"] = smoothing(seconds)


@jit
def _go_min(a: float, b: float) -> float:
    return math.nan if math.isnan(a) or math.isnan(b) else min(a, b)


@jit
def _go_max(a: float, b: float) -> float:
    return math.nan if math.isnan(a) or math.isnan(b) else max(a, b)


@jit
def _to_int32(value: float) -> int:
    return int(value) if -(2.0**31) - 1 < value < 2.0**31 else INT32_MIN


@jit
def scale(s: Scaler, now_us: int, ready: int) -> bool:
    """One tick; the answer is in the state. Without data nothing changes, and the answer is no."""
    spec, state = s.spec, s.state
    second = now_us // MICROSECONDS
    state.valid = 0
    state.ready = ready
    if not state.collecting or (spec.scraped and window_is_empty(s.stable, second)):
        return False
    stable = window_average(s.stable, s.stable_ring, second)
    panic = window_average(s.panic, s.panic_ring, second)
    state.stable = stable
    state.panic = panic
    desired = _pods(spec, state, now_us, ready)
    state.wanted = desired
    if spec.reachable and s.delay.slots > 0:
        desired = delay_record(s.delay, s.delay_slots, s.delay_values, second, desired)
    state.valid = 1
    state.answer = desired
    state.answer_burst = _excess_burst(spec, panic, ready)
    return True


@jit
def _pods(spec: Any, state: Any, now_us: int, ready: int) -> int:
    pods = max(1.0, float(ready))
    most = np.ceil(spec.max_scale_up_rate * pods)
    least = np.floor(pods / spec.max_scale_down_rate) if spec.reachable else 0.0
    stable_pods = np.ceil(state.stable / spec.target_value)
    panic_pods = np.ceil(state.panic / spec.target_value)
    by_stable = _to_int32(_go_min(_go_max(stable_pods, least), most))
    by_panic = _to_int32(_go_min(_go_max(panic_pods, least), most))
    if spec.activation_scale > 1:
        if stable_pods > 0:
            by_stable = max(by_stable, spec.activation_scale)
        if panic_pods > 0:
            by_panic = max(by_panic, spec.activation_scale)
    if panic_pods / pods >= spec.panic_threshold:
        state.panic_since_us = now_us
    elif (
        state.panic_since_us != NOT_PANICKING
        and state.panic_since_us + spec.stable_window_us < now_us
    ):
        state.panic_since_us = NOT_PANICKING
        state.max_panic_pods = 0
    if state.panic_since_us == NOT_PANICKING:
        return by_stable
    state.max_panic_pods = max(state.max_panic_pods, by_stable, by_panic)
    return int(state.max_panic_pods)


@jit
def _excess_burst(spec: Any, panic: float, ready: int) -> int:
    burst = spec.burst
    if burst == 0:
        return 0
    if burst > 0:
        return _to_int32(np.floor(ready * spec.total_value - burst - panic))
    return -1


@jit
def accept(state: Any) -> bool:
    """Keeps the answer for the reconciler; whether the reconciler is told."""
    if not state.valid:
        return False
    told = state.answer != state.desired or (state.answer_burst < 0) != (state.excess_burst < 0)
    state.desired = state.answer
    state.excess_burst = state.answer_burst
    return bool(told)
