"""Prometheus metrics of both servers: requests by endpoint and status, in flight, seconds."""

import time
from collections import defaultdict
from types import TracebackType
from typing import ClassVar, Self
from weakref import WeakSet

from prometheus_client import Gauge

from openinference.instruments import Count, Counter, Histogram

REQUESTS = Counter(
    "keepwarm_requests", "Answered requests by endpoint and status.", ["endpoint", "status"]
)
IN_FLIGHT = Gauge("keepwarm_requests_in_flight", "Requests being answered.", ["endpoint"])
SECONDS = Histogram(
    "keepwarm_request_seconds",
    "Seconds from the request's arrival to the end of its answer.",
    ["endpoint"],
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300),
)


class Endpoint:
    """The metrics of one endpoint; `track()` is entered once for each request."""

    # By name, which several may have: the gauge counts when it is read.
    _all: ClassVar[defaultdict[str, WeakSet["Endpoint"]]] = defaultdict(WeakSet)

    def __init__(self, name: str) -> None:
        self._name = name
        self.in_flight = 0
        namesakes = self._all[name]
        namesakes.add(self)
        IN_FLIGHT.labels(name).set_function(lambda: sum(each.in_flight for each in namesakes))
        self._seconds = SECONDS.labels(name)
        self._by_status: dict[str, Count] = {}

    def track(self) -> "Tracked":
        """A context manager for one request; set its `status` before it ends."""
        return Tracked(self)

    def answered(self, status: str, seconds: float) -> None:
        """Counts a request that was answered with this status."""
        self._seconds.observe(seconds)
        counter = self._by_status.get(status)
        if counter is None:
            counter = self._by_status[status] = REQUESTS.labels(self._name, status)
        counter.inc()


class Tracked:
    """One request; a request that ends without a status was left by its caller."""

    __slots__ = ("_endpoint", "_start", "status")

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self.status = "cancelled"

    def __enter__(self) -> Self:
        self._start = time.perf_counter()
        self._endpoint.in_flight += 1
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._endpoint.in_flight -= 1
        self._endpoint.answered(self.status, time.perf_counter() - self._start)
