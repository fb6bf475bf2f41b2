"""The proving ground: an endless flat place where cars show what they can do.

Every figure is driven, in the kernel that trains: nothing here knows a formula of the car.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np

from hotlap.sim.native import NativeSimulator
from hotlap.simulator import Command, Start
from hotlap.track import Track
from hotlap.types import Array, Float64
from hotlap.vehicle import GRAVITY, Vehicle

__all__ = ["Limits", "advice", "flat", "limits", "place"]

_DT = 1 / 60
_CORNERING = 5.0
"""Time that a car gets to settle in a turn [s]; the last second counts."""
_STEERINGS, _SPEEDS = 48, 40
_SLIDE = 0.35
"""Slip angle of the body beyond which a car spins rather than turns [rad]."""


@dataclass(frozen=True, eq=False)
class Limits:
    """What a car can do on flat ground; S speeds, SI units."""

    speed_top: float
    """Fastest that it gets [m/s]."""
    lateral: float
    """Greatest lateral acceleration that it holds [m/s^2]."""
    speed: Float64
    """(S,) the speeds of the following [m/s]."""
    radius: Float64
    """(S,) tightest circle of the centre of gravity at this speed or more [m]."""
    stopping: Float64
    """(S,) way until it is slow, braking straight [m]: see `slow`."""
    reached: Float64
    """(S,) time from rest [s]."""
    slow: float
    """Where braking ends [m/s]: 0.1 above the slowest speed that can be commanded."""


@cache
def flat() -> Track:
    """Return a course so wide that nobody leaves it; it starts at the origin."""
    angle = np.linspace(0, 2 * np.pi, 201)
    circle = np.stack([np.cos(angle), np.sin(angle)], 1)
    rows = [size * circle - [200, 0] for size in (200, 180, 220)]
    return Track.from_waypoints(np.hstack(rows), name="flat")


def place(
    vehicle: Vehicle | Sequence[Vehicle], rows: int, *, speed: Array | float = 0.0, dt: float = _DT
) -> NativeSimulator:
    """Put cars at the origin of flat ground, rolling straight at `speed` (rows,) [m/s]."""
    simulator = NativeSimulator([flat()], vehicle, rows=rows, dt=dt)
    zero = np.zeros(rows, np.float32)
    simulator.reset(
        np.arange(rows),
        Start(
            track=np.zeros(rows, np.int32),
            s=zero,
            n=zero,
            heading_error=zero,
            speed=np.broadcast_to(np.float32(speed), rows).copy(),
        ),
    )
    return simulator


def limits(vehicle: Vehicle, speeds: Sequence[float] = ()) -> Limits:
    """Drive a car to its limits.

    Args:
        vehicle: whose limits.
        speeds: where to measure [m/s]; if empty, round numbers up to the top speed.
    """
    top = vehicle.speed_max * vehicle.speed_gain
    patience = 3 * top / vehicle.drive_max + 6 / vehicle.motor_gain + 4 * vehicle.motor_lag
    time, speed, _ = _straight(vehicle, 0.0, vehicle.speed_max, patience)
    top = float(speed[-1])
    at = np.array(speeds, np.float64) if len(speeds) else _round_numbers(top)
    climb = np.maximum.accumulate(speed)
    reached = np.where(at <= top, np.interp(at, climb, time), np.nan)

    slow = vehicle.speed_min * vehicle.speed_gain + 0.1
    time, speed, way = _straight(vehicle, 0.999 * top, 0.0, patience)
    order = np.argsort(speed, kind="stable")
    left = np.interp(slow, speed[order], way[order]) - np.interp(at, speed[order], way[order])
    stopping = np.where(at <= top, np.maximum(left, 0), np.nan)

    held, radius = _circles(vehicle)
    tightest = [radius[held >= v].min(initial=np.inf) for v in at]
    return Limits(
        speed_top=top,
        lateral=float((held**2 / radius).max()),
        speed=at,
        radius=np.where(np.isfinite(tightest), tightest, np.nan),
        stopping=stopping,
        reached=reached,
        slow=slow,
    )


def advice(vehicle: Vehicle, found: Limits) -> list[str]:
    """Say in sentences what is odd about a car; nothing if all is well."""
    crest = vehicle.friction * GRAVITY
    if found.lateral < 1.04 * crest:
        return []
    # Where the blend ends, the tightest turn may ask for a little more than the tyres have.
    share = math.sqrt(1.14 * crest * vehicle.radius_min) / vehicle.blend_high
    return [
        f"it turns with {found.lateral:.1f} m/s^2, but friction {vehicle.friction:g} holds only "
        f"{crest:.1f}: below blend_high the model knows no slip. Set blend_high = "
        f"{share * vehicle.blend_high:.2f} and blend_low = {share * vehicle.blend_low:.2f}"
    ]


def _straight(
    vehicle: Vehicle, speed: float, command: float, seconds: float
) -> tuple[Float64, Float64, Float64]:
    """Drive straight on; time [s], speed [m/s] and way [m] of every step."""
    simulator = place(vehicle, 1, speed=speed)
    wanted = Command(steering=np.zeros(1, np.float32), speed=np.full(1, command, np.float32))
    count = math.ceil(seconds / _DT)
    trace = np.empty((count + 1, 2))
    trace[0] = speed, 0.0
    for k in range(count):
        state = simulator.step(wanted)
        trace[k + 1, 0] = state.vx[0]
    # Summed, not read from the position: float32 metres grow coarse far from the origin.
    trace[1:, 1] = np.cumsum((trace[1:, 0] + trace[:-1, 0]) / 2 * _DT)
    return np.arange(count + 1, dtype=np.float64) * _DT, trace[:, 0], trace[:, 1]


def _circles(vehicle: Vehicle) -> tuple[Float64, Float64]:
    """Hold every speed with every steering angle; speed [m/s] and radius [m] of those that turn."""
    # Fine near the middle, where a fast car's limit is.
    angle = vehicle.steering_max * np.linspace(0.02, 1, _STEERINGS) ** 2
    command = np.linspace(
        max(vehicle.speed_min, 0.04 * vehicle.speed_max), vehicle.speed_max, _SPEEDS
    )
    steering, wanted = (a.ravel().astype(np.float32) for a in np.meshgrid(angle, command))
    simulator = place(vehicle, len(wanted), speed=wanted * np.float32(vehicle.speed_gain))
    last = round(1 / _DT)
    # The wheel is turned in slowly: a step at speed throws the car beyond what it could hold.
    settle = _CORNERING + 4 * vehicle.steering_lag + vehicle.steering_max / vehicle.steering_rate
    count = round(settle / _DT)
    speed, rate, slide = [], [], []
    for k in range(count):
        share = np.float32(min(1.0, k / (0.6 * count)))
        state = simulator.step(Command(steering=share * steering, speed=wanted))
        if k >= count - last:
            speed.append(np.hypot(state.vx, state.vy).astype(np.float64))
            rate.append(state.yaw_rate.astype(np.float64))
            slide.append(np.arctan2(np.abs(state.vy), np.maximum(state.vx, 1e-3)))
    mean, turn = np.mean(speed, 0), np.mean(rate, 0)
    steady = (np.std(rate, 0) < 0.02 * np.abs(turn)) & (np.max(slide, 0) < _SLIDE) & (mean > 1e-2)
    return mean[steady], mean[steady] / turn[steady]


def _round_numbers(top: float) -> Float64:
    """Return about eight round speeds below `top`."""
    rough = top / 12
    scale = 10.0 ** math.floor(math.log10(rough))
    step = next(scale * s for s in (1, 2, 5, 10) if scale * s >= rough)
    return step * np.arange(1.0, math.floor(0.98 * top / step) + 1)
