"""A latency model of the engine, fitted from a perf run: prefill, and decode against batch.

    first token  =  prefill_s + prefill_s_per_token * input
    each further token  =  (step_s + step_s_per_request * others in the engine)

The twin takes it as a time alone and one slow-down per further request (`kpa.Pods.slowdown`). The
fit is judged on requests that it did not see.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import orjson

from keepwarm.traces.errors import TraceError
from keepwarm.traces.trace import Floats, Trace

LEAST_REQUESTS = 40
FIELDS = ("timestamp", "input_length", "output_length", "ttft_ms", "duration_ms")


@dataclass(frozen=True, eq=False)
class PerfRun:
    """A load test's requests, n of them in order of arrival; seconds."""

    source: str
    arrival_s: Floats
    input_tokens: Floats
    output_tokens: Floats
    ttft_s: Floats
    duration_s: Floats

    def take(self, rows: "np.ndarray[tuple[int], np.dtype[np.bool_]]") -> "PerfRun":
        return PerfRun(
            self.source,
            self.arrival_s[rows],
            self.input_tokens[rows],
            self.output_tokens[rows],
            self.ttft_s[rows],
            self.duration_s[rows],
        )


@dataclass(frozen=True)
class LatencyModel:
    """Seconds; see the module. `error` is the median of |predicted - measured| / measured.

    What lies beyond `most_at_once` was not measured.
    """

    prefill_s: float
    prefill_s_per_token: float
    step_s: float
    step_s_per_request: float
    ttft_error: float = 0.0
    duration_error: float = 0.0
    fitted_on: int = 0
    most_at_once: int = 0  # requests in the engine at once, as far as the run went; 0: not known

    def ttft_s(self, input_tokens: Floats) -> Floats:
        """First token, with the engine to itself."""
        return np.asarray(self.prefill_s + self.prefill_s_per_token * input_tokens)

    def duration_s(
        self, input_tokens: Floats, output_tokens: Floats, others: Floats | float = 0.0
    ) -> Floats:
        """Whole answer, with so many other requests in the engine on average."""
        step = self.step_s + self.step_s_per_request * np.asarray(others)
        return np.asarray(self.ttft_s(input_tokens) + np.maximum(output_tokens - 1, 0) * step)

    @property
    def slowdown(self) -> float:
        """What one further request adds to a request's time, as a fraction."""
        return self.step_s_per_request / self.step_s if self.step_s else 0.0

    def service_s(self, trace: Trace) -> Floats:
        """Each request's time alone in a pod. Raises TraceError for a trace without tokens."""
        if not trace.output_tokens.any():
            raise TraceError(
                trace.source, "it holds no token counts, so a latency model cannot time it."
            )
        return self.duration_s(
            trace.input_tokens.astype(np.float64), trace.output_tokens.astype(np.float64)
        )


def read(lines: Iterable[bytes], source: str) -> PerfRun:
    """JSONL: Mooncake's fields, `ttft_ms`, `duration_ms`. Raises TraceError with the line."""
    rows: list[list[float]] = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        place = f"line {number}"
        try:
            row = orjson.loads(line)
            values = [float(row[name]) for name in FIELDS]
        except (orjson.JSONDecodeError, KeyError, TypeError, ValueError) as error:
            raise TraceError(
                source,
                f"it must be a JSON object with {', '.join(FIELDS)} ({error!r}).",
                place=place,
            ) from None
        if min(values) < 0:
            raise TraceError(source, "its values must be 0 or more.", place=place)
        if values[3] > values[4]:
            raise TraceError(source, "ttft_ms is longer than duration_ms.", place=place)
        rows.append(values)
    if len(rows) < LEAST_REQUESTS:
        raise TraceError(
            source, f"{len(rows)} requests are too few for a fit; it takes {LEAST_REQUESTS}."
        )
    table = np.asarray(rows)
    table = table[np.argsort(table[:, 0], kind="stable")]
    return PerfRun(
        source, table[:, 0] / 1e3, table[:, 1], table[:, 2], table[:, 3] / 1e3, table[:, 4] / 1e3
    )


def others_in_engine(run: PerfRun) -> Floats:
    """For each request, how many others were in the engine on average while it decoded. [n]."""
    begin, end = run.arrival_s, run.arrival_s + run.duration_s
    first = run.arrival_s + run.ttft_s
    times = np.sort(np.concatenate((begin, end)))
    order = np.argsort(np.concatenate((begin, end)), kind="stable")
    change = np.concatenate((np.ones(len(begin)), -np.ones(len(end))))[order]
    inside = np.cumsum(change)
    # The integral of the number inside, at each change; linear in between.
    area = np.concatenate(([0.0], np.cumsum(inside[:-1] * np.diff(times))))
    span = np.maximum(end - first, 1e-9)
    return np.asarray(
        np.maximum(0.0, (np.interp(end, times, area) - np.interp(first, times, area)) / span - 1)
    )


def _most_at_once(run: PerfRun) -> int:
    """The 95th percentile of how many requests a request shared the engine with, itself included.

    Not the maximum: a few requests at the peak do not show what the peak is like.
    """
    return round(float(np.quantile(others_in_engine(run), 0.95))) + 1


def load(path: Path) -> LatencyModel:
    """The model that `keepwarm trace fit-latency --out` wrote. Raises TraceError."""
    try:
        value = orjson.loads(path.read_bytes())
        model = LatencyModel(**value)
        numbers = [float(v) for v in value.values()]
    except OSError as error:
        raise TraceError(str(path), f"it cannot be read: {error.strerror}.") from None
    except (orjson.JSONDecodeError, TypeError, ValueError) as error:
        raise TraceError(
            str(path),
            f"it is no latency model as `keepwarm trace fit-latency --out` writes it ({error}).",
        ) from None
    if not all(np.isfinite(numbers)) or min(numbers) < 0:
        raise TraceError(str(path), "its values must be 0 or more.")
    return model


def fit(run: PerfRun, seed: int = 0) -> LatencyModel:
    """The model, least squares on relative errors, no coefficient below 0.

    A quarter of the requests, by seed, is kept out and judges it. Raises TraceError when the run
    cannot tell prefill from decode: too few requests or all alike.
    """
    if len(run.arrival_s) < LEAST_REQUESTS:
        raise TraceError(run.source, f"fewer than {LEAST_REQUESTS} requests cannot be fitted.")
    if np.ptp(run.output_tokens) < 2:
        raise TraceError(
            run.source, "all answers are equally long; vary them so that decode can be told apart."
        )
    others = others_in_engine(run)
    kept = np.random.default_rng(seed).random(len(run.arrival_s)) < 0.25
    seen, held = run.take(~kept), run.take(kept)
    prefill = _nonnegative(
        np.stack((np.ones_like(seen.input_tokens), seen.input_tokens), 1), seen.ttft_s
    )
    steps = np.maximum(seen.output_tokens - 1, 0)
    decode = _nonnegative(
        np.stack((steps, steps * others[~kept]), 1)[steps > 0],
        (seen.duration_s - seen.ttft_s)[steps > 0],
    )
    model = LatencyModel(*prefill, *decode, fitted_on=len(seen.arrival_s))
    ttft = model.ttft_s(held.input_tokens)
    duration = model.duration_s(held.input_tokens, held.output_tokens, others[kept])
    return LatencyModel(
        *prefill,
        *decode,
        ttft_error=_relative(ttft, held.ttft_s),
        duration_error=_relative(duration, held.duration_s),
        fitted_on=len(seen.arrival_s),
        most_at_once=_most_at_once(run),
    )


def _nonnegative(columns: Floats, measured: Floats) -> tuple[float, float]:
    """Two coefficients, each at least 0, that minimise the squared relative error."""
    weight = 1 / np.maximum(measured, 1e-6)
    scaled, goal = columns * weight[:, None], measured * weight
    both, *_ = np.linalg.lstsq(scaled, goal, rcond=None)
    if (both >= 0).all():
        return float(both[0]), float(both[1])
    # With two columns the bounded optimum lies on one axis.
    alone = [max(0.0, float(c @ goal) / float(c @ c)) if c.any() else 0.0 for c in scaled.T]
    loss = [float(((scaled[:, i] * alone[i] - goal) ** 2).sum()) for i in (0, 1)]
    return (alone[0], 0.0) if loss[0] <= loss[1] else (0.0, alone[1])


def _relative(predicted: Floats, measured: Floats) -> float:
    return float(np.median(np.abs(predicted - measured) / np.maximum(measured, 1e-9)))
