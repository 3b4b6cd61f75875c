"""Settings in, scores out: each is simulated once, kept in memory and, if asked, in a file.

The file makes a search that was stopped go on where it was: a line holds a setting's key, which
covers everything that the score depends on, and its score.
"""

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import orjson

from keepwarm.kpa.model import Result, Verdict
from keepwarm.kpa.simulate import simulate
from keepwarm.tuner.errors import TuneError
from keepwarm.tuner.intervals import Intervals
from keepwarm.tuner.prices import Prices
from keepwarm.tuner.score import Score, score
from keepwarm.tuner.setting import Setting
from keepwarm.tuner.slo import Term
from keepwarm.tuner.week import Hours, hours_of_trace
from keepwarm.tuner.workload import Workload

# Raised when the twin or the scoring gives other figures for the same setting: old files end then.
VERSION = 1


@dataclass(frozen=True, eq=False)
class Rules:
    """What every setting is judged by."""

    terms: tuple[Term, ...]
    prices: Prices
    lead_s: float  # how long before its windows the warm pool asks for pods
    wake_s: tuple[float, ...] = ()  # measured; empty: no sleep tier


class Store:
    """Scores by key in a file that is only appended to; without a path, nothing is kept."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._lines: dict[str, Score] = {}
        if path is not None and path.exists():
            for line in path.read_bytes().splitlines():
                try:
                    row = orjson.loads(line)
                    self._lines[row["key"]] = Score.of_json(row["score"])
                except (orjson.JSONDecodeError, KeyError, TypeError):
                    continue  # the line that was being written when the search was stopped

    def get(self, key: str) -> Score | None:
        return self._lines.get(key)

    def put(self, key: str, found: Score) -> None:
        """Keeps a score. Raises TuneError when the file cannot be written."""
        self._lines[key] = found
        if self._path is None:
            return
        try:
            with self._path.open("ab") as file:
                file.write(orjson.dumps({"key": key, "score": found.as_json()}) + b"\n")
        except OSError as error:
            raise TuneError(f"{self._path} cannot be written: {error.strerror}.") from None


class Evaluator:
    """Scores settings on one workload."""

    def __init__(
        self,
        workload: Workload,
        rules: Rules,
        store: Store | None = None,
        tell: Callable[[int], None] = lambda _: None,
    ) -> None:
        self.workload = workload
        self.rules = rules
        self.simulated = 0
        self._store = store or Store(None)
        self._tell = tell
        self._scores: dict[Setting, Score] = {}
        self._fingerprint = fingerprint(workload, rules)

    def scores(self, settings: Iterable[Setting]) -> list[Score]:
        """One score each, in their order."""
        wanted = list(settings)
        missing: dict[Setting, list[Setting]] = {}
        for setting in dict.fromkeys(wanted):
            if setting in self._scores:
                continue
            known = self._store.get(self._key(setting))
            if known is not None:
                self._scores[setting] = known
                self._tell(1)
                continue
            # Sleep is laid over a simulation, so settings that differ only there share one.
            missing.setdefault(replace(setting, sleep_after_s=None), []).append(setting)
        for result, sharing in zip(self.results(list(missing)), missing.values(), strict=True):
            for setting in sharing:
                found = score(
                    result,
                    self.workload,
                    self.rules.terms,
                    self.rules.prices,
                    sleep_after_s=setting.sleep_after_s,
                    wake_s=self.rules.wake_s,
                )
                self._scores[setting] = found
                self._store.put(self._key(setting), found)
            self.simulated += 1
            self._tell(len(sharing))
        return [self._scores[setting] for setting in wanted]

    def on(self, workload: Workload) -> "Evaluator":
        """The same rules and file for another workload."""
        return Evaluator(workload, self.rules, self._store, self._tell)

    @property
    def known(self) -> dict[Setting, Score]:
        """Everything scored so far."""
        return self._scores

    def results(self, settings: Sequence[Setting]) -> Iterable[Result]:
        """The whole simulations, one after the other."""
        load = self.workload
        policies = [setting.twin(load, self.rules.lead_s) for setting in settings]
        return simulate(policies, load.requests, load.pods)

    def hours(self, setting: Setting) -> Hours:
        """What a setting leaves to be won by keeping hours warm."""
        (result,) = self.results([setting])
        return hours_of(result, self.workload, self.rules.prices)

    def _key(self, setting: Setting) -> str:
        return hashlib.sha256(f"{self._fingerprint} {setting!r}".encode()).hexdigest()[:32]


def hours_of(result: Result, workload: Workload, prices: Prices) -> Hours:
    """Cold requests and unpaid node time of each elapsed hour."""
    end = result.duration_s
    begin, label = hours_of_trace(workload.begins, workload.zone, end)
    edges = np.append(begin, end)
    pods = result.timeline.ready + result.timeline.starting + result.timeline.draining
    paid = Intervals.where(result.timeline.t_s, pods > 0, end).extended(prices.node_linger_s, end)
    cold = workload.requests.arrival_s[(result.verdict == Verdict.COLD) & workload.counted]
    return Hours(
        label=label,
        block=np.minimum((begin / workload.block_s).astype(np.int64), workload.blocks - 1),
        cold=np.histogram(cold, bins=edges)[0].astype(np.float64),
        free_s=np.diff(edges) - paid.within(edges),
    )


def fingerprint(workload: Workload, rules: Rules) -> str:
    """A hash of all that a score depends on besides its setting."""
    found = hashlib.sha256(f"{VERSION} {workload.pods!r} {rules!r}".encode())
    found.update(f"{workload.begins} {workload.zone} {workload.requests.duration_s}".encode())
    for values in (workload.requests.arrival_s, workload.requests.service_s, workload.prefill_s):
        found.update(b"-" if values is None else values.tobytes())
    return found.hexdigest()
