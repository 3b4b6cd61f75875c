"""The HTML pages: Jinja templates beside this file, everything inline, nothing fetched."""

from pathlib import Path
from typing import Any

from jinja2 import ChoiceLoader, Environment, FileSystemLoader, PackageLoader, StrictUndefined
from markupsafe import Markup


def render(template: str, *, folder: Path | None = None, **values: Any) -> str:
    """The page. Text is escaped; `<svg>` pictures from `charts.svg` are not.

    `folder` holds templates of somebody else's, which extend those here.
    """
    loader = ChoiceLoader(
        [
            PackageLoader("keepwarm", "pages"),
            *([] if folder is None else [FileSystemLoader(folder)]),
        ]
    )
    environment = Environment(
        loader=loader,
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
