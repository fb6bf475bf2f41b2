"""Lets the learning tests use the collector of the benchmarks, so that there is one."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
