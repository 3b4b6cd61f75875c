"""Recordings of Knative's own autoscaler: read from JSON, plain or gzipped.

Two kinds of file: one closed-loop trace, or a list of open-loop ones (`decider_fuzz.json`). Times
in them are integer milliseconds.
"""

import gzip
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from keepwarm.kpa import golang
from keepwarm.kpa.annotations import resolve_unchecked
from keepwarm.kpa.config import AutoscalerConfig, parse_config
from keepwarm.kpa.errors import InputError
from keepwarm.kpa.golang import NANOSECONDS
from keepwarm.kpa.model import Policy

Row = list[Any]
SUFFIXES = (".json", ".json.gz")
COLUMNS = ("route", "stats", "ticks", "recon", "pods")


@dataclass(frozen=True, slots=True)
class ClosedLoop:
    """One closed-loop trace: what went in, and what Knative did."""

    name: str
    input: dict[str, Any]
    route: str
    stats: list[Row]
    ticks: list[Row]
    recon: list[Row]
    pods: list[Row]

    @property
    def config(self) -> AutoscalerConfig:
        """The cluster's settings."""
        return parse_config(self.input["config_autoscaler"] or {})

    def policy(self, annotations: dict[str, str], reachability: str) -> Policy:
        """The policy under these annotations, which no webhook has seen."""
        deadline = golang.parse_duration(self.input["progress_deadline"]) / NANOSECONDS
        return resolve_unchecked(
            annotations,
            self.config,
            container_concurrency=self.input["container_concurrency"],
            reachability=reachability,
            progress_deadline_s=deadline,
        )


@dataclass(frozen=True, slots=True)
class OpenLoop:
    """One open-loop trace: given reports and ready pods, the decider's answers."""

    name: str
    input: dict[str, Any]
    ticks: list[Row]


def load(path: Path) -> Any:
    """A file's JSON. Raises InputError."""
    try:
        raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        return json.loads(raw)
    except (OSError, EOFError, ValueError) as error:
        raise InputError(f"{path.name} cannot be read as JSON: {error}") from None


def parse(name: str, content: Any) -> list[ClosedLoop | OpenLoop]:
    """The traces in a file's content; none when it holds something else."""
    if isinstance(content, dict) and {"input", *COLUMNS} <= content.keys():
        columns = (content[key] for key in COLUMNS)
        return [ClosedLoop(content["input"].get("name", name), content["input"], *columns)]
    items = content if isinstance(content, list) else [content]
    if not all(
        isinstance(item, dict) and "ticks" in item and "ops" in item.get("input", ())
        for item in items
    ):
        return []
    return [OpenLoop(item.get("name", name), item["input"], item["ticks"]) for item in items]
