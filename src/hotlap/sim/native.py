"""Our world: N cars on their tracks, stepped together by one compiled kernel.

The kernel takes cars in blocks, copies a block's state into a scratch that fits the first-level
cache, and runs every loop over the cars of the block innermost and without branches, so that LLVM
handles 8 or 16 cars in one instruction. Written the other way round it is ten times slower.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numba import njit

from hotlap.draws import Purpose, normal
from hotlap.errors import SimulationError
from hotlap.series import (
    PI,
    atan_positive,
    cos_small,
    prefer_512_bits,
    sin_cos,
    sin_quarter,
    wrap,
)
from hotlap.sim.bands import ColorBandsSettings, color_bands
from hotlap.sim.camera import Camera, CameraSettings
from hotlap.sim.domain import Domain, RandomizeSettings
from hotlap.sim.dynamics import (
    CARRY,
    GAIN,
    STAGES,
    SUBSTEP_MAX,
    motor_force,
    rates,
)
from hotlap.sim.lens import Mounting
from hotlap.sim.lidar import Lidar, LidarSettings
from hotlap.sim.look import Look
from hotlap.sim.optics import Optics
from hotlap.sim.relief import DepthSettings
from hotlap.sim.traffic import Traffic, TrafficSettings
from hotlap.simulator import SURROUNDINGS, Command, Start, State, Surroundings
from hotlap.stations import PLACED, StationTable
from hotlap.threads import available, spread
from hotlap.track import Track
from hotlap.types import Array
from hotlap.vehicle import (
    MOTOR_LAG_INVERSE,
    PARAMETERS,
    SPEED_GAIN,
    SPEED_MAX,
    SPEED_MIN,
    STEERING_LAG_INVERSE,
    STEERING_MAX,
    STEERING_RATE,
    WHEEL_FRONT,
    WHEEL_REAR,
    WHEEL_SIDE,
    Vehicle,
)

__all__ = ["BLOCK", "NativeSimulator"]

BLOCK = 32
"""Cars that share one pass of the kernel: all that it reads fits the first-level cache."""

_FLOATS = (
    "x",
    "y",
    "yaw",
    "vx",
    "vy",
    "yaw_rate",
    "steering",
    "reference",
    "drive",
    "s",
    "n",
    "heading_error",
    "curvature",
    "left",
    "right",
    "advance",
    "travelled",
)
_INTS = ("station", "wheels_off", "steps")
_INDEX = {name: row for row, name in enumerate(_FLOATS)}
_PLACED = np.array([_INDEX[name] for name in PLACED])[:, None]
_SEEN = ["camera", "depth", "segmentation"]
"""Sensors of the camera."""
_SHARED = 1024
"""Fewer cars are stepped before another thread has woken up."""
_SKEW = 80
"""Unused columns: rows that lie a power of two apart would evict each other from the cache."""


class NativeSimulator:
    """The world of design decision 1 behind the Simulator contract.

    Args:
        tracks: the courses; each row drives on one of them, chosen at its reset.
        vehicle: the car of every row, or one for each row.
        rows: how many cars.
        dt: seconds between control steps.
        camera: what the cameras see with, or None to have no camera; depth and segmentation are of
            the same camera.
        bands: how colour bands are read from what the cameras see, or None to have none.
        depth: how far depth reaches.
        lidar: what the LIDARs measure with, or None to have no LIDAR.
        looks: what the world looks like; row i uses `looks[i % len(looks)]`, or with
            `randomize.looks` one of them in each episode.
        mountings: how the cameras are mounted; with `randomize.mounting` each episode has one of
            them, else all have the first.
        randomize: how the cars differ from episode to episode.
        traffic: what shares the road with the cars.
        first_row: global id of row 0; the random draws of a row depend on its global id.
        threads: how many threads share the work; the result does not depend on it.
    """

    def __init__(
        self,
        tracks: Sequence[Track],
        vehicle: Vehicle | Sequence[Vehicle],
        *,
        rows: int,
        dt: float = 1 / 15,
        camera: CameraSettings | None = None,
        bands: ColorBandsSettings | None = None,
        depth: DepthSettings | None = None,
        lidar: LidarSettings | None = None,
        looks: Sequence[Look] = (Look(),),
        mountings: Sequence[Mounting] = (Mounting(),),
        randomize: RandomizeSettings | None = None,
        traffic: TrafficSettings | None = None,
        first_row: int = 0,
        threads: int | None = None,
    ) -> None:
        self.tracks = tuple(tracks)
        self.rows = rows
        self.dt = dt
        self.threads = threads or available()
        self._substeps = max(1, round(np.ceil(dt / SUBSTEP_MAX - 1e-9)))
        vehicles = [vehicle] * rows if isinstance(vehicle, Vehicle) else list(vehicle)
        vectors = {car: car.parameters() for car in set(vehicles)}
        # The kernel handles whole blocks: the last one is filled up with cars that nobody sees.
        self._padded = -(-rows // BLOCK) * BLOCK
        columns = [vectors[car] for car in vehicles]
        columns += columns[-1:] * (self._padded - rows)
        blocks = np.stack(columns).reshape(-1, BLOCK * PARAMETERS)
        self._domain = Domain(randomize or RandomizeSettings(), np.stack(columns[:rows]))
        # Blocks of equal cars share their parameters, which then stay in the cache.
        unique, which = np.unique(blocks, axis=0, return_inverse=True)
        if self._domain.cars:
            unique, which = blocks, np.arange(len(blocks))
        unique = unique.reshape(-1, BLOCK, PARAMETERS).transpose(0, 2, 1)
        self._parameters = np.ascontiguousarray(unique)
        self._parameters_of = which.reshape(-1).astype(np.int32)
        self._bank = StationTable(self.tracks)
        self._floats = np.zeros((len(_FLOATS), self._padded + _SKEW), np.float32)
        self._ints = np.zeros((len(_INTS), self._padded + _SKEW), np.int32)
        self._track = np.zeros(self._padded, np.int32)
        self._episode = np.full(rows, -1, np.int32)
        self._row = first_row + np.arange(rows, dtype=np.int64)
        self._world = (np.arange(rows) // (1 if traffic is None else traffic.cars)).astype(np.int32)
        self._traffic: Traffic | None = None
        # Where there is nothing to place, it refuses places.
        if traffic is not None and (traffic.boxes or traffic.positions):
            self._traffic = Traffic(
                traffic, self.tracks, vehicles, first_row=first_row, threads=self.threads
            )
        self._around = None if self._traffic is None else self._traffic.nothing()
        self._state = self._view()
        self._look = (np.arange(rows) % len(looks)).astype(np.int32)
        self.camera = (
            None
            if camera is None
            else Camera(camera, self.tracks, looks, threads=self.threads, mountings=mountings)
        )
        self._bands = bands
        self._mounting = np.zeros(rows, np.int32)
        self.optics: Optics | None = None
        if self.camera is not None:
            self.optics = self.camera.optics(self._domain.settings.optics, rows)
        self._range_max = (depth or DepthSettings()).range_max
        self.lidar = None if lidar is None else Lidar(lidar, self.tracks, threads=self.threads)
        self._seed = 0

    @property
    def seed(self) -> int:
        """What the running episodes were drawn with."""
        return self._seed

    @property
    def provides(self) -> frozenset[str]:
        """Names of the State fields and sensors that it fills."""
        sensors = [] if self.lidar is None else ["lidar"]
        if self.camera is not None:
            sensors += _SEEN if self._bands is None else [*_SEEN, "color_bands"]
        return frozenset((*_FLOATS, *_INTS, "episode", "row", "track", "world", *sensors))

    @property
    def state(self) -> State:
        """The state after the last `reset` or `step`."""
        return self._state

    def _view(self) -> State:
        named: dict[str, Any] = dict(zip(_FLOATS, self._floats[:, : self.rows], strict=True))
        named.update(zip(_INTS, self._ints[:, : self.rows], strict=True))
        return State(
            **named,
            episode=self._episode,
            row=self._row,
            track=self._track[: self.rows],
            world=self._world,
            around=self._around,
        )

    def show(self, world: NativeSimulator) -> None:
        """Take over all that the sensors of another simulator see, to see it with those of this.

        Nothing is copied, as nobody writes into a state again. Both have the same rows, courses and
        number of looks; this one is not stepped.
        """
        self._floats, self._ints, self._track = world._floats, world._ints, world._track
        self._episode, self._row, self._world = world._episode, world._row, world._world
        self._around, self._look, self._seed = world._around, world._look, world._seed
        self._state = world._state

    def withdraw(self, rows: Array, absent: Array | bool) -> None:
        """Say of rows whether their cars are off the road: then nobody sees or touches them.

        A reset puts a car on the road again.
        """
        if self._traffic is not None and self._around is not None and len(rows):
            self._traffic.withdraw(rows, absent)
            self._around = self._traffic.look(self._floats, _INDEX, rows, self._around)
            self._state = self._view()

    def fade(self, rows: Array, faded: Array | bool) -> None:
        """Say of rows whether others see their cars but nobody touches them, until told otherwise.

        It is not saved.
        """
        if self._traffic is not None and self._around is not None and len(rows):
            self._traffic.fade(rows, faded)
            self._around = self._traffic.look(self._floats, _INDEX, rows, self._around)
            self._state = self._view()

    def reset(self, rows: Array, start: Start) -> State:
        """Begin a new episode in the given rows (an index array) and leave the others alone."""
        rows = np.asarray(rows)
        self._floats, self._ints = self._floats.copy(), self._ints.copy()
        self._track, self._episode = self._track.copy(), self._episode.copy()
        self._episode[rows] += 1
        self._track[rows] = start.track
        self._seed = start.seed
        if self._traffic is not None:
            here = self._floats[_INDEX["s"], : self.rows]
            spot = self._traffic.begin(
                start,
                rows,
                ids=self._row[rows],
                episode=self._episode[rows],
                others=np.where(self._episode < 0, np.nan, here),
            )
            start = replace(start, s=spot)
        self._vary(rows, start)
        self._ints[:, rows] = 0
        self._place(rows, start, np.float32(0))
        return self._state

    def put(
        self,
        rows: Array,
        s: Array,
        n: Array,
        travelled: Array,
        heading_error: Array | None = None,
    ) -> None:
        """Put the cars of the given rows somewhere else on their tracks, at rest; episodes go on.

        Args:
            rows: (M,) which rows.
            s: (M,) arc length [m].
            n: (M,) offset to the left [m].
            travelled: (M,) what they had travelled before; what lies between is added or taken off.
            heading_error: (M,) against the road [rad]; None: along it.
        """
        zero = np.zeros(len(rows), np.float32)
        track = self._track[rows]
        turned = zero if heading_error is None else heading_error.astype(np.float32)
        spot = Start(track, s.astype(np.float32), n.astype(np.float32), turned, zero, self._seed)
        self._floats, self._ints = self._floats.copy(), self._ints.copy()
        moved = spot.s - self._floats[_INDEX["s"], rows]
        length = np.array([course.length for course in self.tracks], np.float32)[track]
        closed = np.array([course.closed for course in self.tracks])[track]
        moved = np.where(closed, (moved + length / 2) % length - length / 2, moved)
        self._ints[_INTS.index("wheels_off"), rows] = 0
        self._place(rows, spot, travelled + moved)

    def _place(self, rows: Array, start: Start, travelled: Array | np.float32) -> None:
        """Let the cars of the given rows stand or roll where they start."""
        self._floats[:, rows] = 0
        fields, station = self._bank.place(start)
        self._floats[_PLACED, rows], self._ints[_INTS.index("station"), rows] = fields, station
        self._floats[_INDEX["travelled"], rows] = travelled
        if self._traffic is not None and self._around is not None:
            self._around = self._traffic.look(self._floats, _INDEX, rows, self._around)
        self._state = self._view()

    def _vary(self, rows: Array, start: Start) -> None:
        """Draw the cars and the looks of new episodes."""
        who = start.seed, self._row[rows], self._episode[rows], start.breadth
        if self._domain.cars:
            block, lane = rows // BLOCK, rows % BLOCK
            self._parameters[block, :, lane] = self._domain.begin(rows, *who)
        if self._domain.settings.looks:
            self._look = self._look.copy()
            self._look[rows] = self._domain.look(*who)
        if self._domain.settings.mounting.stock:
            self._mounting = self._mounting.copy()
            self._mounting[rows] = self._domain.mounting(*who)
        if self.optics is not None:
            self.optics.begin(rows, *who)

    def step(self, command: Command) -> State:
        """Advance every car by `dt`.

        Raises:
            SimulationError: a command is not finite.
        """
        wanted = np.zeros((2, self._padded), np.float32)
        wanted[0, : self.rows], wanted[1, : self.rows] = command.steering, command.speed
        if not np.isfinite(wanted).all():
            row = int(np.flatnonzero(~np.isfinite(wanted).all(0))[0])
            raise SimulationError(
                f"the command of row {row} is not a number: steering {wanted[0, row]}, "
                f"speed {wanted[1, row]}. The policy has diverged; lower its learning rate."
            )
        if self._domain.settings.steering_trim_deg:
            wanted[0, : self.rows] += self._domain.trim
        before = self._floats
        if self._traffic is not None:
            before = self._traffic.pushed(before, _INDEX)
        floats, ints = np.empty_like(self._floats), np.empty_like(self._ints)
        bank = self._bank
        spread(
            _step,
            self._padded,
            before,
            floats,
            self._ints,
            ints,
            wanted,
            self._parameters,
            self._parameters_of,
            self._track,
            bank.stations,
            bank.first,
            bank.segments,
            bank.spacing,
            bank.closed,
            np.float32(self.dt / self._substeps),
            self._substeps,
            block=BLOCK,
            threads=self.threads if self.rows >= _SHARED else 1,
        )
        self._floats, self._ints = floats, ints
        if self._traffic is not None:
            self._around = self._traffic.drive(self._floats, _INDEX, self.dt)
        self._state = self._view()
        return self._state

    def sense(self, sensor: str, rows: Array | None = None) -> Array:
        """Read a sensor of the given rows (all if None): (M, H, W, C) images, (M, size) LIDAR."""
        pick: Any = slice(None) if rows is None else rows
        if sensor == "lidar" and self.lidar is not None:
            return self._measure(self.lidar, pick)
        if sensor == "color_bands" and self._bands is not None:
            return color_bands(self.sense("camera", rows), self._bands, threads=self.threads)
        if sensor not in _SEEN or self.camera is None:
            raise KeyError(sensor)
        x, y, yaw = (np.ascontiguousarray(self._floats[i, : self.rows][pick]) for i in range(3))
        track, look = (
            np.ascontiguousarray(a[: self.rows][pick]) for a in (self._track, self._look)
        )
        boxes = None if self._around is None else self._around.boxes[pick]
        mounting = self._mounting[pick]
        if sensor == "depth":
            return self.camera.depth(
                x, y, yaw, track, look,
                boxes=boxes, mounting=mounting, range_max=self._range_max,
            )  # fmt: skip
        if sensor == "segmentation":
            return self.camera.segmentation(x, y, yaw, track, look, boxes=boxes, mounting=mounting)
        pictures = self.camera.render(x, y, yaw, track, look, boxes=boxes, mounting=mounting)
        if self.optics is None:
            return pictures
        steps, turn = self._ints[_INTS.index("steps")], self._floats[_INDEX["yaw_rate"]]
        return self.optics.develop(
            pictures,
            np.arange(self.rows)[pick],
            seed=self._seed,
            ids=self._row[pick],
            episode=self._episode[pick],
            steps=steps[: self.rows][pick],
            yaw_rate=turn[: self.rows][pick],
        )

    def _measure(self, lidar: Lidar, pick: Any) -> Array:
        x, y, yaw = self._floats[:3, : self.rows][:, pick]
        boxes = None if self._around is None else self._around.boxes[pick]
        distances = lidar.scan(x, y, yaw, self._track[: self.rows][pick], boxes)
        sigma = lidar.settings.noise
        if sigma:
            steps = self._ints[_INTS.index("steps"), : self.rows]
            draws = normal(
                self._seed,
                *(self._row[pick], self._episode[pick], steps[pick]),
                *(Purpose.SENSOR, distances.shape[1]),
            )
            distances = distances + np.float32(sigma) * draws
        return lidar.reading(distances)

    def save(self) -> dict[str, Array]:
        """Return everything needed to continue exactly, as named arrays."""
        arrays: dict[str, Array] = {
            "floats": self._floats[:, : self.rows].copy(),
            "ints": self._ints[:, : self.rows].copy(),
            "track": self._track[: self.rows].copy(),
            "episode": self._episode.copy(),
            "seed": np.array(self._seed & 0xFFFFFFFFFFFFFFFF, np.uint64),
        }
        if self._traffic is not None:
            around = {name: getattr(self._around, name) for name in SURROUNDINGS}
            arrays |= {f"traffic.{k}": v for k, v in (self._traffic.save() | around).items()}
        if self._domain.cars or self._domain.settings.looks:
            arrays |= {"domain": self._domain.drawn.copy(), "look": self._look.copy()}
        if self.optics is not None:
            arrays["optics"] = self.optics.drawn.copy()
        if self._domain.settings.mounting.stock:
            arrays["mounting"] = self._mounting.copy()
        return arrays

    def restore(self, arrays: dict[str, Array]) -> None:
        """Continue from what `save` returned."""
        self._floats, self._ints = self._floats.copy(), self._ints.copy()
        self._track, self._episode = self._track.copy(), arrays["episode"].copy()
        self._floats[:, : self.rows], self._ints[:, : self.rows] = arrays["floats"], arrays["ints"]
        self._track[: self.rows] = arrays["track"]
        self._seed = int(arrays.get("seed", 0))  # runs of version 0.1 lack it
        if self._traffic is not None:
            self._traffic.restore({k: arrays[f"traffic.{k}"] for k in self._traffic.save()})
            self._around = Surroundings(**{k: arrays[f"traffic.{k}"].copy() for k in SURROUNDINGS})
        if "look" in arrays:
            self._domain.drawn, self._look = arrays["domain"].copy(), arrays["look"].copy()
        if self.optics is not None:
            self.optics.restore(arrays["optics"])
        if self._domain.settings.mounting.stock:
            self._mounting = arrays["mounting"].copy()
        if self._domain.cars:
            rows = np.arange(self.rows)
            self._parameters[rows // BLOCK, :, rows % BLOCK] = self._domain.parameters(rows)
        self._state = self._view()


_ZERO, _HALF, _ONE, _TWO = np.float32(0), np.float32(0.5), np.float32(1), np.float32(2)
_TENTH, _TINY = np.float32(0.1), np.float32(1e-30)
_LEAP = np.int32(24)
"""Most stations that a car may be thought to have passed in one control step."""
_SETTLE = 8
"""Most single steps that correct the leap."""
_inline: Any = njit(fastmath=True, error_model="numpy", forceinline=True)

# Rows of the scratch: the parameters, then the motion in the order of the State, then the rest.
# Within a substep position and turn count from its start, in its own frame, so that float32 loses
# nothing and the series for small angles serve.
(
    _X, _Y, _YAW, _VX, _VY, _R, _DELTA, _REFERENCE, _DX, _DY, _PSI, _COS, _SIN, _TARGET, _AIM,
    _S, _N, _STATION, _COUNT, _GAP, _LOOP, _MORE,
) = range(PARAMETERS, PARAMETERS + 22)  # fmt: skip
_HERE = _MORE + 8
_SCRATCH = _HERE + 16


@_inline
def _stage(m, j, carry, gain, h):  # type: ignore[no-untyped-def]
    """Run one stage of the integrator for car j: dy = carry dy + h f(y), y = y + gain dy."""
    psi, vx, vy, r = m[_PSI, j], m[_VX, j], m[_VY, j], m[_R, j]
    delta, reference = m[_DELTA, j], m[_REFERENCE, j]
    limit = m[STEERING_RATE, j]
    delta_rate = (m[_TARGET, j] - delta) * m[STEERING_LAG_INVERSE, j]
    delta_rate = min(max(delta_rate, -limit), limit)
    reference_rate = (m[_AIM, j] - reference) * m[MOTOR_LAG_INVERSE, j]
    vx_rate, vy_rate, r_rate = rates(vx, vy, r, delta, delta_rate, reference, m, j)
    c, s = cos_small(psi), sin_quarter(psi)

    dx = carry * m[_MORE, j] + h * (vx * c - vy * s)
    dy = carry * m[_MORE + 1, j] + h * (vx * s + vy * c)
    d_psi = carry * m[_MORE + 2, j] + h * r
    d_vx = carry * m[_MORE + 3, j] + h * vx_rate
    d_vy = carry * m[_MORE + 4, j] + h * vy_rate
    d_r = carry * m[_MORE + 5, j] + h * r_rate
    d_delta = carry * m[_MORE + 6, j] + h * delta_rate
    d_reference = carry * m[_MORE + 7, j] + h * reference_rate
    m[_MORE, j], m[_MORE + 1, j], m[_MORE + 2, j], m[_MORE + 3, j] = dx, dy, d_psi, d_vx
    m[_MORE + 4, j], m[_MORE + 5, j], m[_MORE + 6, j] = d_vy, d_r, d_delta
    m[_MORE + 7, j] = d_reference
    m[_DX, j] += gain * dx
    m[_DY, j] += gain * dy
    m[_PSI, j] = psi + gain * d_psi
    m[_VX, j] = vx + gain * d_vx
    m[_VY, j] = vy + gain * d_vy
    m[_R, j] = r + gain * d_r
    m[_DELTA, j] = delta + gain * d_delta
    m[_REFERENCE, j] = reference + gain * d_reference


@_inline
def _ahead(x, y, stations, k):  # type: ignore[no-untyped-def]
    """How far a point lies beyond the normal of station k [m]."""
    k = np.uint64(k)
    return (x - stations[k, 0]) * stations[k, 2] + (y - stations[k, 1]) * stations[k, 3]


@_inline
def _locate(m, j):  # type: ignore[no-untyped-def]
    """Find car j between its two stations; the results replace the first of them in the scratch."""
    gap = m[_GAP, j]
    # Where the interpolated normal passes through the car: a0 + a1 t + a2 t^2 = 0, falling.
    tx, ty = m[_HERE + 2, j], m[_HERE + 3, j]
    turn_x, turn_y = m[_HERE + 10, j] - tx, m[_HERE + 11, j] - ty
    px, py = m[_X, j] - m[_HERE, j], m[_Y, j] - m[_HERE + 1, j]
    dx, dy = m[_HERE + 8, j] - m[_HERE, j], m[_HERE + 9, j] - m[_HERE + 1, j]
    a0 = px * tx + py * ty
    a1 = px * turn_x + py * turn_y - dx * tx - dy * ty
    a2 = -(dx * turn_x + dy * turn_y)
    root = math.sqrt(max(a1 * a1 - _TWO * _TWO * a0 * a2, _TINY))
    t = _TWO * a0 / max(root - a1, _TINY)
    t = min(max(t, _ZERO), _ONE)
    fx, fy = tx + t * turn_x, ty + t * turn_y
    rx, ry = px - t * dx, py - t * dy
    unit = _ONE / math.sqrt(fx * fx + fy * fy)
    offset = (fx * ry - fy * rx) * unit
    s = (m[_STATION, j] + t) * gap
    bend = m[_HERE + 4, j] + t * (m[_HERE + 12, j] - m[_HERE + 4, j])
    left_rise = m[_HERE + 13, j] - m[_HERE + 5, j]
    right_rise = m[_HERE + 14, j] - m[_HERE + 6, j]
    left, right = m[_HERE + 5, j] + t * left_rise, m[_HERE + 6, j] + t * right_rise

    length = m[_COUNT, j] * gap
    won = s - m[_S, j]
    lap = length * m[_LOOP, j]
    won = won - lap if won > _HALF * length else won
    won = won + lap if won < -_HALF * length else won

    # Heading error by the cross and the dot product of the car's direction and the line's.
    c = (m[_COS, j] * fx + m[_SIN, j] * fy) * unit
    sn = (m[_SIN, j] * fx - m[_COS, j] * fy) * unit
    error = atan_positive(abs(sn) / max(abs(c), _TINY))
    error = error if c > _ZERO else PI - error
    error = error if sn > _ZERO else -error

    # Wheels outside: their offset on the circle of curvature through the car's foot point.
    left_slope, right_slope = left_rise / gap, right_rise / gap
    side, front, rear = m[WHEEL_SIDE, j], m[WHEEL_FRONT, j], m[WHEEL_REAR, j]
    off = (
        _outside(front, side, c, sn, offset, bend, left, right, left_slope, right_slope)
        + _outside(front, -side, c, sn, offset, bend, left, right, left_slope, right_slope)
        + _outside(rear, side, c, sn, offset, bend, left, right, left_slope, right_slope)
        + _outside(rear, -side, c, sn, offset, bend, left, right, left_slope, right_slope)
    )
    m[_HERE, j], m[_HERE + 1, j], m[_HERE + 2, j], m[_HERE + 3, j] = s, offset, error, bend
    m[_HERE + 4, j], m[_HERE + 5, j], m[_HERE + 6, j], m[_HERE + 7, j] = left, right, won, off


@_inline
def _outside(ahead, side, c, sn, offset, bend, left, right, left_slope, right_slope):  # type: ignore[no-untyped-def]
    """1 if a wheel is beyond the border, else 0."""
    along, across = ahead * c - side * sn, offset + ahead * sn + side * c
    at_wheel = across - _HALF * bend * along * along / max(_ONE - bend * across, _TENTH)
    room = min(left + left_slope * along - at_wheel, right + right_slope * along + at_wheel)
    return _ONE if room < _ZERO else _ZERO


@_inline
def _into(k, count, loop):  # type: ignore[no-untyped-def]
    """Bring a station index back into 0..count-1: round a loop, to the end of an open track."""
    if k >= count:
        return np.int32(k - count) if loop == 1 else np.int32(count - 1)
    if k < 0:
        return np.int32(k + count) if loop == 1 else np.int32(0)
    return np.int32(k)


@njit(cache=True, nogil=True, fastmath=True, error_model="numpy")
def _step(  # type: ignore[no-untyped-def]
    start, stop, floats, floats_out, ints, ints_out, command, parameters,
    parameters_of, track, stations, first, segments, spacing, closed, h, substeps,
):  # fmt: skip
    """Advance the cars start..stop by one control step, and find them on their tracks."""
    prefer_512_bits()
    # One array with constant rows, because LLVM can then see that no two rows overlap.
    m = np.empty((_SCRATCH, BLOCK), np.float32)

    held = np.int32(-1)
    for block in range(start // BLOCK, -(-stop // BLOCK)):
        base = block * BLOCK
        wanted = parameters_of[block]
        if wanted != held:
            held = wanted
            for j in range(BLOCK):
                for row in range(PARAMETERS):
                    m[row, j] = parameters[held, row, j]
        for j in range(BLOCK):
            i = np.uint64(base + j)  # unsigned: a signed index could count from the end
            for row in range(8):
                m[_X + row, j] = floats[row, i]
            m[_S, j], m[_N, j] = floats[9, i], floats[10, i]
        for j in range(BLOCK):
            i = np.uint64(base + j)
            limit = m[STEERING_MAX, j]
            m[_TARGET, j] = min(max(command[0, i], -limit), limit)
            speed = min(max(command[1, i], m[SPEED_MIN, j]), m[SPEED_MAX, j])
            m[_AIM, j] = speed * m[SPEED_GAIN, j]
            # Without a lag the controller aims at the new speed from the first moment.
            lagged = m[MOTOR_LAG_INVERSE, j] > _ZERO
            m[_REFERENCE, j] = m[_REFERENCE, j] if lagged else m[_AIM, j]
            m[_SIN, j], m[_COS, j] = sin_cos(m[_YAW, j])
            for row in range(_MORE, _HERE):
                m[row, j] = _ZERO

        for _ in range(substeps):
            for j in range(BLOCK):
                m[_DX, j], m[_DY, j], m[_PSI, j] = _ZERO, _ZERO, _ZERO
            for stage in range(STAGES):
                carry, gain = CARRY[stage], GAIN[stage]
                for j in range(BLOCK):
                    _stage(m, j, carry, gain, h)
            # Leave the substep's frame for the world's, and turn along with the car.
            for j in range(BLOCK):
                c, s = m[_COS, j], m[_SIN, j]
                m[_X, j] += c * m[_DX, j] - s * m[_DY, j]
                m[_Y, j] += s * m[_DX, j] + c * m[_DY, j]
                turn_c, turn_s = cos_small(m[_PSI, j]), sin_quarter(m[_PSI, j])
                m[_COS, j], m[_SIN, j] = c * turn_c - s * turn_s, s * turn_c + c * turn_s
                m[_YAW, j] += m[_PSI, j]

        # Guess the station behind the car, and settle on it by single steps. Leap and steps are
        # bounded, so that a car beside another leg of the track stays on its own: a hop is no
        # progress.
        for j in range(BLOCK):
            which = track[np.uint64(base + j)]
            count, gap, loop, origin = segments[which], spacing[which], closed[which], first[which]
            k = ints[0, np.uint64(base + j)]
            x, y = m[_X, j], m[_Y, j]
            ahead = _ahead(x, y, stations, origin + k)
            shrink = max(_ONE - m[_N, j] * stations[np.uint64(origin + k), 4], _TENTH)
            # Clip the integer, not the quotient: a NaN would pass and point outside of the bank.
            leap = min(max(np.int32(np.floor(ahead / (gap * shrink))), -_LEAP), _LEAP)
            k = _into(k + leap, count, loop)
            for _ in range(_SETTLE):
                if _ahead(x, y, stations, origin + k) < _ZERO:
                    step = -1
                elif _ahead(x, y, stations, origin + k + 1) >= _ZERO:
                    step = 1
                else:
                    break
                moved = _into(k + step, count, loop)
                if moved == k:
                    break
                k = moved
            for n in range(16):
                m[_HERE + n, j] = stations[np.uint64(origin + k + (n >> 3)), n & 7]
            ints_out[0, np.uint64(base + j)] = k
            m[_STATION, j] = np.float32(k)
            m[_COUNT, j], m[_GAP, j], m[_LOOP, j] = np.float32(count), gap, np.float32(loop)

        for j in range(BLOCK):
            _locate(m, j)
        for j in range(BLOCK):
            i = np.uint64(base + j)
            m[_YAW, j] = wrap(m[_YAW, j])
            for row in range(8):
                floats_out[row, i] = m[_X + row, j]
            floats_out[8, i] = motor_force(m[_VX, j], m[_REFERENCE, j], m, j)
            for row in range(7):
                floats_out[9 + row, i] = m[_HERE + row, j]
            floats_out[16, i] = floats[16, i] + m[_HERE + 6, j]
            ints_out[1, i] = np.int32(m[_HERE + 7, j])
            ints_out[2, i] = ints[2, i] + np.int32(1)
