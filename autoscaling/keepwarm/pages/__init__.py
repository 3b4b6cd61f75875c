"""The HTML pages: Jinja templates beside this file, everything inline, nothing fetched."""

from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup


def render(template: str, **values: Any) -> str:
    """The page. Text is escaped; `<svg>` pictures from `charts.svg` are not."""
    environment = Environment(
        loader=PackageLoader("keepwarm", "pages"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    safe = {
        name: Markup(value) if isinstance(value, str) and value.startswith("<svg ") else value  # noqa: S704 - our own plots
        for name, value in values.items()
    }
    return environment.get_template(template).render(**safe)
