"""A trace's statistics as text and as one self-contained HTML page."""

from collections.abc import Sequence
from datetime import tzinfo

from keepwarm import pages
from keepwarm.traces import plots
from keepwarm.traces.statistics import Statistics
from keepwarm.traces.trace import Trace


def text(found: Statistics) -> str:
    """Lines for the terminal."""
    lines = [f"{name:<28}{value}" for name, value in rows(found)]
    return "\n".join(lines)


def rows(found: Statistics) -> list[tuple[str, str]]:
    """What text and page both tell."""
    gaps = ", ".join(
        f"{count:,} over {period(over)} ({found.idle_over[over]:.0%} of all time)"
        for over, count in found.gaps_over.items()
    )
    told = [
        ("requests", f"{found.requests:,} in {period(found.duration_s)}"),
        ("mean rate", f"{found.mean_rps:.3g}/s ({found.mean_rps * 3600:,.1f} an hour)"),
        (
            "peaks",
            (
                f"{found.peak_minute_rps:.3g}/s in the busiest minute; busiest hour"
                f" {found.peak_hour_over_mean:.1f} x the mean"
            ),
        ),
        ("times between, CV", f"{found.interarrival_cv:.2f} (Poisson 1)"),
        (
            "dispersion by bin",
            ", ".join(f"{b.width_s} s: {b.dispersion:.3g}" for b in found.bins) + " (Poisson 1)",
        ),
        ("empty bins", ", ".join(f"{b.width_s} s: {b.empty:.0%}" for b in found.bins)),
        ("silences", f"{gaps}; longest {period(found.longest_gap_s)}"),
    ]
    for name, lengths in (("input", found.input_tokens), ("output", found.output_tokens)):
        if lengths.mean:
            told.append(
                (
                    f"{name} tokens",
                    (
                        f"p50 {lengths.p50:,.0f}, p90 {lengths.p90:,.0f}, p99 {lengths.p99:,.0f},"
                        f" mean {lengths.mean:,.0f}"
                    ),
                )
            )
    if found.service_p50_s is not None:
        told.append(("time in a pod", f"p50 {found.service_p50_s:.3g} s, measured"))
    return told


def page(trace: Trace, found: Statistics, zone: tzinfo, silences: Sequence[str]) -> str:
    """The page."""
    return pages.render(
        "trace.html",
        trace=trace,
        rows=rows(found),
        warnings=[*trace.warnings, *silences],
        rate=plots.rate(trace),
        week=plots.week(found, zone),
        gaps=plots.gaps(trace),
        burstiness=plots.burstiness(found),
    )


def period(seconds: float) -> str:
    """90 -> 1.5 min: a length of time as one reads it."""
    for unit, name in ((86_400, "d"), (3600, "h"), (60, "min")):
        if seconds >= unit:
            return f"{seconds / unit:.3g} {name}"
    return f"{seconds:.3g} s"
