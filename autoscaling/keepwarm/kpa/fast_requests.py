"""Requests in the fast engine: activator, pods' queues, service, and how each one ends."""

from typing import Any

import numpy as np

from keepwarm.kpa.activator import FIRST_AVAILABLE_UP_TO
from keepwarm.kpa.fast_jit import jit
from keepwarm.kpa.fast_memory import (
    AWAY,
    NOBODY,
    OVER,
    QUEUED,
    RUNNING,
    WAITING,
    Memory,
)
from keepwarm.kpa.fast_pods import drained, push_ending
from keepwarm.kpa.model import MICROSECONDS, Outcome, Verdict
from keepwarm.kpa.reference import QUEUE_FACTOR

SERVED, TIMED_OUT, REJECTED, UNFINISHED, CUT = (
    int(Outcome.SERVED),
    int(Outcome.TIMED_OUT),
    int(Outcome.REJECTED),
    int(Outcome.UNFINISHED),
    int(Outcome.CUT),
)
WARM, HELD, COLD = int(Verdict.WARM), int(Verdict.QUEUED), int(Verdict.COLD)


@jit
def _scrambled(number: int) -> Any:
    mixed = np.uint64(number) + np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))


@jit
def _rest(dice: Any, sides: int) -> Any:
    # Signed again: numba makes floats of what is signed here and unsigned there.
    return np.int64(dice % np.uint64(sides))


@jit
def _pick(m: Memory, request: int) -> int:
    """The activator's choice of a ready pod: its place among them, or NOBODY."""
    loop, pods, ready = m.loop, m.pods, m.ready
    count = loop.ready
    if count == 0:
        return NOBODY
    limit = loop.concurrency
    if limit == 0:
        return _choice_of_two(m, request)
    if limit <= FIRST_AVAILABLE_UP_TO:
        for place in range(count):
            if pods[ready[place]].proxied < limit:
                return place
        return NOBODY
    if loop.balance >= count:
        loop.balance = 0
    for step in range(count):
        place = loop.balance + step
        if place >= count:
            place -= count
        if pods[ready[place]].proxied < limit:
            loop.balance = place + 1
            return int(place)
    return NOBODY


@jit
def _choice_of_two(m: Memory, request: int) -> int:
    count = m.loop.ready
    if count == 1:
        return 0
    dice = _scrambled(request)
    one, other = 0, 1
    if count > 2:
        one = _rest(dice, count)
        other = _rest(dice >> np.uint64(20), count - 1)
        other += other >= one
    first = m.pods[m.ready[one]].proxied
    second = m.pods[m.ready[other]].proxied
    if first > second or (first == second and (dice >> np.uint64(40)) & np.uint64(1)):
        return other
    return one


@jit
def let_in(m: Memory, now_us: int) -> None:
    """The activator hands waiting requests to pods that have room."""
    loop = m.loop
    while loop.waiting:
        number = loop.first_waiting
        while m.requests[number].state != WAITING:
            number += 1
        loop.first_waiting = number
        place = _pick(m, number)
        if place == NOBODY:
            return
        loop.waiting -= 1
        slot = m.ready[place]
        m.pods[slot].proxied += 1
        _admit(m, now_us, number, slot)


@jit
def _admit(m: Memory, now_us: int, number: int, slot: int) -> bool:
    """The pod's queue-proxy: run, queue or refuse; whether it was not refused."""
    limit = m.loop.concurrency
    request, pod = m.requests[number], m.pods[slot]
    request.pod = slot
    if limit == 0 or pod.running < limit:
        _serve(m, now_us, number, slot)
        return True
    request.state = QUEUED
    if pod.queued >= QUEUE_FACTOR * limit:
        pod.queued += 1
        _leave(m, now_us, number, REJECTED)
        return False
    request.next = NOBODY
    if pod.queue_head == NOBODY:
        pod.queue_head = number
    else:
        m.requests[pod.queue_tail].next = number
    pod.queue_tail = number
    pod.queued += 1
    return True


@jit
def _serve(m: Memory, now_us: int, number: int, slot: int) -> None:
    loop = m.loop
    request, pod = m.requests[number], m.pods[slot]
    request.state = RUNNING
    request.outcome = SERVED
    service = request.service_us
    if pod.running and loop.slowdown != 0.0:
        service = np.int64(service * (1.0 + loop.slowdown * pod.running))
    pod.running += 1
    end = now_us + service
    deadline = request.arrival_us + loop.timeout_us
    if end > deadline:
        end = deadline
        request.outcome = TIMED_OUT
    if pod.terminated and end > pod.ends_by_us:
        end = pod.ends_by_us
        request.outcome = CUT
    request.end_us = end
    request.wait_us = now_us - request.arrival_us
    push_ending(m, end, number)


@jit
def request_ends(m: Memory, now_us: int, number: int) -> None:
    """An entry of the heap is due; one that was cut off or replaced before does nothing."""
    request = m.requests[number]
    if request.state == RUNNING and request.end_us == now_us:
        m.pods[request.pod].running -= 1
        _leave(m, now_us, number, request.outcome)
        let_in(m, now_us)


@jit
def request_expires(m: Memory, now_us: int, number: int) -> None:
    """Its time-out has come while it waits."""
    _leave(m, now_us, number, TIMED_OUT)
    let_in(m, now_us)


@jit
def _leave(m: Memory, now_us: int, number: int, outcome: int) -> None:
    """A request leaves; who waited in the pod for its place moves up."""
    loop, request = m.loop, m.requests[number]
    was = request.state
    request.state = OVER
    request.outcome = outcome
    slot = request.pod
    if was != RUNNING:
        request.wait_us = now_us - request.arrival_us
    if was == WAITING:
        loop.waiting -= 1
        slot = NOBODY
    elif was == QUEUED:
        m.pods[slot].queued -= 1
    if request.direct:
        pod = m.pods[slot]
        pod.area_us += pod.in_flight * (now_us - pod.changed_us)
        pod.changed_us = now_us
        pod.in_flight -= 1
    else:
        loop.entry_area_us += loop.entry_in_flight * (now_us - loop.entry_changed_us)
        loop.entry_changed_us = now_us
        loop.entry_in_flight -= 1
        if slot != NOBODY:
            m.pods[slot].proxied -= 1
    if slot != NOBODY:
        _move_up(m, now_us, slot)


@jit
def _move_up(m: Memory, now_us: int, slot: int) -> None:
    limit, pod = m.loop.concurrency, m.pods[slot]
    while pod.queue_head != NOBODY and (limit == 0 or pod.running < limit):
        number = pod.queue_head
        pod.queue_head = m.requests[number].next
        if m.requests[number].state == QUEUED:
            pod.queued -= 1
            _serve(m, now_us, number, slot)
    drained(m, now_us, slot)


@jit
def request_comes(m: Memory, now_us: int, number: int) -> bool:
    """A request comes; whether it is the activator's first, which is reported at once."""
    loop, request = m.loop, m.requests[number]
    direct = loop.ready > 0 and loop.created and m.revision.state.serving
    was_ready = loop.ready > 0
    first = False
    request.direct = 1 if direct else 0
    if direct:
        if loop.round >= loop.ready:
            loop.round %= loop.ready
        slot = m.ready[loop.round]
        loop.round += 1
        loop.direct = 1
        pod = m.pods[slot]
        pod.area_us += pod.in_flight * (now_us - pod.changed_us)
        pod.changed_us = now_us
        pod.in_flight += 1
        pod.arrivals += 1
        if not _admit(m, now_us, number, slot):
            let_in(m, now_us)
    else:
        if not loop.entry:
            first = True
            loop.entry = 1
            loop.entry_first = 1
            loop.entry_in_flight = 0
            loop.entry_area_us = 0
            loop.entry_arrivals = 0
            loop.entry_changed_us = now_us
            loop.entry_cut_us = now_us
        loop.entry_area_us += loop.entry_in_flight * (now_us - loop.entry_changed_us)
        loop.entry_changed_us = now_us
        loop.entry_in_flight += 1
        loop.entry_arrivals += 1
        request.state = WAITING
        if loop.waiting == 0:
            loop.first_waiting = number
        loop.waiting += 1
        let_in(m, now_us)
    if not was_ready:
        request.verdict = COLD
    else:
        request.verdict = WARM if request.state == RUNNING else HELD
    return first


@jit
def cut_reports(m: Memory, now_us: int) -> None:
    """Every pod's queue-proxy cuts its report; when all are silent this need not be done again."""
    loop = m.loop
    active = 0
    for index in range(loop.live):
        pod = m.pods[m.live[index]]
        pod.area_us += pod.in_flight * (now_us - pod.changed_us)
        pod.changed_us = now_us
        period = min(MICROSECONDS, now_us - pod.created_us)
        pod.concurrency = pod.area_us / period if period > 0 else 0.0
        pod.rate = pod.arrivals
        pod.area_us = 0
        pod.arrivals = 0
        active += pod.in_flight > 0 or pod.concurrency > 0.0 or pod.rate > 0
    loop.direct = 1 if active else 0


@jit
def still_waiting(m: Memory) -> None:
    """At the log's end: who was never let in waited until then."""
    for number in range(m.loop.came):
        request = m.requests[number]
        if request.state != OVER:
            if request.state != RUNNING:
                request.wait_us = m.loop.end_us - request.arrival_us
            request.outcome = UNFINISHED


@jit
def forget_requests(m: Memory) -> None:
    """As before the first one came."""
    for number in range(m.loop.requests):
        request = m.requests[number]
        request.state = AWAY
        request.wait_us = 0
        request.verdict = 0
        request.outcome = UNFINISHED
