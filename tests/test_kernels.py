"""Kernels are compiled once, all of them, and it is known whether they are."""

import importlib
import os
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from drivers import saved
from hotlap import kernels
from hotlap.config import resolve
from hotlap.env import EnvSettings
from hotlap.plan import TrainConfig


def in_child(code, **environment):
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, **environment},
    )


@pytest.fixture
def kernel(tmp_path, monkeypatch):
    """A compiled kernel of the module `caller`, which calls one of the module `callee`."""
    begin = "from numba import njit\n\n\n"
    callee = "@njit(cache=True)\ndef half(x):\n    return x / 2\n"
    caller = "@njit(cache=True)\ndef quarter(x):\n    return half(x) / 2\n"
    (tmp_path / "callee.py").write_text(begin + callee)
    (tmp_path / "caller.py").write_text(f"from callee import half\n{begin}{caller}")
    for name in ("callee", "caller"):
        os.utime(tmp_path / f"{name}.py", (0, 1e9))
    monkeypatch.syspath_prepend(tmp_path)
    quarter = importlib.import_module("caller").quarter
    monkeypatch.setattr(kernels, "_kernels", lambda parts=(): [quarter])
    monkeypatch.setattr(kernels, "_compile_apart", lambda parts: None)
    monkeypatch.setattr(kernels, "use", lambda part: None)
    kernels._last_change.cache_clear()
    yield quarter
    for name in ("callee", "caller"):
        del sys.modules[name]


def test_a_kernel_is_warm_once_it_is_compiled(kernel):
    before = kernels.is_warm()

    assert kernel(8.0) == 2
    assert (before, kernels.is_warm()) == (False, True)


@pytest.mark.parametrize("changed", ["caller", "callee"])
def test_a_kernel_is_cold_when_its_source_or_that_of_a_callee_has_changed(
    kernel, tmp_path, changed
):
    kernel(8.0)
    later = time.time() + 10
    os.utime(tmp_path / f"{changed}.py", (later, later))

    assert not kernels.is_warm()


def test_what_was_compiled_with_an_outdated_callee_is_thrown_away(kernel, tmp_path, capsys):
    kernel(8.0)
    index = next((tmp_path / "__pycache__").glob("caller.quarter-*.nbi"))
    later = time.time() + 10
    os.utime(tmp_path / "callee.py", (later, later))

    kernels.warm()

    assert not index.exists()
    assert "compiling kernels" in capsys.readouterr().err


@pytest.mark.parametrize("is_warm", [True, False])
def test_compiling_is_announced_only_where_it_takes_long(monkeypatch, capsys, is_warm):
    monkeypatch.setattr(kernels, "is_warm", lambda parts=(): is_warm)
    monkeypatch.setattr(kernels, "_compile_apart", lambda parts: None)

    seconds = kernels.warm()

    assert seconds > 0
    out, err = capsys.readouterr()
    assert out == ""
    assert ("compiling kernels, once on this machine" in err) == (not is_warm)


def test_an_empty_cache_is_cold(tmp_path):
    done = in_child(
        "from hotlap import kernels; print(len(kernels._kernels()) > 3, kernels.is_warm())",
        NUMBA_CACHE_DIR=str(tmp_path),
    )

    assert done.stdout.split() == ["True", "False"], done.stderr


def test_warming_reaches_every_module_and_leaves_nothing_to_compile():
    done = in_child(
        """
        import sys
        import numpy as np
        from hotlap import bench, kernels
        from hotlap.env import EnvSettings, VectorEnv
        from hotlap.env.settings import ObservationSettings
        from hotlap.gym import SingleEnv
        from hotlap.machine import machine

        facts = machine()
        assert "torch" not in sys.modules or facts["gpu"] != "none"
        called = {
            name: any(kernel.signatures for kernel in kernels._kernels((name,)))
            for name in kernels.PARTS
        }
        print("left out:", [name for name, some in called.items() if not some])

        def signatures():
            return {kernel.py_func.__qualname__: kernel.signatures for kernel in kernels._kernels()}

        before = signatures()
        both = ObservationSettings(actor=("camera", "state"))
        env = VectorEnv(EnvSettings(observation=both, track="oval,hard"), 700)
        env.begin()
        env.advance(np.zeros((700, 2)))
        env.observe(np.array([1, 5]))
        single = SingleEnv(EnvSettings(), render_mode="rgb_array")
        single.reset()
        single.render()
        bench._reward().run()
        print("compiled later:", [k for k, v in signatures().items() if v != before[k]])
        """
    )

    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["left out: []", "compiled later: []"]


@pytest.mark.slow
def test_warming_fills_an_empty_cache(tmp_path):
    done = in_child(
        "from hotlap import kernels; kernels.warm(); print(kernels.is_warm())",
        NUMBA_CACHE_DIR=str(tmp_path),
    )

    assert done.stdout.strip() == "True", done.stderr
    assert "compiling kernels" in done.stderr


def test_parts_that_no_process_compiles_are_compiled_here(monkeypatch):
    def refuse(*words, **options):
        raise OSError("no more processes")

    monkeypatch.setattr(kernels, "is_warm", lambda parts=(): False)
    monkeypatch.setattr(kernels, "_kernels", lambda parts=(): [])
    monkeypatch.setattr(kernels.subprocess, "Popen", refuse)
    used = []
    monkeypatch.setattr(kernels, "use", used.append)

    kernels.warm(["world", "camera"])

    assert used == ["world", "camera"]


def test_the_parts_are_dealt_out_to_as_many_processes_as_there_are_cores(monkeypatch):
    asked = []

    class Helper:
        def __init__(self, command, **options):
            asked.append(command[3:])

        def wait(self):
            asked.append("waited for")

        def kill(self):
            asked.append("ended")

    monkeypatch.setattr(kernels, "available", lambda: 2)
    monkeypatch.setattr(kernels.subprocess, "Popen", Helper)

    kernels._compile_apart(["world", "camera", "lidar"])

    assert asked[:2] == [["world", "lidar"], ["camera"]]
    assert asked[2:] == ["waited for"] * 2 + ["ended"] * 2


def test_what_an_opponent_sees_by_is_compiled_too(tmp_path):
    seen = {"observation.actor": "lidar", "opponents.drivers": "self"}
    rival = saved(tmp_path / "rival", 1.5, settings=seen)

    def parts(share):
        opponents = {"drivers": [str(rival), str(tmp_path / "gone"), "self"], "share": share}
        return kernels.parts_of(resolve(EnvSettings, {"opponents": opponents}))

    assert parts(0.5) == ["world", "camera", "traffic", "objects", "lidar"]
    assert "lidar" not in parts(0)


def test_a_training_compiles_what_it_needs_alone():
    def parts(**given):
        named = {name.replace("__", "."): value for name, value in given.items()}
        return kernels.parts_of(resolve(EnvSettings, named))

    assert parts() == ["world", "camera"]
    assert parts(traffic__bots=1) == ["world", "camera", "traffic", "objects"]
    assert parts(opponents__drivers="self") == ["world", "camera", "traffic", "objects"]
    assert parts(observation__actor="lidar", look__wall_height=0.2) == [
        "world", "camera", "lidar", "walls",
    ]  # fmt: skip
    everything = parts(
        traffic__obstacles=2,
        observation__actor=["camera", "lidar", "depth", "color_bands"],
        observation__camera__lens="fisheye",
        observation__camera__color="rgb",
        observation__camera__optics__noise=3,
        reward="a.py",
        look="robotini",
    )
    assert everything == [name for name in kernels.PARTS if name != "learner"]


@pytest.mark.parametrize(
    ("given", "compiled"),
    [
        ({"observation.actor": "state"}, True),
        ({"observation.actor": "camera"}, True),
        ({"observation.actor": "camera", "algorithm.network.cnn": "deepracer"}, False),
        ({"observation.actor": "state", "algorithm.kind": "sac"}, False),
        ({"observation.actor": "camera", "algorithm.kind": "distill"}, True),
    ],
)
def test_learners_that_are_compiled_are_compiled_ahead(given, compiled):
    parts = kernels.parts_of(resolve(TrainConfig, given))

    assert ("learner" in parts) is compiled


@pytest.mark.parametrize("name", kernels.PARTS)
def test_every_part_calls_all_of_its_kernels(name):
    """Of kernels that numba keeps, those that Python calls are compiled or loaded by the part."""
    kernels.use(name)

    assert any(kernel.signatures for kernel in kernels._kernels((name,)))
    assert kernels.is_warm((name,)), "after a change of kernels: hotlap doctor"


def test_every_module_with_kernels_belongs_to_a_part():
    package = Path(kernels.__file__).parent
    compiled = {
        ".".join(file.relative_to(package).with_suffix("").parts)
        for file in package.rglob("*.py")
        if "njit(cache=True" in file.read_text()
    }

    assert compiled == {name for part in kernels.PARTS.values() for name in part.modules}
