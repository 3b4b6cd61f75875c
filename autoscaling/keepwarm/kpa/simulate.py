"""`simulate`: what each policy would have done to a request log."""

from collections.abc import Iterator, Sequence
from typing import Literal

from keepwarm.kpa.model import Phases, Pods, Policy, Requests, Result, checked
from keepwarm.kpa.reference import RequestLoop

Engine = Literal["reference"]
DEFAULT_ENGINE: Engine = "reference"
_LOOPS = {"reference": RequestLoop}


def simulate(
    policies: Sequence[Policy],
    requests: Requests,
    pods: Pods,
    *,
    phases: Phases | None = None,
    engine: Engine = DEFAULT_ENGINE,
) -> Iterator[Result]:
    """One Result per policy, in their order, each computed when it is asked for.

    Results are as large as the request log: reduce each before the next to keep memory flat.
    Raises InputError for a policy that Knative would not accept.
    """
    checked(policies)
    loop = _LOOPS[engine]
    return (loop(policy, requests, pods, phases or Phases()).run() for policy in policies)
