"""A driver that was trained here drives MuJoCo's physics: does it still lap, and how fast?

    python benchmarks/sim_to_sim.py [--drivers plain careful] [--seeds 0 1 2] [--seconds 45]

Trains configs/state.toml by the real command, then evaluates the same policy, with the same
observation code, rules and starts, in our world and in MuJoCo, with the car's own parameters and
with some of them 10 and 20 % off. Appends one JSON line a driver and seed to
results/sim_to_sim.jsonl.

Two drivers: `plain` learns with the file as it is; `careful` learns with the tyres' peak fitted to
MuJoCo's contact, a top speed of 3 m/s, and a wheel beside the road already counted as off it. Both
are judged by the same rule, all four wheels off.

The MuJoCo car is a rigid body on four sprung wheels with contact friction; nothing of our equations
is in it but the two actuators (the servo's lag, and the motor's force over the error in speed),
which belong to the car's electronics.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import mujoco
import numpy as np

from hotlap.algorithms.policy import NumpyPolicy
from hotlap.bench import append
from hotlap.env import VectorEnv
from hotlap.evaluate import env_settings, evaluate_policy, evaluation_env
from hotlap.machine import machine, stamp
from hotlap.proving import flat
from hotlap.runs import Run
from hotlap.sim.native import NativeSimulator
from hotlap.simulator import Command, Start, State
from hotlap.track import Track
from hotlap.vehicle import Vehicle, load_vehicle

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "sim_to_sim.jsonl"
MASS, WHEEL_MASS, RADIUS, HALF_TREAD = 3.0, 0.05, 0.036, 0.017
STEP = 0.002
SOFT = "0 .95 .01"
"""Impedance of the contact: softer than MuJoCo's own, which would slide at half a degree."""
ACROSS = 1e-6
"""Step of the world that only finds the car on its track [s]."""


def model(car: Vehicle) -> mujoco.MjModel:
    """Build the car of a parameter set: masses, axles, heights, friction."""
    wheels, actuators = "", ""
    side = car.wheel_side
    for i, (ahead, left) in enumerate(
        ((car.front_axle, 1), (car.front_axle, -1), (-car.rear_axle, 1), (-car.rear_axle, -1))
    ):
        down = RADIUS - car.cg_height
        steer = ""
        if ahead > 0:
            steer = f'<joint name="steer{i}" type="hinge" axis="0 0 1" armature="1e-4"/>'
            actuators += f'<position joint="steer{i}" kp="20" dampratio="1"/>'
        wheels += f"""
        <body pos="{ahead} {left * side} {down}">
          <inertial pos="0 0 0" mass="{WHEEL_MASS / 2}" diaginertia="1e-5 1e-5 1e-5"/>
          <joint type="slide" axis="0 0 1" stiffness="1500" damping="40"/>
          {steer}
          <body>
            <joint name="spin{i}" type="hinge" axis="0 1 0"/>
            <geom type="ellipsoid" size="{RADIUS} {HALF_TREAD} {RADIUS}" mass="{WHEEL_MASS / 2}"/>
          </body>
        </body>"""
    for i in range(4):
        actuators += f'<motor joint="spin{i}"/>'
    # The wheels turn with the body; the rest of m k^2 is the body's own, and its centre is raised
    # so that all together have theirs at the origin.
    body = MASS - 4 * WHEEL_MASS
    arms = sum(2 * WHEEL_MASS * (a * a + side * side) for a in (car.front_axle, car.rear_axle))
    yaw = MASS * car.gyration**2 - arms
    up = 4 * WHEEL_MASS * (car.cg_height - RADIUS) / body
    shift = -2 * WHEEL_MASS * (car.front_axle - car.rear_axle) / body
    text = f"""
    <mujoco>
      <option timestep="{STEP}" integrator="implicitfast" cone="elliptic" impratio="10"/>
      <default><geom solimp="{SOFT}" friction="{car.friction} 0 0" condim="3"/></default>
      <worldbody>
        <geom type="plane" size="100 100 1"/>
        <body name="car" pos="0 0 {car.cg_height}">
          <freejoint/>
          <inertial pos="{shift} 0 {up}" mass="{body}"
            diaginertia="{0.5 * yaw} {0.7 * yaw} {yaw}"/>{wheels}
        </body>
      </worldbody>
      <actuator>{actuators}</actuator>
    </mujoco>"""
    return mujoco.MjModel.from_xml_string(text)


class MujocoSimulator:
    """The contract of a world, by MuJoCo; our own world only finds the cars on their tracks.

    Args:
        tracks: the courses.
        vehicle: the car of every row.
        rows: how many cars; each has a world of its own.
        dt: seconds between control steps.
    """

    def __init__(
        self, tracks: Sequence[Track], vehicle: Vehicle, *, rows: int, dt: float = 1 / 15
    ) -> None:
        self.vehicle, self.rows, self.dt = vehicle, rows, dt
        self._found = NativeSimulator(tracks, vehicle, rows=rows, dt=ACROSS, threads=1)
        self.tracks, self.provides = self._found.tracks, self._found.provides
        self._model = model(vehicle)
        self._count = round(dt / STEP)
        self._model.opt.timestep = self._h = dt / self._count
        self._cars = [mujoco.MjData(self._model) for _ in range(rows)]
        rest = mujoco.MjData(self._model)
        for _ in range(500):
            mujoco.mj_step(self._model, rest)
        self._rest = rest.qpos.copy()
        # The soft contact gives way, and acts halfway between wheel and floor.
        self._radius = (RADIUS + float(rest.geom_xpos[1:, 2].mean())) / 2
        self._spin = [self._model.joint(f"spin{i}").dofadr[0] for i in range(4)]
        self.steering, self.drive = np.zeros(rows), np.zeros(rows)
        self.state = self._found.state

    def reset(self, rows: np.ndarray, start: Start) -> State:
        rows = np.asarray(rows)
        placed = self._found.reset(rows, start)
        for row in rows:
            car = self._cars[row]
            mujoco.mj_resetData(self._model, car)
            car.qpos[:] = self._rest
            yaw, speed = float(placed.yaw[row]), float(placed.vx[row])
            car.qpos[:2] = placed.x[row], placed.y[row]
            car.qpos[3:7] = math.cos(yaw / 2), 0, 0, math.sin(yaw / 2)
            car.qvel[:2] = speed * math.cos(yaw), speed * math.sin(yaw)
            car.qvel[self._spin] = speed / self._radius
            mujoco.mj_forward(self._model, car)
        self.steering[rows], self.drive[rows] = 0.0, 0.0
        self.state = placed
        return placed

    def step(self, command: Command) -> State:
        v = self.vehicle
        target = np.clip(np.float64(command.steering), -v.steering_max, v.steering_max)
        aim = v.speed_gain * np.clip(np.float64(command.speed), v.speed_min, v.speed_max)
        most, keep = v.steering_rate * self._h, 1 - math.exp(-self._h / v.steering_lag)
        motion = np.empty((8, self.rows))
        for row, car in enumerate(self._cars):
            for _ in range(self._count):
                turn = (target[row] - self.steering[row]) * keep
                self.steering[row] += min(max(turn, -most), most)
                vx = self._along(car)[0]
                asked = v.motor_gain * (aim[row] - vx)
                self.drive[row] = asked / math.sqrt(1 + (asked / v.drive_max) ** 2)
                loss = v.rolling * vx / math.sqrt(vx * vx + 0.01) + v.drag * vx * abs(vx)
                car.ctrl[:2] = self.steering[row]
                # Half of it at each axle, as the set says; each wheel turns as it likes.
                force = MASS * self._radius * (self.drive[row] - loss) / 2
                car.ctrl[2:4] = force * v.front_drive
                car.ctrl[4:6] = force * (1 - v.front_drive)
                mujoco.mj_step(self._model, car)
            vx, vy, yaw = self._along(car)
            motion[:, row] = (
                car.qpos[0], car.qpos[1], yaw, vx, vy, car.qvel[5], self.steering[row], aim[row],
            )  # fmt: skip
        self.state = self._locate(motion)
        return self.state

    def _along(self, car: mujoco.MjData) -> tuple[float, float, float]:
        """Speeds ahead and to the left, and yaw."""
        w, x, y, z = car.qpos[3:7]
        yaw = math.atan2(2 * (w * z + x * y), 1 - 2 * (y * y + z * z))
        c, s = math.cos(yaw), math.sin(yaw)
        return c * car.qvel[0] + s * car.qvel[1], c * car.qvel[1] - s * car.qvel[0], yaw

    def _locate(self, motion: np.ndarray) -> State:
        arrays = self._found.save()
        arrays["floats"][:8] = motion
        arrays["floats"][2] = (motion[2] + np.pi) % (2 * np.pi) - np.pi
        self._found.restore(arrays)
        still = Command(*motion[[6, 3]].astype(np.float32))
        state = self._found.step(still)
        own = dict(
            zip(
                ("x", "y", "yaw", "vx", "vy", "yaw_rate", "steering", "reference"),
                arrays["floats"][:8],
                strict=True,
            )
        )
        return replace(state, drive=self.drive.astype(np.float32), **own)

    def sense(self, sensor: str, rows: Any = None) -> Any:
        raise KeyError(sensor)

    def save(self) -> dict[str, np.ndarray]:
        found = {f"found.{name}": a for name, a in self._found.save().items()}
        cars = [np.concatenate([c.qpos, c.qvel]) for c in self._cars]
        own = {"cars": np.array(cars), "steering": self.steering.copy(), "drive": self.drive.copy()}
        return found | own

    def restore(self, arrays: dict[str, np.ndarray]) -> None:
        self._found.restore(
            {k.removeprefix("found."): a for k, a in arrays.items() if k.startswith("found.")}
        )
        for car, row in zip(self._cars, arrays["cars"], strict=True):
            car.qpos[:], car.qvel[:] = row[: self._model.nq], row[self._model.nq :]
            mujoco.mj_forward(self._model, car)
        self.steering, self.drive = arrays["steering"].copy(), arrays["drive"].copy()
        self.state = self._found.state


def on_flat(vehicle: Vehicle, speed: np.ndarray, dt: float = 1 / 60) -> MujocoSimulator:
    """Put cars on flat ground, rolling straight, as `hotlap.proving.place` does in our world."""
    rows = len(speed)
    simulator = MujocoSimulator([flat()], vehicle, rows=rows, dt=dt)
    zero = np.zeros(rows, np.float32)
    start = Start(
        track=np.zeros(rows, np.int32), s=zero, n=zero, heading_error=zero, speed=np.float32(speed)
    )
    simulator.reset(np.arange(rows), start)
    return simulator


# --- a driver of ours in their world ---

VARIED = ("friction", "steering_lag", "speed_gain")
FITTED = 'base = "deepracer"\nname = "deepracer"\nfront_peak_slip = 0.10\nrear_peak_slip = 0.10\n'
"""Our car with the slip angle at which MuJoCo's contact peaks, at 2 to 3 m/s."""
DRIVERS: dict[str, list[str]] = {
    "plain": [],
    "careful": ["vehicle=fitted.toml", "rules.off_track=any_wheel", "actions.speed_high=3.0"],
}


def varied(car: Vehicle, times: float, names: Sequence[str] = VARIED) -> Vehicle:
    """Return a car of which some parameters are `times` what they were."""
    return car.model_copy(update={name: getattr(car, name) * times for name in names})


def scenarios(car: Vehicle) -> dict[str, Vehicle]:
    """Return the cars: as trained, then one parameter off, then grip and lag both worse."""
    found = {"as trained": car}
    for name in VARIED:
        for share in (-20, -10, 10, 20):
            found[f"{name} {share:+d} %"] = varied(car, 1 + share / 100, [name])
    for share in (10, 20):
        worse = varied(
            varied(car, 1 - share / 100, ["friction"]), 1 + share / 100, ["steering_lag"]
        )
        found[f"friction -{share} %, steering_lag +{share} %"] = worse
    return found


def drive(run: Path, car: Vehicle, theirs: bool, trials: int, laps: int) -> dict[str, Any]:
    """Let a run's best driver lap in one of the worlds."""
    opened = Run.open(run)
    policy = NumpyPolicy(*opened.read_policy("best"))
    settings = env_settings(opened)
    rules = settings.rules.model_copy(update={"off_track": "all_wheels"})
    settings = settings.model_copy(update={"rules": rules})
    plain = evaluation_env(settings, trials=trials, laps=laps, threads=1)
    tracks = plain.simulator.tracks
    if theirs:
        simulator: Any = MujocoSimulator(tracks, car, rows=trials, dt=plain.dt)
    else:
        simulator = NativeSimulator(tracks, car, rows=trials, dt=plain.dt, threads=1)
    report = evaluate_policy(VectorEnv(plain.settings, trials, simulator=simulator), policy.act)
    rounded = {
        key: None if value is None else round(value, 4)
        for key, value in (
            ("completion", report.completion),
            ("progress", report.progress),
            ("best_lap_s", report.best_lap_s),
            ("mean_lap_s", report.mean_lap_s),
        )
    }
    return {**rounded, "laps": report.laps_completed, "off_tracks": report.off_tracks}


def ratio(theirs: dict[str, Any], ours: dict[str, Any]) -> float | None:
    """Return their mean lap over ours, where both have one."""
    both = theirs["mean_lap_s"], ours["mean_lap_s"]
    return None if None in both else round(both[0] / both[1], 4)


def measure(
    driver: str, seed: int, seconds: float, track: str, trials: int, laps: int
) -> dict[str, Any]:
    """Train once, then drive every scenario in both worlds."""
    settings = [f"train.seconds={seconds:g}", f"track={track}", *DRIVERS[driver]]
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "fitted.toml").write_text(FITTED)
        words = ["train", str(ROOT / "configs" / "state.toml"), *settings]
        words += ["--seed", str(seed), "--out", "run", "--plain", "--quiet"]
        start = [sys.executable, "-c", "from hotlap.cli import main; main()"]
        subprocess.run([*start, *words], cwd=folder, check=True, stdout=subprocess.DEVNULL)
        run = Path(folder) / "run"
        car = load_vehicle(env_settings(Run.open(run)).vehicle)
        rows = []
        for name, other in scenarios(car).items():
            both = {
                "ours": drive(run, other, False, trials, laps),
                "mujoco": drive(run, other, True, trials, laps),
            }
            lap = ratio(both["mujoco"], both["ours"])
            rows.append({"car": name, **both, "lap_ratio": lap})
            cells = [
                f"{both[w]['completion']:>6.0%} {both[w]['mean_lap_s'] or 0:>7.2f}" for w in both
            ]
            print(f"{driver} {seed} {name:<38} ours {cells[0]}  MuJoCo {cells[1]}  ratio {lap}")
    return {
        **stamp(),
        "benchmark": "sim_to_sim",
        "driver": driver,
        "train": " ".join(["hotlap train configs/state.toml", *settings]),
        "track": track,
        "vehicle": car.name,
        "seed": seed,
        "seconds": seconds,
        "trials": trials,
        "laps": laps,
        "mujoco": mujoco.__version__,
        "cpu": machine()["cpu"],
        "scenarios": rows,
    }


def table(file: Path) -> str:
    """Write the newest line of each driver and seed as a table: least and most over the seeds."""
    newest: dict[tuple[str, int], dict[str, Any]] = {}
    for line in file.read_text().splitlines():
        row = json.loads(line)
        newest[row["driver"], row["seed"]] = row
    lines = [
        "| driver | car | seeds | completion here | in MuJoCo | lap here, s | lap ratio |",
        "|---|---|---|---|---|---|---|",
    ]
    for driver in DRIVERS:
        rows = [row for (name, _), row in sorted(newest.items()) if name == driver]
        for cases in zip(*(row["scenarios"] for row in rows), strict=True):
            cells = [
                span([case[world]["completion"] for case in cases], "{:.0%}")
                for world in ("ours", "mujoco")
            ]
            cells.append(span([case["ours"]["mean_lap_s"] for case in cases], "{:.2f}"))
            cells.append(span([case["lap_ratio"] for case in cases], "{:.3f}"))
            lines.append(f"| {driver} | {cases[0]['car']} | {len(rows)} | {' | '.join(cells)} |")
    return "\n".join(lines)


def span(values: Sequence[float | None], form: str) -> str:
    """Write least and most of the values there are; a dash if there are none."""
    there = [value for value in values if value is not None]
    if not there:
        return "-"
    low, high = form.format(min(there)), form.format(max(there))
    few = f" ({len(there)} of {len(values)})" if len(there) < len(values) else ""
    return (low if low == high else f"{low} to {high}") + few


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--drivers", nargs="+", choices=DRIVERS, default=list(DRIVERS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--seconds", type=float, default=45.0)
    parser.add_argument("--track", default="reinvent_like")
    parser.add_argument("--trials", type=int, default=5)
    parser.add_argument("--laps", type=int, default=3)
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--table", action="store_true", help="print the results there are")
    given = parser.parse_args()
    if given.table:
        print(table(given.out))
        return
    for seed in given.seeds:
        for driver in given.drivers:
            row = measure(driver, seed, given.seconds, given.track, given.trials, given.laps)
            append(given.out, row)


if __name__ == "__main__":
    main()
