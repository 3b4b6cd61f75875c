"""Grafana's JSON of the dashboards that panels.py describes."""

from collections.abc import Iterable
from typing import Final

from grafana_foundation_sdk.builders import dashboard, prometheus, timeseries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import DataSourceRef, VariableRefresh

from monitoring.panels import ENGINE, SERVICE, Panel, Row

SOURCE: Final = DataSourceRef(type_val="prometheus", uid="${datasource}")
OURS: Final = 'namespace=~"$namespace",inferenceservice=~"$inferenceservice"'
# Of Grafana's 24 columns: three panels side by side.
WIDTH: Final = 8
HEIGHT: Final = 8


def dashboards() -> dict[str, str]:
    """File names and JSON."""
    return {
        "keepwarm-service.json": _json("keepwarm: service", "keepwarm-service", SERVICE),
        "keepwarm-engine.json": _json(
            "keepwarm: engine, warm pool, GPU", "keepwarm-engine", ENGINE
        ),
    }


def _json(title: str, uid: str, rows: Iterable[Row]) -> str:
    built = (
        dashboard.Dashboard(title)
        .uid(uid)
        .tags(["keepwarm"])
        .time("now-1h", "now")
        .refresh("30s")
        .with_variable(dashboard.DatasourceVariable("datasource").type("prometheus"))
        .with_variable(_variable("namespace", "keepwarm_requests_total", "namespace"))
        .with_variable(
            _variable(
                "inferenceservice",
                'keepwarm_requests_total{namespace=~"$namespace"}',
                "inferenceservice",
            )
        )
    )
    for row in rows:
        built = built.with_row(dashboard.Row(row.title))
        for panel in row.panels:
            built = built.with_panel(_panel(panel))
    return JSONEncoder(sort_keys=True, indent=2).encode(built.build()) + "\n"


def _variable(name: str, series: str, label: str) -> dashboard.QueryVariable:
    return (
        dashboard.QueryVariable(name)
        .query(f"label_values({series}, {label})")
        .datasource(SOURCE)
        .refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)
        .multi(multi=True)
        .include_all(include_all=True)
        .all_value(".*")
    )


def _panel(panel: Panel) -> timeseries.Panel:
    built = (
        timeseries.Panel()
        .title(panel.title)
        .description(panel.tells)
        .unit(panel.unit)
        .datasource(SOURCE)
        .span(WIDTH)
        .height(HEIGHT)
        .fill_opacity(10)
    )
    for number, query in enumerate(panel.queries):
        built = built.with_target(
            prometheus.Dataquery()
            .expr(query.expression.replace("OURS", OURS))
            .legend_format(query.legend)
            .range()
            .ref_id(chr(ord("A") + number))
        )
    return built
