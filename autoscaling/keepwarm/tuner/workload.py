"""What is replayed: the requests with their measured service times, the pods' measured start-ups.

Days are the blocks that figures are kept by, held out and resampled by; a trace shorter than
four days is cut into twelve equal blocks instead.
"""

from dataclasses import dataclass, replace
from datetime import datetime, tzinfo

import numpy as np

from keepwarm.kpa.model import Pods, Requests
from keepwarm.traces.histogram import Distribution
from keepwarm.traces.latency import LatencyModel
from keepwarm.traces.trace import DAY_S, Bools, Floats, Ints, Trace
from keepwarm.tuner.errors import TuneError

START_DRAWS = 512
SHORT_BLOCKS = 12
DAYS_FOR_DAY_BLOCKS = 4
JITTER_S = 30.0
TICK_S = 2.0


@dataclass(frozen=True, eq=False)
class Workload:
    """n requests. `prefill_s` [n] is the time to the first token in a pod; None: not measured."""

    name: str
    begins: datetime
    zone: tzinfo
    requests: Requests
    prefill_s: Floats | None
    pods: Pods
    block_s: float

    @property
    def blocks(self) -> int:
        return max(1, round(self.requests.duration_s / self.block_s))

    @property
    def edges_s(self) -> Floats:
        """Where blocks begin, and the end. A last block under half of one joins the one before."""
        edges = np.arange(self.blocks + 1, dtype=np.float64) * self.block_s
        edges[-1] = self.requests.duration_s
        return edges

    @property
    def block_of(self) -> Ints:
        """Each request's block, [n]."""
        index = (self.requests.arrival_s / self.block_s).astype(np.int64)
        return np.minimum(index, self.blocks - 1)

    @property
    def settled_s(self) -> float:
        """From when on requests count.

        The revision is new when the trace begins; who comes before its first pod can be ready
        meets the beginning of the recording, not the policy.
        """
        return TICK_S + max(self.pods.start_s)

    @property
    def counted(self) -> Bools:
        """Which requests count, [n]."""
        return np.asarray(self.requests.arrival_s >= self.settled_s)

    @property
    def block_name(self) -> str:
        """What a block is called, for one."""
        return "day" if self.block_s == DAY_S else f"{self.block_s / 60:.0f}-minute stretch"

    @property
    def blocks_name(self) -> str:
        """For several."""
        return "days" if self.block_s == DAY_S else f"{self.block_name}es"

    def first(self, blocks: int) -> "Workload":
        """The requests of the first so many blocks."""
        end = float(self.edges_s[blocks])
        count = int(np.searchsorted(self.requests.arrival_s, end))
        if not count:
            raise TuneError(f"{self.name}: there is no request in its first {blocks} blocks.")
        requests = Requests(self.requests.arrival_s[:count], self.requests.service_s[:count], end)
        prefill = None if self.prefill_s is None else self.prefill_s[:count]
        return replace(self, requests=requests, prefill_s=prefill)

    def with_cold_start(self, factor: float) -> "Workload":
        """Every start-up that much longer."""
        starts = tuple(s * factor for s in self.pods.start_s)
        return replace(self, pods=replace(self.pods, start_s=starts))

    def with_traffic(self, factor: float, seed: int) -> "Workload":
        """More or fewer requests: some left out, or some repeated close to where they were.

        Thinning and jittered copies keep the day's shape, the bursts and the silences' places;
        stretching the clock would not.
        """
        rng = np.random.default_rng(seed)
        size = len(self.requests)
        if factor <= 1:
            rows = np.flatnonzero(rng.random(size) < factor)
            arrival = self.requests.arrival_s[rows]
        else:
            again = np.flatnonzero(rng.random(size) < factor - 1)
            moved = self.requests.arrival_s[again] + rng.normal(0, JITTER_S, len(again))
            rows = np.concatenate((np.arange(size), again))
            arrival = np.concatenate((self.requests.arrival_s, np.abs(moved)))
            arrival = np.minimum(arrival, self.requests.duration_s)
        order = np.argsort(arrival, kind="stable")
        rows = rows[order]
        return replace(
            self,
            requests=Requests(
                arrival[order], self.requests.service_s[rows], self.requests.duration_s
            ),
            prefill_s=None if self.prefill_s is None else self.prefill_s[rows],
        )


@dataclass(frozen=True, eq=False)
class Measured:
    """What was measured of requests and pods; at most one of the first two."""

    cold_start: Distribution
    latency: LatencyModel | None = None
    service: Distribution | None = None
    first_token: Distribution | None = None  # warm, in the pod


def workload(
    trace: Trace, measured: Measured, *, zone: tzinfo, timeout_s: float, seed: int
) -> Workload:
    """The workload of a trace. Raises TuneError when nothing tells how long requests take."""
    block_s = float(DAY_S)
    if trace.duration_s < DAYS_FOR_DAY_BLOCKS * DAY_S:
        block_s = trace.duration_s / SHORT_BLOCKS
    return Workload(
        name=trace.source,
        begins=trace.begins,
        zone=zone,
        requests=Requests(trace.arrival_s, _service(trace, measured, seed), trace.duration_s),
        prefill_s=_prefill(trace, measured, seed),
        pods=Pods(
            start_s=measured.cold_start.draw(START_DRAWS, seed),
            slowdown=measured.latency.slowdown if measured.latency else 0.0,
            request_timeout_s=timeout_s,
            termination_grace_s=timeout_s,
        ),
        block_s=block_s,
    )


def _service(trace: Trace, measured: Measured, seed: int) -> Floats:
    if trace.service_s is not None:
        # A row without a time gets one of the others': they were measured on the same service.
        known = trace.service_s[~np.isnan(trace.service_s)]
        drawn = np.random.default_rng(seed).choice(known, len(trace))
        return np.where(np.isnan(trace.service_s), drawn, trace.service_s)
    if measured.latency is not None:
        return measured.latency.service_s(trace)
    if measured.service is not None:
        return np.asarray(measured.service.draw(len(trace), seed))
    raise TuneError(
        f"{trace.source} does not tell how long requests take. Give --latency-model (from"
        " `keepwarm trace fit-latency` and a perf run) or --service-time (a measured histogram or"
        " quantiles)."
    )


def _prefill(trace: Trace, measured: Measured, seed: int) -> Floats | None:
    if measured.latency is not None and trace.input_tokens.any():
        return measured.latency.ttft_s(trace.input_tokens.astype(np.float64))
    if measured.first_token is not None:
        return np.asarray(measured.first_token.draw(len(trace), seed + 1))
    return None
