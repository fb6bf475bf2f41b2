"""Measures how fast this machine is: world, camera, environment, beside other simulators."""

from __future__ import annotations

import contextlib
import importlib
import importlib.metadata
import importlib.util
import json
import os
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from hotlap.algorithms.policy import NumpyPolicy
from hotlap.env import EnvSettings, VectorEnv
from hotlap.env.settings import ObservationSettings
from hotlap.errors import ConfigError
from hotlap.machine import machine, stamp
from hotlap.sim.camera import CameraSettings
from hotlap.sim.look import Look
from hotlap.sim.native import NativeSimulator
from hotlap.sim.traffic import TrafficSettings
from hotlap.simulator import Command, Start
from hotlap.tasks.rewards import FileReward
from hotlap.threads import available
from hotlap.track import load_track
from hotlap.types import Array
from hotlap.vehicle import load_vehicle

__all__ = ["append", "measure", "table"]

MANY, FEW = 16_384, 256
"""Cars of the large and of the usual batch."""
REPEATS = 5

_TRACK = "reinvent_like"
_DT = 1 / 15


def append(path: Path, row: Mapping[str, Any]) -> None:
    """Append one JSON line in a single write, after a line that a killed writer left half done."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab+") as file:
        if file.tell():
            file.seek(-1, os.SEEK_END)
        torn = file.read(1) not in (b"", b"\n")
        file.write(b"\n" * torn + json.dumps(row, allow_nan=False).encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())


# --- what is measured ---


@dataclass(frozen=True)
class _Loop:
    run: Callable[[], int]
    """Does a block of work, timed; returns how many units that was."""
    before: Callable[[], object] = lambda: None
    """Prepares the next block, not timed."""


@dataclass(frozen=True)
class _Case:
    group: str
    name: str
    unit: str
    note: str
    begin: Callable[[], _Loop]
    step_seconds: float | None = None
    """Simulated seconds of one unit; None where it is no simulation."""
    beside: tuple[str, ...] = ()
    """Peers that it is compared with."""


@dataclass(frozen=True)
class _Peer:
    name: str
    modules: tuple[str, ...]
    install: str
    note: str
    begin: Callable[[], _Loop]
    step_seconds: float
    by: str = "steps"
    """What a ratio to it counts: steps, or simulated seconds where a step is no decision."""


def measure(seconds: float = 1.0, peers: bool = True, out: Path | None = None) -> dict[str, Any]:
    """Measure hotlap, and the peers that are installed, in turns, in this process.

    Args:
        seconds: for each figure, in `REPEATS` parts; every figure gets its part in every round,
            so that a machine that slows down slows all of them down.
        peers: whether to measure other simulators.
        out: JSON lines file to append the result to.

    Raises:
        ConfigError: `seconds` is not positive.
    """
    if not seconds > 0:
        raise ConfigError(f"seconds: must be more than 0 (got {seconds})")
    if out is not None:  # learn now that it cannot be written, not after all the work
        out.parent.mkdir(parents=True, exist_ok=True)
        out.open("ab").close()
    result: dict[str, Any] = {"kind": "speed", **stamp()}
    if warning := result["conditions"]["warning"]:
        _say(warning)
    facts = machine()
    others = PEERS if peers else ()
    cases = _cases()
    _say(f"measuring, about {seconds * (len(cases) + len(others)) + 5:.0f} s")
    with _standard_output_on_error():
        begun = [(_row(case), case.begin()) for case in cases] + [_begin(peer) for peer in others]
        loops = [(row, loop, list[float]()) for row, loop in begun if loop is not None]
        for _, loop, _ in loops:
            _rate(loop, 0)
        for _ in range(REPEATS):
            for _, loop, found in loops:
                found.append(_rate(loop, seconds / REPEATS))
    for row, _, found in loops:
        row["value"] = statistics.median(found)
        row["repeats"], row["spread"] = len(found), [min(found), max(found)]
        if row["step_seconds"] is not None:
            row["simulated_seconds_per_second"] = row["value"] * row["step_seconds"]
    result |= {"seconds": seconds, "machine": facts, "rows": [row for row, _ in begun]}
    if out is not None:
        append(out, result)
    return result


def _rate(loop: _Loop, seconds: float) -> float:
    """Run blocks until `seconds` are spent, at least one; return units per second."""
    count, spent = 0, 0.0
    while not count or spent < seconds:
        loop.before()
        start = time.perf_counter()
        count += loop.run()
        spent += time.perf_counter() - start
    return count / spent


def _row(case: _Case | _Peer) -> dict[str, Any]:
    row: dict[str, Any] = {
        "group": "peers" if isinstance(case, _Peer) else case.group,
        "name": case.name,
        "value": None,
        "unit": "steps/s" if isinstance(case, _Peer) else case.unit,
        "repeats": 0,
        "spread": None,
        "note": case.note,
        "step_seconds": case.step_seconds,
        "simulated_seconds_per_second": None,
    }
    extra = {"ratio_by": case.by} if isinstance(case, _Peer) else {"beside": list(case.beside)}
    return row | extra


def _begin(peer: _Peer) -> tuple[dict[str, Any], _Loop | None]:
    row = _row(peer)
    if not all(importlib.util.find_spec(module) for module in peer.modules):
        return row | {"missing": f"not installed: pip install {peer.install}"}, None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            loop = peer.begin()
            loop.run()
    except Exception as error:  # it is not our code, and no reason to lose our own figures
        said = f"{type(error).__name__}: {error}".splitlines()[0]
        return row | {"missing": f"does not start: {said}"}, None
    return row, loop


def _cases() -> list[_Case]:
    every = available()
    shares = [1] if every == 1 else [1, every]
    physics = ("MuJoCo", "PyBullet racecar")
    decisions = ("CarRacing-v3", "highway-env racetrack-v0")
    kernel = "one step: 1/15 s of the full physics, and the car found on its track; no observation"
    state = (
        "one step: 1/15 s with state observation, reward, rules and restarts; random slow driving"
    )
    seen = "as the state rows, but the camera is seen: CarRacing's sensor"
    cases = []
    for rows, threads in (*((MANY, n) for n in shares), (FEW, 1)):
        name, begin = f"kernel, {_size(rows, threads)}", partial(_kernel, rows, threads)
        cases.append(_Case("world", name, "steps/s", kernel, begin, _DT, physics))
    for rows, threads in (*((MANY, n) for n in shares), (FEW, every)):
        name, begin = f"state, {_size(rows, threads)}", partial(_env, EnvSettings(), rows, threads)
        cases.append(_Case("environment", name, "steps/s", state, begin, _DT, decisions))
    name = f"camera 96x96 rgb, {_size(FEW, every)}"
    begin = partial(_env, _seeing(96, 96, "rgb"), FEW, every)
    cases.append(_Case("environment", name, "steps/s", seen, begin, _DT, decisions[:1]))
    filtered = f"{FEW} cars on the road; every pixel averages the ground that it covers"
    for width, height, color in ((160, 120, "grey"), (160, 120, "rgb"), (48, 32, "grey")):
        name = f"{width}x{height} {color}, {_size(FEW, every)}"
        begin = partial(_camera, _seeing(width, height, color))
        cases.append(_Case("camera", name, "frames/s", filtered, begin))
    full = _seeing(160, 120, "grey").model_copy(
        update={"look": Look(wall_height=0.3), "traffic": TrafficSettings(obstacles=4)}
    )
    name = f"160x120 grey, walls, 4 obstacles, {_size(FEW, every)}"
    note = f"{filtered}; walls of 0.3 m along it, and four boxes on it"
    cases.append(_Case("camera", name, "frames/s", note, partial(_camera, full)))
    calls = "DeepRacer's params for each car and its unmodified reward_function, world included"
    cases.append(_Case("reward", "user's Python function, 1 thread", "calls/s", calls, _reward))
    drive = "a saved driver on the state observation, without torch"
    cases.append(_Case("policy", f"NumPy, 2 x 64 tanh, {FEW} cars", "actions/s", drive, _policy))
    return cases


def _size(rows: int, threads: int) -> str:
    return f"{rows:,} cars, {threads} thread{'s' if threads > 1 else ''}"


def _kernel(rows: int, threads: int, steps: int = 32) -> _Loop:
    track = load_track(_TRACK)
    simulator = NativeSimulator(
        [track], load_vehicle("deepracer"), rows=rows, dt=_DT, threads=threads
    )
    draws = np.random.default_rng(0)
    zero = np.zeros(rows, np.float32)
    start = Start(
        track=np.zeros(rows, np.int32),
        s=draws.uniform(0, 0.999 * track.length, rows).astype(np.float32),
        n=zero,
        heading_error=zero,
        speed=np.full(rows, 1.5, np.float32),
    )
    commands = [
        Command(
            steering=draws.normal(0, 0.1, rows).astype(np.float32),
            speed=draws.uniform(1, 3, rows).astype(np.float32),
        )
        for _ in range(8)
    ]

    def run() -> int:
        for i in range(steps):
            simulator.step(commands[i % len(commands)])
        return steps * rows

    return _Loop(run, lambda: simulator.reset(np.arange(rows), start))


def _env(settings: EnvSettings, rows: int, threads: int) -> _Loop:
    env = VectorEnv(settings, rows, threads=threads, desynchronize=True)
    # About straight on at 1 m/s: some three in a hundred episodes end at each step.
    actions = np.random.default_rng(0).normal((0, -0.8), 0.25, (16, rows, 2)).astype(np.float32)
    env.begin()
    steps = max(1, 1024 // rows)

    def run() -> int:
        for i in range(steps):
            env.advance(actions[i % len(actions)])
        return steps * rows

    return _Loop(run)


def _seeing(width: int, height: int, color: str) -> EnvSettings:
    camera = CameraSettings.model_validate({"width": width, "height": height, "color": color})
    seen = ObservationSettings(actor=("camera",), critic=("camera",), camera=camera)
    return EnvSettings(observation=seen)


def _camera(settings: EnvSettings) -> _Loop:
    env = VectorEnv(settings, FEW)
    env.begin()

    def run() -> int:
        env.simulator.sense("camera")
        return FEW

    return _Loop(run)


_REWARD = """
import math


def reward_function(params):
    if params["is_offtrack"]:
        return 0.001
    ahead = params["waypoints"][params["closest_waypoints"][1]]
    course = math.degrees(math.atan2(ahead[1] - params["y"], ahead[0] - params["x"]))
    turn = abs(course - params["heading"]) % 360
    near = 1 - params["distance_from_center"] / params["track_width"]
    aimed = max(0.0, 1 - min(turn, 360 - turn) / 60)
    return near * aimed + 0.1 * params["speed"] + 0.01 * params["progress"]
"""


def _reward() -> _Loop:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "reward_function.py"
        file.write_text(_REWARD, encoding="utf-8")
        return _env(EnvSettings(reward=FileReward(path=str(file))), FEW, 1)


def _policy() -> _Loop:
    env = VectorEnv(EnvSettings(), FEW)
    observation = env.begin()
    size = observation["state"].shape[1]
    draws = np.random.default_rng(0)
    plan = {
        "images": {},
        "vectors": {"state": size},
        "hidden": [64, 64],
        "activation": "tanh",
        "outputs": 2,
    }
    arrays: dict[str, Array] = {
        "log_std": np.zeros(2, np.float32),
        "normalizer.state.mean": np.zeros(size, np.float32),
        "normalizer.state.std": np.ones(size, np.float32),
    }
    for name, width, wide in (("hidden0", size, 64), ("hidden1", 64, 64), ("head", 64, 2)):
        arrays[f"{name}.weight"] = draws.normal(0, 0.1, (wide, width)).astype(np.float32)
        arrays[f"{name}.bias"] = np.zeros(wide, np.float32)
    policy = NumpyPolicy({"format": 1, "plan": plan, "action": "continuous"}, arrays)

    def run() -> int:
        policy.act(observation)
        return FEW

    return _Loop(run)


# --- peers ---


def _gymnasium(name: str, module: str | None = None) -> _Loop:
    import gymnasium

    if module is not None:
        importlib.import_module(module)  # registers its environments
    env: Any = gymnasium.make(name)
    env.reset(seed=0)
    env.action_space.seed(0)

    def run() -> int:
        _, _, terminated, truncated, _ = env.step(env.action_space.sample())
        if terminated or truncated:
            env.reset()
        return 1

    return _Loop(run)


_WHEEL = """
<body name="{name}" pos="{x} {y} -.01">
  <joint type="slide" axis="0 0 1" stiffness="900" damping="25" range="-.02 .02"/>
  {steering}
  <joint name="{name}" type="hinge" axis="0 1 0" damping=".0005"/>
  <geom type="ellipsoid" size=".03 .012 .03" mass=".06" friction=".8 .005 .0001"/>
</body>"""
_CAR = """
<mujoco>
  <option timestep=".002" integrator="implicitfast" cone="elliptic" impratio="10"/>
  <default><geom solimp="0 .95 .01"/></default>
  <worldbody>
    <geom type="plane" size="50 50 1"/>
    <body pos="0 0 .06">
      <freejoint/>
      <geom type="box" size=".12 .06 .02" pos="0 0 .02" mass="1.2" contype="0" conaffinity="0"/>
      {wheels}
    </body>
  </worldbody>
  <actuator>{actuators}</actuator>
</mujoco>"""


def _mujoco(steps: int = 50) -> _Loop:
    mujoco = importlib.import_module("mujoco")
    wheels, actuators = "", ""
    for i, (x, y) in enumerate(((0.082, 0.08), (0.082, -0.08), (-0.082, 0.08), (-0.082, -0.08))):
        name, steering = f"wheel{i}", ""
        if x > 0:
            steering = f'<joint name="steer{i}" type="hinge" axis="0 0 1" damping=".02"/>'
            actuators += f'<position joint="steer{i}" kp="2"/>'
        wheels += _WHEEL.format(name=name, x=x, y=y, steering=steering)
        actuators += f'<velocity joint="{name}" kv=".01"/>'
    model = mujoco.MjModel.from_xml_string(_CAR.format(wheels=wheels, actuators=actuators))
    data = mujoco.MjData(model)
    data.ctrl[:] = [0.1, 50, 0.1, 50, 50, 50]  # left, at 1.5 m/s

    def run() -> int:
        for _ in range(steps):
            mujoco.mj_step(model, data)
        return steps

    return _Loop(run)


def _pybullet(steps: int = 50) -> _Loop:
    bullet: Any = importlib.import_module("pybullet")
    data = importlib.import_module("pybullet_data").getDataPath()
    world = bullet.connect(bullet.DIRECT)
    bullet.setGravity(0, 0, -9.8, physicsClientId=world)
    bullet.loadURDF(f"{data}/plane.urdf", physicsClientId=world)
    car = bullet.loadURDF(f"{data}/racecar/racecar.urdf", [0, 0, 0.2], physicsClientId=world)
    for joint in range(bullet.getNumJoints(car, physicsClientId=world)):
        name = bullet.getJointInfo(car, joint, physicsClientId=world)[1].decode()
        if "wheel" in name:
            drive = {"controlMode": bullet.VELOCITY_CONTROL, "targetVelocity": 30, "force": 10}
        elif "steering" in name:
            drive = {"controlMode": bullet.POSITION_CONTROL, "targetPosition": 0.1}
        else:
            continue
        bullet.setJointMotorControl2(car, joint, physicsClientId=world, **drive)

    def run() -> int:
        for _ in range(steps):
            bullet.stepSimulation(physicsClientId=world)
        return steps

    return _Loop(run)


PEERS = (
    _Peer(
        "CarRacing-v3",
        ("gymnasium", "Box2D", "pygame"),
        "'gymnasium[box2d]'",
        "one step: 1/50 s of Box2D and a 96x96 picture from above",
        partial(_gymnasium, "CarRacing-v3"),
        1 / 50,
    ),
    _Peer(
        "highway-env racetrack-v0",
        ("gymnasium", "highway_env"),
        "highway-env",
        "one step: 1/5 s in three substeps, with a second car and a 12x12 grid",
        partial(_gymnasium, "racetrack-v0", "highway_env"),
        1 / 5,
    ),
    _Peer(
        "MuJoCo",
        ("mujoco",),
        "mujoco",
        "one step: 2 ms of a sprung car with four wheels, no observation, no track",
        _mujoco,
        0.002,
        by="simulated seconds",
    ),
    _Peer(
        "PyBullet racecar",
        ("pybullet", "pybullet_data"),
        "pybullet",
        "one step: 1/240 s of its racecar on a plane, no observation, no track",
        _pybullet,
        1 / 240,
        by="simulated seconds",
    ),
)
"""Other simulators, each one copy on one thread, as its own documentation steps it."""


# --- the table ---


def table(result: Mapping[str, Any]) -> str:
    """Lay out what `measure` returned as text: figures, ratios to the peers, and what they mean."""
    facts = result["machine"]
    lines = [
        f"{result['date']}  commit {result['commit'] or 'unknown'}  hotlap {facts['hotlap']}",
        f"{facts['cpu']}, {facts['vectors']}, {facts['cores']} cores, {facts['memory']}",
    ]
    if result["conditions"]["warning"]:
        lines.append(f"WARNING: {result['conditions']['warning']}")
    rows = result["rows"]
    peers = {row["name"]: row for row in rows if row["group"] == "peers"}
    wide = max(len(row["name"]) for row in rows) + 2
    line = f"{{:<{wide}}}{{:>22}}  {{:>24}}  {{:>13}}  {{}}"
    lines += ["", line.format("", "median", "spread", "simulated s/s", "times the peers here")]
    group = None
    for row in rows:
        if row["group"] != group:
            group = row["group"]
            lines += ["", group]
        name, value = f"  {row['name']}", row["value"]
        if value is None:
            lines.append(f"{name:<{wide}}  {row['missing']}")
            continue
        low, high = (_figure(end) for end in row["spread"])
        pace = row["simulated_seconds_per_second"]
        cells = f"{_figure(value)} {row['unit']}", f"{low} to {high}", _figure(pace) if pace else ""
        lines.append(line.format(name, *cells, ", ".join(_ratios(row, peers))).rstrip())
    lines += ["", "What is compared:", *_notes(rows)]
    return "\n".join(lines)


def _ratios(row: Mapping[str, Any], peers: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """Say how many times a peer's rate this is."""
    for name in row.get("beside", ()):
        peer = peers.get(name)
        if peer is None or peer["value"] is None:
            continue
        key = "value" if peer["ratio_by"] == "steps" else "simulated_seconds_per_second"
        yield f"x {_figure(row[key] / peer[key], 2)} {name}"


def _notes(rows: list[dict[str, Any]]) -> list[str]:
    meant: dict[str, list[str]] = {}
    for row in rows:
        where = row["name"] if row["group"] == "peers" else row["group"]
        if row["note"] not in meant.setdefault(where, []):
            meant[where].append(row["note"])
    lines = [f"  {name}: {'; '.join(notes)}" for name, notes in meant.items()]
    peers = [row for row in rows if row["group"] == "peers" and row["value"] is not None]
    if peers:
        lines.append(
            "  Each peer is one copy on one thread and simulates something else. Ratios count "
            "steps,\n  those to physics engines simulated seconds, as their steps are no decisions."
        )
    return lines


def _figure(value: float, digits: int = 3) -> str:
    """Round to significant digits and group the thousands."""
    rounded = float(f"{value:.{digits}g}")
    return f"{rounded:,.0f}" if rounded >= 10 ** (digits - 1) else f"{rounded:,g}"


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


@contextlib.contextmanager
def _standard_output_on_error() -> Iterator[None]:
    """Send what peers print, from C as well, to standard error: standard output is the result's."""
    sys.stdout.flush()
    kept = os.dup(1)
    os.dup2(2, 1)
    try:
        yield
    finally:
        sys.stdout.flush()
        os.dup2(kept, 1)
        os.close(kept)
