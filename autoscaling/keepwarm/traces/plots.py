"""A trace in four pictures: its rate over time, its week, its silences, its burstiness."""

from datetime import tzinfo

import numpy as np

from keepwarm import charts
from keepwarm.traces import statistics
from keepwarm.traces.statistics import Statistics
from keepwarm.traces.trace import DAY_S, Trace

WEEKDAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
BUCKETS = 600


def rate(trace: Trace) -> str:
    """Requests per second over the whole trace, mean and the busiest minute of each step."""
    width = max(60.0, trace.duration_s / BUCKETS)
    unit, name = (DAY_S, "days") if trace.duration_s > 2 * DAY_S else (3600, "hours")
    per_minute = statistics.counts(trace, 60) / 60
    steps = max(1, int(trace.duration_s // width))
    index = np.minimum(np.arange(len(per_minute)) * 60 // width, steps - 1).astype(np.int64)
    top = np.zeros(steps)
    np.maximum.at(top, index, per_minute)
    mean = np.bincount(index, weights=per_minute, minlength=steps) / np.maximum(
        np.bincount(index, minlength=steps), 1
    )
    at = (np.arange(steps) + 0.5) * width / unit
    with charts.figure() as (figure, axes):
        axes.fill_between(at, top, color=charts.BLUE, alpha=0.2, lw=0, label="busiest minute")
        axes.plot(at, mean, color=charts.BLUE, lw=1.0, label="mean")
        axes.set(xlabel=f"{name} from the start", ylabel="requests/s", ylim=(0, None))
        axes.margins(x=0)
        axes.legend(loc="upper right", ncols=2)
        return charts.svg(figure, "Requests per second over the trace")


def week(found: Statistics, zone: tzinfo) -> str:
    """Mean rate by weekday and hour; white where nothing was ever observed."""
    with charts.figure(7.6, 2.6) as (figure, axes):
        image = axes.imshow(found.week_rps, aspect="auto", cmap="Blues", vmin=0)
        axes.set_yticks(range(7), WEEKDAYS)
        axes.set_xticks(range(0, 24, 3), [f"{hour}:00" for hour in range(0, 24, 3)])
        axes.grid(visible=False)
        axes.set_xlabel(f"hour of the day ({zone})")
        figure.colorbar(image, label="requests/s", pad=0.01)
        return charts.svg(figure, "Mean requests per second by weekday and hour")


def gaps(trace: Trace) -> str:
    """How much of all time lies in silences longer than x: what scaling to zero can win."""
    length = np.sort(statistics.gaps_of(trace))
    share = length[::-1].cumsum()[::-1] / trace.duration_s
    shown = length >= 1
    with charts.figure() as (figure, axes):
        axes.step(length[shown], share[shown] * 100, where="pre", color=charts.BLUE, lw=1.6)
        axes.set(
            xscale="log",
            xlabel="length of a silence",
            ylabel="% of all time in\nsilences this long or longer",
            ylim=(0, 100),
            xlim=(1, max(10.0, float(length.max()) * 1.1)),
        )
        ticks = [t for t in (1, 10, 60, 600, 3600, 6 * 3600, DAY_S) if t <= length.max() * 1.1]
        names = {1: "1 s", 10: "10 s", 60: "1 min", 600: "10 min", 3600: "1 h", 21600: "6 h"}
        axes.set_xticks(ticks, [names.get(t, "1 d") for t in ticks])
        axes.minorticks_off()
        return charts.svg(figure, "Share of time by length of silence")


def burstiness(found: Statistics) -> str:
    """Dispersion by bin, beside Poisson's 1."""
    with charts.figure(7.6, 2.8) as (figure, axes):
        width = [b.width_s for b in found.bins]
        axes.loglog(width, [max(b.dispersion, 1e-2) for b in found.bins], "o-", color=charts.BLUE)
        axes.axhline(1, color=charts.GREY, ls="--", lw=1)
        axes.annotate("Poisson", (width[-1], 1), (0, 4), textcoords="offset points", ha="right")
        axes.set_xticks(width, [f"{w} s" for w in width])
        axes.minorticks_off()
        axes.set(xlabel="bin", ylabel="variance / mean\nof requests per bin")
        return charts.svg(figure, "Index of dispersion by bin")
