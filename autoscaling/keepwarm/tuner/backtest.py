"""Last week's prediction beside what Prometheus says happened.

Three figures for each question: what the plan said of a day like its held-out ones, what the twin
says of the traffic that really came, and what was measured. The first two differ by the traffic,
the last two by the model: only the last is the tuner's fault.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from typing import Any

import numpy as np

from keepwarm.kpa.model import Pods, Requests, Timeline
from keepwarm.traces import prometheus
from keepwarm.traces.cli import zone_of
from keepwarm.traces.prometheus import Series
from keepwarm.traces.trace import DAY_S, Floats, Trace
from keepwarm.tuner import slo
from keepwarm.tuner.errors import TuneError
from keepwarm.tuner.evaluate import Evaluator, Rules
from keepwarm.tuner.intervals import integral
from keepwarm.tuner.plan import setting_of
from keepwarm.tuner.prices import Prices
from keepwarm.tuner.score import share
from keepwarm.tuner.setting import Setting
from keepwarm.tuner.workload import Workload


@dataclass(frozen=True)
class Compared:
    """One question. `replayed` is the twin's answer for the traffic that came."""

    name: str
    predicted: float
    low: float
    high: float
    replayed: float
    measured: float | None

    @property
    def within(self) -> bool | None:
        """Whether what was measured lies in what was predicted."""
        return None if self.measured is None else self.low <= self.measured <= self.high


@dataclass(frozen=True)
class BackTest:
    """A stretch of time: requests that came, and each question's answers."""

    begins: datetime
    days: float
    requests: int
    predicted_requests: float
    compared: tuple[Compared, ...]

    def as_json(self) -> dict[str, Any]:
        found = asdict(self) | {"begins": self.begins.isoformat()}
        for row, compared in zip(found["compared"], self.compared, strict=True):
            row["within"] = compared.within
        return found


def back_test(
    plan: Mapping[str, Any],
    requests: Series,
    pods: Series,
    cold: Series | None,
    *,
    setting_name: str = "recommended",
    fill_gaps: bool = False,
    seed: int = 0,
) -> BackTest:
    """The plan beside three series: requests and cold requests per step, pods at each sample.

    Raises TuneError for a plan without such a policy, TraceError for a hole in the requests.
    """
    facts = plan["facts"]
    row = next((r for r in plan["compared"] if r["name"] == setting_name), None)
    if row is None or row["setting"] is None:
        raise TuneError(f"The plan has no policy {setting_name!r} to test.")
    trace = prometheus.requests(requests, seed=seed, fill_gaps=fill_gaps)
    workload = _workload(trace, facts, seed)
    prices = Prices(**facts["prices"])
    rules = Rules(slo.parse(",".join(plan["slo"])), prices, facts["lead_s"], tuple(facts["wake_s"]))
    replayed = _replayed(workload, rules, setting_of(row["setting"]))
    held = row["held_out"]
    days = trace.duration_s / DAY_S
    begin = trace.begins.timestamp()
    bill = held["bill"]
    predicted_hours = (bill["working"] + bill["starting"] + bill["draining"]) / prices.gpus_per_pod
    spread = [held["cost"][end] / held["cost"]["value"] for end in ("low", "high")]
    counted = None
    if cold is not None:
        counted = min(1.0, float(cold.value.sum()) / len(trace))
    exposure = held["exposure"]
    return BackTest(
        begins=trace.begins,
        days=days,
        requests=len(trace),
        predicted_requests=held["requests"] / _held_days(plan) * days,
        compared=(
            Compared(
                "pod-hours a day",
                predicted_hours,
                predicted_hours * spread[0],
                predicted_hours * spread[1],
                replayed["pod_hours"],
                _pod_seconds(pods, begin, begin + trace.duration_s) / 3600 / days,
            ),
            Compared(
                f"{prices.currency} a day",
                held["cost"]["value"],
                held["cost"]["low"],
                held["cost"]["high"],
                replayed["cost"],
                _cost(pods, begin, trace.duration_s, prices),
            ),
            Compared(
                "share of requests cold",
                exposure["value"],
                exposure["low"],
                exposure["high"],
                replayed["exposure"],
                counted,
            ),
        ),
    )


def _held_days(plan: Mapping[str, Any]) -> float:
    return float(plan["facts"]["held_out_s"]) / DAY_S


def _workload(trace: Trace, facts: Mapping[str, Any], seed: int) -> Workload:
    """What came, with the service times that the plan was made with."""
    drawn = np.random.default_rng(seed).choice(np.asarray(facts["service_s"]), len(trace))
    return Workload(
        name=trace.source,
        begins=trace.begins,
        zone=zone_of(facts["time_zone"]),
        requests=Requests(trace.arrival_s, drawn, trace.duration_s),
        prefill_s=np.zeros(len(trace)),
        pods=Pods(
            tuple(facts["start_s"]),
            slowdown=facts["slowdown"],
            request_timeout_s=facts["timeout_s"],
            termination_grace_s=facts["timeout_s"],
        ),
        block_s=trace.duration_s,
    )


def _replayed(workload: Workload, rules: Rules, setting: Setting) -> dict[str, float]:
    (score,) = Evaluator(workload, rules).scores([replace(setting, folds=())])
    days = workload.requests.duration_s / DAY_S
    return {
        "pod_hours": float(score.pod_s.sum()) / 3600 / days,
        "cost": float(score.cost.sum()) / days,
        "exposure": share(score.cold, score.requests),
    }


def _held(pods: Series, begin_s: float, end_s: float) -> tuple[Floats, Floats]:
    """Each sample's pods from its time to the next. Raises TuneError where samples end."""
    inside = (pods.t_s >= begin_s - pods.step_s) & (pods.t_s < end_s)
    if not inside.any():
        raise TuneError(f"{pods.source} has no sample of the pods in that time.")
    t, count = np.maximum(pods.t_s[inside] - begin_s, 0.0), pods.value[inside]
    # No pod, no series: a step without a sample had none.
    lasted = np.minimum(np.diff(np.append(t, end_s - begin_s)), pods.step_s)
    begin = np.concatenate((t, t + lasted))
    value = np.concatenate((count, np.zeros(len(count))))
    order = np.lexsort((np.arange(len(begin)) < len(t), begin))
    return begin[order], value[order]


def _pod_seconds(pods: Series, begin_s: float, end_s: float) -> float:
    t, count = _held(pods, begin_s, end_s)
    length = end_s - begin_s
    return float(integral(t, count, length, np.asarray([length]))[0])


def _cost(pods: Series, begin_s: float, length_s: float, prices: Prices) -> float:
    """The measured pods at the plan's prices, a day."""
    t, count = _held(pods, begin_s, begin_s + length_s)
    none = np.zeros(len(t), np.int64)
    timeline = Timeline(t, np.ceil(count).astype(np.int64), none, none)
    billed = prices.node_seconds(timeline, length_s, np.asarray([0.0, length_s]))
    return float(billed.sum()) * prices.per_node_second / (length_s / DAY_S)
