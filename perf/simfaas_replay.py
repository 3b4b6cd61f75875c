"""SimFaaS over a request log, in its own environment: `kpa_engine.py` starts this.

Standard input: JSON with arrival_s, service_s, cold_start_s and expiration_s. Output, one line per
repetition: seconds of CPU, requests, cold starts, average instances.
"""

import json
import sys
import time
from collections.abc import Iterable
from itertools import chain, repeat

from simfaas.ServerlessSimulator import ServerlessSimulator
from simfaas.SimProcess import SimProcess


class Replay(SimProcess):
    """Gives out recorded times one after the other, plus a constant."""

    def __init__(self, times_s: Iterable[float], plus_s: float = 0.0) -> None:
        super().__init__()
        self._times_s = iter(times_s)
        self._plus_s = plus_s

    def generate_trace(self) -> float:
        return next(self._times_s) + self._plus_s


def main() -> None:
    """Runs each repetition anew."""
    log = json.load(sys.stdin)
    arrival = log["arrival_s"]
    gaps = [b - a for a, b in zip([0.0, *arrival], arrival, strict=False)]
    for _ in range(log["repetitions"]):
        # It looks one or two arrivals past the end; all of them share one list of service times.
        service = chain(log["service_s"], repeat(0.0))
        simulator = ServerlessSimulator(
            arrival_process=Replay(chain(gaps, [log["duration_s"] - arrival[-1]], repeat(1.0))),
            warm_service_process=Replay(service),
            cold_service_process=Replay(service, log["cold_start_s"]),
            expiration_threshold=log["expiration_s"],
            max_time=log["duration_s"],
            maximum_concurrency=100_000,
        )
        began = time.process_time()
        simulator.generate_trace(debug_print=False, progress=False)
        took_s = time.process_time() - began
        simulator.calculate_time_lengths()
        row = (
            took_s,
            simulator.total_req_count,
            simulator.total_cold_count,
            float(simulator.get_average_server_count()),
        )
        print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
