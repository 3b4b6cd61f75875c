"""The plan as one self-contained HTML page: pictures and script are in it, nothing is fetched."""

import base64
import hashlib
import json
from collections.abc import Mapping
from datetime import datetime
from importlib import resources
from zoneinfo import ZoneInfo

from markupsafe import Markup

from keepwarm import pages
from keepwarm.tuner import plots, terminal
from keepwarm.tuner.plan import KNOBS, Plan, Point
from keepwarm.tuner.prices import Prices
from keepwarm.tuner.slo import Kind, Term

BILLED = ("recommended", "current", "best fixed window", "always-on")
NAMES = {
    "recommended": "Recommended",
    "current": "Current",
    "knee": "Knee of the front",
    "best fixed window": "Best fixed window",
    "best fixed window in hindsight": "Best fixed window in hindsight",
    "same, on the recommended loads": "The same on the recommended loads",
    "always-on": "Always on",
    "hybrid histogram": "Hybrid histogram",
}


def render(plan: Plan, terms: tuple[Term, ...], files: Mapping[str, str]) -> str:
    """The page."""
    facts = plan.facts
    currency = str(facts["currency"])
    zone_name = str(facts["time_zone"])
    zone, begins = ZoneInfo(zone_name), datetime.fromisoformat(str(facts["begins"]))
    allowed = next((t.allowed for t in terms if t.kind is Kind.COLD), None)
    shown = plan.recommended or next(r.setting for r in plan.rows if r.name == "knee")
    script = (resources.files("keepwarm.pages") / "tune.js").read_text()
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    current = plan.row("current")
    assert current is not None
    assert current.setting is not None
    assert shown is not None
    return pages.render(
        "tune.html",
        plan=plan,
        facts=facts,
        names=NAMES,
        knob_names=KNOBS,
        currency=currency,
        money=terminal.money,
        recommended=plan.row("recommended"),
        current=current,
        fixed=plan.row("best fixed window in hindsight"),
        always_on=plan.row("always-on"),
        changes=_changes(terminal.settings(current.setting), terminal.settings(shown)),
        windows=shown.week.windows() if shown.week else [],
        tradeoff=plots.tradeoff(plan, currency, allowed),
        replicas=plots.replicas(plan, begins, zone),
        schedule=plots.schedule(shown.week, zone_name) if shown.week else None,
        bills=plots.bills(plan, BILLED, Prices(**facts["prices"])),
        cost_if=plots.sensitivity(plan, currency, cost=True, allowed=None),
        exposure_if=plots.sensitivity(plan, currency, cost=False, allowed=allowed),
        points=_inline(json.dumps([_point(p) for p in plan.front]).replace("<", "\\u003c")),
        files=dict(files),
        script=_inline(script),
        script_hash=digest,
    )


def _inline(text: str) -> Markup:
    """Text of ours that a script element holds as it is."""
    return Markup(text)  # noqa: S704 - our own script, and JSON without a <


def _changes(now: Mapping[str, str], then: Mapping[str, str]) -> list[tuple[str, str, str, bool]]:
    """(knob, now, then, whether it changes); what changes comes first."""
    rows = [
        (KNOBS[name], now.get(name, "never"), value, now.get(name, "never") != value)
        for name, value in then.items()
    ]
    return sorted(rows, key=lambda row: not row[3])


def _point(point: Point) -> dict[str, object]:
    """What the script tells of a point on the front."""
    told = terminal.settings(point.setting)
    return {
        "cost": terminal.money(point.cost),
        "exposure": f"{point.exposure:.3%}",
        "knobs": {KNOBS[name]: value for name, value in told.items()},
    }
