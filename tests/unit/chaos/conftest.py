"""The chaos test's own modules, which import each other by name."""

import sys
from pathlib import Path

TESTS = Path(__file__).parents[2]
sys.path += [str(TESTS / "chaos"), str(TESTS.parent / "perf")]
