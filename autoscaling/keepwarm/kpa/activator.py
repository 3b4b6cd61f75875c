"""The activator: what it reports, which pods it uses and which of them gets a request.

Knative `pkg/activator/net` (throttler.go, lb_policy.go), `handler/concurrency_reporter.go` and
`knative.dev/networking/pkg/http/stats/request.go`. Times are microseconds.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

UNLIMITED = (1 << 31) - 1
FIRST_AVAILABLE_UP_TO = 3  # containerConcurrency 1..3: first available, above: round robin
_MASK = (1 << 64) - 1


class Report(NamedTuple):
    """Average requests in flight over a period, and arrivals in it."""

    concurrency: float
    arrivals: int


class RequestStats:
    """Requests in flight over time, cut into reports (request.go:96-157).

    Areas are whole request-microseconds, so a sum over any order of events is the same.
    """

    def __init__(self, now_us: int) -> None:
        self.in_flight = 0
        self._area = 0
        self._arrivals = 0
        self._changed_us = now_us
        self._cut_us = now_us

    def _integrate(self, now_us: int) -> None:
        self._area += self.in_flight * (now_us - self._changed_us)
        self._changed_us = now_us

    def enter(self, now_us: int) -> None:
        """A request comes in."""
        self._integrate(now_us)
        self.in_flight += 1
        self._arrivals += 1

    def leave(self, now_us: int) -> None:
        """A request is done."""
        self._integrate(now_us)
        self.in_flight -= 1

    def cut(self, now_us: int) -> Report:
        """The report since the last cut; what is in flight carries on."""
        self._integrate(now_us)
        period = now_us - self._cut_us
        report = Report(self._area / period if period > 0 else 0.0, self._arrivals)
        self._area = self._arrivals = 0
        self._cut_us = now_us
        return report


class ActivatorEntry:
    """What the activator keeps of a revision with requests (concurrency_reporter.go).

    The first request is reported at once, as concurrency 1 and count 1, and therefore subtracted
    from the first periodic report.
    """

    FIRST = Report(1.0, 1)

    def __init__(self, now_us: int) -> None:
        self._stats = RequestStats(now_us)
        self._first = 1

    def enter(self, now_us: int) -> None:
        """A request comes in."""
        self._stats.enter(now_us)

    def leave(self, now_us: int) -> None:
        """A request is done."""
        self._stats.leave(now_us)

    def report(self, now_us: int) -> tuple[Report, bool]:
        """The second's report, and whether the entry is dropped after it."""
        average, arrivals = self._stats.cut(now_us)
        report = Report(max(average - self._first, 0.0), arrivals - self._first)
        self._first = 0
        return report, average == 0 and self._stats.in_flight == 0


def assigned_pods(pods: int, activators: int, index: int) -> Sequence[int]:
    """Which pods, sorted by address, this activator uses (throttler.go:360-408).

    For containerConcurrency above 0; an index of -1 (not known yet) means all.
    """
    if activators <= 1 or index < 0 or not pods:
        return range(pods)
    if activators > pods:
        return [index % pods]
    share, rest = divmod(pods, activators)
    own = range(share * index, share * (index + 1))
    extra = share * activators + index
    return [*own, extra] if index < rest else own


def capacity(concurrency: int, backends: int, trackers: int, activators: int) -> int:
    """How many requests this activator lets through at once (throttler.go:250-277).

    `trackers` are the pods it addresses one by one, 0 when it goes through the ClusterIP. With a
    containerConcurrency of 0 any pod opens the gate.
    """
    if concurrency == 0:
        return UNLIMITED if backends > 0 else 0
    if trackers:
        return concurrency * trackers
    total = concurrency * backends
    if total == 0 or activators <= 1:
        return total
    return max(1, total // activators)


@dataclass(slots=True)
class Balancer:
    """Which of the pods gets a request; `room(i)` and `outstanding(i)` are asked per pod."""

    concurrency: int
    _next: int = 0

    def pick(
        self,
        pods: int,
        room: Callable[[int], bool],
        outstanding: Callable[[int], int],
        request: int,
    ) -> int:
        """A pod's index, or -1 when none has room (lb_policy.go)."""
        if pods == 0:
            return -1
        if self.concurrency == 0:
            return self._choice_of_two(pods, outstanding, request)
        if self.concurrency <= FIRST_AVAILABLE_UP_TO:
            return next((pod for pod in range(pods) if room(pod)), -1)
        if self._next >= pods:
            self._next = 0
        for step in range(pods):
            pod = (self._next + step) % pods
            if room(pod):
                self._next = pod + 1
                return pod
        return -1

    def _choice_of_two(self, pods: int, outstanding: Callable[[int], int], request: int) -> int:
        """The less loaded of two random pods; the dice are the request's number."""
        if pods == 1:
            return 0
        dice = scrambled(request)
        one, other = 0, 1
        if pods > 2:
            one, other = dice % pods, (dice >> 20) % (pods - 1)
            other += other >= one
        loads = outstanding(one), outstanding(other)
        if loads[0] > loads[1] or (loads[0] == loads[1] and (dice >> 40) & 1):
            return other
        return one


def scrambled(number: int) -> int:
    """64 well mixed bits of a number (splitmix64)."""
    mixed = (number + 0x9E3779B97F4A7C15) & _MASK
    mixed = ((mixed ^ (mixed >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    mixed = ((mixed ^ (mixed >> 27)) * 0x94D049BB133111EB) & _MASK
    return mixed ^ (mixed >> 31)
