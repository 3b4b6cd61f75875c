"""Collects a simulation's outcome: per request, per change of the pod count, in total."""

import numpy as np

from keepwarm.kpa.model import MICROSECONDS, Outcome, Policy, Result, Timeline, Verdict

MAX_PODS = 10_000  # at once; what asks for more is a mistake in the policy


class Ledger:
    """What happened so far. Times are microseconds; sums are whole pod-microseconds."""

    def __init__(self, requests: int) -> None:
        self.wait_us = np.zeros(requests, np.int64)
        self.verdict = np.zeros(requests, np.uint8)
        self.outcome = np.full(requests, Outcome.UNFINISHED, np.uint8)
        self.changes: list[tuple[int, int, int, int]] = [(0, 0, 0, 0)]
        self.sums = [0, 0, 0]
        self.pods_started = 0
        self.ticks = 0

    def pods(self, now_us: int, ready: int, starting: int, draining: int) -> None:
        """The pod counts from now on."""
        since, *counts = self.changes[-1]
        for kind, count in enumerate(counts):
            self.sums[kind] += count * (now_us - since)
        if since == now_us:
            self.changes.pop()
        self.changes.append((now_us, ready, starting, draining))

    def arrived(self, request: int, verdict: Verdict) -> None:
        """How a request met the pods."""
        self.verdict[request] = verdict

    def waited(self, request: int, wait_us: int) -> None:
        """Arrival to entering service, or to giving up."""
        self.wait_us[request] = wait_us

    def ended(self, request: int, outcome: Outcome) -> None:
        """How a request ended."""
        self.outcome[request] = outcome

    def result(self, policy: Policy, end_us: int) -> Result:
        """The values out."""
        self.pods(end_us, *self.changes[-1][1:])
        table = np.array(self.changes[:-1] or self.changes, np.int64)
        return Result(
            policy=policy,
            duration_s=end_us / MICROSECONDS,
            wait_s=self.wait_us / MICROSECONDS,
            verdict=self.verdict,
            outcome=self.outcome,
            timeline=Timeline(table[:, 0] / MICROSECONDS, table[:, 1], table[:, 2], table[:, 3]),
            ready_pod_seconds=self.sums[0] / MICROSECONDS,
            starting_pod_seconds=self.sums[1] / MICROSECONDS,
            draining_pod_seconds=self.sums[2] / MICROSECONDS,
            pods_started=self.pods_started,
            ticks=self.ticks,
            stepped_ticks=self.ticks,
        )
