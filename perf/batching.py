"""Continuous batching as vLLM does it, on a clock that is handed in: no sockets and no GPU.

A step computes one token of every sequence that decodes and as many prompt tokens as the budget
leaves (chunked prefill, first come first served), and takes

    step_s + step_s_per_sequence * (sequences - 1) + step_s_per_prompt_token * prompt tokens

Between two things that somebody waits for, a sequence costs nothing: it stands in the calendar at
the number of the step whose end concerns it, so that a step costs what happens at its end. Not
modelled: the KV cache's size (no preemption), its prefix hits, and jitter.
"""

import json
import math
from collections import deque
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from keepwarm.traces.latency import LatencyModel

PROFILES = Path(__file__).parent / "profiles"


@dataclass(frozen=True, slots=True)
class Profile:
    """What an engine costs; seconds. `source` says what it was fitted to."""

    name: str
    source: str
    overhead_s: float  # before the engine sees a request: HTTP, tokenizer, its process
    step_s: float
    step_s_per_sequence: float
    step_s_per_prompt_token: float
    max_num_seqs: int = 256
    max_num_batched_tokens: int = 8192

    def __post_init__(self) -> None:
        """Raises ValueError for what no engine can be."""
        times = (
            *(self.overhead_s, self.step_s),
            *(self.step_s_per_sequence, self.step_s_per_prompt_token),
        )
        if not all(math.isfinite(each) and each >= 0 for each in times) or self.step_s == 0:
            raise ValueError("a profile's times must be 0 or more, and a step's more than 0")
        if not 1 <= self.max_num_seqs <= self.max_num_batched_tokens:
            raise ValueError("max_num_seqs must be from 1 to max_num_batched_tokens")

    def duration_s(self, sequences: int, prompt_tokens: int) -> float:
        """A step's time; `sequences` are those with a token or a piece of prompt in it."""
        return (
            self.step_s
            + self.step_s_per_sequence * (sequences - 1)
            + self.step_s_per_prompt_token * prompt_tokens
        )


def load(name: str) -> Profile:
    """The profile of that name in `profiles/`, or in the file of that name.

    Raises ValueError when there is none or it holds something else.
    """
    path = Path(name) if name.endswith(".json") else PROFILES / f"{name}.json"
    try:
        members: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        known = {each.name for each in fields(Profile)}
        return Profile(**{key: value for key, value in members.items() if key in known})
    except (OSError, TypeError, AttributeError, json.JSONDecodeError) as error:
        raise ValueError(f"{path} is no engine profile: {error}") from None


def save(profile: Profile, path: Path) -> None:
    """Writes what `load` reads."""
    path.write_text(json.dumps(asdict(profile), indent=2) + "\n", encoding="utf-8")


def from_latency_model(model: "LatencyModel", name: str, **limits: int) -> Profile:
    """The profile of a model that `keepwarm trace fit-latency` has fitted to a perf run.

    Its first token takes one step in either; what that step does not explain is overhead.
    """
    return Profile(
        name,
        f"keepwarm trace fit-latency, {model.fitted_on} requests",
        max(0.0, model.prefill_s - model.step_s),
        model.step_s,
        model.step_s_per_request,
        model.prefill_s_per_token,
        **limits,
    )


@dataclass(slots=True, eq=False)
class Sequence:
    """One prompt and its answer of `output_tokens`.

    It is told of every `tokens_per_event` tokens; 0 is of the whole answer only. Times are on the
    batch's clock; `tokens` is how many have been told.
    """

    came: float
    prompt_tokens: int
    output_tokens: int
    tokens_per_event: int = 0
    caller: Any = None
    scheduled: float = 0.0
    first: float = 0.0
    ended: float = 0.0
    tokens: int = 0
    dropped: bool = False
    decodes: bool = False
    prefill_left: int = field(init=False)

    def __post_init__(self) -> None:
        self.prefill_left = max(1, self.prompt_tokens)

    def next_event(self) -> int:
        """After how many more tokens it is told again."""
        left = self.output_tokens - self.tokens
        return min(self.tokens_per_event or left, left)


class Batch:
    """The sequences in an engine. Time only moves by `advance`."""

    def __init__(self, profile: Profile) -> None:
        self._profile = profile
        self._waiting: deque[Sequence] = deque()
        self._prefilling: deque[Sequence] = deque()
        self._prefilled: list[Sequence] = []
        self._calendar: dict[int, list[Sequence]] = {}
        self._step = 0
        self._ends: float | None = None
        self._decoding = 0
        self.generated = 0

    @property
    def running(self) -> int:
        """Sequences that hold one of the engine's places."""
        return self._decoding + len(self._prefilled) + len(self._prefilling)

    @property
    def waiting(self) -> int:
        """Sequences without a place, those that have been dropped since included."""
        return len(self._waiting)

    @property
    def next_s(self) -> float | None:
        """When `advance` has something to do; None when that takes a new sequence."""
        if self._ends is not None:
            return self._ends
        return self._waiting[0].came if self._waiting else None

    def add(self, sequence: Sequence) -> None:
        """Queues one; in order of `came`, which may lie ahead of what was advanced to."""
        self._waiting.append(sequence)

    def drop(self, sequence: Sequence) -> None:
        """Takes one out, as an abort does; what its step has begun is computed."""
        sequence.dropped = True
        if sequence.decodes:
            sequence.decodes = False
            self._decoding -= 1
        elif sequence in self._prefilling:
            self._prefilling.remove(sequence)

    def advance(self, now: float) -> list[tuple[Sequence, int]]:
        """Ends all steps that end by `now`; who is to be told, in order, of how many tokens so far.

        A caller that comes late sees the same steps as one that comes in time: the clock of the
        steps is their own.
        """
        told: list[tuple[Sequence, int]] = []
        while (due := self.next_s) is not None and due <= now:
            if self._ends is None:
                self._begin(due)
            else:
                self._end(self._ends, told)
        return told

    def _begin(self, at: float) -> None:
        """Plans a step that starts at `at`, if there is anything to compute."""
        most, budget = self._profile.max_num_seqs, self._profile.max_num_batched_tokens
        sequences, prompt_tokens = self._decoding, 0
        room = budget - sequences
        while room > 0:
            if not self._prefilling and not self._admit(at, most):
                break
            sequence = self._prefilling[0]
            share = min(room, sequence.prefill_left)
            sequence.prefill_left -= share
            room -= share
            prompt_tokens += share
            sequences += 1
            if sequence.prefill_left:
                break
            self._prefilled.append(self._prefilling.popleft())
        if sequences:
            self._ends = at + self._profile.duration_s(sequences, prompt_tokens)

    def _admit(self, at: float, most: int) -> bool:
        """Gives the next in the queue a place; False when nobody waits or none is free."""
        waiting = self._waiting
        while waiting and waiting[0].dropped:
            waiting.popleft()
        if not waiting or waiting[0].came > at:
            return False
        if self._decoding + len(self._prefilled) >= most:
            return False
        sequence = waiting.popleft()
        sequence.scheduled = at
        self._prefilling.append(sequence)
        return True

    def _end(self, at: float, told: list[tuple[Sequence, int]]) -> None:
        """Ends the step in progress and begins the next."""
        self._step += 1
        self._ends = None
        self.generated += self._decoding
        for sequence in self._calendar.pop(self._step, ()):
            if not sequence.dropped:
                sequence.tokens += sequence.next_event()
                self._tell(sequence, at, told)
        for sequence in self._prefilled:
            if sequence.dropped:
                continue
            self.generated += 1
            self._decoding += 1
            sequence.decodes = True
            sequence.first = at
            if sequence.tokens_per_event or sequence.output_tokens == 1:
                sequence.tokens = 1
                self._tell(sequence, at, told)
            else:
                self._later(sequence, sequence.output_tokens - 1)
        self._prefilled.clear()
        self._begin(at)

    def _tell(self, sequence: Sequence, at: float, told: list[tuple[Sequence, int]]) -> None:
        told.append((sequence, sequence.tokens))
        if sequence.tokens >= sequence.output_tokens:
            sequence.ended = at
            sequence.decodes = False
            self._decoding -= 1
        else:
            self._later(sequence, sequence.next_event())

    def _later(self, sequence: Sequence, steps: int) -> None:
        self._calendar.setdefault(self._step + steps, []).append(sequence)


def replay(profile: Profile, sequences: Iterable[Sequence]) -> None:
    """Puts all of `sequences`, in order of `came`, through an engine until the last has ended."""
    batch = Batch(profile)
    for sequence in sequences:
        batch.add(sequence)
    batch.advance(math.inf)
