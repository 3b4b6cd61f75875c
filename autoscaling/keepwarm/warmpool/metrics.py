"""What the controller tells Prometheus: how it works, and how each WarmPool stands."""

from collections.abc import Callable, Iterable, Iterator
from datetime import datetime

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

from keepwarm.warmpool.observed import Pool
from keepwarm.warmpool.status import condition

REGISTRY = CollectorRegistry()
ProcessCollector(registry=REGISTRY)

RECONCILES = Counter(
    "keepwarm_warmpool_reconciles_total",
    "Steps taken, by how they ended.",
    ["result"],
    registry=REGISTRY,
)
RECONCILE_SECONDS = Histogram(
    "keepwarm_warmpool_reconcile_seconds",
    "Time of a step, its writes included.",
    buckets=(0.002, 0.01, 0.05, 0.25, 1, 5, 30),
    registry=REGISTRY,
)
REQUESTS = Counter(
    "keepwarm_warmpool_api_requests_total",
    "Requests to the API server, elections excepted, by verb and kind; a list of many is several.",
    ["verb", "kind"],
    registry=REGISTRY,
)
WAKES = Counter(
    "keepwarm_warmpool_http_wakes_total",
    "Wakes asked for over HTTP, by status.",
    ["status"],
    registry=REGISTRY,
)


class Pools(Collector):
    """Gauges made from the statuses at scrape time, so that they never outlive their object."""

    def __init__(
        self,
        pools: Callable[[], Iterable[Pool]],
        *,
        leading: Callable[[], bool],
        waiting: Callable[[], int],
    ) -> None:
        self._pools = pools
        self._leading = leading
        self._waiting = waiting

    def collect(self) -> Iterator[GaugeMetricFamily]:
        yield GaugeMetricFamily(
            "keepwarm_warmpool_leader",
            "Whether this replica leads; the others only watch.",
            value=float(self._leading()),
        )
        yield GaugeMetricFamily(
            "keepwarm_warmpool_queue_length", "WarmPools that wait for a step.", self._waiting()
        )
        names = ["namespace", "name"]
        want, have, lead, cold, following, *states = (
            GaugeMetricFamily(f"keepwarm_warmpool_{name}", text, labels=names)
            for name, text in (
                ("want_replicas", "Replicas that shall be kept now."),
                ("have_replicas", "Replicas that are ready."),
                ("lead_seconds", "How long before a window its replicas are asked for."),
                ("cold_start_seconds", "The latest cold start that was measured."),
                ("next_change_timestamp_seconds", "When other replicas shall be kept."),
                ("ready", "Whether all that shall be kept is ready."),
                ("conflict", "Whether somebody else has set what this object sets."),
            )
        )
        for pool in self._pools():
            labels, status = [pool.key.namespace, pool.key.name], pool.status
            for family, value in (
                (want, status.get("want")),
                (have, status.get("have")),
                (lead, status.get("leadSeconds")),
                (cold, (status.get("coldStartSeconds") or [None])[-1]),
                (following, _timestamp((status.get("nextChange") or {}).get("at"))),
            ):
                if value is not None:
                    family.add_metric(labels, value)
            for family, kind in zip(states, ("Ready", "Conflict"), strict=True):
                family.add_metric(labels, condition(status, kind).get("status") == "True")
        yield from (want, have, lead, cold, following, *states)


def _timestamp(text: str | None) -> float | None:
    return datetime.fromisoformat(text).timestamp() if text else None
