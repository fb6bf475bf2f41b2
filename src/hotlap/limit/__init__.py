"""The physical limit: the fastest lap that a car could drive on a track, and its line.

Two models answer. The point mass has only the car's grip and motor, so no driver can be faster:
it is the bound that evaluations are compared with. The single track has the simulator's own
equations: it is what a perfect driver could do.
"""

from __future__ import annotations

import importlib.util
import io
import json
import math
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal, Self, TypeAlias

import numpy as np
from numpy.typing import ArrayLike

from hotlap.clusters import distinct, k_means
from hotlap.errors import ConfigError, MissingExtraError, SimulationError
from hotlap.files import replace, user_folder
from hotlap.limit.corridor import RULES, Gates, Rule, corridor, gates
from hotlap.limit.point_mass import Line, point_mass
from hotlap.limit.single_track import Drive, first_guess, single_track
from hotlap.track import Track
from hotlap.types import Array, Float64
from hotlap.vehicle import Vehicle

__all__ = [
    "MODELS",
    "RULES",
    "Limit",
    "Model",
    "Rule",
    "action_list",
    "corridor",
    "fastest_lap",
    "lap_bound",
]

Model: TypeAlias = Literal["point", "single"]
MODELS: tuple[Model, ...] = ("point", "single")

_GATES_PER_WIDTH = 8
_GATES_MANY = 450
"""A long and narrow track gets gates half as dense before it gets more than these."""
_GATE_PER_WHEELBASE = 0.4
_QUICK_GATES = 700
"""More take the solver more than the few seconds that an evaluation may wait."""
_PACES = (0.85, 0.6)
"""Shares of the point mass's speed at which the search for the single track begins."""
_QUICK_SECONDS = 1.5
"""What the solver may take each time it is called, in an evaluation."""


@dataclass(frozen=True, eq=False)
class Limit:
    """The fastest lap of a car on a track under a rule. SI units; G + 1 rows an array.

    On a loop it is a flying lap whose last row is its first one again; an open track is driven from
    rest at its start to its end.
    """

    track: str
    vehicle: str
    rule: str
    """What has to leave the road to be off it."""
    model: str
    """`point` or `single`."""
    lap_s: float
    """How long it takes."""
    coarse_s: float
    """What half as many gates answer: how far off the mesh may be."""
    length: float
    """Of the track's centre line [m]."""
    closed: bool
    iterations: int
    message: str
    """What the solver said."""
    t: Float64
    """[s], from 0 to `lap_s`."""
    x: Float64
    y: Float64
    yaw: Float64
    """Of the body; a point mass has that of its motion [rad], continuous."""
    speed: Float64
    vx: Float64
    """Forward in the body's frame [m/s]; and so the next two, as in a State."""
    vy: Float64
    yaw_rate: Float64
    reference: Float64
    """Speed that the motor aims at."""
    steering: Float64
    """Angle of the front wheels [rad]; for a point mass, that of wheels without slip."""
    command_speed: Float64
    command_steering: Float64
    s: Float64
    """Arc length of the centre line [m], in [0, length]."""
    n: Float64
    """Offset to the left [m]."""
    travelled: Float64
    """Centre-line metres since the first row."""

    def trace(self, dt: float = 1 / 15) -> dict[str, Array]:
        """Return the lap as a Report's trace has it: a row every `dt` seconds, until it is over."""
        rows = math.ceil(self.lap_s / dt - 1e-9) + 1
        t = dt * np.arange(rows)
        lap, within = np.divmod(t, self.lap_s) if self.closed else (0 * t, t.clip(max=self.lap_s))
        columns = {
            name: np.interp(within, self.t, getattr(self, name))
            for name in ("x", "y", "speed", "steering", "command_speed", "command_steering", "n")
        }
        columns["yaw"] = (np.interp(within, self.t, self.yaw) + math.pi) % math.tau - math.pi
        far = np.interp(within, self.t, self.travelled) + lap * self.travelled[-1]
        columns["s"] = (self.s[0] + far) % self.length if self.closed else far.clip(0, self.length)
        trace = {name: column.astype(np.float32) for name, column in columns.items()}
        trace |= {"t": t.astype(np.float32), "travelled": far.astype(np.float32)}
        done = lap if self.closed else (t >= self.lap_s)
        return trace | {"lap": done.astype(np.int32)}

    def passing(self, s: ArrayLike) -> tuple[Float64, Float64]:
        """Return when, since it passed the start of the centre line [s], and where it passes.

        Args:
            s: (M,) places along the centre line, 0 to the track's length [m].

        Returns:
            (M,) seconds; (M,) offset to the left [m].
        """
        far, t, n = self.travelled, self.t, self.n
        first = 0.0
        if self.closed:
            first = float(-self.s[0] % self.length)
            far = np.concatenate([far, far[1:] + self.length])
            t, n = np.concatenate([t, t[1:] + self.lap_s]), np.concatenate([n, n[1:]])
        at = first + np.asarray(s, np.float64)
        return np.interp(at, far, t) - np.interp(first, far, t), np.interp(at, far, n)

    def save(self, path: str | Path) -> Path:
        """Write it to a `.npz` file, whole or not at all."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        known = {field.name: getattr(self, field.name) for field in fields(self)}
        arrays = {name: value for name, value in known.items() if isinstance(value, np.ndarray)}
        facts = json.dumps({name: value for name, value in known.items() if name not in arrays})
        data = io.BytesIO()
        np.savez_compressed(data, allow_pickle=False, facts=np.array(facts), **arrays)
        replace(path, data.getvalue())
        return path

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read what `save` wrote; nothing is unpickled.

        Raises:
            ConfigError: the file is missing, damaged, or something else.
        """
        import zipfile  # only here

        try:
            data = io.BytesIO(Path(path).read_bytes())  # numpy leaves a bad file open
            with np.load(data, allow_pickle=False) as file:
                arrays: dict[str, Any] = {name: file[name] for name in file.files}
            facts = json.loads(str(arrays.pop("facts")))
            found = cls(**facts, **arrays)
        except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile) as error:
            raise ConfigError(
                f"{path}: is no saved limit ({type(error).__name__}: {error}). "
                "Delete it and ask for the limit again."
            ) from None
        return found


def fastest_lap(
    track: Track,
    vehicle: Vehicle,
    *,
    rule: Rule = "all_wheels",
    model: Model = "point",
    cache: bool = True,
) -> Limit:
    """Return the fastest lap of a car on a track.

    The point mass takes a second or two for a track of 60 m. The result is kept in the user's cache
    directory under a digest of all that it depends on.

    Args:
        track: the course, in the direction to be driven.
        vehicle: the car.
        rule: what has to leave the road to be off it, as `rules.off_track`.
        model: `point`, a bound that no driver can beat, or `single`, the lap of a perfect driver of
            the simulator's own car: the best that was found, which takes ten times as long.
        cache: whether to use and fill the cache.

    Raises:
        MissingExtraError: CasADi is not installed.
        ConfigError: there is no such rule or model, or `single` is asked on an open track.
        SimulationError: the solver found no answer.
    """
    if model not in MODELS:
        raise ConfigError(f"model: choose from {', '.join(MODELS)} (got {model})")
    path = _path(track, vehicle, rule, model)
    found = _cached(path) if cache else None
    if found is None:
        found = (_solve if model == "point" else _solve_single)(track, vehicle, rule)
        if cache:
            _keep(found, path)
    return found


def lap_bound(track: Track, vehicle: Vehicle, rule: Rule) -> Limit | None:
    """Return the point mass's lap if it is cached or takes at most a few seconds, else None.

    For reports, which must not wait: None also without CasADi, and where the solver finds nothing.
    """
    path = _path(track, vehicle, rule, "point")
    found = _cached(path)
    if found is None and importlib.util.find_spec("casadi") is not None:
        if track.length / _spacing(track) > _QUICK_GATES:
            return None
        try:
            found = _solve(track, vehicle, rule, seconds=_QUICK_SECONDS)
        except SimulationError:
            return None
        _keep(found, path)
    return found


def action_list(limit: Limit, count: int) -> list[tuple[float, float]]:
    """Return the (steering [degrees], speed [m/s]) pairs that stand best for a lap's commands.

    Found by k-means over the lap's moments, each coordinate divided by its range. From the
    rightmost to the leftmost.

    Raises:
        ConfigError: `count` is below 2, or above the number of moments that differ.
    """
    trace = limit.trace(limit.lap_s / 600)
    commands = np.degrees(trace["command_steering"]), trace["command_speed"]
    points = np.stack(commands, axis=1).astype(np.float64)
    span = np.maximum(np.ptp(points, axis=0), 1e-6)
    scaled = points / span
    different = distinct(scaled)
    if not 2 <= count <= different:
        raise ConfigError(f"actions: must be 2 to {different} on this lap (got {count})")
    centres = k_means(scaled, count)
    found = sorted((centres * span).tolist())
    return [(round(steering, 1), round(speed, 2)) for steering, speed in found]


def _solve(track: Track, vehicle: Vehicle, rule: Rule, seconds: float = 1e3) -> Limit:
    """Solve on half as many gates, then on all."""
    _need_casadi()
    spacing = _spacing(track)
    few, all_ = (gates(track, vehicle, rule, size) for size in (2 * spacing, spacing))
    coarse = point_mass(few, vehicle, seconds=seconds)
    fine = point_mass(all_, vehicle, _onto(coarse, few, all_), seconds=seconds)
    speed = np.hypot(*fine.velocity.T)
    # The curvature that the sideways part of the acceleration bends the path by.
    middle = (
        fine.velocity if not track.closed else np.concatenate([fine.velocity, fine.velocity[:1]])
    )
    middle = (middle[1:] + middle[:-1]) / 2
    ax, ay = fine.acceleration.T
    bend = (middle[:, 0] * ay - middle[:, 1] * ax) / np.hypot(*middle.T) ** 3
    bend = (bend + np.roll(bend, 1)) / 2 if track.closed else np.append(bend, bend[-1])
    wheelbase = vehicle.front_axle + vehicle.rear_axle
    steering = np.clip(np.arctan(wheelbase * bend), -vehicle.steering_max, vehicle.steering_max)
    heading = np.arctan2(fine.velocity[:, 1], fine.velocity[:, 0])
    if not track.closed:  # at rest there is none
        heading[0] = heading[1]
    yaw = np.unwrap(heading)
    return _limit(
        (track, vehicle, rule, "point"),
        all_,
        coarse,
        fine,
        yaw=yaw,
        speed=speed,
        vx=speed,
        vy=0 * speed,
        yaw_rate=bend * speed,
        reference=speed,
        steering=steering,
        command_speed=speed / vehicle.speed_gain,
        command_steering=steering,
    )


def _solve_single(track: Track, vehicle: Vehicle, rule: Rule) -> Limit:
    """Solve from several beginnings, because each finds only an optimum near it; keep the best.

    On half as many gates from two paces, then on all of them from the better answer and from the
    first pace anew.
    """
    _need_casadi()
    if not track.closed:
        raise ConfigError(
            f"model: single needs a loop, and {track.name} is an open track; choose point"
        )
    corridor(track, vehicle, rule)  # an unknown rule is said before the work
    # Between gates further apart the steering changes too much for a replay to stay on the line.
    near = _GATE_PER_WHEELBASE * (vehicle.front_axle + vehicle.rear_axle)
    spacing = max(min(_spacing(track), near), track.length / (2 * _GATES_MANY))
    few, all_ = (gates(track, vehicle, "centre", size) for size in (2 * spacing, spacing))
    line, dense = (point_mass(between, vehicle) for between in (few, all_))
    coarse = _best(few, vehicle, rule, [first_guess(line, few, vehicle, p) for p in _PACES])
    anew = first_guess(dense, all_, vehicle, _PACES[0])
    fine = _best(all_, vehicle, rule, [_drive_onto(coarse, few, all_), anew])
    yaw, vx, vy, yaw_rate, steering, reference = fine.motion.T
    rates = [
        (np.roll(column, -1) - column) / fine.seconds for column in (steering, reference)
    ]  # in the interval after each gate; a command stands between two of them
    turning, rising = ((rate + np.roll(rate, 1)) / 2 for rate in rates)
    asked = steering + vehicle.steering_lag * turning
    return _limit(
        (track, vehicle, rule, "single"),
        all_,
        coarse,
        fine,
        yaw=yaw,
        speed=np.hypot(vx, vy),
        vx=vx,
        vy=vy,
        yaw_rate=yaw_rate,
        reference=reference,
        steering=steering,
        command_speed=(reference + vehicle.motor_lag * rising) / vehicle.speed_gain,
        command_steering=np.clip(asked, -vehicle.steering_max, vehicle.steering_max),
    )


def _limit(
    asked: tuple[Track, Vehicle, Rule, Model],
    gates: Gates,
    coarse: Line | Drive,
    fine: Line | Drive,
    **columns: Float64,
) -> Limit:
    """Put together what was asked for, the answers on few and on all gates, and their motion."""
    track, vehicle, rule, model = asked
    return Limit(
        vehicle=vehicle.name,
        rule=rule,
        model=model,
        lap_s=float(fine.seconds.sum()),
        coarse_s=float(coarse.seconds.sum()),
        iterations=coarse.iterations + fine.iterations,
        message=fine.message,
        t=np.concatenate([[0.0], np.cumsum(fine.seconds)]),
        **_rows(track, gates, gates.at + fine.w[:, None] * gates.across, **columns),
    )


def _best(gates: Gates, vehicle: Vehicle, rule: Rule, guesses: list[Drive]) -> Drive:
    """Return the fastest drive found from any of the guesses."""
    found: list[Drive] = []
    for guess in guesses:
        try:
            found.append(single_track(gates, vehicle, rule, guess))
        except SimulationError as error:
            failed = error
    if not found:
        raise failed
    return min(found, key=lambda drive: float(drive.seconds.sum()))


def _need_casadi() -> None:
    if importlib.util.find_spec("casadi") is None:
        raise MissingExtraError("the physical limit", "casadi", "limit")


def _drive_onto(drive: Drive, few: Gates, many: Gates) -> Drive:
    """Carry a drive over to other gates of the same loop."""
    step = few.s[1] - few.s[0]
    length = few.s[-1] + step
    motion = [np.interp(many.s, few.s, column, period=length) for column in drive.motion.T[1:]]
    last = drive.motion[-1, 0] + (drive.motion[1, 0] - drive.motion[0, 0])
    winding = round((last - drive.motion[0, 0]) / math.tau) * math.tau
    yaw = np.append(drive.motion[:, 0], drive.motion[0, 0] + winding)
    motion.insert(0, np.interp(many.s, np.append(few.s, length), yaw))
    middle = few.s + step / 2
    spacing = many.s[1] - many.s[0]
    slowness = np.interp(many.s + spacing / 2, middle, drive.seconds / step, period=length)
    w = np.interp(many.s, few.s, drive.w, period=length)
    return Drive(w, np.stack(motion, axis=1), slowness * spacing, 0, "")


def _spacing(track: Track) -> float:
    """Return how far apart the gates are [m]."""
    dense = track.width / _GATES_PER_WIDTH
    return max(dense, min(2 * dense, track.length / _GATES_MANY))


def _rows(track: Track, gates: Gates, place: Float64, **columns: Float64) -> dict[str, Any]:
    """Return the arrays of a Limit, with its first row once more behind its last on a loop."""
    near = np.round(gates.s / track.stations.spacing).astype(np.int64) % track.stations.count
    s, n = track.project(place, near)
    gone = np.diff(s, append=s[:1])
    if track.closed:
        gone = (gone + track.length / 2) % track.length - track.length / 2
    travelled = np.concatenate([[0.0], np.cumsum(gone)])
    every = {"x": place[:, 0], "y": place[:, 1], "s": s, "n": n, **columns}
    if track.closed:
        every = {name: np.append(column, column[0]) for name, column in every.items()}
        turn = (every["yaw"][0] - every["yaw"][-2] + math.pi) % math.tau - math.pi
        every["yaw"][-1] = every["yaw"][-2] + turn
    else:
        travelled = travelled[:-1]
    return {
        "track": track.name,
        "length": track.length,
        "closed": track.closed,
        "travelled": travelled,
        **every,
    }


def _onto(line: Line, few: Gates, many: Gates) -> Line:
    """Carry an answer over to other gates of the same track."""
    length = few.s[-1] + (few.s[1] - few.s[0])
    period = length if few.closed else None
    intervals = len(line.seconds)
    middle = few.s[:intervals] + (few.s[1] - few.s[0]) / 2
    wanted = many.s[: many.count - (not many.closed)] + (many.s[1] - many.s[0]) / 2
    slowness = line.seconds / (few.s[1] - few.s[0])

    def nodes(column: Float64) -> Float64:
        return np.asarray(np.interp(many.s, few.s, column, period=period))

    def between(column: Float64) -> Float64:
        return np.asarray(np.interp(wanted, middle, column, period=period))

    return Line(
        w=np.clip(nodes(line.w), many.low, many.high),
        velocity=np.stack([nodes(column) for column in line.velocity.T], axis=1),
        acceleration=np.stack([between(column) for column in line.acceleration.T], axis=1),
        seconds=between(slowness) * (many.s[1] - many.s[0]),
        iterations=0,
        message="",
    )


def _path(track: Track, vehicle: Vehicle, rule: Rule, model: Model) -> Path:
    """Return where a result is kept: named by a digest of all that it depends on."""
    import hashlib  # loads OpenSSL, so only when asked

    asked = {
        "track": track.fingerprint,
        "vehicle": vehicle.model_dump(mode="json", exclude={"name", "source"}),
        "rule": rule,
        "model": model,
    }
    digest = hashlib.sha256(json.dumps(asked, sort_keys=True).encode())
    for file in sorted(Path(__file__).parent.glob("*.py")):  # other code, other answer
        digest.update(file.read_bytes())
    return user_folder("limits", "cache") / f"{track.name}-{model}-{digest.hexdigest()[:20]}.npz"


def _cached(path: Path) -> Limit | None:
    """Read a kept result; a damaged file counts as none."""
    try:
        return Limit.load(path) if path.is_file() else None
    except ConfigError:
        return None


def _keep(limit: Limit, path: Path) -> None:
    """Keep a result; a cache that cannot be written is no reason to fail."""
    try:
        limit.save(path)
    except OSError:
        return
