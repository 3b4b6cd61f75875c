"""Our counters and histograms beside prometheus_client's own: a scrape sees no difference."""

import prometheus_client
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.openmetrics import exposition as openmetrics

from openinference import instruments

BOUNDS = (0.01, 0.5, 1, 2.5, 60)
LABELS = st.tuples(st.sampled_from(["infer", 'a "b"\n\\']), st.sampled_from(["200", ""]))
AMOUNTS = st.one_of(st.integers(0, 1000), st.floats(0, 1e6))
VALUES = st.one_of(st.sampled_from(BOUNDS), st.floats(0, 100))


def _both(kind, *labels, **options):
    """A metric of ours and one of the library's, each in a registry of its own."""
    pairs = []
    for module in (instruments, prometheus_client):
        registry = CollectorRegistry()
        metric = getattr(module, kind)(
            "kw_test", "Some help.", list(labels), registry=registry, **options
        )
        pairs.append((registry, metric))
    return pairs


def _scraped(registry, render):
    """What a scrape says, but for the times of making."""
    lines = render(registry).decode().splitlines()
    created = sum("kw_test_created" in line and not line.startswith("#") for line in lines)
    return created, [line for line in lines if "_created{" not in line and "_created " not in line]


def _same(pairs):
    for render in (generate_latest, openmetrics.generate_latest):
        ours, theirs = (_scraped(registry, render) for registry, _ in pairs)
        assert ours == theirs


@given(st.lists(st.tuples(LABELS, AMOUNTS)))
def test_counters_are_scraped_alike(events):
    pairs = _both("Counter", "endpoint", "status")
    for _, metric in pairs:
        for labels, amount in events:
            metric.labels(*labels).inc(amount)
    _same(pairs)


@given(st.lists(st.tuples(LABELS, VALUES)))
def test_histograms_are_scraped_alike(events):
    pairs = _both("Histogram", "endpoint", "status", buckets=BOUNDS)
    for _, metric in pairs:
        for labels, value in events:
            metric.labels(*labels).observe(value)
    _same(pairs)


def test_without_labels_there_is_one_from_the_start():
    for kind, options in (("Counter", {}), ("Histogram", {"buckets": BOUNDS})):
        pairs = _both(kind, **options)
        _same(pairs)
        for _, metric in pairs:
            metric.inc() if kind == "Counter" else metric.observe(0.7)
        _same(pairs)


def test_one_set_of_labels_is_one_counter():
    counter = instruments.Counter("kw_test", "", ["status"], registry=CollectorRegistry())
    counter.labels("200").inc()
    counter.labels("200").inc(2)
    assert counter.labels("200").value == 3


@pytest.mark.parametrize("values", [(), ("a", "b"), (200,)])
def test_other_labels_than_the_metrics_own_are_refused(values):
    counter = instruments.Counter("kw_test", "", ["status"], registry=CollectorRegistry())
    with pytest.raises(ValueError, match="status"):
        counter.labels(*values)


def test_a_name_is_taken_once():
    registry = CollectorRegistry()
    instruments.Counter("kw_test", "", registry=registry)
    with pytest.raises(ValueError, match="kw_test"):
        instruments.Histogram("kw_test", "", buckets=BOUNDS, registry=registry)
