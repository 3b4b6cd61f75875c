"""Service levels as counts: each term allows a share of the requests to be bad.

`ttft_p99<=2s` says that at most 1 % of the requests may take longer than 2 s to their first token,
so every term, a percentile too, is a count a day over the requests of that day.
"""

import re
from dataclasses import dataclass
from enum import StrEnum

from keepwarm.traces.errors import TraceError
from keepwarm.traces.histogram import duration_s
from keepwarm.tuner.errors import TuneError

DEFAULT = "cold<=1%"
ALLOWED = "cold<=1%, failed<=0.1%, wait_p95<=500ms, ttft_p99<=2s"
_SHARE = re.compile(r"^(cold|failed)\s*<=?\s*(\d+(?:\.\d+)?)\s*%$")
_TIME = re.compile(r"^(wait|ttft)_p(\d{1,2}(?:\.\d+)?)\s*<=?\s*(\S+)$")


class Kind(StrEnum):
    """What makes a request bad."""

    COLD = "cold"  # it found no ready pod
    FAILED = "failed"  # timed out, rejected or cut off
    WAIT = "wait"  # longer than over_s from arrival to a place in a pod
    TTFT = "ttft"  # longer than over_s from arrival to the first token


@dataclass(frozen=True)
class Term:
    """At most `allowed` (a share) of the requests may be bad."""

    text: str
    kind: Kind
    allowed: float
    over_s: float = 0.0


def parse(text: str) -> tuple[Term, ...]:
    """`cold<=1%,ttft_p99<=2s`. Raises TuneError naming the part and what is allowed."""
    terms: list[Term] = []
    for part in (p.strip() for p in text.split(",")):
        if share := _SHARE.match(part):
            allowed = float(share[2]) / 100
            if allowed > 1:
                raise TuneError(f"--slo: {part!r} allows more than 100 %.")
            terms.append(Term(part, Kind(share[1]), allowed))
        elif time := _TIME.match(part):
            try:
                over = duration_s(time[3])
            except TraceError as error:
                raise TuneError(f"--slo: in {part!r}, {error}") from None
            # Rounded, so that p99 allows 0.01 and not 0.010000000000000009.
            terms.append(Term(part, Kind(time[1]), round(1 - float(time[2]) / 100, 6), over))
        else:
            raise TuneError(f"--slo: {part!r} is no term such as {ALLOWED}.")
    if len({term.text for term in terms}) != len(terms):
        raise TuneError("--slo: a term is given twice.")
    return tuple(terms)
