"""A saturation sweep: what one predictor gave at each number of concurrent requests.

A JSON file, as `perf/gpu/parity.py --sweep` writes it; README.md says what its members mean.
"""

import json
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError


class UnusableSweepError(ValueError):
    """A file that is no sweep; the message says where and why."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Point(_Strict):
    """One load, closed loop: so many requests are always in flight. Times in seconds."""

    concurrency: int = Field(ge=1)
    tokens_per_s: float = Field(gt=0)
    ttft_p50_s: float | None = Field(default=None, ge=0)
    ttft_p99_s: float | None = Field(default=None, ge=0)
    tpot_p50_s: float | None = Field(default=None, ge=0)
    tpot_p99_s: float | None = Field(default=None, ge=0)
    latency_p50_s: float | None = Field(default=None, ge=0)
    latency_p99_s: float | None = Field(default=None, ge=0)


class Sweep(_Strict):
    """The points in ascending order of concurrency, and the engine's `max_num_seqs` meanwhile."""

    max_num_seqs: int = Field(ge=1)
    points: tuple[Point, ...] = Field(min_length=1)


# What an SLO may be about.
FIGURES = tuple(
    name.removesuffix("_s") for name in Point.model_fields if name.endswith(("p50_s", "p99_s"))
)


def read(path: Path) -> Sweep:
    """The sweep in a file; raises UnusableSweepError."""
    try:
        sweep = Sweep.model_validate(json.loads(path.read_bytes()))
    except OSError as error:
        raise UnusableSweepError(f"{path} cannot be read: {error.strerror}") from None
    except ValidationError as error:
        problem = error.errors()[0]
        where = ".".join(map(str, problem["loc"])) or "the file"
        raise UnusableSweepError(f"{path}: {where}: {problem['msg']}") from None
    except ValueError as error:
        raise UnusableSweepError(f"{path} is not JSON: {error}") from None
    loads = [point.concurrency for point in sweep.points]
    if sorted(set(loads)) != loads:
        raise UnusableSweepError(f"{path}: points must ascend in concurrency, got {loads}")
    return sweep
