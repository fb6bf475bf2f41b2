"""The machine: what it has, and under which conditions something is measured on it."""

from __future__ import annotations

import contextlib
import importlib
import importlib.metadata
import os
import platform
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from hotlap import kernels
from hotlap.threads import available

__all__ = ["cpu", "machine", "stamp", "version"]

BUSY = 0.5
"""Load per core above which what is measured is not worth keeping."""


def machine() -> dict[str, Any]:
    """Return what this machine has, ready for JSON; compiles the kernels if they are not yet."""
    facts: dict[str, Any] = {
        "hotlap": version("hotlap", ""),
        "python": platform.python_version(),
        "numpy": version("numpy", ""),
        "numba": version("numba", ""),
        "torch": version("torch", "train"),
        "tensorboard": version("tensorboard", "train"),
        "av": version("av", "video"),
        "system": platform.platform(),
        "cpu": cpu(),
        "vectors": _vectors(),
        "cores": f"{available()} usable of {os.cpu_count()}",
        "memory": _memory(),
        "gpu": _gpu(),
    }
    was_warm = kernels.is_warm()
    seconds = kernels.warm()
    facts["kernels"] = f"{'loaded' if was_warm else 'compiled'} in {seconds:.1f} s"
    return facts


def version(package: str, extra: str) -> str:
    """Return the version of a package, or the line that installs it."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        wanted = f"hotlap[{extra}]" if extra else package
        return f"not installed: pip install '{wanted}'"


def cpu() -> str:
    """Return the name of the processor."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _vectors() -> str:
    """Name the widest vector instructions of the CPU, where the system lists them."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("flags"):
                flags = line.split()
                names = {"avx512f": "AVX-512", "avx2": "AVX2", "avx": "AVX"}
                return next((name for flag, name in names.items() if flag in flags), "SSE")
    return "unknown"


def _memory() -> str:
    try:
        size = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return "unknown"
    return f"{size / 2**30:.1f} GiB"


def _gpu(driver: Path = Path("/proc/driver/nvidia")) -> str:
    """Name the GPU that torch would learn on; torch is imported only where there is a driver."""
    torch_version = version("torch", "train")
    if not (driver.exists() or Path("/dev/dxg").exists()):
        return "none"
    if torch_version.startswith("not installed"):
        return f"an NVIDIA driver is there; torch is {torch_version}"
    torch = importlib.import_module("torch")
    if not torch.cuda.is_available():
        return f"an NVIDIA driver is there, but torch {torch_version} cannot use it"
    return str(torch.cuda.get_device_name(0))


def stamp() -> dict[str, Any]:
    """Return when, from which commit and under what load something is measured."""
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    cores = available()
    share = None if load is None else round(load / cores, 2)
    warning = None
    if share is not None and share > BUSY:
        warning = (
            f"the machine is busy: load {load:.1f} on {cores} cores before the start. "
            "These figures are too low; measure again when nothing else runs."
        )
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": _commit(),
        "conditions": {"load_before": load, "load_per_core": share, "warning": warning},
    }


def _commit() -> str | None:
    root = Path(__file__).parents[2]
    if not (root / ".git").exists():  # installed: a repository around it would not be ours
        return None

    def git(*words: str) -> str:
        call = ["git", "-C", str(root), *words]
        done = subprocess.run(call, capture_output=True, text=True, timeout=10, check=True)
        return done.stdout.strip()

    try:
        places = ("src", "configs", "examples")
        changed = git("status", "--porcelain", "--untracked-files=no", "--", *places)
        return git("rev-parse", "--short", "HEAD") + ("-changed" if changed else "")
    except (OSError, subprocess.SubprocessError):
        return None
