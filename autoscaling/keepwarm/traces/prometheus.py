"""Prometheus range queries: counts per step become requests, spread over each step.

The query must give one series, the requests of each step: `sum(increase(requests_total[15s]))`
with a step of 15 s. Below the step nothing is known; inside it arrivals are drawn evenly at random
(order statistics of a Poisson process), by seed. A hole in the series is not silence: it is told.
"""

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import httpx
import numpy as np
import orjson

from keepwarm.traces.errors import TraceError
from keepwarm.traces.trace import Floats, Ints, Trace

TOKEN_ENV = "KEEPWARM_PROMETHEUS_TOKEN"  # noqa: S105 - the variable's name, not a token
# Prometheus refuses more than 11,000 points a series in one answer (web/api/v1/api.go).
MOST_POINTS = 11_000
COARSE_STEP_S = 60.0


@dataclass(frozen=True, eq=False)
class Series:
    """One series: m samples, `step_s` apart. `t_s` is seconds since 1970."""

    source: str
    t_s: Floats
    value: Floats
    step_s: float


def parse(body: bytes, source: str, *, step_s: float | None = None) -> Series:
    """The only series of a range query's JSON answer.

    `step_s` is the query's step; without it the closest two samples tell it. Raises TraceError
    when the answer is an error, holds no or several series, or a sample cannot be used.
    """
    result = _result(body, source, "matrix")
    if len(result) != 1:
        raise TraceError(
            source,
            "the query gave no series; check its labels and the time range."
            if not result
            else f"the query gave {len(result)} series, first {result[0].get('metric')} and"
            f" {result[1].get('metric')}; it must give one: put sum(...) around it.",
        )
    t, value = _samples(result[0].get("values", []), source)
    return Series(source, t, value, _step(t, source, step_s))


def requests(
    series: Series,
    *,
    seed: int = 0,
    fill_gaps: bool = False,
    input_tokens: Series | None = None,
    output_tokens: Series | None = None,
) -> Trace:
    """The trace of a series of counts per step, each sample counting the step that ends at it.

    The token series hold tokens per step, on the same samples; each request of a step gets the
    step's mean. Raises TraceError for a hole (`fill_gaps` counts it as silence) or no request.
    """
    filled, holes = _gaps(series, fill=fill_gaps)
    counts = _whole(filled.value)
    if not counts.sum():
        raise TraceError(series.source, "every sample is 0: there is no request in it.")
    zero = float(filled.t_s[0]) - series.step_s
    generator = np.random.default_rng(seed)
    begin = np.repeat(filled.t_s - series.step_s - zero, counts)
    arrival = np.sort(begin + generator.random(len(begin)) * series.step_s)
    step = np.repeat(np.arange(len(counts)), counts)
    warnings = [f"{holes:,} missing samples count as silence."] if holes else []
    if series.step_s > COARSE_STEP_S:
        warnings.append(
            f"the step is {series.step_s:g} s: bursts and gaps shorter than that are not in the"
            " data, and windows below it cannot be told apart. Query with a step of 15 s or less."
        )
    return Trace(
        source=series.source,
        arrival_s=arrival,
        input_tokens=_per_request(input_tokens, filled, counts)[step],
        output_tokens=_per_request(output_tokens, filled, counts)[step],
        duration_s=float(filled.t_s[-1]) - zero,
        start=datetime.fromtimestamp(zero, tz=UTC),
        warnings=tuple(warnings),
    )


def fetch(url: str, query: str, *, start_s: float, end_s: float, step_s: float) -> Series:
    """The series of a range query, asked for in pieces that Prometheus allows.

    A bearer token is taken from the environment (KEEPWARM_PROMETHEUS_TOKEN). Raises TraceError
    when Prometheus cannot be reached, refuses the query, or what `parse` refuses.
    """
    token = os.environ.get(TOKEN_ENV)
    headers = {"authorization": f"Bearer {token}"} if token else {}
    times: list[Floats] = []
    values: list[Floats] = []
    with httpx.Client(base_url=url.rstrip("/") + "/", headers=headers, timeout=60) as client:
        at = start_s
        while at <= end_s:
            last = min(end_s, at + (MOST_POINTS - 1) * step_s)
            form = {"query": query, "start": f"{at:.3f}", "end": f"{last:.3f}", "step": f"{step_s}"}
            body = _post(client, form, url)
            if _result(body, url, "matrix") or (at == start_s and last >= end_s):
                piece = parse(body, f"{url} {query}", step_s=step_s)
                times.append(piece.t_s)
                values.append(piece.value)
            at = last + step_s
    if not times:
        raise TraceError(url, f"{query} gave no series; check its labels and the time range.")
    return Series(f"{url} {query}", np.concatenate(times), np.concatenate(values), step_s)


def _post(client: httpx.Client, form: Mapping[str, str], url: str) -> bytes:
    try:
        answer = client.post("api/v1/query_range", data=dict(form))
    except httpx.HTTPError as error:
        raise TraceError(url, f"Prometheus cannot be reached: {error}.") from None
    if answer.status_code in {401, 403}:
        raise TraceError(url, f"status {answer.status_code}: set {TOKEN_ENV} to a bearer token.")
    return answer.content


def _result(body: bytes, source: str, kind: str) -> list[dict[str, Any]]:
    try:
        answer = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise TraceError(source, f"it is not Prometheus' JSON ({error}).") from None
    if not isinstance(answer, dict) or answer.get("status") != "success":
        told = answer.get("error", "no status") if isinstance(answer, dict) else "not an object"
        raise TraceError(source, f"Prometheus answers with an error: {told}.")
    data = answer.get("data", {})
    if data.get("resultType") != kind:
        raise TraceError(
            source, f"its resultType is {data.get('resultType')!r}; a range query gives {kind!r}."
        )
    result: list[dict[str, Any]] = data["result"]
    return result


def _samples(rows: list[Any], source: str) -> tuple[Floats, Floats]:
    times: list[float] = []
    values: list[float] = []
    for number, row in enumerate(rows, 1):
        try:
            t, value = float(row[0]), float(row[1])
        except (TypeError, ValueError, IndexError):
            raise TraceError(
                source, f"it is {row!r}, not [time, value].", place=f"sample {number}"
            ) from None
        place = f"sample {number} ({_clock(t)})"
        if not math.isfinite(value) or value < 0:
            raise TraceError(source, f"its value is {value}; it must be 0 or more.", place=place)
        if times and t <= times[-1]:
            raise TraceError(source, "its time is not after the one before.", place=place)
        times.append(t)
        values.append(value)
    if not times:
        raise TraceError(source, "the series has no samples.")
    return np.asarray(times), np.asarray(values)


def _step(t: Floats, source: str, told: float | None) -> float:
    if told is not None:
        return told
    if len(t) < 2:
        raise TraceError(source, "one sample does not tell the step; query a longer range.")
    return float(np.diff(t).min())


def _gaps(series: Series, *, fill: bool) -> tuple[Series, int]:
    """The series on its full grid, missing samples as zeros, and how many there were."""
    index = np.round((series.t_s - series.t_s[0]) / series.step_s).astype(np.int64)
    off = np.abs(series.t_s - series.t_s[0] - index * series.step_s) > series.step_s * 0.01
    if off.any():
        row = int(np.argmax(off))
        raise TraceError(
            series.source,
            f"it is not on the grid of {series.step_s:g} s that the others are on.",
            place=f"sample {row + 1} ({_clock(series.t_s[row])})",
        )
    jumps = np.flatnonzero(np.diff(index) > 1)
    if jumps.size and not fill:
        row = int(jumps[0])
        total = int((np.diff(index) - 1).sum())
        raise TraceError(
            series.source,
            f"{index[row + 1] - index[row] - 1:,} samples are missing up to"
            f" {_clock(series.t_s[row + 1])} ({total:,} in all): was nothing asked, or nothing"
            " recorded? --fill-gaps counts them as silence; --from and --to cut them off.",
            place=f"after sample {row + 1} ({_clock(series.t_s[row])})",
        )
    size = int(index[-1]) + 1
    value = np.zeros(size)
    value[index] = series.value
    t = series.t_s[0] + np.arange(size) * series.step_s
    return Series(series.source, t, value, series.step_s), size - len(index)


def _whole(value: Floats) -> Ints:
    """Whole requests per step with the same running total: increase() extrapolates to fractions."""
    # The tolerance keeps 0.1 + 0.2 + ... from losing a request to rounding.
    running: Ints = np.floor(np.cumsum(value) + 1e-6).astype(np.int64)
    return np.diff(running, prepend=np.int64(0))


def _per_request(tokens: Series | None, counted: Series, counts: Ints) -> Ints:
    """Mean tokens of a request in each step; the whole range's mean where a step holds none."""
    if tokens is None:
        return np.zeros(len(counts), dtype=np.int64)
    aligned = np.interp(counted.t_s, tokens.t_s, tokens.value, left=0.0, right=0.0)
    mean = aligned.sum() / max(1, counts.sum())
    each = np.where((counts > 0) & (aligned > 0), aligned / np.maximum(counts, 1), mean)
    return np.asarray(np.rint(each), dtype=np.int64)


def _clock(t: float) -> str:
    return datetime.fromtimestamp(float(t), tz=UTC).strftime("%Y-%m-%d %H:%M:%SZ")
