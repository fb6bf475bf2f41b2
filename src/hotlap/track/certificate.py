"""Certificate: what a course asks of a car, measured, and what of it the car cannot give."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from hotlap.track import Track
from hotlap.types import Float64
from hotlap.vehicle import GRAVITY, Vehicle

__all__ = ["Certificate", "certify", "speed_profile"]

_TURN_FACTOR = 1.2
"""Least radius of the inner border over the car's tightest turn."""
_FOLD = 0.9
"""Largest share of a bend's radius that the road to its inside may take."""
_STRAIGHT_CARS = 3
_STRAIGHT_BEND = 0.05
"""Share of the car's largest curvature below which the road counts as straight."""
_LABELS = ((0.17, "easy"), (0.28, "medium"), (math.inf, "hard"))
"""Share of the top speed that bends cost, and what that is called."""
_STATIONS = 600
"""Legs are compared at about so many places."""


@dataclass(frozen=True)
class Certificate:
    """Measures of a track for a car; lengths in metres."""

    vehicle: str
    length: float
    width_min: float
    radius_min: float
    """Least radius of the centre line; infinite on a straight road."""
    border_radius_min: float
    """Least radius of a bend at its inner border; negative where the border folds."""
    gap_min: float
    """Least distance between the borders of two legs; infinite if there is one only."""
    start_straight: float
    """How far the road goes straight on from the first row."""
    turns: int
    lap: float
    """Seconds of a lap along the centre line at the limit of friction; a driver who cuts the
    bends is faster, one who does not know them slower."""
    pace: float
    """Mean speed of that lap over the car's top speed."""
    label: str
    """easy, medium or hard, by the speed that the bends cost."""
    optimum: float | None
    """Seconds of the fastest lap as an optimiser found it; None if none was asked."""
    problems: tuple[str, ...]
    """What the car cannot drive or a course should not have; empty if all is well."""

    def as_dict(self) -> dict[str, Any]:
        """Return the fields; what is infinite as None, as JSON has no such number."""
        return {
            key: None if isinstance(value, float) and not math.isfinite(value) else value
            for key, value in asdict(self).items()
        }


def certify(
    track: Track,
    vehicle: Vehicle,
    *,
    gap: float | None = None,
    optimum: Callable[[Track, Vehicle], float] | None = None,
) -> Certificate:
    """Measure a track and check that a car can drive it.

    Args:
        track: any course.
        vehicle: the car that shall drive it.
        gap: least distance between the borders of two legs [m]; the car's width if None.
        optimum: returns the seconds of the fastest lap, or raises; the course then counts as
            solvable only if that lap is no slower than the one along the centre line.
    """
    stations = track.stations
    bend = stations.curvature.astype(np.float64)
    inside = np.where(bend > 0, stations.left, stations.right).astype(np.float64)
    radius = 1 / np.maximum(np.abs(bend), 1e-9)
    straight = np.abs(bend) < _STRAIGHT_BEND / vehicle.radius_min
    first_bend = int(np.argmin(straight)) if not straight.all() else stations.count
    side = np.where(straight, 0.0, np.sign(bend))
    begins = (side != 0) & (side != np.roll(side, 1))
    speed = speed_profile(track, vehicle)
    lap = float((stations.spacing / _between(speed, track.closed)).sum())
    pace = track.length / lap / vehicle.speed_max
    width = (stations.left + stations.right).astype(np.float64)
    measured: dict[str, Any] = {
        "vehicle": vehicle.name,
        "length": track.length,
        "width_min": float(width.min()),
        "radius_min": _known(float(radius.min())),
        "border_radius_min": _known(float((radius - inside).min())),
        "gap_min": _gap(track, float(width.max()) + vehicle.body_width),
        "start_straight": first_bend * stations.spacing,
        "turns": int(begins.sum()),
        "lap": lap,
        "pace": pace,
        "label": next(label for most, label in _LABELS if 1 - pace <= most),
    }
    best = optimum(track, vehicle) if optimum else None
    problems = _problems(measured, track, vehicle, vehicle.body_width if gap is None else gap)
    fold = float((inside / radius).max())
    if fold > _FOLD:
        problems.append(
            f"a border folds: the road takes {fold:.0%} of a bend's radius, at most {_FOLD:.0%} "
            "is allowed"
        )
    if best is not None and not best <= lap:
        problems.append(f"the optimiser found no lap better than the centre line's {lap:.2f} s")
    return Certificate(**measured, optimum=best, problems=tuple(problems))


def speed_profile(track: Track, vehicle: Vehicle) -> Float64:
    """Return the highest speed (S,) [m/s] at each station that friction allows on the centre line.

    The lap is a flying one; an open track begins at rest. What cornering leaves of the friction
    circle accelerates or brakes, up to what the motor can.

    Source: the usual forward and backward pass of a point mass, as in Kapania, Subosits and
    Gerdes (2016), "A sequential two-step algorithm for fast generation of vehicle racing
    trajectories", section 3.1, with one friction circle for both passes.
    """
    grip, top = vehicle.friction * GRAVITY, vehicle.speed_max**2
    bend = np.abs(track.stations.curvature.astype(np.float64))
    square = np.minimum(top, grip / np.maximum(bend, grip / top))
    for way in (1, -1):
        first = 0.0 if way == 1 and not track.closed else top
        square[::way] = _accelerated(
            square[::way], bend[::way], first, grip, vehicle, track.stations.spacing, track.closed
        )
    return np.sqrt(square)


def _accelerated(
    square: Float64,
    bend: Float64,
    first: float,
    grip: float,
    vehicle: Vehicle,
    spacing: float,
    closed: bool,
) -> Float64:
    """Lower squared speeds to what can be reached from station to station."""
    found, bends = square.tolist(), bend.tolist()
    now = first
    for i in [*range(len(found))] * (2 if closed else 1):  # a loop hands its end to its beginning
        now = found[i] = min(now, found[i])
        turning = now * bends[i]
        left = math.sqrt(max(grip * grip - turning * turning, 0.0))
        now += 2 * spacing * min(left, vehicle.drive_max)
    return np.array(found)


def _between(speed: Float64, closed: bool) -> Float64:
    """Return the mean speed from each station to the next."""
    following = np.roll(speed, -1)
    mean = (speed + following) / 2
    return mean if closed else mean[:-1]


def _known(radius: float) -> float:
    """Return a radius, infinite if it is beyond what float32 stations can tell."""
    return radius if radius < 1e4 else math.inf


def _gap(track: Track, near: float) -> float:
    """Return the least distance between borders of two legs; `near` is what counts as one leg."""
    stations = track.stations
    step = max(1, stations.count // _STATIONS)
    x, y, half = (
        a[::step].astype(np.float64)
        for a in (stations.x, stations.y, np.maximum(stations.left, stations.right))
    )
    away = np.hypot(x[:, None] - x, y[:, None] - y) - half[:, None] - half
    along = np.abs(np.arange(len(x))[:, None] - np.arange(len(x))) * step * stations.spacing
    if track.closed:
        along = np.minimum(along, track.length - along)
    # Half a circle that is just wide enough is the nearest that two places may come.
    far = along > math.pi / 2 * near
    return float(away[far].min()) if far.any() else math.inf


def _problems(found: dict[str, Any], track: Track, vehicle: Vehicle, gap: float) -> list[str]:
    """Say in a sentence each what is wrong."""
    problems = []
    if found["width_min"] < vehicle.body_width:
        problems.append(
            f"too narrow: {found['width_min']:.3f} m wide at its narrowest, the car is "
            f"{vehicle.body_width:.3f} m"
        )
    least = _TURN_FACTOR * vehicle.radius_min
    if found["border_radius_min"] < least:
        problems.append(
            f"too tight for turning along the inside: a border bends with a radius of "
            f"{found['border_radius_min']:.2f} m, {least:.2f} m is {_TURN_FACTOR} times the car's"
        )
    if found["gap_min"] < gap:
        problems.append(
            f"two legs come within {found['gap_min']:.2f} m of each other, {gap:.2f} m is wanted"
        )
    ahead = _STRAIGHT_CARS * vehicle.body_length
    if found["start_straight"] < ahead:
        problems.append(
            f"the start is not straight: {found['start_straight']:.2f} m, {ahead:.2f} m are "
            f"{_STRAIGHT_CARS} cars"
        )
    return problems
