"""Deciders and reconcilers replayed alone, fed with what a recording says of the rest.

Of the recordings' README: way (a) feeds reports and ready pods to the decider, way (b) feeds the
decider's recorded answers to the reconciler; `closed_loop` is way (c).
"""

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from keepwarm.kpa.annotations import EXPONENTIAL
from keepwarm.kpa.closed_loop import MS, SECOND_MS, ClusterLoop, tick_row
from keepwarm.kpa.decider import DeciderSpec, Decision, initial_excess_burst
from keepwarm.kpa.model import MICROSECONDS
from keepwarm.kpa.recording import ClosedLoop, OpenLoop, Row
from keepwarm.kpa.twin import Core, ScalerCore


def decider_rows(recording: ClosedLoop, core: Core) -> list[Row]:
    """Way (a) of a closed-loop trace: its `ticks`, from its `stats` and their `ready` column."""
    rows: list[Row] = []
    annotations: dict[str, str] = dict(recording.input["annotations"] or {})
    reachability = recording.input["reachability"]
    scaler: ScalerCore | None = None
    for now, operation, detail in _history(recording):
        if operation == "annotate":
            annotations = {**annotations, detail["key"]: detail.get("value")}
            annotations = {key: value for key, value in annotations.items() if value}
        elif operation == "reach":
            reachability = detail.get("value", "")
        elif operation == "restart":
            scaler = None
        elif operation == "create":
            spec = DeciderSpec.of(recording.policy(annotations, reachability))
            scaler = core.scaler(spec, now * MS, _ready_at(recording.pods, now))
        elif scaler is None:
            continue
        elif operation == "collect":
            scaler.start_collecting()
        elif operation == "stat":
            _, _, load, proxied, rate, proxied_rate = detail
            scaler.record(now // SECOND_MS, load - proxied, rate - proxied_rate)
        else:
            rows.append(tick_row(now, scaler.scale(now * MS, detail[1])))
        if scaler and operation in {"annotate", "reach"}:
            policy = recording.policy(annotations, reachability)
            scaler.change(DeciderSpec.of(policy), now * MS)
    return rows


def _history(recording: ClosedLoop) -> Iterator[tuple[int, str, Any]]:
    """Everything that reaches the decider, in order."""
    given, phase = recording.input, recording.input["phase_scrape_ms"]
    history: list[tuple[int, int, str, Any]] = []

    def create(now: int) -> None:
        history.append((now, 4, "create", None))
        history.append((now + ((phase - now) % SECOND_MS or SECOND_MS), 0, "collect", None))

    create(given["phase_tick_ms"])
    for event in given.get("events") or ():
        history.append((event["t_ms"], 3, event["op"], event))
        if event["op"] == "restart":
            create(event["t_ms"] + event["dur_ms"])
    history += [(stat[0], 1, "stat", stat) for stat in recording.stats]
    history += [(tick[0], 2, "tick", tick) for tick in recording.ticks]
    for now, _, operation, detail in sorted(history, key=lambda entry: entry[:2]):
        if operation != "crash":
            yield now, operation, detail


def _ready_at(pods: Sequence[Row], now: int) -> int:
    return next((ready for time, ready, _ in reversed(pods) if time <= now), 0)


class _RecordedScaler:
    """A decider that knows its answers."""

    def __init__(self, ticks: deque[Row], spec: DeciderSpec) -> None:
        self.desired = -1
        self.excess_burst = initial_excess_burst(spec)
        self._ticks = ticks

    def start_collecting(self) -> None:
        pass

    def record(self, second: int, concurrency: float, rps: float) -> None:
        pass

    def change(self, spec: DeciderSpec, now_us: int) -> None:
        pass

    def scale(self, now_us: int, ready: int) -> Decision:
        if not self._ticks or self._ticks[0][0] * MS != now_us:
            return Decision(ready, 0.0, 0.0, False, 0, 0, False, 0)
        _, _, stable, panic, valid, desired, burst, panicking, most = self._ticks.popleft()
        return Decision(ready, stable, panic, bool(valid), desired, burst, bool(panicking), most)

    def accept(self, decision: Decision) -> bool:
        if not decision.valid:
            return False
        told = decision.desired != self.desired
        told |= (decision.excess_burst < 0) != (self.excess_burst < 0)
        self.desired, self.excess_burst = decision.desired, decision.excess_burst
        return told


def reconciler_rows(recording: ClosedLoop, core: Core) -> list[Row]:
    """Way (b): the `recon` rows, from the recorded answers of the decider."""
    ticks = deque(recording.ticks)
    recorded = replace(core, scaler=lambda spec, _now, _ready: _RecordedScaler(ticks, spec))
    return ClusterLoop(recording, recorded).run().recon


def fuzz_rows(recording: OpenLoop, core: Core) -> list[Row]:
    """An open-loop trace's `ticks`, from its operations."""
    given = recording.input
    spec = _spec(given)
    scaler = core.scaler(spec, 0, given["initial_ready"])
    scaler.start_collecting()
    rows: list[Row] = []
    for operation, now, *detail in given["ops"]:
        if operation == "s":
            at, load, proxied, rate, proxied_rate = detail
            scaler.record(at * MS // MICROSECONDS, load - proxied, rate - proxied_rate)
        elif operation == "t":
            rows.append(tick_row(now, scaler.scale(now * MS, detail[0])))
        else:
            given = {**given, **detail[0]}
            scaler.change(_spec(given), now * MS)
    return rows


def _spec(given: dict[str, Any]) -> DeciderSpec:
    return DeciderSpec(
        metric=given["metric"],
        target_value=given["target_value"],
        total_value=given["total_value"],
        burst=given["tbc"],
        panic_threshold=given["panic_threshold"],
        max_scale_up_rate=given["max_scale_up_rate"],
        max_scale_down_rate=given["max_scale_down_rate"],
        stable_window_s=given["stable_window_s"],
        panic_window_s=given["panic_window_s"],
        scale_down_delay_s=given["scale_down_delay_s"],
        initial_scale=given.get("initial_scale", 1),
        activation_scale=given["activation_scale"],
        exponential=given["aggregation"] in EXPONENTIAL,
        reachable=given["reachable"],
        scraped=given["scrape_target"],
    )
