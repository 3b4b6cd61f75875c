"""The event loop of the fast engine: what `reference.RequestLoop` does, one policy at a time.

What is due first at one time has the order of `reference.Due`. The loops of Knative that beat every
second (or two) are stepped through without a queue, and stretches in which nothing can change any
more are jumped over, exactly.
"""

from typing import Any

from keepwarm.kpa.fast_decider import accept, scale
from keepwarm.kpa.fast_jit import jit
from keepwarm.kpa.fast_memory import (
    BEATS,
    FEW_WAKES,
    NO_FAULT,
    OVER,
    RUNNING,
    Memory,
)
from keepwarm.kpa.fast_pods import (
    follow_replicas,
    note_pods,
    pod_ready,
    pods_gone,
    pop_ending,
)
from keepwarm.kpa.fast_requests import (
    cut_reports,
    forget_requests,
    let_in,
    request_comes,
    request_ends,
    request_expires,
    still_waiting,
)
from keepwarm.kpa.fast_revision import (
    IDLE,
    begin,
    observe_endpoints,
    probe,
    reconcile,
    woken,
)
from keepwarm.kpa.fast_skip import jump, settled
from keepwarm.kpa.fast_windows import window_record
from keepwarm.kpa.model import MICROSECONDS
from keepwarm.kpa.reference import TICK_US, Due

CUT, SCRAPE, REPORT, TICK = int(Due.CUT), int(Due.SCRAPE), int(Due.REPORT), int(Due.TICK)


@jit
def _fixpoint(m: Memory, now_us: int) -> None:
    """Reconciles until nothing changes any more."""
    state, loop = m.scaler.state, m.loop
    changed = True
    while changed and loop.fault == NO_FAULT:
        changed = reconcile(m.revision, now_us, loop.ready, state.desired, state.excess_burst)
        if follow_replicas(m, now_us):
            changed = True
        if observe_endpoints(m.revision.state, now_us, loop.ready):
            changed = True
    if m.revision.state.wakes > len(m.revision.wakes):
        loop.fault = FEW_WAKES


@jit
def _decide(m: Memory, now_us: int) -> bool:
    scale(m.scaler, now_us, m.loop.ready)
    told = accept(m.scaler.state)
    if told:
        _fixpoint(m, now_us)
    return told


@jit
def _record(m: Memory, now_us: int, concurrency: float, rate: float) -> None:
    s = m.scaler
    if s.state.collecting:
        value = rate if s.spec.rps else concurrency
        second = now_us // MICROSECONDS
        window_record(s.stable, s.stable_ring, second, value)
        window_record(s.panic, s.panic_ring, second, value)


@jit
def _told(m: Memory, now_us: int, concurrency: float, arrivals: int) -> bool:
    """The activator's report reaches the autoscaler, which it may wake from zero: whether so."""
    if not m.loop.created:
        return False
    _record(m, now_us, concurrency, float(arrivals))
    return m.scaler.state.desired == 0 and concurrency != 0.0 and _decide(m, now_us)


@jit
def _scrape(m: Memory, now_us: int) -> None:
    loop, state = m.loop, m.scaler.state
    if not state.collecting:
        state.collecting = 1
    elif loop.ready and m.scaler.spec.scraped:
        concurrency = 0.0
        arrivals = 0
        if loop.direct:
            for index in range(loop.ready):
                pod = m.pods[m.ready[index]]
                concurrency += pod.concurrency
                arrivals += pod.rate
        _record(m, now_us, concurrency, float(arrivals))


@jit
def _report(m: Memory, now_us: int) -> bool:
    loop = m.loop
    area = loop.entry_area_us + loop.entry_in_flight * (now_us - loop.entry_changed_us)
    period = now_us - loop.entry_cut_us
    average = area / period if period > 0 else 0.0
    concurrency = max(average - loop.entry_first, 0.0)
    arrivals = loop.entry_arrivals - loop.entry_first
    loop.entry_area_us = 0
    loop.entry_arrivals = 0
    loop.entry_first = 0
    loop.entry_changed_us = now_us
    loop.entry_cut_us = now_us
    if average == 0.0 and loop.entry_in_flight == 0:
        loop.entry = 0
    return _told(m, now_us, concurrency, arrivals)


@jit
def _create(m: Memory, now_us: int) -> None:
    m.loop.created = 1
    follow_replicas(m, now_us)
    begin(m.revision, now_us)
    observe_endpoints(m.revision.state, now_us, 0)
    _fixpoint(m, now_us)


@jit
def _first_to_expire(m: Memory) -> int:
    """When the oldest request that waits gives up."""
    loop = m.loop
    while loop.first_to_expire < loop.came:
        request = m.requests[loop.first_to_expire]
        if request.state not in (RUNNING, OVER):
            return int(request.arrival_us + loop.timeout_us)
        loop.first_to_expire += 1
    return IDLE


@jit
def _ending(m: Memory) -> int:
    return int(m.endings[0].time_us) if m.loop.running else IDLE


@jit
def _arrival(m: Memory) -> int:
    loop = m.loop
    return int(m.requests[loop.came].arrival_us) if loop.came < loop.requests else IDLE


@jit
def _step(m: Memory) -> int:
    step = m.loop.step
    return int(m.schedule[step, 0]) if step < len(m.schedule) else IDLE


@jit
def _beat(m: Memory, kind: int, now_us: int) -> bool:
    """One of Knative's loops comes round; whether what will be due may have changed."""
    loop = m.loop
    if kind == TICK:
        if loop.created:
            loop.ticks += 1
            loop.stepped += 1
            return _decide(m, now_us)
    elif kind == SCRAPE:
        if loop.created:
            _scrape(m, now_us)
    elif kind == REPORT:
        if loop.entry:
            return _report(m, now_us)
    elif loop.direct:
        cut_reports(m, now_us)
    return False


@jit
def _beat_until(m: Memory, stop_us: int) -> bool:
    """Knative's loops up to a time, or until what will be due may have changed: whether so."""
    loop = m.loop
    told = False
    while loop.beat_us < stop_us and not told:
        now_us, kind = loop.beat_us, m.beats[1, loop.beat]
        told = _beat(m, kind, now_us)
        loop.beat += 1
        if loop.beat == BEATS:
            loop.beat = 0
            loop.base_us += TICK_US
        loop.beat_us = loop.base_us + m.beats[0, loop.beat]
        jump_us = (stop_us - loop.beat_us) // TICK_US * TICK_US
        if kind == TICK and not told and jump_us > 0 and settled(m, now_us):
            jump(m, jump_us)
    return told


@jit
def _before_beats(m: Memory, now_us: int) -> None:
    """What happens first at one time."""
    if _ending(m) == now_us:
        request_ends(m, now_us, pop_ending(m))
    elif _first_to_expire(m) == now_us:
        request_expires(m, now_us, m.loop.first_to_expire)
    elif m.loop.next_ready_us == now_us:
        pod_ready(m, now_us)
        let_in(m, now_us)
        _fixpoint(m, now_us)
    else:
        pods_gone(m, now_us)


@jit
def _after_beats(m: Memory, now_us: int) -> None:
    """What happens last at one time."""
    loop = m.loop
    if m.revision.state.next_wake_us == now_us:
        woken(m.revision, now_us)
        _fixpoint(m, now_us)
    elif m.revision.state.probe_next_us == now_us:
        probe(m.revision, now_us)
    elif _step(m) == now_us:
        if loop.created:
            m.revision.policy.min_scale = m.schedule[loop.step, 1]
            _fixpoint(m, now_us)
        loop.step += 1
    elif not loop.created and loop.create_us == now_us:
        _create(m, now_us)
    else:
        loop.came += 1
        if request_comes(m, now_us, loop.came - 1):
            _told(m, now_us, 1.0, 1)


@jit
def run(m: Memory) -> None:
    """One policy over the log; what is out is in `m`."""
    loop, revision = m.loop, m.revision.state
    forget_requests(m)
    _set_beats(loop, m.beats[0], m.beats[1])
    loop.beat_us = m.beats[0, 0]
    while loop.fault == NO_FAULT:
        before_us = min(_ending(m), _first_to_expire(m), loop.next_ready_us, loop.next_gone_us)
        create_us = IDLE if loop.created else loop.create_us
        after_us = min(
            revision.next_wake_us, revision.probe_next_us, _step(m), create_us, _arrival(m)
        )
        if _beat_until(m, min(before_us, after_us + 1, loop.end_us)):
            continue
        now_us = min(before_us, after_us)
        if now_us >= loop.end_us:
            break
        if before_us <= after_us:
            _before_beats(m, now_us)
        else:
            _after_beats(m, now_us)
    still_waiting(m)
    note_pods(m, loop.end_us)


@jit
def _set_beats(loop: Any, offsets: Any, kinds: Any) -> None:
    """Two seconds of Knative's loops: when each beats, and which it is, in order."""
    count = 0
    for kind, phase in ((CUT, loop.cut_us), (SCRAPE, loop.scrape_us), (REPORT, loop.report_us)):
        for second in range(2):
            offsets[count] = phase + second * MICROSECONDS
            kinds[count] = kind
            count += 1
    offsets[count] = loop.create_us
    kinds[count] = TICK
    for index in range(1, BEATS):  # insertion, by time and then by kind
        offset, kind = offsets[index], kinds[index]
        place = index
        while place > 0 and (
            offsets[place - 1] > offset
            or (offsets[place - 1] == offset and kinds[place - 1] > kind)
        ):
            offsets[place] = offsets[place - 1]
            kinds[place] = kinds[place - 1]
            place -= 1
        offsets[place] = offset
        kinds[place] = kind
