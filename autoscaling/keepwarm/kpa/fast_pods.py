"""Pods of the fast engine: made, ready, terminated, gone; and the timeline of their counts."""

from typing import Any

from keepwarm.kpa.fast_jit import jit
from keepwarm.kpa.fast_memory import (
    FEW_CHANGES,
    FEW_ENDINGS,
    NOBODY,
    RUNNING,
    TOO_MANY_PODS,
    Memory,
)
from keepwarm.kpa.fast_revision import IDLE
from keepwarm.kpa.model import Outcome
from keepwarm.kpa.outcomes import MAX_PODS

CUT = int(Outcome.CUT)


@jit
def push_ending(m: Memory, time_us: int, request: int) -> None:
    """Onto the heap: by time, then by number."""
    heap, loop = m.endings, m.loop
    if loop.running == len(heap):
        loop.fault = FEW_ENDINGS
        return
    index = loop.running
    loop.running += 1
    while index > 0:
        parent = (index - 1) >> 1
        above = heap[parent]
        if above.time_us < time_us or (above.time_us == time_us and above.request <= request):
            break
        heap[index].time_us = above.time_us
        heap[index].request = above.request
        index = parent
    heap[index].time_us = time_us
    heap[index].request = request


@jit
def pop_ending(m: Memory) -> int:
    """Off the heap: the request of the first entry."""
    heap, loop = m.endings, m.loop
    first = heap[0].request
    loop.running -= 1
    count = loop.running
    time_us = heap[count].time_us
    request = heap[count].request
    index = 0
    while True:
        child = 2 * index + 1
        if child >= count:
            break
        other = child + 1
        if other < count and (
            heap[other].time_us < heap[child].time_us
            or (
                heap[other].time_us == heap[child].time_us
                and heap[other].request < heap[child].request
            )
        ):
            child = other
        below = heap[child]
        if time_us < below.time_us or (time_us == below.time_us and request <= below.request):
            break
        heap[index].time_us = below.time_us
        heap[index].request = below.request
        index = child
    heap[index].time_us = time_us
    heap[index].request = request
    return int(first)


@jit
def note_pods(m: Memory, now_us: int) -> None:
    """The pod counts from now on; of several in one instant the last stands."""
    loop, changes = m.loop, m.changes
    last = changes[loop.changes - 1]
    lasted = now_us - last.time_us
    loop.ready_us += last.ready * lasted
    loop.starting_us += last.starting * lasted
    loop.draining_us += last.draining * lasted
    if lasted:
        if loop.changes == len(changes):
            loop.fault = FEW_CHANGES
            return
        loop.changes += 1
    row = changes[loop.changes - 1]
    row.time_us = now_us
    row.ready = loop.ready
    row.starting = loop.live - loop.ready
    row.draining = loop.draining


@jit
def _remove(slots: Any, count: int, slot: int) -> None:
    index = count - 1
    while slots[index] != slot:
        index -= 1
    for following in range(index, count - 1):
        slots[following] = slots[following + 1]


@jit
def _find_next_ready(m: Memory) -> None:
    """When the next of the starting pods is ready."""
    loop = m.loop
    loop.next_ready_us = IDLE
    if loop.live > loop.ready:
        for index in range(loop.live):
            pod = m.pods[m.live[index]]
            if not pod.ready:
                loop.next_ready_us = min(loop.next_ready_us, pod.ready_us)


@jit
def _find_next_gone(m: Memory) -> None:
    loop = m.loop
    loop.next_gone_us = IDLE
    for index in range(loop.draining):
        loop.next_gone_us = min(loop.next_gone_us, m.pods[m.draining[index]].gone_us)


@jit
def follow_replicas(m: Memory, now_us: int) -> bool:
    """The Deployment: pods appear or go; whether any did."""
    loop = m.loop
    missing = m.revision.state.replicas - loop.live
    if missing == 0:
        return False
    if loop.live + loop.draining + missing > MAX_PODS:
        loop.fault = TOO_MANY_PODS
        return False
    for _ in range(missing):
        _start(m, now_us)
    for _ in range(-missing):
        slot = m.live[loop.live - 1]
        if loop.live > loop.ready:  # the newest that is not ready goes first
            index = loop.live - 1
            while m.pods[m.live[index]].ready:
                index -= 1
            slot = m.live[index]
        _terminate(m, now_us, slot)
    if missing < 0:
        _find_next_ready(m)
    note_pods(m, now_us)
    return True


@jit
def _start(m: Memory, now_us: int) -> None:
    loop = m.loop
    loop.free -= 1
    slot = m.free[loop.free]
    pod = m.pods[slot]
    pod.number = loop.pods_started
    pod.ready = 0
    pod.terminated = 0
    pod.created_us = now_us
    pod.ready_us = now_us + m.starts_us[loop.pods_started % len(m.starts_us)]
    pod.gone_us = IDLE
    pod.running = 0
    pod.proxied = 0
    pod.queue_head = NOBODY
    pod.queue_tail = NOBODY
    pod.queued = 0
    pod.in_flight = 0
    pod.area_us = 0
    pod.arrivals = 0
    pod.changed_us = now_us
    pod.concurrency = 0.0
    pod.rate = 0
    m.live[loop.live] = slot
    loop.live += 1
    loop.pods_started += 1
    loop.next_ready_us = min(loop.next_ready_us, pod.ready_us)


@jit
def _terminate(m: Memory, now_us: int, slot: int) -> None:
    loop = m.loop
    pod = m.pods[slot]
    _remove(m.live, loop.live, slot)
    loop.live -= 1
    if not pod.ready:
        m.free[loop.free] = slot
        loop.free += 1
        return
    _remove(m.ready, loop.ready, slot)
    loop.ready -= 1
    pod.ready = 0
    pod.terminated = 1
    pod.ends_by_us = now_us + loop.grace_us
    pod.quiet_until_us = now_us + min(loop.quiet_us, loop.grace_us)
    m.draining[loop.draining] = slot
    loop.draining += 1
    index = 0 if pod.running else loop.running
    while index < loop.running:  # what is pushed meanwhile moves others only towards the end
        number = m.endings[index].request
        index += 1
        request = m.requests[number]
        if request.state == RUNNING and request.pod == slot and request.end_us > pod.ends_by_us:
            request.end_us = pod.ends_by_us
            request.outcome = CUT
            push_ending(m, pod.ends_by_us, number)
    drained(m, now_us, slot)


@jit
def drained(m: Memory, now_us: int, slot: int) -> None:
    """Notes when a terminated pod without work will be gone."""
    pod = m.pods[slot]
    if pod.terminated and pod.running == 0 and pod.queue_head == NOBODY and pod.gone_us == IDLE:
        pod.gone_us = max(now_us, pod.quiet_until_us)
        m.loop.next_gone_us = min(m.loop.next_gone_us, pod.gone_us)


@jit
def pods_gone(m: Memory, now_us: int) -> None:
    """Takes off the pods that are gone at this time."""
    loop = m.loop
    kept = 0
    for index in range(loop.draining):
        slot = m.draining[index]
        if m.pods[slot].gone_us == now_us:
            m.free[loop.free] = slot
            loop.free += 1
        else:
            m.draining[kept] = slot
            kept += 1
    loop.draining = kept
    _find_next_gone(m)
    note_pods(m, now_us)


@jit
def pod_ready(m: Memory, now_us: int) -> None:
    """One pod, the lowest number of those due, takes its place among the ready, by age."""
    loop = m.loop
    index = 0
    while m.pods[m.live[index]].ready or m.pods[m.live[index]].ready_us != now_us:
        index += 1
    slot = m.live[index]
    pod = m.pods[slot]
    pod.ready = 1
    place = loop.ready
    while place > 0 and m.pods[m.ready[place - 1]].number > pod.number:
        m.ready[place] = m.ready[place - 1]
        place -= 1
    m.ready[place] = slot
    loop.ready += 1
    _find_next_ready(m)
    note_pods(m, now_us)
