"""How many of a revision's pods are asked for their load each second.

Knative `pkg/autoscaler/metrics/sample_size.go`: the sample of a population for a 95 % confidence
level, an error margin of 5 and a variance of 100. The rest is extrapolated; the twin, which knows
every pod's load, does not draw samples.
"""

import math

UNBOUNDED_SAMPLE = 1.96 * 1.96 * 100.0 / (5.0 * 5.0)


def sample_size(pods: int) -> int:
    """Up to 3 pods all of them, then ever fewer of more: 7 of 10, 16 of 1000."""
    if pods <= 3:
        return max(pods, 0)
    return math.ceil(pods * UNBOUNDED_SAMPLE / (pods + UNBOUNDED_SAMPLE - 1))
