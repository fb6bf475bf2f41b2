"""Kernels: the compiled functions of the world, and compiling them all ahead of their use.

numba compiles under a lock, one kernel at a time. So each part of the world is compiled by a
process of its own, on as many cores as there are; this one then finds everything on the disk.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numba.core.dispatcher import Dispatcher

from hotlap.deepracer.params import Params
from hotlap.env import EnvSettings, VectorEnv
from hotlap.sim.camera import Camera, CameraSettings
from hotlap.sim.lidar import Lidar, RangeLidar
from hotlap.sim.look import Look
from hotlap.sim.native import NativeSimulator
from hotlap.sim.traffic import TrafficSettings
from hotlap.simulator import BOX_FIELDS, Command
from hotlap.threads import available
from hotlap.track import load_track
from hotlap.vehicle import load_vehicle

__all__ = ["folders", "is_warm", "use", "warm"]

_COLD_SECONDS = 20


def is_warm() -> bool:
    """Say whether the kernels lie compiled on this disk; costs a look at a few directories.

    A cache that another kind of CPU has filled counts as warm: numba then compiles once more.
    """
    return all(_is_cached(kernel) for kernel in _kernels())


def warm() -> float:
    """Compile every kernel that is not yet compiled on this machine; return the seconds it took.

    Says so on standard error where it will take long.
    """
    was_warm = is_warm()
    start = time.perf_counter()
    if not was_warm:
        said = f"compiling kernels, once on this machine (about {_COLD_SECONDS} s)"
        sys.stderr.write(said + "\n")
        sys.stderr.flush()
        _compile_apart()
    for name in _PARTS:
        use(name)
    if not was_warm:
        # numba reads its index by a hash of the source: one written anew with the same text counts.
        for file in (file for kernel in _kernels() for file in _indexes(kernel)):
            with contextlib.suppress(OSError):
                file.touch()
    return time.perf_counter() - start


def use(name: str) -> None:
    """Call every kernel of a part of the world: world, camera, looks, lidar or params."""
    _PARTS[name]()


def folders() -> list[str]:
    """List the folders that hold compiled kernels."""
    return sorted({str(kernel.stats.cache_path) for kernel in _kernels()})


def _compile_apart() -> None:
    """Let processes compile the parts; one that fails leaves its part to this process."""
    if available() == 1:
        return
    call = "import sys; from hotlap import kernels; kernels.use(sys.argv[1])"
    helpers = []
    with contextlib.suppress(OSError):
        for name in _PARTS:
            command = [sys.executable, "-c", call, name]
            quiet = subprocess.DEVNULL
            helpers.append(subprocess.Popen(command, stdin=quiet, stdout=quiet, stderr=quiet))
    try:
        for helper in helpers:
            helper.wait()
    finally:  # Ctrl-C ends them too
        for helper in helpers:
            helper.kill()


def _use_world() -> None:
    env = VectorEnv(EnvSettings(traffic=TrafficSettings(obstacles=1)), 1, threads=1)
    env.begin()
    env.advance(np.zeros((1, 2), np.float32))


def _use_camera() -> None:
    camera = Camera(CameraSettings(), (load_track("oval"),))
    zero = np.zeros(1)
    camera.render(zero, zero, zero, zero, zero, boxes=_one_box())


def _use_looks() -> None:
    camera = Camera(CameraSettings(), (load_track("oval"),), (Look(wall_height=0.1, wear=0.5),))
    zero = np.zeros(1)
    camera.render(zero, zero, zero, zero, zero)
    camera.segmentation(zero, zero, zero, zero, zero, boxes=_one_box())


def _use_lidar() -> None:
    lidar = Lidar(RangeLidar(), (load_track("oval"),))
    zero = np.zeros(1)
    lidar.scan(zero, zero, zero, zero, _one_box())


def _use_params() -> None:
    tracks = (load_track("oval"),)
    state = NativeSimulator(tracks, load_vehicle("deepracer"), rows=1).state
    params = Params(tracks)
    params.begin(np.arange(1), state)
    params.compute(state, Command(*np.zeros((2, 1), np.float32)), state.steps)


def _one_box() -> np.ndarray[Any, Any]:
    return np.zeros((1, 1, len(BOX_FIELDS)), np.float32)


_PARTS: dict[str, Callable[[], None]] = {
    "world": _use_world,
    "camera": _use_camera,
    "looks": _use_looks,
    "lidar": _use_lidar,
    "params": _use_params,
}


def _kernels() -> list[Dispatcher]:
    """Find the loaded kernels that numba keeps on disk."""
    modules = [m for name, m in list(sys.modules.items()) if name.split(".")[0] == "hotlap"]
    found = [
        kernel
        for module in modules
        for kernel in vars(module).values()
        if isinstance(kernel, Dispatcher) and kernel.py_func.__module__ == module.__name__
    ]
    return [kernel for kernel in found if kernel.stats.cache_path is not None]


def _is_cached(kernel: Any) -> bool:
    written = [file.stat().st_mtime for file in _indexes(kernel)]
    # numba throws an index away whose source has changed since.
    return max(written, default=0.0) >= Path(kernel.py_func.__code__.co_filename).stat().st_mtime


def _indexes(kernel: Any) -> list[Path]:
    """List the files in which numba says what it has compiled of the kernel."""
    code = kernel.py_func.__code__
    pattern = f"*{kernel.py_func.__qualname__}-{code.co_firstlineno}.*.nbi"
    return list(Path(kernel.stats.cache_path).glob(pattern))
