"""`simulate`: what each policy would have done to a request log."""

import logging
from collections.abc import Iterator, Sequence
from typing import Literal

from keepwarm.kpa.model import Phases, Pods, Policy, Requests, Result, checked
from keepwarm.kpa.reference import RequestLoop

Engine = Literal["fast", "reference"]
DEFAULT_ENGINE: Engine = "fast"
_LOGGER = logging.getLogger(__name__)


def simulate(
    policies: Sequence[Policy],
    requests: Requests,
    pods: Pods,
    *,
    phases: Phases | None = None,
    engine: Engine = DEFAULT_ENGINE,
) -> Iterator[Result]:
    """One Result per policy, in their order, each computed when it is asked for.

    Results are as large as the request log: reduce each before the next to keep memory flat. The
    engines differ in nothing but speed (and `stepped_ticks`); when the fast one has to be compiled
    first, a warning is logged. Raises InputError for a policy that Knative would not accept.
    """
    checked(policies)
    beats = phases or Phases()
    if engine == "reference":
        return (RequestLoop(policy, requests, pods, beats).run() for policy in policies)
    # numba takes half a second to load.
    from keepwarm.kpa.fast import FastLog, compile_first

    compile_first(_LOGGER.warning)
    return map(FastLog(requests, pods, beats).run, policies)
