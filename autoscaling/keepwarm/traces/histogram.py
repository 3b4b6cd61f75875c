"""Measured times, cold starts or service times, as a distribution to quote and to draw from.

From a Prometheus histogram (a scrape's text, or a query's JSON with `le` labels), from a file of
seconds, one a line, or from quantiles someone measured (`p50=38s,p95=61s`). Never from one guess.
"""

import math
import re
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np
import orjson

from keepwarm.traces.errors import TraceError
from keepwarm.traces.trace import Floats

QUANTILE = re.compile(r"^p(\d{1,2}(?:\.\d+)?)=(.+)$")
DURATION = re.compile(r"^(\d+(?:\.\d+)?)(ms|s|m|h|d)?$")
UNITS = {"ms": 0.001, "s": 1.0, None: 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
SAMPLE = re.compile(r"^(?P<name>[A-Za-z_:][\w:]*)_bucket\{(?P<labels>.*)\}\s+(?P<value>\S+)")
LE = re.compile(r'(?:^|,)\s*le="([^"]+)"')


@dataclass(frozen=True, eq=False)
class Distribution:
    """Quantiles of measured seconds: `seconds` [k] at `probability` [k], both rising, 0 to 1."""

    source: str
    seconds: Floats
    probability: Floats
    count: int

    def quantile(self, p: float) -> float:
        """Seconds at probability p, linear between what was measured."""
        return float(np.interp(p, self.probability, self.seconds))

    def draw(self, number: int, seed: int) -> tuple[float, ...]:
        """`number` times that have this distribution exactly (stratified), shuffled by seed."""
        points = (np.arange(number) + 0.5) / number
        np.random.default_rng(seed).shuffle(points)
        return tuple(float(s) for s in np.interp(points, self.probability, self.seconds))

    def scaled(self, factor: float) -> "Distribution":
        return Distribution(self.source, self.seconds * factor, self.probability, self.count)

    def __str__(self) -> str:
        told = f" of {self.count:,} measured" if self.count else ""
        return f"p50 {self.quantile(0.5):.3g} s, p95 {self.quantile(0.95):.3g} s{told}"


def read(text: str) -> Distribution:
    """What `--cold-start` and `--service-time` take.

    FILE (seconds, one a line), FILE#METRIC (a scrape or a query's JSON), or quantiles. Raises
    TraceError saying what is allowed.
    """
    path, _, metric = text.partition("#")
    if Path(path).is_file():
        body = Path(path).read_bytes()
        if body.lstrip().startswith(b"{"):
            return from_query(body, path)
        return from_scrape(body.decode(), metric, path) if metric else from_times(body, path)
    if "=" in text:
        return from_quantiles(text)
    raise TraceError(
        text,
        "it is no file and no quantiles. Give measured times: a file with seconds one a line,"
        " FILE#METRIC for a Prometheus histogram, or quantiles such as p50=38s,p95=61s.",
    )


def from_times(body: bytes, source: str) -> Distribution:
    """Seconds, one a line. Raises TraceError with the line."""
    times: list[float] = []
    for number, line in enumerate(body.decode().splitlines(), 1):
        if not line.strip():
            continue
        try:
            value = float(line)
        except ValueError:
            value = math.nan
        if not (math.isfinite(value) and value >= 0):
            raise TraceError(
                source, f"{line!r} is not a time in seconds, 0 or more.", place=f"line {number}"
            )
        times.append(value)
    if not times:
        raise TraceError(source, "there is no time in it.")
    if len(times) == 1:
        times *= 2
        count = 1
    else:
        count = len(times)
    return Distribution(source, np.sort(times), np.linspace(0, 1, len(times)), count)


def from_scrape(text: str, metric: str, source: str) -> Distribution:
    """A histogram of a `/metrics` page, all its label sets together."""
    counts: dict[float, float] = {}
    for number, line in enumerate(text.splitlines(), 1):
        sample = SAMPLE.match(line)
        if not sample or sample["name"] != metric.removesuffix("_bucket"):
            continue
        bound = LE.search(sample["labels"])
        if bound is None:
            raise TraceError(source, "the bucket has no le label.", place=f"line {number}")
        counts[float(bound[1])] = counts.get(float(bound[1]), 0.0) + float(sample["value"])
    if not counts:
        raise TraceError(source, f"there is no histogram {metric} in it.")
    return from_buckets(counts, f"{source}#{metric}")


def from_query(body: bytes, source: str) -> Distribution:
    """An instant query's JSON: `sum by (le) (increase(NAME_bucket[4w]))`."""
    try:
        answer = orjson.loads(body)
        result: list[dict[str, Any]] = answer["data"]["result"]
        counts: dict[float, float] = {}
        for series in result:
            bound = float(series["metric"]["le"])
            counts[bound] = counts.get(bound, 0.0) + float(series["value"][1])
    except (orjson.JSONDecodeError, KeyError, TypeError, ValueError) as error:
        raise TraceError(
            source, f"it is not an instant query's answer with le labels ({error!r})."
        ) from None
    return from_buckets(counts, source)


def from_buckets(counts: dict[float, float], source: str) -> Distribution:
    """Cumulative counts by upper bound, +Inf included.

    Inside a bucket times count as evenly spread, as histogram_quantile does. Raises TraceError
    when counts fall, nothing was counted, or over 5 % lie above the last finite bound: their
    length is unknown, and they are the ones that matter.
    """
    bounds = sorted(counts)
    cumulative = [counts[bound] for bound in bounds]
    for (low, high), bound in zip(pairwise(cumulative), bounds[1:], strict=True):
        if high < low - 1e-9:
            raise TraceError(source, f"the count falls at le={bound:g}: it is not cumulative.")
    total = cumulative[-1] if cumulative else 0.0
    finite = [bound for bound in bounds if math.isfinite(bound)]
    if total <= 0 or not finite:
        raise TraceError(source, "the histogram has counted nothing.")
    beyond = 1 - counts[finite[-1]] / total
    if beyond > 0.05:
        raise TraceError(
            source,
            f"{beyond:.0%} of the times are above the last bucket, {finite[-1]:g} s: their length"
            " is unknown. Give the histogram higher buckets.",
        )
    seconds, probability = [0.0], [0.0]
    for bound in finite:
        seconds.append(bound)
        probability.append(counts[bound] / total)
    first = next(i for i, p in enumerate(probability) if p > 0)
    seconds, probability = seconds[first - 1 :], probability[first - 1 :]
    probability[-1] = 1.0
    return Distribution(source, np.asarray(seconds), np.asarray(probability), round(total))


def from_quantiles(text: str) -> Distribution:
    """`p50=38s,p95=61s`: lognormal through them. One quantile gives a constant."""
    points: list[tuple[float, float]] = []
    for part in text.split(","):
        found = QUANTILE.match(part.strip())
        if found is None:
            raise TraceError(text, f"{part!r} is not a quantile such as p95=61s.")
        p = float(found[1]) / 100
        if not 0 < p < 1:
            raise TraceError(text, f"p{found[1]} is not between p0 and p100.")
        points.append((p, duration_s(found[2])))
    points.sort()
    if any(b[1] < a[1] for a, b in pairwise(points)) or points[0][1] <= 0:
        raise TraceError(text, "the times must be above 0 and rise with the quantile.")
    if len({p for p, _ in points}) != len(points):
        raise TraceError(text, "a quantile is given twice.")
    normal = NormalDist()
    z = np.asarray([normal.inv_cdf(p) for p, _ in points])
    log = np.log([seconds for _, seconds in points])
    slope, middle = np.polyfit(z, log, 1) if len(points) > 1 else (0.0, log[0])
    grid = np.linspace(0.005, 0.995, 199)
    seconds = np.exp(middle + slope * np.asarray([normal.inv_cdf(float(p)) for p in grid]))
    probability = (grid - grid[0]) / (grid[-1] - grid[0])
    return Distribution(text, seconds, probability, 0)


def duration_s(text: str) -> float:
    """`250ms`, `38s`, `2m`, `1h` or plain seconds. Raises TraceError."""
    found = DURATION.match(text.strip())
    if found is None:
        raise TraceError(text, "it is not a duration such as 250ms, 38s, 2m, 1h or 3d.")
    return float(found[1]) * UNITS[found[2]]
