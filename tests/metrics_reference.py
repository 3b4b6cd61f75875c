"""The reference page of every Prometheus metric that our processes register."""

import importlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import ModuleType

from prometheus_client.core import Metric
from prometheus_client.metrics import MetricWrapperBase

from keepwarm.warmpool import metrics as warmpool
from openinference.instruments import Counter, Histogram

REPOSITORY = Path(__file__).parents[1]
LIBRARIES = ("prometheus_client", "openinference.instruments")
PROCESSES = {
    "Both servers": "protocol/openinference",
    "Transformer": "transformers/llm_transformer",
    "Predictor": "predictors/vllm_predictor",
    "Warm-pool controller": "autoscaling/keepwarm/warmpool",
}


def page() -> str:
    """All metrics, by the process that has them."""
    tables = "\n\n".join(
        f"## {process}\n\n{_table(sorted(set(_rows(REPOSITORY / folder))))}"
        for process, folder in PROCESSES.items()
    )
    return f"""# Metrics

Made from the registered metrics by `make generate`. Both servers tell them at `/metrics` of their
REST port, beside Python's own `process_*` and `python_*`; the predictor adds vLLM's `vllm:*`. No
label holds a key, a tenant, an address or a request's own words. Dashboards, alerts and what they
query: [manifests/monitoring](../manifests/monitoring/README.md).

{tables}
"""


def _table(rows: Iterable[tuple[str, str, str, str]]) -> str:
    return "\n".join(
        [
            "| metric | type | labels | |",
            "|---|---|---|---|",
            *(
                f"| `{name}` | {kind} | {labels} | {text} |".replace("|  |", "| |")
                for name, kind, labels, text in rows
            ),
        ]
    )


def _rows(folder: Path) -> Iterator[tuple[str, str, str, str]]:
    for module in _modules(folder):
        for value in vars(module).values():
            if isinstance(value, MetricWrapperBase) and not value._labelvalues:
                (described,) = value.describe()
                yield _row(described, value._labelnames)
            if isinstance(value, Counter | Histogram):
                yield from (_row(family, family._labelnames) for family in value.describe())
        if module is warmpool:
            pools = warmpool.Pools(list, leading=lambda: False, waiting=lambda: 0)
            yield from (_row(family, family._labelnames) for family in pools.collect())


def _row(metric: Metric, labels: Iterable[str]) -> tuple[str, str, str, str]:
    # What a scrape calls it.
    name = f"{metric.name}_total" if metric.type == "counter" else metric.name
    return name, metric.type, ", ".join(labels), metric.documentation


def _modules(folder: Path) -> Iterator[ModuleType]:
    """The modules below `folder` that register metrics."""
    for path in sorted(folder.rglob("*.py")):
        text = path.read_text()
        if any(f"from {library} import" in text for library in LIBRARIES):
            parts = path.relative_to(folder).with_suffix("").parts
            package = folder.relative_to(REPOSITORY).parts[1:]
            yield importlib.import_module(".".join((*package, *parts)))
