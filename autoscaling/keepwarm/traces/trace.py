"""A request log as arrays, whatever it was imported from, and the checks that all importers share.

Time is in seconds from the trace's own zero; `start` tells which moment that was, and without it
the first day counts as a Monday that begins at midnight UTC.
"""

import math
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

import numpy as np
from numpy.typing import NDArray

from keepwarm.traces.errors import TraceError

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

DAY_S = 86_400
WEEK_S = 7 * DAY_S
# More than any one service has been seen to take (ServeGen's largest model: 1174 on average).
MOST_RPS = 20_000.0


@dataclass(frozen=True, eq=False)
class Trace:
    """n requests in order of arrival. `service_s` is the measured time in a pod, where logged."""

    source: str
    arrival_s: Floats
    input_tokens: Ints
    output_tokens: Ints
    duration_s: float
    start: datetime | None = None
    service_s: Floats | None = None
    warnings: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.arrival_s)

    @property
    def days(self) -> int:
        """Days that the trace touches, the last one perhaps in part."""
        return max(1, int(np.ceil(self.duration_s / DAY_S - 1e-9)))

    @property
    def begins(self) -> datetime:
        """The moment of zero in UTC; without a start, midnight of Monday 2024-01-01."""
        # In UTC a sum with a timedelta is elapsed time; with a zone's rules it is wall-clock time.
        return (self.start or datetime(2024, 1, 1, tzinfo=UTC)).astimezone(UTC)

    def between(self, from_s: float, to_s: float) -> "Trace":
        """The stretch [from_s, to_s) with its own zero. Raises TraceError when it holds nothing."""
        low, high = np.searchsorted(self.arrival_s, (from_s, to_s))
        if low == high:
            raise TraceError(self.source, f"there is no request between {from_s:g} and {to_s:g} s.")
        # A relative trace that is cut inside its first week must still know its weekdays.
        start = self.start if from_s == 0 else self.begins + timedelta(seconds=from_s)
        return replace(
            self,
            arrival_s=self.arrival_s[low:high] - from_s,
            input_tokens=self.input_tokens[low:high],
            output_tokens=self.output_tokens[low:high],
            service_s=None if self.service_s is None else self.service_s[low:high],
            duration_s=min(to_s, self.duration_s) - from_s,
            start=start,
        )


@dataclass
class Rows:
    """Columns as an importer collects them, each row with the line it came from."""

    source: str
    lines: list[int]
    time_s: list[float]
    input_tokens: list[int]
    output_tokens: list[int]
    service_s: list[float]

    @classmethod
    def empty(cls, source: str) -> "Rows":
        return cls(source, [], [], [], [], [])

    def add(
        self,
        line: int,
        time_s: float,
        input_tokens: int,
        output_tokens: int,
        service_s: float = float("nan"),
    ) -> None:
        """One request. Raises TraceError for what is negative or not finite."""
        for name, value in (
            ("time", time_s),
            ("input tokens", input_tokens),
            ("output tokens", output_tokens),
            ("service time", service_s),
        ):
            if value < 0:
                raise self.error(line, f"{name} is {value:g}; it must be 0 or more.")
            if math.isinf(value) or (name == "time" and math.isnan(value)):
                raise self.error(line, f"{name} is {value}; it must be a finite number.")
        self.lines.append(line)
        self.time_s.append(time_s)
        self.input_tokens.append(input_tokens)
        self.output_tokens.append(output_tokens)
        self.service_s.append(service_s)

    def error(self, line: int, reason: str) -> TraceError:
        return TraceError(self.source, reason, place=f"line {line}")

    def trace(
        self,
        *,
        start: datetime | None,
        zero_s: float = 0.0,
        any_order: bool = False,
        duration_s: float | None = None,
    ) -> Trace:
        """The trace, `zero_s` taken off every time.

        Raises TraceError when it is empty, out of order (unless `any_order`, for logs that are
        written when a request ends) or denser than any service: then the unit is wrong.
        """
        if not self.lines:
            raise TraceError(self.source, "there is no request in it.")
        time = np.asarray(self.time_s) - zero_s
        order = np.arange(len(time))
        falls = np.flatnonzero(np.diff(time) < 0)
        if falls.size and any_order:
            order = np.argsort(time, kind="stable")
        elif falls.size:
            row = int(falls[0]) + 1
            raise self.error(
                self.lines[row],
                f"its time is {time[row - 1] - time[row]:g} s before that of line"
                f" {self.lines[row - 1]}; the rows must be in order of arrival"
                " (--sort puts them so).",
            )
        time = time[order]
        span = float(time[-1] - time[0])
        if len(time) >= 100 and len(time) > MOST_RPS * span:
            raise self.error(
                self.lines[int(order[-1])],
                f"{len(time):,} requests end {span:g} s after the first, {len(time) / span:,.0f} a"
                f" second: the unit of time is wrong (Mooncake's is the millisecond)."
                if span > 0
                else f"all {len(time):,} requests have the same time.",
            )
        service = np.asarray(self.service_s)[order]
        return Trace(
            source=self.source,
            arrival_s=time,
            input_tokens=np.asarray(self.input_tokens, dtype=np.int64)[order],
            output_tokens=np.asarray(self.output_tokens, dtype=np.int64)[order],
            duration_s=max(float(time[-1]) + 1e-3, duration_s or 0.0),
            start=start,
            service_s=None if np.isnan(service).all() else service,
        )
