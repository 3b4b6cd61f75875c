"""What an answer costs, from GPU-seconds that were measured: seconds that predictor pods existed.

"Under $0.001 per RPS" names no time, so every reading is told: a request a second for a second (one
request), for an hour, a day (as the tuner tells it), a month.
"""

from dataclasses import dataclass

HOUR_S = 3600.0
DAY_S, MONTH_S = 24 * HOUR_S, 730 * HOUR_S
PROMISED = 0.001


@dataclass(frozen=True, slots=True)
class Cost:
    """Money for `gpu_seconds` at `per_gpu_hour`, over what was served and what was generated."""

    gpu_seconds: float
    per_gpu_hour: float
    served: float
    generated: float

    @property
    def money(self) -> float:
        return self.gpu_seconds / HOUR_S * self.per_gpu_hour

    @property
    def per_1k_served(self) -> float | None:
        """Of every thousand answers, hits included."""
        return 1000 * self.money / self.served if self.served else None

    @property
    def per_1k_generated(self) -> float | None:
        """Of every thousand answers that the engine made: the same without a cache."""
        return 1000 * self.money / self.generated if self.generated else None

    @property
    def readings(self) -> dict[str, float]:
        """The price of one request a second, kept up for each time it may have meant."""
        if not self.served:
            return {}
        request = self.money / self.served
        return {
            "for a second (a request)": request,
            "for an hour": request * HOUR_S,
            "for a day": request * DAY_S,
            "for a month": request * MONTH_S,
        }
