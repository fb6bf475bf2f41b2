"""Kernels: the compiled functions of the world, and compiling them all ahead of their use.

What a training does not need is not compiled for it. numba compiles under a lock, one kernel at a
time; so the parts of the world are dealt out to as many processes as there are cores, and this one
then finds everything on the disk.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import subprocess
import sys
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numba.core.dispatcher import Dispatcher

from hotlap.algorithms.batch import ActionSpec, Batch, ObservationSpec
from hotlap.algorithms.normalizer import RunningNormalizer, normalize
from hotlap.algorithms.ppo import make_ppo
from hotlap.algorithms.settings import DistillSettings, PPOSettings
from hotlap.algorithms.student import make_student
from hotlap.clock import Clock, ClockSettings
from hotlap.deepracer.params import Params
from hotlap.env import EnvSettings, VectorEnv
from hotlap.env.drivers import env_settings
from hotlap.env.settings import PICTURES
from hotlap.errors import RunError
from hotlap.opponents import SELF, OpponentSettings
from hotlap.runs import Run
from hotlap.sim.bands import ColorBandsSettings, color_bands
from hotlap.sim.camera import Camera, CameraSettings
from hotlap.sim.lidar import Lidar, RangeLidar
from hotlap.sim.look import Look, RobotiniLook
from hotlap.sim.native import NativeSimulator
from hotlap.sim.optics import OpticsRanges, OpticsSettings
from hotlap.sim.traffic import TrafficSettings
from hotlap.simulator import BOX_FIELDS, Command
from hotlap.tasks.rewards import FileReward
from hotlap.threads import available
from hotlap.track import load_track
from hotlap.vehicle import load_vehicle

__all__ = ["PARTS", "compile_for", "folders", "is_warm", "parts_of", "use", "warm"]

_COLD_SECONDS = 60


@dataclass(frozen=True)
class _Part:
    modules: tuple[str, ...]
    """Whose kernels it is."""
    use: Callable[[], object]
    """Calls each of them."""


def is_warm(parts: Collection[str] = ()) -> bool:
    """Say whether the kernels lie compiled on this disk; costs a look at a few directories.

    A cache that another kind of CPU has filled counts as warm: numba then compiles once more.

    Args:
        parts: of the world, by name; all if empty.
    """
    return all(_is_cached(kernel) for kernel in _kernels(parts))


def warm(parts: Collection[str] = ()) -> float:
    """Compile the kernels that are not yet compiled on this machine; return the seconds it took.

    Says so on standard error where it will take long.

    Args:
        parts: of the world, by name; all if empty.
    """
    parts = tuple(parts or PARTS)
    start = time.perf_counter()
    if not is_warm(parts):
        said = f"compiling kernels, once on this machine (about {_COLD_SECONDS} s)"
        sys.stderr.write(said + "\n")
        sys.stderr.flush()
        for kernel in _kernels(parts):
            # numba looks at a kernel's own source alone, and would go on with an outdated callee.
            if not _is_cached(kernel):
                for file in _indexes(kernel):
                    file.unlink(missing_ok=True)
        _compile_apart([name for name in parts if not is_warm((name,))])
    for name in parts:
        use(name)
    return time.perf_counter() - start


def compile_for(settings: EnvSettings) -> None:
    """Compile what training with some settings calls, unless it all lies compiled; see `warm`."""
    parts = parts_of(settings)
    if not is_warm(parts):
        warm(parts)


def use(name: str) -> None:
    """Call every kernel of a part of the world."""
    PARTS[name].use()


def parts_of(settings: EnvSettings) -> list[str]:
    """Name the parts of the world that training, evaluating and filming with some settings call."""
    seen = {*settings.observation.actor, *settings.observation.critic}
    camera, look, ranges = settings.observation.camera, settings.look, settings.randomize
    shared = settings.shared
    bent = camera.lens != "pinhole" or camera.distortion != (0, 0)
    logs = getattr(settings, "log", None)  # of a training
    bent |= bool(camera.roll_deg or ranges.mounting.roll_deg or ranges.mounting.distortion)
    wanted = {
        "world": True,
        "camera": True,  # of the film
        "traffic": shared,
        "objects": shared,
        "lidar": "lidar" in seen,
        "params": isinstance(settings.reward, FileReward) or bool(logs and logs.deepracer),
        "walls": look.wall_height > 0,
        "floor": not look.plain or bool(ranges.wear or ranges.light or ranges.shade),
        "relief": bool(seen & {"depth", "segmentation"}),
        "optics": not camera.optics.perfect or ranges.optics.any or camera.clock.noise > 0,
        "lens": bent,
        "bands": "color_bands" in seen,
        "learner": _may_learn_compiled(settings),
    }
    for rival in settings.opponents.drivers if settings.opponents.share else ():
        if rival == SELF:
            continue
        with contextlib.suppress(RunError):  # missing: said where it is needed
            theirs = env_settings(Run.open(rival))
            # They see this world by their own cameras and LIDARs, without errors.
            own = theirs.model_copy(update={"opponents": OpponentSettings()})
            wanted |= dict.fromkeys({*parts_of(own)} - {"params", "optics"}, True)
    return [name for name in PARTS if wanted[name]]


def _may_learn_compiled(settings: EnvSettings) -> bool:
    """Say whether training with some settings may learn by compiled kernels."""
    algorithm = getattr(settings, "algorithm", None)
    if isinstance(algorithm, DistillSettings):  # at least its teacher
        return True
    if not isinstance(algorithm, PPOSettings):
        return False
    return algorithm.network.cnn == "small" or not PICTURES & {*settings.observation.actor}


def folders() -> list[str]:
    """List the folders that hold compiled kernels."""
    return sorted({str(kernel.stats.cache_path) for kernel in _kernels()})


def _compile_apart(parts: list[str]) -> None:
    """Let processes compile parts; one that fails leaves its parts to this process."""
    count = min(available(), len(parts))
    if count < 2:
        return
    call = "import sys; from hotlap import kernels; [kernels.use(name) for name in sys.argv[1:]]"
    helpers = []
    with contextlib.suppress(OSError):
        for first in range(count):
            command = [sys.executable, "-c", call, *parts[first::count]]
            quiet = subprocess.DEVNULL
            helpers.append(subprocess.Popen(command, stdin=quiet, stdout=quiet, stderr=quiet))
    try:
        for helper in helpers:
            helper.wait()
    finally:  # Ctrl-C ends them too
        for helper in helpers:
            helper.kill()


def _use_world() -> None:
    env = VectorEnv(EnvSettings(), 1, threads=1)
    seen = env.begin()["state"]
    env.advance(np.zeros((1, 2), np.float32))
    normalizer = RunningNormalizer(seen.shape[1])
    for values in (seen, seen.astype(np.float64)):  # of observations, and of returns
        normalizer.update(values)
    normalize(seen, normalizer.mean, normalizer.std)


def _use_traffic() -> None:
    env = VectorEnv(EnvSettings(traffic=TrafficSettings(obstacles=1)), 1, threads=1)
    env.begin()
    env.advance(np.zeros((1, 2), np.float32))


def _use_lidar() -> None:
    zero = np.zeros(1)
    lidar = Lidar(RangeLidar(), (load_track("oval"),))
    lidar.scan(zero, zero, zero, zero, _one_box())


def _use_params() -> None:
    tracks = (load_track("oval"),)
    state = NativeSimulator(tracks, load_vehicle("deepracer"), rows=1).state
    params = Params(tracks)
    params.begin(np.arange(1), state)
    params.compute(state, Command(*np.zeros((2, 1), np.float32)), state.steps)


def _use_camera() -> None:
    _picture(CameraSettings())


def _use_objects() -> None:
    _picture(CameraSettings(), boxes=_one_box())


def _use_walls() -> None:
    _picture(CameraSettings(), Look(wall_height=0.3), boxes=_one_box())


def _use_floor() -> None:
    _picture(CameraSettings(), RobotiniLook())


def _use_relief() -> None:
    zero = np.zeros(1)
    camera = Camera(CameraSettings(width=32, height=24), (load_track("oval"),))
    camera.segmentation(zero, zero, zero, zero, zero)


def _use_lens() -> None:
    for color in ("grey", "rgb"):
        _picture(CameraSettings(lens="fisheye", fov_deg=120, width=32, height=24, color=color))


def _use_optics() -> None:
    one = np.zeros(1, np.int64)
    black = np.zeros((1, 24, 32, 1), np.uint8)
    clock = Clock(ClockSettings(noise=1), 1, dt=1 / 15)
    clock.see(lambda rows: black, one, seed=0, row=one, episode=one, steps=one)
    for color in ("grey", "rgb"):
        settings = CameraSettings(
            width=32, height=24, color=color, optics=OpticsSettings(quality=50, noise=1)
        )
        camera = Camera(settings, (load_track("oval"),))
        optics = camera.optics(OpticsRanges(), 1)
        assert optics is not None
        picture = _picture(settings)
        optics.develop(
            picture, one, seed=0, ids=one, episode=one, steps=one, yaw_rate=np.zeros(1, np.float32)
        )


def _use_bands() -> None:
    color_bands(np.zeros((1, 80, 128, 3), np.uint8), ColorBandsSettings())


def _use_learner() -> None:
    seen = {"state": ObservationSpec((3,), "float32")}
    names, action, one = ("state",), ActionSpec("continuous", 1), np.zeros((1, 3), np.float32)
    learner = make_ppo(PPOSettings(epochs=1), seen, action, names, names, seed=0)
    done, log_prob = learner.act({"state": one}, np.full((1, 1), 0.5))
    never = np.zeros((1, 1), bool)
    batch = Batch(
        observation={"state": one[None]},
        last_observation={"state": one},
        action=done[None],
        log_prob=log_prob[None],
        reward=np.ones((1, 1), np.float32),
        terminated=never,
        truncated=never,
        reached={"state": one[:0]},
    )
    learner.update(batch, progress=0.0)
    student = make_student(PPOSettings(), seen, action, names, averaging=0.5, seed=0)
    student.learn({"state": one}, np.zeros((1, 1), np.float32), 1e-3)


def _picture(settings: CameraSettings, look: Look | None = None, boxes: Any = None) -> Any:
    zero = np.zeros(1)
    camera = Camera(settings, (load_track("oval"),), (look or Look(),))
    return camera.render(zero, zero, zero, zero, zero, boxes=boxes)


def _one_box() -> np.ndarray[Any, Any]:
    return np.zeros((1, 1, len(BOX_FIELDS)), np.float32)


PARTS = {
    "learner": _Part(("algorithms.compiled", "algorithms.compiled_steps"), _use_learner),
    "world": _Part(
        (
            "sim.native",
            "tasks.observation",
            "tasks.rules",
            "stations",
            "draws",
            "algorithms.normalizer",
        ),
        _use_world,
    ),
    "camera": _Part(("sim.field", "sim.road"), _use_camera),
    "traffic": _Part(("sim.traffic",), _use_traffic),
    "objects": _Part(("sim.objects",), _use_objects),
    "lidar": _Part(("sim.lidar",), _use_lidar),
    "lens": _Part(("sim.lens",), _use_lens),
    "floor": _Part(("sim.floor",), _use_floor),
    "walls": _Part(("sim.walls",), _use_walls),
    "params": _Part(("deepracer.params",), _use_params),
    "optics": _Part(("sim.optics", "sim.jpeg", "grain"), _use_optics),
    "relief": _Part(("sim.sight",), _use_relief),
    "bands": _Part(("sim.bands",), _use_bands),
}
"""What compiles apart, the longest first."""


def _kernels(parts: Collection[str] = ()) -> list[Dispatcher]:
    """Find the kernels of some parts, of all if empty, that numba keeps on disk."""
    names = [f"hotlap.{name}" for part in parts or PARTS for name in PARTS[part].modules]
    modules = [importlib.import_module(name) for name in names]
    found = [
        kernel
        for module in modules
        for kernel in vars(module).values()
        if isinstance(kernel, Dispatcher) and kernel.py_func.__module__ == module.__name__
    ]
    return [kernel for kernel in found if kernel.stats.cache_path is not None]


def _is_cached(kernel: Any) -> bool:
    written = [file.stat().st_mtime for file in _indexes(kernel)]
    return max(written, default=0.0) >= _last_change(kernel.py_func.__module__)


@functools.cache
def _last_change(module: str) -> float:
    """Say when the source of a module's kernels, or of kernels they may call, last changed."""
    modules = [module]
    for name in modules:  # which grows as it is walked
        used = [each for each in vars(sys.modules[name]).values() if isinstance(each, Dispatcher)]
        modules += {kernel.py_func.__module__ for kernel in used}.difference(modules)
    return max(Path(str(sys.modules[name].__file__)).stat().st_mtime for name in modules)


def _indexes(kernel: Any) -> list[Path]:
    """List the files in which numba says what it has compiled of the kernel."""
    code = kernel.py_func.__code__
    pattern = f"*{kernel.py_func.__qualname__}-{code.co_firstlineno}.*.nbi"
    return list(Path(kernel.stats.cache_path).glob(pattern))
