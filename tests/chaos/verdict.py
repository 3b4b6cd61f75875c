"""What is allowed to happen to a call while things die, and what the books must say."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from callers import Call
from fixed_predictor import answer

# Statuses that say what to do: come back later, give it more time.
LATER = ("503", "429", "UNAVAILABLE", "RESOURCE_EXHAUSTED")
LATE = ("504", "DEADLINE_EXCEEDED")
BEGUN = ("200", "OK")
# No error of ours says in fewer words what to do.
FEWEST_WORDS = 4
# Bytes around a text that the limits count as tokens at most.
TEXT_EXTRA = 4


class Outcome(StrEnum):
    """How a call ended."""

    ANSWERED = "answered"
    REFUSED = "refused with a status and a time"
    LATE = "told that its deadline has passed"
    BROKEN_OFF = "a stream ended by an error event"
    LEFT = "left by its caller"
    LOST = "lost with its transformer"


@dataclass(frozen=True, slots=True)
class Death:
    """When a transformer was killed: between these two, on the loop's clock."""

    after: float
    before: float


def outcome(call: Call, deaths: Sequence[Death]) -> Outcome | str:
    """How `call` ended, or a sentence on what should not have happened.

    `deaths` are those of the transformer that it went to.
    """
    right = answer(call.prompt, call.tokens)
    ended: Outcome | str
    if call.hung:
        ended = "hung"
    elif not right.startswith(call.text):
        ended = f"wrong text {call.text!r}"
    elif call.left:
        ended = Outcome.LEFT
    elif not call.status:
        in_flight = any(call.began <= d.before and d.after <= call.ended for d in deaths)
        ended = Outcome.LOST if in_flight else f"lost, though nobody killed it ({call.error})"
    elif call.error is None:
        whole = call.whole and call.text == right and call.status in BEGUN
        ended = Outcome.ANSWERED if whole else f"cut short without an error: {call.text!r}"
    else:
        ended = _failure(call, call.error)
    if isinstance(ended, Outcome):
        return ended
    return (
        f"{call.kind} {call.prompt!r} of {call.tokens} tokens to the {call.to},"
        f" status {call.status}: {ended}"
    )


def _failure(call: Call, error: str) -> Outcome | str:
    if "internal" in error or len(error.split()) < FEWEST_WORDS:
        return f"an error that says nothing: {error!r}"
    if call.status in BEGUN and call.streamed:
        return Outcome.BROKEN_OFF
    if call.status in LATER:
        return Outcome.REFUSED if float(call.retry_after or 0) > 0 else f"no time to come: {error}"
    return Outcome.LATE if call.status in LATE else error


def charge(call: Call, ended: Outcome) -> tuple[int, int]:
    """The least and the most tokens that the call may have cost."""
    prompt = len(call.prompt.split())
    bound = len(call.prompt) + TEXT_EXTRA + call.tokens
    match ended:
        case Outcome.ANSWERED:
            exact = prompt + call.tokens
        case Outcome.REFUSED:
            exact = 0
        case Outcome.BROKEN_OFF if call.error is not None and "deadline" not in call.error:
            # What it brought: each part is a token of the fixed engine.
            exact = prompt + len(call.texts) if call.texts else 0
        case _:
            least = 0 if call.popular or not call.texts else prompt + len(call.texts)
            return least, bound
    # An answer that was there already, or another caller's, costs nothing.
    return (0 if call.popular else exact), exact
