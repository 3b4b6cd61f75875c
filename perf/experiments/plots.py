"""The experiments in pictures. Each names the engine, for a simulated one is no GPU."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from figures import PROMISED_MS
from results import Batches, Burst, Row

from keepwarm import charts

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLOURS = (charts.BLUE, charts.ORANGE, charts.GREEN, charts.RED, charts.GREY, charts.INK)
MARKERS = "os^DPv"


def line_name(row: Row) -> str:
    """A stack, the hit ratio where it has a cache, and the engine where there are several."""
    target = row.figures.hit_target
    cached = "" if target is None else f", h = {target:.0%}"
    engine = f"\n({row.part})" if row.part else ""
    return f"{row.figures.stack}{cached}{engine}"


def _lines(rows: Sequence[Row]) -> dict[str, list[Row]]:
    lines: dict[str, list[Row]] = {}
    for row in rows:
        lines.setdefault(line_name(row), []).append(row)
    return lines


def served(rows: Sequence[Row], title: str, engine: str) -> str:
    """Answers a second over offered requests a second."""
    with charts.figure(8.2, 3.6) as (figure, axes):
        top = max(row.figures.offered_rps for row in rows)
        axes.plot([0, top], [0, top], color=charts.GREY, lw=1, ls=":", label="all that is offered")
        for number, (name, own) in enumerate(_lines(rows).items()):
            at = [row.figures.offered_rps for row in own]
            style = {"color": COLOURS[number % 6], "marker": MARKERS[number % 6], "ms": 4}
            axes.plot(at, [row.figures.served_rps for row in own], label=name, **style)
            axes.plot(at, [row.figures.good_rps for row in own], ls="--", lw=0.9, **style)
        axes.set(
            title=engine,
            xlabel="offered, requests/s",
            ylabel="served (dashed: good), /s",
            xlim=(0, None),
            ylim=(0, None),
        )
        axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize=8)
        return charts.svg(figure, f"{title}: answers a second over offered load")


def latency(rows: Sequence[Row], title: str, engine: str) -> str:
    """P50 and P99 of whole answers over offered requests a second."""
    with charts.figure(8.2, 3.6) as (figure, axes):
        for number, (name, own) in enumerate(_lines(rows).items()):
            shown = [row for row in own if row.figures.p99_ms is not None]
            at = [row.figures.offered_rps for row in shown]
            style = {"color": COLOURS[number % 6], "marker": MARKERS[number % 6], "ms": 4}
            axes.plot(at, [row.figures.p99_ms for row in shown], label=name, **style)
            axes.plot(at, [row.figures.p50_ms for row in shown], ls="--", lw=0.9, **style)
        _promise(axes)
        axes.set(
            title=engine,
            xlabel="offered, requests/s",
            ylabel="P99 (dashed: P50) of served, ms",
            yscale="log",
            xlim=(0, None),
        )
        axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize=8)
        return charts.svg(figure, f"{title}: latency over offered load")


def hit_ratios(rows: Sequence[Row], engine: str) -> str:
    """P99 over the hit ratio at one rate, for each engine."""
    with charts.figure(8.2, 3.8) as (figure, axes):
        parts = list(dict.fromkeys(row.part for row in rows))
        targets = sorted({row.figures.hit_target or 0.0 for row in rows})
        for number, part in enumerate(parts):
            own = [row for row in rows if row.part == part and row.figures.p99_ms is not None]
            at = [targets.index(row.figures.hit_target or 0.0) for row in own]
            style = {"color": COLOURS[number % 6], "marker": MARKERS[number % 6], "ms": 5}
            axes.plot(at, [row.figures.p99_ms for row in own], label=part, **style)
            axes.plot(at, [row.figures.p50_ms for row in own], ls="--", lw=0.9, **style)
        _promise(axes)
        axes.set_xticks(range(len(targets)), [f"{target:.4g}" for target in targets])
        axes.set(
            title=engine,
            xlabel=f"hit ratio h at {rows[0].rate:.0f} requests/s (not to scale)",
            ylabel="P99 (dashed: P50) of served, ms",
            yscale="log",
        )
        axes.legend(loc="upper right", fontsize=8)
        return charts.svg(figure, "Latency over the hit ratio of the cache")


def caches(rows: Sequence[Row], engine: str) -> str:
    """The engine's share by prompt length, a group of bars for each level of cache."""
    parts = list(dict.fromkeys(row.part for row in rows))
    levels = list(dict.fromkeys(row.figures.stack for row in rows))
    width = 0.8 / len(levels)
    with charts.figure(8.2, 3.6) as (figure, axes):
        for number, level in enumerate(levels):
            own = {row.part: row.figures for row in rows if row.figures.stack == level}
            at = [place + (number - (len(levels) - 1) / 2) * width for place in range(len(parts))]
            tops = [own[part].served_rps if part in own else 0.0 for part in parts]
            colour = COLOURS[number % 6]
            axes.bar(at, tops, width * 0.92, color=colour, alpha=0.45, label=level)
            engines = [own[part].engine_rps if part in own else 0.0 for part in parts]
            axes.bar(at, engines, width * 0.92, color=colour)
        axes.set_xticks(range(len(parts)), parts)
        axes.set(title=engine, ylabel="served (dark: by the engine), /s")
        axes.grid(visible=False, axis="x")
        axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize=8)
        return charts.svg(figure, "Answers by prompt length and level of cache")


def batches(found: Sequence[Batches]) -> str:
    """Tokens a second and the time to the first token over requests in flight."""
    with charts.figure(8.2, 3.8) as (figure, axes):
        first = axes.twinx()
        for number, each in enumerate(found):
            at = [point.concurrency for point in each.sweep.points]
            colour = COLOURS[number % 6]
            tokens = [point.tokens_per_s for point in each.sweep.points]
            axes.plot(at, tokens, color=colour, marker="o", ms=4, label=each.engine)
            firsts = [(point.ttft_p99_s or 0) * 1e3 for point in each.sweep.points]
            first.plot(at, firsts, color=colour, marker="s", ms=3, ls="--", lw=0.9)
        axes.set(xlabel="requests in flight", ylabel="tokens/s (full lines)", ylim=(0, None))
        axes.set_xscale("log", base=2)
        axes.set_xticks([point.concurrency for point in found[0].sweep.points])
        axes.get_xaxis().set_major_formatter(lambda value, _: f"{value:g}")
        first.set(ylabel="first token P99, ms (dashed)", ylim=(0, None))
        first.grid(visible=False)
        axes.legend(loc="lower right", fontsize=8)
        return charts.svg(figure, "Tokens a second and first token over requests in flight")


def burst(told: Burst, engine: str) -> str:
    """Requests and pods over the seconds of a burst."""
    with charts.figure(8.2, 3.6) as (figure, axes):
        at = [second.at_s for second in told.seconds]
        for name, colour in (("offered", charts.GREY), ("served", charts.BLUE)):
            values = [getattr(second, name) for second in told.seconds]
            axes.step(at, values, where="post", color=colour, lw=1.3, label=name)
        lost = [second.refused + second.failed for second in told.seconds]
        axes.step(at, lost, where="post", color=charts.RED, lw=1.0, label="503 or failed")
        pods = axes.twinx()
        existing = [second.pods for second in told.seconds]
        ready = [second.ready for second in told.seconds]
        pods.fill_between(at, existing, step="post", color=charts.GREEN, alpha=0.15, lw=0)
        pods.step(at, ready, where="post", color=charts.GREEN, lw=1.3, label="ready predictors")
        pods.set(ylabel="predictors (pale: not ready)", ylim=(0, 1.6 * max(*existing, 1)))
        pods.grid(visible=False)
        axes.set(title=engine, xlabel="seconds", ylabel="requests/s", ylim=(0, None))
        axes.margins(x=0)
        lines = [*axes.get_lines(), *pods.get_lines()]
        axes.legend(lines, [str(line.get_label()) for line in lines], loc="upper left", fontsize=8)
        return charts.svg(figure, f"Requests and pods, {told.part}")


def _promise(axes: "Axes") -> None:
    axes.axhline(PROMISED_MS, color=charts.INK, lw=0.9, ls=":")
    axes.annotate(
        f"{PROMISED_MS:.0f} ms",
        (0.0, PROMISED_MS),
        (3, 3),
        xycoords=("axes fraction", "data"),
        textcoords="offset points",
        fontsize=8,
    )
