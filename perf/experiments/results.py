"""What an experiment found, as it is kept: one JSON file each, which the report is made from."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cost import Cost
from figures import Figures
from pydantic import TypeAdapter, ValidationError

from keepwarm.engine.sweep import Sweep


@dataclass(frozen=True)
class Row:
    """The figures of a load, what it cost, and which part of the experiment it belongs to."""

    part: str
    rate: float  # asked for, requests a second
    figures: Figures
    cost: Cost


@dataclass(frozen=True)
class Batches:
    """A saturation sweep of an engine, what was advised from it and what that gave."""

    engine: str
    sweep: Sweep
    slo: str
    advice: str
    proof: Sweep | None


@dataclass(frozen=True)
class Second:
    """One second of a burst: requests a second, pods, the worst time of those that were served."""

    at_s: float
    offered: float
    served: float
    refused: float
    failed: float
    p50_ms: float | None
    pods: int
    ready: int


@dataclass(frozen=True)
class Burst:
    """A burst on a cluster, second by second; `part` is where it began."""

    part: str
    facts: dict[str, str]
    seconds: tuple[Second, ...]
    figures: Figures
    cost: Cost


@dataclass(frozen=True)
class Result:
    """One run of one experiment. `engine` is said wherever its figures are shown."""

    name: str
    title: str
    question: str
    engine: str
    environment: dict[str, str]
    rows: tuple[Row, ...] = ()
    batches: tuple[Batches, ...] = ()
    bursts: tuple[Burst, ...] = ()
    notes: tuple[str, ...] = ()

    def write(self, folder: Path) -> Path:
        """Writes `folder/NAME.json`; returns its path."""
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{self.name}.json"
        path.write_bytes(_RESULT.dump_json(self, indent=2) + b"\n")
        return path


_RESULT = TypeAdapter(Result)


def read(path: Path) -> Result:
    """The result in a file; raises ValueError when it holds none."""
    try:
        return _RESULT.validate_json(path.read_bytes())
    except ValidationError as error:
        raise ValueError(f"{path} holds no result of an experiment: {error}") from None


def read_all(folder: Path, names: Sequence[str]) -> list[Result]:
    """Those of `names` that the folder holds, in that order."""
    paths = [folder / f"{name}.json" for name in names]
    return [read(path) for path in paths if path.exists()]
