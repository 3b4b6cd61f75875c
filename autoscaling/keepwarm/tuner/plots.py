"""The plan in pictures: cost against exposure, the week's replicas, the schedule, the doubts."""

from datetime import datetime, timedelta, tzinfo
from typing import TYPE_CHECKING

import numpy as np

from keepwarm import charts
from keepwarm.traces.plots import WEEKDAYS
from keepwarm.tuner.figures import Figures
from keepwarm.tuner.plan import Plan, Point
from keepwarm.tuner.prices import DAY_S, Prices
from keepwarm.tuner.week import Week

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LINEAR_BELOW = 0.1  # percent; left of it the axis runs evenly to 0
WIDE = 6.0  # a cost axis that spans more than this factor is logarithmic
MARKS = {
    "current": ("s", charts.RED, "current"),
    "always-on": ("^", charts.GREY, "always-on"),
    "hybrid histogram": ("D", charts.GREEN, "hybrid histogram"),
    "knee": ("P", charts.ORANGE, "knee of the front"),
    "recommended": ("*", charts.BLUE, "recommended"),
}


def tradeoff(plan: Plan, currency: str, allowed: float | None) -> str:
    """Every policy by what it exposes and what it costs, on the held-out days, above the bound."""
    with charts.figure(8.2, 4.8) as (figure, axes):
        shown = _shown(plan)
        families: dict[object, list[Point]] = {}
        for point in plan.fixed:
            policy = point.setting.policy
            loads = (policy.target, policy.container_concurrency, policy.target_burst_capacity)
            families.setdefault(loads, []).append(point)
        for number, family in enumerate(families.values()):
            axes.plot(
                [p.exposure * 100 for p in family],
                [p.cost for p in family],
                marker=".",
                color=charts.GREY,
                lw=0.8,
                alpha=0.9 if number == 0 else 0.5,
                ms=5,
                ls="-" if number == 0 else ":",
                label="one fixed window, today's loads"
                if number == 0
                else "same, recommended loads",
            )
        for number, point in enumerate(plan.front):
            axes.plot(
                point.exposure * 100,
                point.cost,
                "o",
                color=charts.BLUE,
                ms=6,
                mfc="white",
                gid=f"front-{number}",
                label="front of the training days" if number == 0 else None,
            )
        for row in plan.rows:
            if row.held is None or row.name not in MARKS:
                continue
            marker, color, label = MARKS[row.name]
            _mark(axes, row.held, marker, color, label)
        exposure, cost = np.asarray(plan.bound_curve).T
        axes.fill_between(exposure * 100, cost, 0, color=charts.FAINT, alpha=0.6, lw=0)
        axes.plot(exposure * 100, cost, "--", color=charts.INK, lw=1.2, label="clairvoyant bound")
        if allowed is not None:
            axes.axvline(allowed * 100, color=charts.ORANGE, lw=1, ls=":")
            axes.annotate(
                f"SLO {allowed:.2%}",
                (allowed * 100, 0.0),
                (4, 6),
                xycoords=("data", "axes fraction"),
                textcoords="offset points",
                color=charts.INK,
            )
        _scales(axes, shown, currency)
        axes.legend(loc="upper right", fontsize=8)
        return charts.svg(figure, "Cost a day against cold-start exposure, held-out days")


def _mark(axes: "Axes", held: Figures, marker: str, color: str, label: str) -> None:
    axes.plot(
        held.exposure.value * 100,
        held.cost.value,
        marker,
        color=color,
        ms=15 if marker == "*" else 9,
        mec="white",
        label=label,
        zorder=5,
    )


def _shown(plan: Plan) -> list[tuple[float, float]]:
    """The points that the axes must hold."""
    rows = [row.held for row in plan.rows if row.held is not None]
    return [(held.exposure.value * 100, held.cost.value) for held in rows]


def _scales(axes: "Axes", shown: list[tuple[float, float]], currency: str) -> None:
    exposure, cost = np.asarray(shown).T
    right = min(100.0, max(5.0, float(exposure.max()) * 1.6))
    axes.set_xscale("symlog", linthresh=LINEAR_BELOW)
    ticks = [t for t in (0, 0.05, 0.1, 0.5, 1, 2, 5, 10, 20, 50, 100) if t <= right]
    axes.set_xticks(ticks, [f"{t:g} %" for t in ticks])
    axes.minorticks_off()
    axes.set_xlim(-0.01, right)
    top, bottom = float(cost.max()), float(cost.min())
    if top > WIDE * bottom:
        axes.set_yscale("log")
        axes.set_ylim(bottom * 0.7, top * 1.5)
    else:
        axes.set_ylim(0, top * 1.25)
    axes.set(xlabel="requests that met a cold start", ylabel=f"{currency} a day")


def replicas(plan: Plan, begins: datetime, zone: tzinfo) -> str:
    """Pods over the held-out week, now and as recommended, over the traffic."""
    told = plan.replicas
    at = (np.arange(len(told["current"])) * told["step_s"] + told["begin_s"]) / DAY_S
    with charts.figure(8.2, 3.4) as (figure, axes):
        axes.step(at, told["current"], where="post", color=charts.RED, lw=0.9, label="current")
        axes.step(
            at, told["recommended"], where="post", color=charts.BLUE, lw=1.4, label="recommended"
        )
        axes.set(ylabel="pods", ylim=(0, None))
        traffic = axes.twinx()
        traffic.fill_between(
            at, told["requests_per_s"], step="post", color=charts.GREY, alpha=0.25, lw=0
        )
        traffic.set_ylabel("requests/s")
        traffic.grid(visible=False)
        traffic.set_ylim(0, max(told["requests_per_s"]) * 2.5)
        first, last = float(at[0]), float(at[-1]) + told["step_s"] / DAY_S
        if last - first > 1:
            days = np.arange(np.ceil(first - 1e-9), last)
            names = [
                (begins + timedelta(days=float(d))).astimezone(zone).strftime("%a %H:%M")
                for d in days
            ]
            axes.set_xticks(days, names)
        else:
            axes.set_xlabel("days from the start")
        axes.margins(x=0)
        axes.legend(loc="upper left", ncols=2)
        return charts.svg(figure, "Pods over the held-out days, current and recommended")


def schedule(week: Week, zone: str) -> str:
    """The hours of the week that are kept warm."""
    with charts.figure(8.2, 2.4) as (figure, axes):
        grid = np.asarray(week.replicas, float).reshape(7, 24)
        axes.imshow(grid, aspect="auto", cmap="Blues", vmin=0, vmax=max(1.6, grid.max() * 1.6))
        axes.set_yticks(range(7), WEEKDAYS)
        axes.set_xticks(range(0, 24, 3), [f"{hour}:00" for hour in range(0, 24, 3)])
        axes.set_xticks(np.arange(-0.5, 24), minor=True)
        axes.set_yticks(np.arange(-0.5, 7), minor=True)
        axes.grid(visible=False)
        axes.grid(which="minor", color="white", lw=1)
        axes.tick_params(which="minor", length=0)
        axes.set_xlabel(f"hour of the day ({zone})")
        return charts.svg(figure, "Hours of the week that are kept warm")


def bills(plan: Plan, names: tuple[str, ...], prices: Prices) -> str:
    """A day's GPU money by what it was spent on."""
    per_hour, asleep = prices.per_gpu_hour, (prices.asleep_per_pod_hour or 0) / prices.gpus_per_pod
    rows = [(row.name, row.held.bill) for row in plan.rows if row.held and row.held.bill]
    rows = [(name, bill) for name, bill in rows if name in names][::-1]
    parts = (
        ("working", charts.BLUE, [(b.working - b.asleep) * per_hour for _, b in rows]),
        ("asleep", charts.GREY, [b.asleep * asleep for _, b in rows]),
        ("starting", charts.ORANGE, [b.starting * per_hour for _, b in rows]),
        ("draining", charts.GREEN, [b.draining * per_hour for _, b in rows]),
        ("node without a pod", charts.FAINT, [b.node_idle * per_hour for _, b in rows]),
    )
    with charts.figure(8.2, 0.9 + 0.42 * len(rows)) as (figure, axes):
        left = np.zeros(len(rows))
        for part, color, money in parts:
            width = np.asarray(money)
            if width.any():
                axes.barh([name for name, _ in rows], width, left=left, color=color, label=part)
            left += width
        axes.set(xlabel=f"{prices.currency} a day, held-out {plan.facts['block']}")
        axes.grid(visible=False, axis="y")
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1), fontsize=8, ncols=5)
        return charts.svg(figure, "A day's bill by what it was spent on")


def sensitivity(plan: Plan, currency: str, *, cost: bool, allowed: float | None) -> str:
    """Cost, or exposure, of the recommendation when traffic or cold starts are other."""
    held = plan.row("recommended")
    rows = [(s.name, s.recommended) for s in plan.scenarios]
    if held is not None and held.held is not None:
        rows.insert(0, ("as measured", held.held))
    rows.reverse()
    with charts.figure(8.2, 0.8 + 0.36 * len(rows)) as (figure, axes):
        for at, (_, found) in enumerate(rows):
            interval = found.cost if cost else found.exposure
            factor = 1 if cost else 100
            low, value, high = (factor * v for v in (interval.low, interval.value, interval.high))
            axes.plot([low, high], [at, at], color=charts.BLUE, lw=2, alpha=0.5)
            axes.plot(value, at, "o", color=charts.BLUE, ms=7)
        axes.set_yticks(range(len(rows)), [name for name, _ in rows])
        if not cost and allowed is not None:
            axes.axvline(allowed * 100, color=charts.ORANGE, lw=1, ls=":", label="SLO")
            axes.legend(loc="lower right")
        axes.set_xlim(left=0)
        axes.set_xlabel(f"{currency} a day" if cost else "% of requests that met a cold start")
        axes.grid(visible=False, axis="y")
        name = "Cost" if cost else "Cold-start exposure"
        return charts.svg(figure, f"{name} if traffic or cold starts change by 20 %")
