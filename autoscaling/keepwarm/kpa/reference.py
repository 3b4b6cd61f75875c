"""The reference engine for requests: every event in order, in plain Python.

One revision, one activator, one queue-proxy per pod. Whole microseconds; what is due at the same
time happens in the order of `Due`, then by number. Not modelled: sampling errors of the scrape,
several activators, the network's delay.
"""

import heapq
from collections import deque
from dataclasses import dataclass, field, replace
from enum import IntEnum

from keepwarm.kpa.activator import ActivatorEntry, Balancer, Report, RequestStats
from keepwarm.kpa.errors import InputError
from keepwarm.kpa.model import (
    MICROSECONDS,
    Outcome,
    Phases,
    Pods,
    Policy,
    Requests,
    Result,
    Verdict,
    whole_us,
)
from keepwarm.kpa.outcomes import MAX_PODS, Ledger
from keepwarm.kpa.twin import Twin

TICK_US = 2 * MICROSECONDS
NOTHING = Report(0.0, 0)
QUEUE_FACTOR = 10  # a pod queues 10 x containerConcurrency (queue-proxy's breaker)


class Due(IntEnum):
    """What can be due, in the order in which it happens at one time."""

    END = 0
    EXPIRE = 1
    READY = 2
    GONE = 3
    CUT = 4
    SCRAPE = 5
    REPORT = 6
    TICK = 7
    WAKE = 8
    PROBE = 9
    SCHEDULE = 10
    CREATE = 11
    ARRIVAL = 12


@dataclass(slots=True, eq=False)
class _Pod:
    """A pod; `proxied` are the activator's requests it has, running or queued."""

    number: int
    ready: bool = False
    terminated: bool = False
    ends_by_us: int = 0  # when terminated: the end of its grace
    quiet_until_us: int = 0
    running: int = 0
    proxied: int = 0
    queue: deque[int] = field(default_factory=deque)
    direct: RequestStats = field(default_factory=lambda: RequestStats(0))
    report: Report = NOTHING


@dataclass(slots=True)
class _Request:
    """A request under way."""

    direct: bool
    pod: _Pod | None = None
    running: bool = False
    end_us: int = -1  # when running: when it ends, and how
    outcome: Outcome = Outcome.SERVED


class RequestLoop:
    """One policy over one request log; `run` returns its result."""

    def __init__(self, policy: Policy, requests: Requests, pods: Pods, phases: Phases) -> None:
        self._policy = policy
        self._model = pods
        self._arrival = whole_us(requests.arrival_s)
        self._service = whole_us(requests.service_s)
        self._starts = whole_us(pods.start_s)
        self._timeout, self._quiet, self._grace = whole_us(
            (pods.request_timeout_s, pods.drain_quiet_s, pods.termination_grace_s)
        )
        self._end_us = whole_us((requests.duration_s,))[0]
        self._tick_phase, self._scrape_phase, self._report_phase, self._cut_phase = whole_us(
            (phases.tick_s, phases.scrape_s, phases.activator_s, phases.queue_proxy_s)
        )
        self._queue: list[tuple[int, Due, int]] = []
        self._ledger = Ledger(len(self._arrival))
        self._balancer = Balancer(policy.container_concurrency)
        self._round = 0  # the ingress's round robin
        self._live: list[_Pod] = []  # starting and ready, oldest first
        self._draining: dict[int, _Pod] = {}
        self._under_way: dict[int, _Request] = {}
        self._waiting: deque[int] = deque()  # in the activator
        self._entry: ActivatorEntry | None = None
        self._twin: Twin | None = None
        self._collecting = False

    def run(self) -> Result:
        """Every event up to the end of the log."""
        self._at(self._tick_phase, Due.CREATE)
        self._at(self._cut_phase, Due.CUT)
        for number, arrival in enumerate(self._arrival):
            self._at(arrival, Due.ARRIVAL, number)
        if self._policy.schedule:
            for number, (time, _) in enumerate(self._policy.schedule.until(self._end_us)):
                self._at(time, Due.SCHEDULE, number)
        actions = {
            Due.END: self._on_end,
            Due.EXPIRE: self._on_expire,
            Due.READY: self._on_ready,
            Due.GONE: self._on_gone,
            Due.CUT: self._on_cut,
            Due.SCRAPE: self._on_scrape,
            Due.REPORT: self._on_report,
            Due.TICK: self._on_tick,
            Due.WAKE: self._on_wake,
            Due.PROBE: self._on_probe,
            Due.SCHEDULE: self._on_schedule,
            Due.CREATE: self._on_create,
            Due.ARRIVAL: self._on_arrival,
        }
        while self._queue and self._queue[0][0] < self._end_us:
            now, due, number = heapq.heappop(self._queue)
            actions[due](now, number)
        for number, request in self._under_way.items():
            if not request.running:
                self._ledger.waited(number, self._end_us - self._arrival[number])
        return self._ledger.result(self._policy, self._end_us)

    def _at(self, time_us: int, due: Due, number: int = 0) -> None:
        heapq.heappush(self._queue, (time_us, due, number))

    @property
    def _ready(self) -> list[_Pod]:
        return [pod for pod in self._live if pod.ready]

    # --- the autoscaler -------------------------------------------------------------------------

    def _on_create(self, now: int, _: int) -> None:
        policy = self._policy
        if policy.schedule:
            policy = replace(policy, min_scale=policy.schedule.at(now, policy.min_scale))
        self._twin = Twin(policy, now, policy.initial_scale)
        self._follow_replicas(now)
        self._twin.revision.begin(now)
        self._twin.revision.observe_endpoints(now, 0)
        self._twin.create_decider(now, 0)
        self._fixpoint(now)
        self._at(now + TICK_US, Due.TICK)
        self._at(next_after(now, self._scrape_phase), Due.SCRAPE)

    def _on_tick(self, now: int, _: int) -> None:
        self._at(now + TICK_US, Due.TICK)
        self._ledger.ticks += 1
        self._decide(now)

    def _decide(self, now: int) -> None:
        assert self._twin
        scaler = self._twin.scaler
        assert scaler
        if scaler.accept(scaler.scale(now, len(self._ready))):
            self._fixpoint(now)

    def _on_scrape(self, now: int, _: int) -> None:
        assert self._twin
        assert self._twin.scaler
        self._at(now + MICROSECONDS, Due.SCRAPE)
        if not self._collecting:
            self._twin.scaler.start_collecting()
            self._collecting = True
            return
        ready = self._ready
        if ready and self._policy.target_burst_capacity != -1:
            concurrency = 0.0
            for pod in ready:  # one after the other: from Python 3.12 on sum() rounds otherwise
                concurrency += pod.report.concurrency
            arrivals = sum(pod.report.arrivals for pod in ready)
            self._twin.record(now // MICROSECONDS, concurrency, float(arrivals))

    def _on_cut(self, now: int, _: int) -> None:
        self._at(now + MICROSECONDS, Due.CUT)
        for pod in self._live:
            pod.report = pod.direct.cut(now)

    def _on_report(self, now: int, _: int) -> None:
        assert self._entry
        report, dropped = self._entry.report(now)
        if dropped:
            self._entry = None
        else:
            self._at(now + MICROSECONDS, Due.REPORT)
        self._told(now, report)

    def _told(self, now: int, report: Report) -> None:
        """The activator's report reaches the autoscaler, which it may wake from zero."""
        if self._twin:
            self._twin.record(now // MICROSECONDS, report.concurrency, float(report.arrivals))
            if self._twin.desired == 0 and report.concurrency != 0:
                self._decide(now)

    def _on_wake(self, now: int, _: int) -> None:
        self._fixpoint(now)

    def _on_probe(self, now: int, _: int) -> None:
        assert self._twin
        if (due := self._twin.revision.probe_us()) is not None and due <= now:
            self._twin.revision.probe(now)
            self._arm_timers()

    def _on_schedule(self, now: int, _: int) -> None:
        assert self._policy.schedule
        if self._twin:
            least = self._policy.schedule.at(now, self._policy.min_scale)
            self._twin.change(replace(self._policy, min_scale=least), now)
            self._fixpoint(now)

    def _fixpoint(self, now: int) -> None:
        """Reconciles until nothing changes any more, as the watches make it."""
        assert self._twin
        changed = True
        while changed:
            changed = self._twin.reconcile(now, len(self._ready))
            changed |= self._follow_replicas(now)
            changed |= self._twin.revision.observe_endpoints(now, len(self._ready))
        self._arm_timers()

    def _arm_timers(self) -> None:
        assert self._twin
        for wake in self._twin.revision.take_wakes():
            self._at(wake, Due.WAKE)
        if (probe := self._twin.revision.probe_us()) is not None:
            self._at(probe, Due.PROBE)

    # --- pods -----------------------------------------------------------------------------------

    def _follow_replicas(self, now: int) -> bool:
        assert self._twin
        missing = self._twin.revision.replicas - len(self._live)
        if len(self._live) + len(self._draining) + missing > MAX_PODS:
            raise InputError(f"The policy asks for more than {MAX_PODS} pods at once.")
        for _ in range(missing):
            pod = _Pod(self._ledger.pods_started)
            pod.direct = RequestStats(now)
            self._ledger.pods_started += 1
            self._live.append(pod)
            self._at(now + self._starts[pod.number % len(self._starts)], Due.READY, pod.number)
        for _ in range(-missing):
            # The Deployment gives up the newest that is not ready, else the newest.
            self._terminate(
                now, next((p for p in reversed(self._live) if not p.ready), self._live[-1])
            )
        if missing:
            self._note_pods(now)
        return missing != 0

    def _note_pods(self, now: int) -> None:
        ready = len(self._ready)
        self._ledger.pods(now, ready, len(self._live) - ready, len(self._draining))

    def _on_ready(self, now: int, number: int) -> None:
        pod = next((pod for pod in self._live if pod.number == number), None)
        if pod is None:
            return
        pod.ready = True
        self._note_pods(now)
        self._let_in(now)
        self._fixpoint(now)

    def _terminate(self, now: int, pod: _Pod) -> None:
        self._live.remove(pod)
        if not pod.ready:
            return
        pod.ready, pod.terminated = False, True
        pod.ends_by_us = now + self._grace
        pod.quiet_until_us = now + min(self._quiet, self._grace)
        self._draining[pod.number] = pod
        for number, request in self._under_way.items():
            if request.pod is pod and request.running and request.end_us > pod.ends_by_us:
                request.end_us, request.outcome = pod.ends_by_us, Outcome.CUT
                self._at(pod.ends_by_us, Due.END, number)
        self._drained(now, pod)

    def _drained(self, now: int, pod: _Pod) -> None:
        if pod.terminated and not pod.running and not pod.queue:
            self._at(max(now, pod.quiet_until_us), Due.GONE, pod.number)

    def _on_gone(self, now: int, number: int) -> None:
        if self._draining.pop(number, None):
            self._note_pods(now)

    # --- requests -------------------------------------------------------------------------------

    def _on_arrival(self, now: int, number: int) -> None:
        ready = self._ready
        direct = bool(ready) and self._twin is not None and self._twin.revision.serving
        request = self._under_way[number] = _Request(direct)
        self._at(now + self._timeout, Due.EXPIRE, number)
        if direct:
            self._round = self._round % len(ready)
            pod = ready[self._round]
            self._round += 1
            pod.direct.enter(now)
            self._admit(now, number, pod)
        else:
            if self._entry is None:
                self._entry = ActivatorEntry(now)
                self._at(next_after(now, self._report_phase), Due.REPORT)
                first = True
            else:
                first = False
            self._entry.enter(now)
            self._waiting.append(number)
            self._let_in(now)
        self._judge(number, request, was_ready=bool(ready))
        if not direct and first:
            self._told(now, ActivatorEntry.FIRST)

    def _judge(self, number: int, request: _Request, *, was_ready: bool) -> None:
        if not was_ready:
            verdict = Verdict.COLD
        else:
            verdict = Verdict.WARM if request.running else Verdict.QUEUED
        self._ledger.arrived(number, verdict)

    def _let_in(self, now: int) -> None:
        """The activator hands waiting requests to pods that have room."""
        limit = self._policy.container_concurrency
        ready = self._ready
        while self._waiting:
            number = self._waiting[0]
            if number not in self._under_way:  # it gave up
                self._waiting.popleft()
                continue
            choice = self._balancer.pick(
                len(ready),
                lambda i: ready[i].proxied < limit,
                lambda i: ready[i].proxied,
                number,
            )
            if choice < 0:
                return
            self._waiting.popleft()
            ready[choice].proxied += 1
            self._admit(now, number, ready[choice])

    def _admit(self, now: int, number: int, pod: _Pod) -> None:
        """The pod's queue-proxy: run, queue or refuse."""
        limit = self._policy.container_concurrency
        request = self._under_way[number]
        request.pod = pod
        if not limit or pod.running < limit:
            self._serve(now, number, pod)
        elif sum(n in self._under_way for n in pod.queue) < QUEUE_FACTOR * limit:
            pod.queue.append(number)
        else:
            self._finish(now, number, Outcome.REJECTED)

    def _serve(self, now: int, number: int, pod: _Pod) -> None:
        request = self._under_way[number]
        request.running = True
        service = self._service[number]
        if pod.running and self._model.slowdown:
            service = int(service * (1.0 + self._model.slowdown * pod.running))
        pod.running += 1
        end, deadline = now + service, self._arrival[number] + self._timeout
        if end > deadline:
            end, request.outcome = deadline, Outcome.TIMED_OUT
        if pod.terminated and end > pod.ends_by_us:
            end, request.outcome = pod.ends_by_us, Outcome.CUT
        request.end_us = end
        self._ledger.waited(number, now - self._arrival[number])
        self._at(end, Due.END, number)

    def _on_end(self, now: int, number: int) -> None:
        request = self._under_way.get(number)
        if request is None or request.end_us != now or request.pod is None:
            return  # it ended before, cut off
        request.pod.running -= 1
        self._finish(now, number, request.outcome)

    def _on_expire(self, now: int, number: int) -> None:
        request = self._under_way.get(number)
        if request is not None and not request.running:
            self._finish(now, number, Outcome.TIMED_OUT)

    def _finish(self, now: int, number: int, outcome: Outcome) -> None:
        """A request leaves; who waited for its place moves up."""
        request = self._under_way.pop(number)
        self._ledger.ended(number, outcome)
        if not request.running:
            self._ledger.waited(number, now - self._arrival[number])
        pod = request.pod
        if request.direct:
            assert pod
            pod.direct.leave(now)
        else:
            assert self._entry
            self._entry.leave(now)
            if pod:
                pod.proxied -= 1
        if pod:
            self._move_up(now, pod)
        self._let_in(now)

    def _move_up(self, now: int, pod: _Pod) -> None:
        limit = self._policy.container_concurrency
        while pod.queue and (not limit or pod.running < limit):
            number = pod.queue.popleft()
            if number in self._under_way:
                self._serve(now, number, pod)
        self._drained(now, pod)


def next_after(now_us: int, phase_us: int) -> int:
    """The first time after now with that place in the second."""
    return now_us + 1 + (phase_us - now_us - 1) % MICROSECONDS
