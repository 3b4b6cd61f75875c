"""Counters and histograms of what every request and every token adds to: counted without a lock.

prometheus_client's own take a lock and five calls each time, which a request with everything on
does ten times: a fortieth of its CPU time. These are written by one thread, which is the event
loop's, and read when they are scraped; they look the same there. What is rare, or counted by
several threads, stays with the library.
"""

import time
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from typing import Final

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


class Counter(Collector):
    """A counter for each combination of labels; without labels, one."""

    def __init__(
        self,
        name: str,
        documentation: str,
        labelnames: Sequence[str] = (),
        *,
        registry: CollectorRegistry = REGISTRY,
    ) -> None:
        """`name` is without `_total`, which a scrape adds."""
        self._name, self._documentation, self._labels = name, documentation, tuple(labelnames)
        self._counts: dict[tuple[str, ...], Count] = {}
        if not self._labels:
            self._only = self.labels()
        registry.register(self)

    def labels(self, *values: str) -> Count:
        """The counter with these labels, which is worth keeping."""
        count = self._counts.get(values)
        if count is None:
            _check(self._labels, values)
            count = self._counts[values] = Count()
        return count

    def inc(self, amount: float = 1) -> None:
        """Adds to the only one; for a counter without labels."""
        self._only.value += amount

    def describe(self) -> Iterator[CounterMetricFamily]:
        """Without samples: name, type and labels."""
        yield CounterMetricFamily(self._name, self._documentation, labels=self._labels)

    def collect(self) -> Iterator[CounterMetricFamily]:
        """With a sample for each combination of labels that was asked for."""
        (family,) = self.describe()
        for values, count in list(self._counts.items()):
            family.add_metric(values, count.value, created=count.created)
        yield family


class Histogram(Collector):
    """A histogram for each combination of labels; without labels, one."""

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
        self._name, self._documentation, self._labels = name, documentation, tuple(labelnames)
        self._bounds = tuple(map(float, buckets))
        self._spreads: dict[tuple[str, ...], Spread] = {}
        if not self._labels:
            self._only = self.labels()
        registry.register(self)

    def labels(self, *values: str) -> Spread:
        """The histogram with these labels, which is worth keeping."""
        spread = self._spreads.get(values)
        if spread is None:
            _check(self._labels, values)
            spread = self._spreads[values] = Spread(self._bounds)
        return spread

    def observe(self, value: float) -> None:
        """Adds to the only one; for a histogram without labels."""
        self._only.observe(value)

    def describe(self) -> Iterator[HistogramMetricFamily]:
        """Without samples: name, type and labels."""
        yield HistogramMetricFamily(self._name, self._documentation, labels=self._labels)

    def collect(self) -> Iterator[HistogramMetricFamily]:
        """With the samples for each combination of labels that was asked for."""
        (family,) = self.describe()
        for values, spread in list(self._spreads.items()):
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


def _check(names: Sequence[str], values: Sequence[str]) -> None:
    if len(names) != len(values) or not all(isinstance(value, str) for value in values):
        raise ValueError(f"labels {names} need as many texts, got {values}")
