"""The memory of one run of the fast engine: records and arrays that are reused for every policy.

What can grow past its room (running requests, changes of the pod count) is made larger and the
policy run again; the rest is as large as it can get.
"""

from typing import Any, NamedTuple

import numpy as np

from keepwarm.kpa.fast_decider import Scaler, new_scaler
from keepwarm.kpa.fast_revision import Reconciler, new_reconciler
from keepwarm.kpa.model import Ints
from keepwarm.kpa.outcomes import MAX_PODS

NOBODY = -1
BEATS = 7  # in two seconds: a tick, and two each of cut, scrape and report

# A request's way: before it came, in the activator, in a pod's queue, running, over.
AWAY, WAITING, QUEUED, RUNNING, OVER = range(5)

REQUEST = np.dtype(
    [
        ("arrival_us", "i8"),
        ("service_us", "i8"),
        ("end_us", "i8"),
        ("wait_us", "i8"),
        ("pod", "i4"),
        ("next", "i4"),  # behind it in the pod's queue
        ("state", "u1"),
        ("direct", "u1"),
        ("verdict", "u1"),
        ("outcome", "u1"),
    ],
    align=True,
)
POD = np.dtype(
    [
        ("number", "i8"),
        ("ready", "i8"),
        ("terminated", "i8"),
        ("created_us", "i8"),
        ("ready_us", "i8"),
        ("ends_by_us", "i8"),
        ("quiet_until_us", "i8"),
        ("gone_us", "i8"),  # IDLE while it drains
        ("running", "i8"),
        ("proxied", "i8"),
        ("queue_head", "i8"),
        ("queue_tail", "i8"),
        ("queued", "i8"),  # of the queue, those that have not given up
        # Direct requests: in flight, their area and arrivals since the last report, and that.
        ("in_flight", "i8"),
        ("area_us", "i8"),
        ("arrivals", "i8"),
        ("changed_us", "i8"),
        ("concurrency", "f8"),
        ("rate", "i8"),
    ]
)
LOOP = np.dtype(
    [
        # What does not change:
        ("requests", "i8"),
        ("end_us", "i8"),
        ("timeout_us", "i8"),
        ("quiet_us", "i8"),
        ("grace_us", "i8"),
        ("slowdown", "f8"),
        ("concurrency", "i8"),  # containerConcurrency
        ("create_us", "i8"),
        ("scrape_us", "i8"),
        ("report_us", "i8"),
        ("cut_us", "i8"),
        # The autoscaler:
        ("created", "i8"),
        ("entry", "i8"),  # the activator holds one
        ("entry_first", "i8"),
        ("entry_in_flight", "i8"),
        ("entry_area_us", "i8"),
        ("entry_arrivals", "i8"),
        ("entry_changed_us", "i8"),
        ("entry_cut_us", "i8"),
        ("step", "i8"),  # the schedule's next
        # Pods:
        ("live", "i8"),
        ("ready", "i8"),
        ("draining", "i8"),
        ("free", "i8"),
        ("next_ready_us", "i8"),
        ("next_gone_us", "i8"),
        ("pods_started", "i8"),
        ("direct", "i8"),  # some pod has, or lately had, direct requests
        ("round", "i8"),  # the ingress's next pod
        ("balance", "i8"),  # the activator's
        # Requests:
        ("came", "i8"),
        ("waiting", "i8"),
        ("first_waiting", "i8"),
        ("first_to_expire", "i8"),
        ("running", "i8"),  # entries of the heap
        # The bill:
        ("changes", "i8"),
        ("ready_us", "i8"),
        ("starting_us", "i8"),
        ("draining_us", "i8"),
        ("ticks", "i8"),
        ("stepped", "i8"),
        # The pace of Knative's loops: the next beat, in which two seconds, when.
        ("beat", "i8"),
        ("base_us", "i8"),
        ("beat_us", "i8"),
        ("fault", "i8"),
    ]
)
ENDING = np.dtype([("time_us", "i8"), ("request", "i8")])
CHANGE = np.dtype([("time_us", "i8"), ("ready", "i4"), ("starting", "i4"), ("draining", "i4")])

# Faults: what the caller can make larger, and what it cannot.
NO_FAULT, FEW_CHANGES, FEW_ENDINGS, FEW_WAKES, TOO_MANY_PODS = range(5)


class Memory(NamedTuple):
    """Everything a run reads and writes."""

    loop: Any
    scaler: Scaler
    revision: Reconciler
    requests: Any  # [n]
    pods: Any  # [MAX_PODS + 1] by slot
    live: Any  # slots, oldest pod first; likewise the next two
    ready: Any
    draining: Any
    free: Any
    endings: Any  # a heap of (time, request)
    changes: Any
    beats: Ints  # [2, BEATS] when in two seconds, and what
    starts_us: Ints
    schedule: Ints  # [steps, 2] time and min-scale


def new_memory(requests: int, starts_us: Ints) -> Memory:
    """Memory for a log of so many requests."""
    return Memory(
        loop=np.zeros(1, LOOP)[0],
        scaler=new_scaler(),
        revision=new_reconciler(),
        requests=np.zeros(requests, REQUEST),
        pods=np.zeros(MAX_PODS + 1, POD),
        live=np.zeros(MAX_PODS + 1, np.int64),
        ready=np.zeros(MAX_PODS + 1, np.int64),
        draining=np.zeros(MAX_PODS + 1, np.int64),
        free=np.zeros(MAX_PODS + 1, np.int64),
        endings=np.zeros(1 << 12, ENDING),
        changes=np.zeros(1 << 14, CHANGE),
        beats=np.zeros((2, BEATS), np.int64),
        starts_us=starts_us,
        schedule=np.zeros((0, 2), np.int64),
    )


def enlarged(memory: Memory, fault: int) -> Memory:
    """Four times the room of what was too small."""
    if fault == FEW_WAKES:
        revision = memory.revision
        return memory._replace(revision=revision._replace(wakes=_larger(revision.wakes)))
    if fault == FEW_ENDINGS:
        return memory._replace(endings=_larger(memory.endings))
    return memory._replace(changes=_larger(memory.changes))


def _larger(small: Any) -> Any:
    return np.zeros(4 * len(small), small.dtype)
