"""Our world: N cars on their tracks, stepped together by one compiled kernel.

The kernel takes cars in blocks, copies a block's state into a scratch that fits the first-level
cache, and runs every loop over the cars of the block innermost and without branches, so that LLVM
handles 8 or 16 cars in one instruction. Written the other way round it is ten times slower.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numba import njit

from hotlap.errors import SimulationError
from hotlap.sim.camera import Camera, CameraSettings
from hotlap.sim.look import Look
from hotlap.sim.threads import available, spread
from hotlap.sim.vehicle import (
    BLOCK,
    SUBSTEP_MAX,
    Parameter,
    Vehicle,
    motor_force,
    rk4,
    sin_small,
    wrap,
)
from hotlap.simulator import Command, Start, State
from hotlap.track import Track
from hotlap.types import Array, Float32, Int32

__all__ = ["NativeSimulator"]

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


class NativeSimulator:
    """The world of design decision 1 behind the Simulator contract.

    Args:
        tracks: the courses; each row drives on one of them, chosen at its reset.
        vehicle: the car of every row, or one for each row.
        rows: how many cars.
        dt: seconds between control steps.
        camera: what the cameras see with, or None to have no camera.
        looks: what the world looks like; row i uses `looks[i % len(looks)]`.
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
        looks: Sequence[Look] = (Look(),),
        first_row: int = 0,
        threads: int | None = None,
    ) -> None:
        self.tracks = tuple(tracks)
        self.rows = rows
        self.dt = dt
        self.threads = threads or available()
        self._substeps = max(1, round(np.ceil(dt / SUBSTEP_MAX - 1e-9)))
        vehicles = [vehicle] * rows if isinstance(vehicle, Vehicle) else list(vehicle)
        vectors = {car: car.parameters(dt / self._substeps) for car in set(vehicles)}
        # The kernel handles whole blocks: the last one is filled up with cars that nobody sees.
        self._padded = -(-rows // BLOCK) * BLOCK
        columns = [vectors[car] for car in vehicles]
        columns += columns[-1:] * (self._padded - rows)
        self._parameters = np.ascontiguousarray(np.stack(columns, 1))
        self._bank = _Bank(self.tracks)
        self._floats = np.zeros((len(_FLOATS), self._padded), np.float32)
        self._ints = np.zeros((len(_INTS), self._padded), np.int32)
        self._track = np.zeros(self._padded, np.int32)
        self._episode = np.full(rows, -1, np.int32)
        self._row = first_row + np.arange(rows, dtype=np.int64)
        self._world = np.arange(rows, dtype=np.int32)
        self._look = (np.arange(rows) % len(looks)).astype(np.int32)
        self.camera = (
            None if camera is None else Camera(camera, self.tracks, looks, threads=self.threads)
        )

    @property
    def provides(self) -> frozenset[str]:
        """Names of the State fields and sensors that it fills."""
        sensors = () if self.camera is None else ("camera",)
        return frozenset((*_FLOATS, *_INTS, "episode", "row", "track", "world", *sensors))

    @property
    def state(self) -> State:
        """The state after the last `reset` or `step`."""
        floats = {name: self._floats[i, : self.rows] for i, name in enumerate(_FLOATS)}
        ints = {name: self._ints[i, : self.rows] for i, name in enumerate(_INTS)}
        return State(
            **floats,
            **ints,
            episode=self._episode,
            row=self._row,
            track=self._track[: self.rows],
            world=self._world,
        )

    def reset(self, rows: Array, start: Start) -> State:
        """Begin a new episode in the given rows (an index array) and leave the others alone."""
        rows = np.asarray(rows)
        self._floats, self._ints = self._floats.copy(), self._ints.copy()
        self._track, self._episode = self._track.copy(), self._episode.copy()
        self._episode[rows] += 1
        self._track[rows] = start.track
        placed = self._bank.place(start)
        self._floats[:, rows] = np.stack([placed.get(name, placed["zero"]) for name in _FLOATS])
        self._ints[:, rows] = 0
        self._ints[_INTS.index("station"), rows] = placed["station"]
        return self.state

    def step(self, command: Command) -> State:
        """Advance every car by `dt`.

        Raises:
            SimulationError: a command or a state is not finite.
        """
        wanted = np.zeros((2, self._padded), np.float32)
        wanted[0, : self.rows], wanted[1, : self.rows] = command.steering, command.speed
        if not np.isfinite(wanted).all():
            row = int(np.flatnonzero(~np.isfinite(wanted).all(0))[0])
            raise SimulationError(
                f"the command of row {row} is not a number: steering {wanted[0, row]}, "
                f"speed {wanted[1, row]}. The policy has diverged; lower its learning rate."
            )
        floats, ints = np.empty_like(self._floats), np.empty_like(self._ints)
        bank = self._bank
        spread(
            _step,
            self._padded,
            self._floats.reshape(-1),
            floats.reshape(-1),
            self._ints.reshape(-1),
            ints.reshape(-1),
            wanted.reshape(-1),
            self._parameters.reshape(-1),
            self._track,
            bank.stations,
            bank.first,
            bank.segments,
            bank.spacing,
            bank.closed,
            np.float32(self.dt / self._substeps),
            self._substeps,
            self._padded,
            block=BLOCK,
            threads=self.threads if self.rows >= 8 * BLOCK else 1,
        )
        self._floats, self._ints = floats, ints
        return self.state

    def sense(self, sensor: str, rows: Array | None = None) -> Array:
        """Read a sensor of the given rows (all if None): (M, H, W, C) for the camera."""
        if sensor != "camera" or self.camera is None:
            raise KeyError(sensor)
        pick: Any = slice(None) if rows is None else rows
        x, y, yaw = (np.ascontiguousarray(self._floats[i, : self.rows][pick]) for i in range(3))
        track, look = (
            np.ascontiguousarray(a[: self.rows][pick]) for a in (self._track, self._look)
        )
        return self.camera.render(x, y, yaw, track, look)

    def save(self) -> dict[str, Array]:
        """Return everything needed to continue exactly, as named arrays."""
        return {
            "floats": self._floats.copy(),
            "ints": self._ints.copy(),
            "track": self._track.copy(),
            "episode": self._episode.copy(),
        }

    def restore(self, arrays: dict[str, Array]) -> None:
        """Continue from what `save` returned."""
        self._floats, self._ints = arrays["floats"].copy(), arrays["ints"].copy()
        self._track, self._episode = arrays["track"].copy(), arrays["episode"].copy()


class _Bank:
    """The stations of all tracks in one flat array, eight numbers a station.

    A closed track repeats its first station at the end, so that the kernel reads station k + 1
    without asking.
    """

    def __init__(self, tracks: Sequence[Track]) -> None:
        tables, first, count = [], [], 0
        for track in tracks:
            st = track.stations
            table = np.stack(
                [st.x, st.y, st.tx, st.ty, st.heading, st.curvature, st.left, st.right], axis=1
            )
            if st.closed:
                table = np.concatenate([table, table[:1]])
            tables.append(table)
            first.append(count)
            count += len(table)
        self.stations: Float32 = np.concatenate(tables).astype(np.float32).reshape(-1)
        self.first: Int32 = np.array(first, np.int32)
        self.segments: Int32 = np.array([len(t) - 1 for t in tables], np.int32)
        self.spacing: Float32 = np.array([t.stations.spacing for t in tracks], np.float32)
        self.closed: Int32 = np.array([t.stations.closed for t in tracks], np.int32)

    def place(self, start: Start) -> dict[str, Array]:
        """Turn starts into the state of resting or rolling cars."""
        spacing, segments = self.spacing[start.track], self.segments[start.track]
        at = start.s / spacing
        station = np.clip(np.floor(at), 0, segments - 1).astype(np.int32)
        t = (at - station).astype(np.float32)
        table = self.stations.reshape(-1, 8)
        here = table[self.first[start.track] + station].astype(np.float64)
        there = table[self.first[start.track] + station + 1].astype(np.float64)
        turn = (there[:, 4] - here[:, 4] + np.pi) % (2 * np.pi) - np.pi
        mixed = here + t[:, None] * (there - here)
        size = np.hypot(mixed[:, 2], mixed[:, 3])
        heading = here[:, 4] + t * turn + start.heading_error
        placed = {
            "x": mixed[:, 0] - start.n * mixed[:, 3] / size,
            "y": mixed[:, 1] + start.n * mixed[:, 2] / size,
            "yaw": (heading + np.pi) % (2 * np.pi) - np.pi,
            "vx": start.speed,
            "reference": start.speed,
            "s": start.s,
            "n": start.n,
            "heading_error": start.heading_error,
            "curvature": mixed[:, 5],
            "left": mixed[:, 6],
            "right": mixed[:, 7],
            "zero": np.zeros(len(t)),
        }
        return {k: v.astype(np.float32) for k, v in placed.items()} | {"station": station}


_ZERO, _HALF, _ONE = np.float32(0), np.float32(0.5), np.float32(1)
_PI, _HALF_PI = np.float32(np.pi), np.float32(np.pi / 2)
_TENTH = np.float32(0.1)
_LEAP = np.int32(24)
"""Most stations that a car may be thought to have passed in one control step."""
_SETTLE = 8
"""Most single steps that correct the leap."""
_B = BLOCK
_PARAMETERS = len(Parameter)
_inline = njit(fastmath=True, error_model="numpy", forceinline=True)

# Rows of the scratch: the eight of the motion, then these.
_X0, _Y0, _YAW0, _STEER, _SPEED, _S0, _N0, _ERROR0, _BEND0 = range(8, 17)
_SCRATCH = 17


@_inline
def _sin(angle):  # type: ignore[no-untyped-def]
    size = abs(angle)
    folded = sin_small(_PI - size if size > _HALF_PI else size)
    return -folded if angle < _ZERO else folded


@_inline
def _cos(angle):  # type: ignore[no-untyped-def]
    return sin_small(_HALF_PI - abs(angle))


@njit(cache=True, nogil=True, fastmath=True, error_model="numpy")
def _step(  # type: ignore[no-untyped-def]
    start, stop, floats, floats_out, ints, ints_out, command, parameters, track,
    stations, first, segments, spacing, closed, h, substeps, columns,
):  # fmt: skip
    """Advance the cars start..stop by one control step, and find them on their tracks."""
    u = np.uint64
    n64, b64 = u(columns), u(_B)
    m = np.empty(_SCRATCH * _B, np.float32)
    p = np.empty(_PARAMETERS * _B, np.float32)
    g = np.empty(16 * _B, np.float32)
    k_at = np.empty(_B, np.int32)
    count_at = np.empty(_B, np.int32)
    loop_at = np.empty(_B, np.float32)
    gap_at = np.empty(_B, np.float32)

    for block in range(start, stop, _B):
        base = u(block)
        for field in range(_PARAMETERS):
            for j in range(_B):
                p[u(field) * b64 + u(j)] = parameters[u(field) * n64 + base + u(j)]
        for field in range(8):
            for j in range(_B):
                m[u(field) * b64 + u(j)] = floats[u(field) * n64 + base + u(j)]
        for field in range(9, 13):
            for j in range(_B):
                m[u(field + _S0 - 9) * b64 + u(j)] = floats[u(field) * n64 + base + u(j)]
        for j in range(_B):
            q = u(j)
            for field in range(3):
                m[u(field + _X0) * b64 + q] = m[u(field) * b64 + q]
                m[u(field) * b64 + q] = _ZERO
            limit = p[u(26) * b64 + q]
            m[u(_STEER) * b64 + q] = min(max(command[base + q], -limit), limit)
            speed = min(max(command[n64 + base + q], p[u(27) * b64 + q]), p[u(28) * b64 + q])
            speed = speed * p[u(29) * b64 + q]
            m[u(_SPEED) * b64 + q] = speed
            # Without a lag the controller aims at the new speed from the first moment.
            lagged = p[u(25) * b64 + q] > _ZERO
            m[u(7) * b64 + q] = m[u(7) * b64 + q] if lagged else speed

        for _ in range(substeps):
            for j in range(_B):
                q = u(j)
                motion = (
                    m[q], m[q + b64], m[q + u(2) * b64], m[q + u(3) * b64], m[q + u(4) * b64],
                    m[q + u(5) * b64], m[q + u(6) * b64], m[q + u(7) * b64],
                )  # fmt: skip
                car = (
                    p[q], p[q + b64], p[q + u(2) * b64], p[q + u(3) * b64], p[q + u(4) * b64],
                    p[q + u(5) * b64], p[q + u(6) * b64], p[q + u(7) * b64], p[q + u(8) * b64],
                    p[q + u(9) * b64], p[q + u(10) * b64], p[q + u(11) * b64],
                    p[q + u(12) * b64], p[q + u(13) * b64], p[q + u(14) * b64],
                    p[q + u(15) * b64], p[q + u(16) * b64], p[q + u(17) * b64],
                    p[q + u(18) * b64], p[q + u(19) * b64], p[q + u(20) * b64],
                    p[q + u(21) * b64],
                )  # fmt: skip
                actuators = (
                    p[q + u(22) * b64], p[q + u(23) * b64], p[q + u(24) * b64],
                    p[q + u(25) * b64],
                )  # fmt: skip
                moved = rk4(
                    motion, m[q + u(_STEER) * b64], m[q + u(_SPEED) * b64], h, actuators, car
                )
                m[q], m[q + b64], m[q + u(2) * b64] = moved[0], moved[1], moved[2]
                m[q + u(3) * b64], m[q + u(4) * b64] = moved[3], moved[4]
                m[q + u(5) * b64], m[q + u(6) * b64] = moved[5], moved[6]
                m[q + u(7) * b64] = moved[7]

        # Guess how many stations were passed, and go from the step's own frame into the world.
        for j in range(_B):
            q = u(j)
            error, yaw = m[q + u(_ERROR0) * b64], m[q + u(_YAW0) * b64]
            x, y = m[q], m[q + b64]
            along = x * _cos(error) - y * _sin(error)
            shrink = max(_ONE - m[q + u(_N0) * b64] * m[q + u(_BEND0) * b64], _TENTH)
            m[q + u(_N0) * b64] = m[q + u(_S0) * b64] + along / shrink
            c, s = _cos(yaw), _sin(yaw)
            m[q] = m[q + u(_X0) * b64] + x * c - y * s
            m[q + b64] = m[q + u(_Y0) * b64] + x * s + y * c
            m[q + u(2) * b64] = wrap(yaw + m[q + u(2) * b64])

        # Settle on the station behind the car by single steps. Leap and steps are bounded, so that
        # a car beside another leg of the track stays on its own: a hop is no progress.
        for j in range(_B):
            q = u(j)
            which = track[base + q]
            count, gap, loop = segments[which], spacing[which], closed[which]
            origin = u(first[which])
            k = ints[base + q]
            guess = np.int32(np.floor(m[q + u(_N0) * b64] / gap)) - k
            k = _into(k + min(max(guess, -_LEAP), _LEAP), count, loop)
            x, y = m[q], m[q + b64]
            for _ in range(_SETTLE):
                at = (origin + u(k)) * u(8)
                px, py = x - stations[at], y - stations[at + u(1)]
                if px * stations[at + u(2)] + py * stations[at + u(3)] < _ZERO:
                    step = -1
                else:
                    px, py = x - stations[at + u(8)], y - stations[at + u(9)]
                    if px * stations[at + u(10)] + py * stations[at + u(11)] < _ZERO:
                        break
                    step = 1
                moved_to = _into(k + step, count, loop)
                if moved_to == k:
                    break
                k = moved_to
            at = (origin + u(k)) * u(8)
            for field in range(16):
                g[u(field) * b64 + q] = stations[at + u(field)]
            k_at[j] = k
            count_at[j] = count
            gap_at[j] = gap
            loop_at[j] = np.float32(loop)

        for j in range(_B):
            q = u(j)
            gap = gap_at[j]
            # Where the interpolated normal passes through the car: a0 + a1 t + a2 t^2 = 0.
            tx, ty = g[q + u(2) * b64], g[q + u(3) * b64]
            turn_x, turn_y = g[q + u(10) * b64] - tx, g[q + u(11) * b64] - ty
            px, py = m[q] - g[q], m[q + b64] - g[q + b64]
            dx, dy = g[q + u(8) * b64] - g[q], g[q + u(9) * b64] - g[q + b64]
            a0 = px * tx + py * ty
            a1 = px * turn_x + py * turn_y - dx * tx - dy * ty
            a2 = -(dx * turn_x + dy * turn_y)
            t = -a0 / a1
            t = t - (a0 + t * (a1 + t * a2)) / (a1 + (t + t) * a2)
            t = t - (a0 + t * (a1 + t * a2)) / (a1 + (t + t) * a2)
            fx, fy = tx + t * turn_x, ty + t * turn_y
            rx, ry = px - t * dx, py - t * dy
            offset = (fx * ry - fy * rx) / math.sqrt(fx * fx + fy * fy)
            s = (np.float32(k_at[j]) + t) * gap
            heading = g[q + u(4) * b64]
            heading = heading + t * wrap(g[q + u(12) * b64] - heading)
            error = wrap(m[q + u(2) * b64] - heading)
            bend = g[q + u(5) * b64] + t * (g[q + u(13) * b64] - g[q + u(5) * b64])
            left_rise = g[q + u(14) * b64] - g[q + u(6) * b64]
            right_rise = g[q + u(15) * b64] - g[q + u(7) * b64]
            left = g[q + u(6) * b64] + t * left_rise
            right = g[q + u(7) * b64] + t * right_rise

            length = np.float32(count_at[j]) * gap
            won = s - m[q + u(_S0) * b64]
            lap = length * loop_at[j]
            won = won - lap if won > _HALF * length else won
            won = won + lap if won < -_HALF * length else won

            # Wheels outside: their offset on the circle of curvature through the car's foot point.
            c, sn = _cos(error), _sin(error)
            left_slope, right_slope = left_rise / gap, right_rise / gap
            side = p[q + u(32) * b64]
            front, rear = p[q + u(30) * b64], p[q + u(31) * b64]
            off = (
                _outside(front, side, c, sn, offset, bend, left, right, left_slope, right_slope)
                + _outside(front, -side, c, sn, offset, bend, left, right, left_slope, right_slope)
                + _outside(rear, side, c, sn, offset, bend, left, right, left_slope, right_slope)
                + _outside(rear, -side, c, sn, offset, bend, left, right, left_slope, right_slope)
            )
            g[q] = s
            g[q + b64] = offset
            g[q + u(2) * b64] = error
            g[q + u(3) * b64] = bend
            g[q + u(4) * b64] = left
            g[q + u(5) * b64] = right
            g[q + u(6) * b64] = won
            count_at[j] = off

        for field in range(8):
            for j in range(_B):
                floats_out[u(field) * n64 + base + u(j)] = m[u(field) * b64 + u(j)]
        for field in range(7):
            for j in range(_B):
                floats_out[u(field + 9) * n64 + base + u(j)] = g[u(field) * b64 + u(j)]
        for j in range(_B):
            q = u(j)
            floats_out[u(8) * n64 + base + q] = motor_force(
                m[q + u(3) * b64], m[q + u(7) * b64], p[q + u(13) * b64], p[q + u(14) * b64],
                p[q + u(15) * b64],
            )  # fmt: skip
            won = g[q + u(6) * b64]
            floats_out[u(16) * n64 + base + q] = floats[u(16) * n64 + base + q] + won
            ints_out[base + q] = k_at[j]
            ints_out[n64 + base + q] = count_at[j]
            ints_out[u(2) * n64 + base + q] = ints[u(2) * n64 + base + q] + np.int32(1)


@_inline
def _outside(ahead, side, c, sn, offset, bend, left, right, left_slope, right_slope):  # type: ignore[no-untyped-def]
    """1 if a wheel is beyond the border, else 0."""
    along, across = ahead * c - side * sn, offset + ahead * sn + side * c
    at_wheel = across - _HALF * bend * along * along / max(_ONE - bend * across, _TENTH)
    room = min(left + left_slope * along - at_wheel, right + right_slope * along + at_wheel)
    return np.int32(1) if room < _ZERO else np.int32(0)


@_inline
def _into(k, count, loop):  # type: ignore[no-untyped-def]
    """Bring a station index back into 0..count-1: round a closed track, to the end of an open one."""
    if k >= count:
        return np.int32(k - count) if loop == 1 else np.int32(count - 1)
    if k < 0:
        return np.int32(k + count) if loop == 1 else np.int32(0)
    return np.int32(k)
