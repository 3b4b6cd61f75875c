"""Counters and histograms of what every request and every token adds to: counted without a lock.

prometheus_client's own take a lock and five calls each time, which a request with everything on
does ten times: a fortieth of its CPU time. These are written by one thread, which is the event
loop's, and read when they are scraped; they look the same there. What is rare, or counted by
several threads, stays with the library.
"""

import time
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Final, Generic, TypeVar

from prometheus_client import REGISTRY, CollectorRegistry
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString


class Count:
    """One counter: what `Counter.labels` gives."""

    __slots__ = ("created", "value")

    def __init__(self) -> None:
        self.created: Final = time.time()
        self.value = 0.0

    def inc(self, amount: float = 1) -> None:
        """Adds `amount`, which must not be negative."""
        self.value += amount


class Spread:
    """One histogram: what `Histogram.labels` gives."""

    __slots__ = ("_bounds", "counts", "created", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.created: Final = time.time()
        self._bounds = bounds
        # By bucket, the last one without a bound; not cumulative.
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, value: float) -> None:
        """Adds one observation, of 0 or more."""
        self.counts[bisect_left(self._bounds, value)] += 1
        self.total += value


_Child = TypeVar("_Child")


class _Labelled(Collector, Generic[_Child]):
    """One child for each combination of labels; without labels, one from the start."""

    def __init__(
        self,
        name: str,
        documentation: str,
        labelnames: Sequence[str],
        make: Callable[[], _Child],
        registry: CollectorRegistry,
    ) -> None:
        self._name, self._documentation, self._labels = name, documentation, tuple(labelnames)
        self._make = make
        self._children: dict[tuple[str, ...], _Child] = {}
        if not self._labels:
            self._only = self.labels()
        registry.register(self)

    def labels(self, *values: str) -> _Child:
        """What these labels count, which is worth keeping; raises ValueError for other labels."""
        child = self._children.get(values)
        if child is None:
            if len(values) != len(self._labels) or not all(isinstance(v, str) for v in values):
                raise ValueError(f"labels {self._labels} need as many texts, got {values}")
            child = self._children[values] = self._make()
        return child


class Counter(_Labelled[Count]):
    """A counter for each combination of labels."""

    def __init__(
        self,
        name: str,
        documentation: str,
        labelnames: Sequence[str] = (),
        *,
        registry: CollectorRegistry = REGISTRY,
    ) -> None:
        """`name` is without `_total`, which a scrape adds."""
        super().__init__(name, documentation, labelnames, Count, registry)

    def inc(self, amount: float = 1) -> None:
        """Adds to the only one; for a counter without labels."""
        self._only.value += amount

    def describe(self) -> Iterator[CounterMetricFamily]:
        """Without samples: name, type and labels."""
        yield CounterMetricFamily(self._name, self._documentation, labels=self._labels)

    def collect(self) -> Iterator[CounterMetricFamily]:
        """With a sample for each combination of labels that was asked for."""
        (family,) = self.describe()
        for values, count in list(self._children.items()):
            family.add_metric(values, count.value, created=count.created)
        yield family


class Histogram(_Labelled[Spread]):
    """A histogram for each combination of labels."""

    def __init__(
        self,
        name: str,
        documentation: str,
        labelnames: Sequence[str] = (),
        *,
        buckets: Sequence[float],
        registry: CollectorRegistry = REGISTRY,
    ) -> None:
        """`buckets` are the upper bounds in rising order, without the infinite one."""
        self._bounds = tuple(map(float, buckets))
        super().__init__(name, documentation, labelnames, partial(Spread, self._bounds), registry)

    def observe(self, value: float) -> None:
        """Adds to the only one; for a histogram without labels."""
        self._only.observe(value)

    def describe(self) -> Iterator[HistogramMetricFamily]:
        """Without samples: name, type and labels."""
        yield HistogramMetricFamily(self._name, self._documentation, labels=self._labels)

    def collect(self) -> Iterator[HistogramMetricFamily]:
        """With the samples for each combination of labels that was asked for."""
        (family,) = self.describe()
        for values, spread in list(self._children.items()):
            so_far, buckets = 0, []
            for bound, count in zip((*self._bounds, float("inf")), spread.counts, strict=True):
                so_far += count
                buckets.append((_text(bound), so_far))
            family.add_metric(values, buckets, spread.total)
            said = dict(zip(self._labels, values, strict=True))
            family.add_sample(f"{self._name}_created", said, spread.created)
        yield family


def _text(bound: float) -> str:
    """A bound as the library says it in `le`."""
    text: str = floatToGoString(bound)  # type: ignore[no-untyped-call]
    return text
