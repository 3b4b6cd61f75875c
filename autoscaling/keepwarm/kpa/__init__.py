"""The twin of Knative's autoscaler: its rules tick for tick, and what they do to requests.

`model` holds the values in and out, with their units.
`simulate` runs policies over a request log; `annotations.resolve` makes a policy of a manifest.
"""

from keepwarm.kpa.errors import InputError
from keepwarm.kpa.model import (
    MinScaleSchedule,
    Outcome,
    Phases,
    Pods,
    Policy,
    Requests,
    Result,
    Timeline,
    Verdict,
)
from keepwarm.kpa.simulate import simulate

__all__ = [
    "InputError",
    "MinScaleSchedule",
    "Outcome",
    "Phases",
    "Pods",
    "Policy",
    "Requests",
    "Result",
    "Timeline",
    "Verdict",
    "simulate",
]
