"""A whole cluster around a twin, as the recordings had it: load, activator, pods, reconciles.

The stand-ins are those of the recorder (tests/kpa_oracle/README.md), to the millisecond, so that a
twin that closes the loop from a recording's input alone must produce its every row. This is not
the request model: load here is a concurrency and a rate per second.
"""

import heapq
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from keepwarm.kpa.decider import Decision
from keepwarm.kpa.model import Policy
from keepwarm.kpa.recording import ClosedLoop, Row
from keepwarm.kpa.revision import Active
from keepwarm.kpa.twin import Core, Twin

MS = 1000
ROUTE_AT_MS = 20  # within the second
POD_EXTRA_MS = 50
TICK_MS = 2000
SECOND_MS = 1000
LETTERS = {Active.UNKNOWN: "U", Active.TRUE: "T", Active.FALSE: "F", Active.TIMED_OUT: "F"}
# What runs first when several things are due in one millisecond.
GOROUTINE, RECONCILE, OTHER = range(3)


@dataclass(slots=True)
class Replay:
    """What a twin did, in the recordings' rows."""

    route: str = ""
    stats: list[Row] = field(default_factory=list)
    ticks: list[Row] = field(default_factory=list)
    recon: list[Row] = field(default_factory=list)
    pods: list[Row] = field(default_factory=list)


def tick_row(now_ms: int, decision: Decision) -> Row:
    """A decision as the recordings write it."""
    d = decision
    return [
        now_ms, d.ready, d.stable, d.panic, int(d.valid), d.desired, d.excess_burst,
        int(d.panicking), d.max_panic_pods,
    ]  # fmt: skip


@dataclass(slots=True)
class _Entry:
    """The activator's entry for the revision."""

    second: int
    first: int = 1


@dataclass(slots=True, eq=False)
class _Pod:
    ready: bool = False
    gone: bool = False


class ClusterLoop:
    """One run; `run` returns its rows."""

    def __init__(self, recording: ClosedLoop, core: Core) -> None:
        self._recording = recording
        self._input = recording.input
        self._annotations: dict[str, str] = dict(self._input["annotations"] or {})
        self._reachability: str = self._input["reachability"]
        self._core = core
        self._out = Replay()
        self._queue: list[tuple[int, int, int, Callable[[int], None]]] = []
        self._count = 0
        self._pods: list[_Pod] = []
        self._entry: _Entry | None = None
        self._routes: list[str] = []
        self._alive = True
        self._epoch = 0  # what was scheduled before a restart is void
        self._twin: Twin

    def run(self) -> Replay:
        """Plays the recording's input to its end."""
        end = self._input["duration_s"] * SECOND_MS
        self._at(self._input["phase_tick_ms"], OTHER, self._create)
        for second in range(self._input["duration_s"]):
            self._at(second * SECOND_MS + ROUTE_AT_MS, OTHER, self._route)
            reported = (second + 1) * SECOND_MS + self._input["phase_activator_ms"]
            self._at(reported, OTHER, self._activator_report)
        for event in self._input.get("events") or ():
            self._at(event["t_ms"], OTHER, self._event(event))
        while self._queue and self._queue[0][0] < end:
            now, _, _, action = heapq.heappop(self._queue)
            action(now)
        self._out.route = "".join(self._routes)
        return self._out

    def _at(self, time_ms: int, rank: int, action: Callable[[int], None]) -> None:
        self._count += 1
        heapq.heappush(self._queue, (time_ms, rank, self._count, action))

    @property
    def _ready(self) -> int:
        return sum(pod.ready for pod in self._pods)

    # --- the revision and its autoscaler ------------------------------------------------------

    def _policy(self) -> Policy:
        return self._recording.policy(self._annotations, self._reachability)

    def _create(self, now: int) -> None:
        policy = self._policy()
        # The Deployment takes the annotation literally, 0 too (revision/resources/deploy.go:365).
        key = "autoscaling.knative.dev/initial-scale"
        legacy = "autoscaling.knative.dev/initialScale"
        written = self._annotations.get(key, self._annotations.get(legacy))
        replicas = int(written) if written is not None else self._recording.config.initial_scale
        self._twin = Twin(policy, now * MS, replicas, self._core)
        self._twin.revision.probe_delay_us = self._input["probe_delay_ms"] * MS
        self._follow_replicas(now)
        self._twin.revision.begin(now * MS)
        self._twin.revision.observe_endpoints(now * MS, self._ready)
        self._start(now)

    def _start(self, now: int) -> None:
        """The autoscaler is there: decider, ticks, scrapes, a reconcile."""
        self._epoch += 1
        epoch = self._epoch
        self._twin.create_decider(now * MS, self._ready)
        self._fixpoint(now)
        self._at(now + TICK_MS, GOROUTINE, lambda at: self._tick_loop(at, epoch))
        phase = self._input["phase_scrape_ms"]
        begin = now + ((phase - now) % SECOND_MS or SECOND_MS)
        self._at(begin, GOROUTINE, lambda at: self._begin_collecting(at, epoch))

    def _begin_collecting(self, now: int, epoch: int) -> None:
        if epoch != self._epoch:
            return
        assert self._twin.scaler
        self._twin.scaler.start_collecting()
        self._at(now + SECOND_MS, GOROUTINE, lambda at: self._scrape_loop(at, epoch))

    def _scrape_loop(self, now: int, epoch: int) -> None:
        if epoch != self._epoch:
            return
        self._at(now + SECOND_MS, GOROUTINE, lambda at: self._scrape_loop(at, epoch))
        second = now // SECOND_MS - 1
        if not self._ready or second < 0 or self._policy().target_burst_capacity == -1:
            return
        load, rate = self._load(second)
        proxied = self._routes[second] == "A"
        self._send(now, [now, 1, load, load if proxied else 0, rate, rate if proxied else 0])

    def _tick_loop(self, now: int, epoch: int) -> None:
        if epoch != self._epoch:
            return
        self._at(now + TICK_MS, GOROUTINE, lambda at: self._tick_loop(at, epoch))
        self._tick(now)

    def _tick(self, now: int) -> None:
        assert self._twin.scaler
        decision = self._twin.scaler.scale(now * MS, self._ready)
        self._out.ticks.append(tick_row(now, decision))
        if self._twin.scaler.accept(decision):
            self._at(now, RECONCILE, self._reconcile_if_alive)

    def _reconcile_if_alive(self, now: int) -> None:
        if self._alive:
            self._fixpoint(now)

    def _fixpoint(self, now: int) -> None:
        changed = True
        while changed:
            changed = self._twin.reconcile(now * MS, self._ready)
            self._note_reconcile(now)
            changed |= self._follow_replicas(now)
            changed |= self._twin.revision.observe_endpoints(now * MS, self._ready)
        self._arm_timers()

    def _note_reconcile(self, now: int) -> None:
        twin, revision = self._twin, self._twin.revision
        row = [
            now, twin.desired, twin.excess_burst, revision.want, "S" if revision.serving else "P",
            revision.activators, self._ready, LETTERS[revision.active], int(revision.initialized),
            revision.replicas,
        ]  # fmt: skip
        if not self._out.recon or self._out.recon[-1][1:] != row[1:]:
            self._out.recon.append(row)

    def _arm_timers(self) -> None:
        epoch = self._epoch
        for wake in self._twin.revision.take_wakes():
            self._at(-(-wake // MS), RECONCILE, lambda at: self._wake(at, epoch))
        if (probe := self._twin.revision.probe_us()) is not None:
            self._at(-(-probe // MS), GOROUTINE, lambda at: self._probe(at, epoch))

    def _wake(self, now: int, epoch: int) -> None:
        if epoch == self._epoch:
            self._fixpoint(now)

    def _probe(self, now: int, epoch: int) -> None:
        probe = self._twin.revision.probe_us()
        if epoch == self._epoch and probe is not None and probe <= now * MS:
            self._twin.revision.probe(now * MS)
            self._arm_timers()

    # --- pods -----------------------------------------------------------------------------------

    def _follow_replicas(self, now: int) -> bool:
        """The Deployment: pods appear or vanish; whether any did."""
        missing = self._twin.revision.replicas - len(self._pods)
        for _ in range(missing):
            self._add_pod(now)
        for _ in range(-missing):
            self._remove_pod(next((p for p in reversed(self._pods) if not p.ready), self._pods[-1]))
        if missing:
            self._note_pods(now)
        return missing != 0

    def _add_pod(self, now: int) -> None:
        pod = _Pod()
        self._pods.append(pod)
        wait = round(self._input["cold_start_s"] * SECOND_MS) + POD_EXTRA_MS
        self._at(now + wait, OTHER, lambda at: self._pod_ready(at, pod))

    def _remove_pod(self, pod: _Pod) -> None:
        pod.gone = True
        self._pods.remove(pod)

    def _pod_ready(self, now: int, pod: _Pod) -> None:
        if pod.gone:
            return
        pod.ready = True
        self._note_pods(now)
        self._after_pods(now)

    def _after_pods(self, now: int) -> None:
        if self._alive:
            self._fixpoint(now)
        else:  # the ServerlessService lives on without the autoscaler
            self._twin.revision.observe_endpoints(now * MS, self._ready)

    def _note_pods(self, now: int) -> None:
        if self._out.pods and self._out.pods[-1][0] == now:
            self._out.pods.pop()
        self._out.pods.append([now, self._ready, len(self._pods)])

    # --- traffic --------------------------------------------------------------------------------

    def _load(self, second: int) -> tuple[float, float]:
        return self._input["load_concurrency"][second], self._input["load_rps"][second]

    def _route(self, now: int) -> None:
        second = now // SECOND_MS
        created = bool(self._pods) or now >= self._input["phase_tick_ms"]
        through_pods = created and self._twin.revision.serving and self._ready > 0
        self._routes.append("P" if through_pods else "A")
        if not through_pods and self._entry is None and any(self._load(second)):
            self._entry = _Entry(second)
            self._send(now, [now, 0, 1, 0, 1, 0])

    def _activator_report(self, now: int) -> None:
        second = now // SECOND_MS - 1
        entry = self._entry
        if entry is None or entry.second > second:
            return
        load, rate = self._load(second) if self._routes[second] == "A" else (0, 0)
        report = [now, 0, max(load - entry.first, 0), 0, rate - entry.first, 0]
        entry.first = 0
        if load == 0:
            self._entry = None
        self._send(now, report)

    def _send(self, now: int, stat: Row) -> None:
        """A report reaches the autoscaler."""
        if not self._alive:
            return
        self._out.stats.append(stat)
        _, source, load, proxied_load, rate, proxied_rate = stat
        self._twin.record(now // SECOND_MS, load - proxied_load, rate - proxied_rate)
        if source == 0 and load != 0 and self._twin.desired == 0:
            self._tick(now)

    # --- what happens to the cluster ------------------------------------------------------------

    def _event(self, event: dict[str, Any]) -> Callable[[int], None]:
        actions: dict[str, Callable[[int, dict[str, Any]], None]] = {
            "annotate": self._annotate,
            "reach": self._reach,
            "crash": self._crash,
            "restart": self._restart,
        }
        return lambda now: actions[event["op"]](now, event)

    def _annotate(self, now: int, event: dict[str, Any]) -> None:
        if event.get("value"):
            self._annotations[event["key"]] = event["value"]
        else:
            self._annotations.pop(event["key"], None)
        self._changed(now)

    def _reach(self, now: int, event: dict[str, Any]) -> None:
        self._reachability = event.get("value", "")
        self._changed(now)

    def _changed(self, now: int) -> None:
        self._twin.change(self._policy(), now * MS)
        if self._alive:
            self._fixpoint(now)

    def _crash(self, now: int, event: dict[str, Any]) -> None:
        ready = [pod for pod in reversed(self._pods) if pod.ready][: event["n"]]
        for pod in ready:
            self._remove_pod(pod)
            self._add_pod(now)
        self._note_pods(now)
        self._after_pods(now)

    def _restart(self, now: int, event: dict[str, Any]) -> None:
        self._alive = False
        self._epoch += 1
        self._twin.forget()
        self._at(now + event["dur_ms"], OTHER, self._come_back)

    def _come_back(self, now: int) -> None:
        self._alive = True
        self._start(now)
