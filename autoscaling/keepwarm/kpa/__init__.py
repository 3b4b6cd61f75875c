"""The twin of Knative's autoscaler: its rules tick for tick, and what they do to requests.

`model` holds the values in and out, with their units. `simulate` runs policies over a request log,
`simulate_policies` reduces each to sums per day; `annotations.resolve` turns a manifest into one.
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
from keepwarm.kpa.policy_outcomes import PolicyOutcomes, simulate_policies
from keepwarm.kpa.simulate import simulate

__all__ = [
    "InputError",
    "MinScaleSchedule",
    "Outcome",
    "Phases",
    "Pods",
    "Policy",
    "PolicyOutcomes",
    "Requests",
    "Result",
    "Timeline",
    "Verdict",
    "simulate",
    "simulate_policies",
]
