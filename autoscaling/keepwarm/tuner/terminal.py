"""The plan in the terminal: what to do, what it costs beside the others, what to doubt."""

from rich.console import Console
from rich.table import Table
from rich.text import Text

from keepwarm.tuner.backtest import BackTest
from keepwarm.tuner.plan import KNOBS, POLICY_KNOBS, Plan, Row
from keepwarm.tuner.setting import Setting


def show(plan: Plan, console: Console, currency: str) -> None:
    """Prints it."""
    for warning in plan.warnings:
        console.print(Text(f"warning: {warning}", style="yellow"))
    console.print(Text(plan.reason))
    if plan.recommended is not None:
        current = plan.row("current")
        assert current is not None
        assert current.setting is not None
        console.print(_changes(current.setting, plan.recommended))
    facts = plan.facts
    table = Table(
        title=f"Held-out {facts['block']} ({facts['held_out_blocks']} of {facts['blocks']}),"
        f" {currency} a day",
        title_justify="left",
    )
    table.add_column("policy")
    for name in ("a day", "90 % of resamples", "per 1k requests", "cold", "regret"):
        table.add_column(name, justify="right")
    table.add_column("SLO")
    for row in plan.rows:
        table.add_row(*_cells(row), style="bold" if row.name == "recommended" else "")
    console.print(table)
    bound = next((r.held for r in plan.rows if r.name == "recommended"), None)
    if bound is not None and bound.bound is not None:
        console.print(
            f"Nobody, knowing every request in advance, could go below"
            f" {money(bound.bound)} a day with as few cold requests (clairvoyant bound);"
            f" regret is what is paid beyond it."
        )
    for scenario in plan.scenarios:
        told = scenario.recommended
        console.print(
            f"{scenario.name}: {money(told.cost.value)} a day, {told.exposure.value:.2%} cold,"
            f" SLO {'kept' if told.meets else 'missed'}"
        )
    idle = [KNOBS[k.knob] for k in plan.knobs if not k.matters]
    if idle:
        console.print(f"Knobs that do not matter here: {', '.join(idle)}.")


def show_back_test(found: BackTest, console: Console) -> None:
    """Predicted, replayed, measured."""
    console.print(
        f"{found.days:.3g} days from {found.begins:%Y-%m-%d %H:%M %Z}: {found.requests:,} requests"
        f" came, {found.predicted_requests:,.0f} were expected."
    )
    table = Table()
    table.add_column("")
    for name in ("predicted", "replayed on what came", "measured", "as predicted"):
        table.add_column(name, justify="right")
    for row in found.compared:
        told = {None: "not measured", True: "yes", False: "no"}[row.within]
        table.add_row(
            row.name,
            f"{row.predicted:.4g} ({row.low:.4g} to {row.high:.4g})",
            f"{row.replayed:.4g}",
            "" if row.measured is None else f"{row.measured:.4g}",
            told,
        )
    console.print(table)
    console.print(
        "Replayed against measured is the model's error; predicted against replayed is that other"
        " traffic came."
    )


def money(value: float) -> str:
    """12.3456 -> 12.35, 0.0123 -> 0.0123."""
    return f"{value:,.2f}" if abs(value) >= 1 else f"{value:.3g}"


def settings(setting: Setting) -> dict[str, str]:
    """Each knob's value as one reads it."""
    found = {name: knob_text(name, setting) for name in POLICY_KNOBS}
    found["week"] = f"{setting.week.hours} of 168 h warm" if setting.week else "none"
    if setting.sleep_after_s is not None:
        found["sleep_after_s"] = f"{setting.sleep_after_s:g} s"
    return found


def knob_text(name: str, setting: Setting) -> str:
    """One knob's value with its unit."""
    value = getattr(setting.policy, name)
    if name == "container_concurrency" and not value:
        return "no limit"
    return f"{value:g} s" if name.endswith("_s") else f"{value:g}"


def _changes(current: Setting, recommended: Setting) -> Table:
    table = Table(title="Recommended", title_justify="left")
    for name in ("knob", "now", "then"):
        table.add_column(name)
    before, after = settings(current), settings(recommended)
    for name, value in after.items():
        if before.get(name, "never") != value:
            table.add_row(KNOBS[name], before.get(name, "never"), value, style="bold")
    if recommended.week is not None:
        for window in recommended.week.windows():
            days = " ".join(window.days or ())
            table.add_row("", "", f"{window.replicas} pod {days} {window.start}-{window.end}")
    return table


def _cells(row: Row) -> tuple[str, ...]:
    held = row.held
    if held is None:
        return (row.name, "", "", "", "", "", "")
    return (
        row.name,
        money(held.cost.value),
        f"{money(held.cost.low)} to {money(held.cost.high)}",
        money(held.per_1k_requests),
        f"{held.exposure.value:.2%}",
        "" if held.regret is None else f"{held.regret:.1%}",
        "" if not held.terms else "kept" if held.meets else "missed",
    )
