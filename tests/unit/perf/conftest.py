"""The benchmarks' own modules, which import each other by name."""

import sys
from pathlib import Path

PERF = Path(__file__).parents[3] / "perf"
sys.path.append(str(PERF))
