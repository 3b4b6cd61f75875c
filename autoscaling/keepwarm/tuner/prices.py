"""What pods cost: nodes are billed, not pods, from when one is needed until it has gone.

A pod that goes frees money only if its node goes too. The Deployment gives up its newest pod first,
so pods fill nodes in order, and n pods need ceil(n / pods per node) of them; a node leaves once it
has been unneeded for `node_linger_s` (cluster-autoscaler: scale-down-unneeded-time, 10 min).
"""

from dataclasses import dataclass

import numpy as np

from keepwarm.kpa.model import Timeline
from keepwarm.traces.trace import Floats
from keepwarm.tuner.errors import TuneError
from keepwarm.tuner.intervals import Intervals

HOUR_S = 3600.0
DAY_S = 86_400.0
NODE_LINGER_S = 600.0


@dataclass(frozen=True)
class Prices:
    """Money is in one currency, named `currency`."""

    per_gpu_hour: float
    gpus_per_pod: int = 1
    gpus_per_node: int = 1
    node_linger_s: float = NODE_LINGER_S
    reserved_nodes: int = 0  # paid for whether used or not
    asleep_per_pod_hour: float | None = (
        None  # what an asleep pod still costs; None: it never sleeps
    )
    currency: str = "USD"

    def __post_init__(self) -> None:
        if not (np.isfinite(self.per_gpu_hour) and self.per_gpu_hour > 0):
            raise TuneError(f"--gpu-price is {self.per_gpu_hour}; it must be above 0 an hour.")
        if self.gpus_per_pod < 1:
            raise TuneError(f"A pod needs at least one GPU, not {self.gpus_per_pod}.")
        if self.gpus_per_node < self.gpus_per_pod:
            raise TuneError(
                f"A node of {self.gpus_per_node} GPUs cannot hold a pod of {self.gpus_per_pod};"
                " give --gpus-per-node."
            )
        if not (np.isfinite(self.node_linger_s) and self.node_linger_s >= 0):
            raise TuneError(f"--node-linger is {self.node_linger_s}; it must be 0 or more.")
        awake = self.per_gpu_hour * self.gpus_per_pod
        if self.asleep_per_pod_hour is not None and not 0 <= self.asleep_per_pod_hour <= awake:
            raise TuneError(
                f"--asleep-price is {self.asleep_per_pod_hour:g}; it must be from 0 to"
                f" {awake:g}, what the pod costs awake."
            )

    @property
    def pods_per_node(self) -> int:
        return self.gpus_per_node // self.gpus_per_pod

    @property
    def per_node_second(self) -> float:
        return self.per_gpu_hour * self.gpus_per_node / HOUR_S

    @property
    def saved_per_asleep_second(self) -> float:
        """What a pod-second asleep costs less than one awake."""
        if self.asleep_per_pod_hour is None:
            return 0.0
        return (self.per_gpu_hour * self.gpus_per_pod - self.asleep_per_pod_hour) / HOUR_S

    def node_seconds(self, timeline: Timeline, end_s: float, edges_s: Floats) -> Floats:
        """Billed node-seconds between each edge and the next, [len(edges) - 1]."""
        pods = timeline.ready + timeline.starting + timeline.draining
        nodes = -(-pods // self.pods_per_node)
        total = np.zeros(len(edges_s) - 1)
        for level in range(1, max(int(nodes.max(initial=0)), self.reserved_nodes) + 1):
            if level <= self.reserved_nodes:
                total += np.diff(np.minimum(edges_s, end_s))
                continue
            needed = Intervals.where(timeline.t_s, nodes >= level, end_s)
            total += needed.extended(self.node_linger_s, end_s).within(edges_s)
        return total
