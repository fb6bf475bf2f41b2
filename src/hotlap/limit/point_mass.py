"""The point mass: a car of which only its grip and its motor are left, on the best line there is.

It turns and brakes at once, so its lap is shorter than any that the car itself can drive.

Source: the free-line minimum-time problem of Casanova 2000 (thesis, Cranfield), ch. 3, for a point
mass with a friction circle. We changed: the line passes gates in the plane instead of following
curvilinear coordinates, which have no meaning beyond a corner's centre; acceleration is constant
between two gates, so that the motion is integrated exactly.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from hotlap.errors import SimulationError
from hotlap.limit.corridor import Gates
from hotlap.types import Float64
from hotlap.vehicle import GRAVITY, Vehicle

__all__ = ["Line", "grip", "point_mass"]


@dataclass(frozen=True, eq=False)
class Line:
    """What a minimum-time problem answers, at G gates and in the I intervals between them."""

    w: Float64
    """(G,) place on each gate [m]."""
    velocity: Float64
    """(G, 2) in the plane [m/s]."""
    acceleration: Float64
    """(I, 2) by the tyres [m/s^2]."""
    seconds: Float64
    """(I,) from gate to gate."""
    iterations: int
    message: str
    """What the solver said."""


def grip(vehicle: Vehicle) -> float:
    """Return the greatest acceleration that the tyres give, in any direction [m/s^2].

    The loads always sum to the weight; an axle whose motor force exceeds its grip pulls with that
    force, because the model does not clip it.
    """
    length = vehicle.front_axle + vehicle.rear_axle
    drive = np.linspace(-vehicle.drive_max, vehicle.drive_max, 201)
    shift = vehicle.friction * vehicle.cg_height / length * drive
    total = np.zeros_like(drive)
    for share, arm, sign in (
        (vehicle.front_drive, vehicle.rear_axle, -1.0),
        (1 - vehicle.front_drive, vehicle.front_axle, 1.0),
    ):
        most = np.abs(vehicle.friction * GRAVITY * arm / length + sign * shift)
        pull = share * drive
        total += np.sqrt(np.maximum(most**2, pull**2 + 0.04 * most**2))
    return float(total.max())


def point_mass(
    gates: Gates, vehicle: Vehicle, guess: Line | None = None, seconds: float = 1e3
) -> Line:
    """Solve the minimum-time lap of a point mass through gates; from rest on an open track.

    Args:
        gates: where it may pass.
        vehicle: its grip, motor, top speed and resistance.
        guess: the answer on other gates, taken from there; a cautious drive along the middle if
            None.
        seconds: how long the solver may take.

    Raises:
        SimulationError: the solver found no answer.
    """
    import casadi as ca

    count = gates.count
    intervals = count if gates.closed else count - 1
    most, top = grip(vehicle), vehicle.speed_max * vehicle.speed_gain
    start = guess or _cautious(gates, most, top)
    begin, end = np.arange(intervals), (np.arange(intervals) + 1) % count
    chord = np.hypot(*(gates.at[end] - gates.at[begin]).T)

    w, ux, uy = (ca.SX.sym(name, count) for name in ("w", "ux", "uy"))
    ax, ay, slow = (ca.SX.sym(name, intervals) for name in ("ax", "ay", "slow"))
    # Slowness times distance instead of seconds keeps all unknowns near one.
    h = slow * chord
    px, py = (gates.at[:, k] + w * gates.across[:, k] for k in (0, 1))
    b, e = begin.tolist(), end.tolist()
    mx, my = (ux[b] + ux[e]) / 2, (uy[b] + uy[e]) / 2
    square = mx**2 + my**2
    speed = ca.sqrt(square + 1e-8)
    hold = vehicle.rolling / ca.sqrt(square + 0.01) + vehicle.drag * speed
    equal = [
        (px[e] - px[b] - h * mx) / chord,
        (py[e] - py[b] - h * my) / chord,
        ux[e] - ux[b] - h * (ax - hold * mx),
        uy[e] - uy[b] - h * (ay - hold * my),
    ]
    below = [
        (ax**2 + ay**2) / most**2 - 1,
        (ax * mx + ay * my) / speed / vehicle.drive_max - 1,
        (ux**2 + uy**2) / top**2 - 1,
    ]
    unknown = ca.vertcat(w, ux, uy, ax, ay, slow)
    bounded = [np.zeros(4 * intervals), np.full(2 * intervals + count, -np.inf)]
    free = np.full(2 * count, np.inf)
    if not gates.closed:
        free[[0, count]] = 1e-3  # at rest; not quite, or the first second is not defined
    low = [gates.low, -free, np.full(2 * intervals, -2 * most), np.full(intervals, 0.3 / top)]
    high = [gates.high, free, np.full(2 * intervals, 2 * most), np.full(intervals, 1e3)]
    options: dict[str, Any] = {
        "print_time": False,
        "ipopt": {
            "print_level": 0,
            "sb": "yes",
            "tol": 1e-6,
            "acceptable_tol": 1e-5,
            "max_iter": 1000,
            "max_wall_time": seconds,
            "mu_strategy": "adaptive" if guess is None else "monotone",
            **({} if guess is None else {"mu_init": 1e-3, "bound_push": 1e-4}),
        },
    }
    problem: dict[str, Any] = {"x": unknown, "f": ca.sum1(h), "g": ca.vertcat(*equal, *below)}
    solver = ca.nlpsol("lap", "ipopt", problem, options)
    solved = solver(
        x0=np.concatenate(
            [start.w, *start.velocity.T, *start.acceleration.T, start.seconds / chord]
        ),
        lbx=np.concatenate(low),
        ubx=np.concatenate(high),
        lbg=np.concatenate(bounded),
        ubg=np.zeros(6 * intervals + count),
    )
    stats: dict[str, Any] = solver.stats()
    if not stats["success"]:
        raise SimulationError(
            f"the point mass found no fastest lap in {stats['iter_count']} iterations "
            f"({stats['return_status']})"
        )
    found = np.asarray(solved["x"], np.float64).ravel()
    parts = np.split(found, np.cumsum([count] * 3 + [intervals] * 2))
    return Line(
        w=parts[0],
        velocity=np.stack(parts[1:3], axis=1),
        acceleration=np.stack(parts[3:5], axis=1),
        seconds=parts[5] * chord,
        iterations=int(stats["iter_count"]),
        message=str(stats["return_status"]),
    )


def _cautious(gates: Gates, most: float, top: float) -> Line:
    """Drive along the middle, at the pace of the tightest corner."""
    w = np.clip(0.0, gates.low + 0.01, gates.high - 0.01)
    place = gates.at + w[:, None] * gates.across
    step = np.diff(place, axis=0, append=place[:1])
    if not gates.closed:
        step = step[:-1]
    length = np.hypot(*step.T)
    pace = min(0.8 * top, 0.7 * np.sqrt(most / max(float(np.abs(gates.curvature).max()), 1e-3)))
    velocity = pace * step / length[:, None]
    return Line(
        w=w,
        velocity=velocity if gates.closed else np.concatenate([velocity, velocity[-1:]]),
        acceleration=np.zeros_like(step),
        seconds=length / pace,
        iterations=0,
        message="",
    )
