"""Where and when a Run was made."""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import platform
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

__all__ = ["now", "surroundings"]


def now() -> str:
    """Return the time in UTC, to the millisecond."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def surroundings() -> dict[str, Any]:
    """Return what a training runs on, without importing what is only named."""
    versions = {"python": platform.python_version()}
    for package in ("hotlap", "numpy", "numba", "torch"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[package] = importlib.metadata.version(package)
    root = Path(__file__).parents[3]
    commit = None
    if (root / ".git").exists():  # a checkout of ours, not the repository hotlap is installed in
        with contextlib.suppress(OSError, subprocess.SubprocessError):
            commit = subprocess.run(
                ["git", "-C", str(root), "rev-parse", "HEAD"],
                capture_output=True,
                text=True,
                timeout=5,
                check=True,
            ).stdout.strip()
    cpu = platform.processor()
    with contextlib.suppress(OSError, StopIteration):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        cpu = next(line for line in lines if line.startswith("model name")).split(":")[1].strip()
    return {
        "created": now(),
        "command": sys.argv,
        "versions": versions,
        "commit": commit,
        "machine": {"system": platform.platform(), "cpu": cpu, "cores": os.cpu_count()},
    }
