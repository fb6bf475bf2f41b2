"""The single track: the simulator's own car, with its lags and tyres, driven as well as can be.

The equations are those of `sim.dynamics`, written for CasADi; a test compares the two. Unknown at
each gate are place, yaw, three speeds, steering and the motor's reference; the commands follow from
how the last two change.

Source: minimum-time control by direct collocation; Hermite-Simpson in its compressed form, Kelly
2017 (SIAM Review 59), sec. 4. We changed: gates in the plane instead of curvilinear coordinates.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from hotlap import vehicle as row
from hotlap.errors import SimulationError
from hotlap.limit.corridor import Gates, Rule
from hotlap.limit.point_mass import Line
from hotlap.types import Array, Float64
from hotlap.vehicle import GRAVITY, Vehicle

__all__ = ["Drive", "first_guess", "rates", "single_track"]

_SMOOTH = 0.05
"""Sine of the heading error below which the nearer end of the car is not told from the other."""
_MARGIN = 0.005
"""How much further inside the wheels stay than the rule asks [m]; gates are a little apart."""
_SLOWEST = 0.3


@dataclass(frozen=True, eq=False)
class Drive:
    """The car at G gates, and the time between them."""

    w: Float64
    """(G,) place on each gate [m]."""
    motion: Float64
    """(G, 6) yaw (continuous), forward speed, sideways speed, yaw rate, steering, reference."""
    seconds: Float64
    """(I,) from gate to gate."""
    iterations: int
    message: str


def rates(car: Vehicle, motion: Any, delta_rate: Any) -> Any:
    """Return d/dt of (x, y, yaw, vx, vy, yaw rate) as CasADi expressions; `sim.dynamics` in words.

    Args:
        car: the parameters.
        motion: yaw, vx, vy, yaw rate, steering, reference.
        delta_rate: how fast the front wheels turn [rad/s].
    """
    import casadi as ca

    p = car.parameters().astype(np.float64)
    yaw, vx, vy, r, delta, reference = ca.vertsplit(motion)
    length, lf, lr = car.front_axle + car.rear_axle, car.front_axle, car.rear_axle
    share = p[row.MOTOR_GAIN] * (reference - vx)
    drive = car.drive_max * share / ca.sqrt(1 + share * share)
    forward = vx * vx
    resistance = vx * (car.rolling / ca.sqrt(forward + 0.01) + car.drag * ca.sqrt(forward))
    ahead = drive - resistance
    shift = car.friction * car.cg_height / length * ahead
    front = car.front_drive * drive
    rear = drive - front
    sides = []
    for arm, sign, pull in ((lr, -1, front), (lf, 1, rear)):
        most = (car.friction * GRAVITY * arm / length + sign * shift) ** 2
        sides.append(ca.sqrt(ca.fmax(most - pull * pull, 0.04 * most)))
    sin_d, cos_d = ca.sin(delta), ca.cos(delta)
    front_vy, rear_vy = vy + lf * r, vy - lr * r
    along, across = vx * cos_d + front_vy * sin_d, vx * sin_d - front_vy * cos_d
    slips = [
        across / ca.sqrt(along * along + p[row.SLIP_SPEED]),
        -rear_vy / ca.sqrt(forward + p[row.SLIP_SPEED]),
    ]
    corner_front, corner_rear = (
        side * ca.sin(p[row.SHAPE] * ca.atan(p[stiff] * slip))
        for side, stiff, slip in zip(sides, (row.STIFF_FRONT, row.STIFF_REAR), slips, strict=True)
    )
    front_y = corner_front * cos_d + front * sin_d
    vx_rate = rear + front * cos_d - corner_front * sin_d - resistance + vy * r
    vy_rate = corner_rear + front_y - vx * r
    r_rate = (lf * front_y - lr * corner_rear) / car.gyration**2

    tan_over_length = sin_d / cos_d / length
    r_k = vx * tan_over_length
    r_rate_k = ahead * tan_over_length + vx * delta_rate / (cos_d * cos_d * length)
    vy_rate_k = lr * r_rate_k + (lr * r_k - vy) / car.blend_lag
    r_rate_k = r_rate_k + (r_k - r) / car.blend_lag
    w = (ca.sqrt(forward + vy * vy) - car.blend_low) / (car.blend_high - car.blend_low)
    w = ca.fmin(ca.fmax(w, 0), 1)
    w = w**3 * (10 + w * (6 * w - 15))
    return ca.vertcat(
        vx * ca.cos(yaw) - vy * ca.sin(yaw),
        vx * ca.sin(yaw) + vy * ca.cos(yaw),
        r,
        ahead + w * (vx_rate - ahead),
        vy_rate_k + w * (vy_rate - vy_rate_k),
        r_rate_k + w * (r_rate - r_rate_k),
    )


def first_guess(line: Line, gates: Gates, car: Vehicle, pace: float = 0.85) -> Drive:
    """Return a drive along a point mass's line at a share of its speed, without slip."""
    speed = pace * np.hypot(*line.velocity.T)
    yaw = np.unwrap(np.arctan2(line.velocity[:, 1], line.velocity[:, 0]))
    middle = (line.velocity + np.roll(line.velocity, -1, axis=0)) / 2
    ax, ay = line.acceleration.T
    middle = middle[: len(ax)]
    bend = (middle[:, 0] * ay - middle[:, 1] * ax) / np.hypot(*middle.T) ** 3
    bend = (bend + np.roll(bend, 1)) / 2 if gates.closed else np.append(bend, bend[-1])
    most = 0.9 * np.tan(car.steering_max)
    steering = np.arctan(np.clip((car.front_axle + car.rear_axle) * bend, -most, most))
    reference = np.clip(speed + 0.1, car.speed_min, car.speed_max * car.speed_gain)
    motion = np.stack(
        [yaw, speed, car.rear_axle * bend * speed, bend * speed, steering, reference], axis=1
    )
    return Drive(line.w, motion, line.seconds / pace, 0, "")


def single_track(gates: Gates, car: Vehicle, rule: Rule, guess: Drive) -> Drive:
    """Solve the minimum-time flying lap of the simulator's car.

    Args:
        gates: cross-sections from border to border (those of the rule `centre`), on a loop.
        car: the parameters.
        rule: what has to leave the road to be off it.
        guess: where the search begins; only a near optimum is found.

    Raises:
        SimulationError: the solver found no answer.
    """
    import casadi as ca

    count = gates.count
    following = ((np.arange(count) + 1) % count).tolist()
    chord = np.hypot(*(np.roll(gates.at, -1, axis=0) - gates.at).T)
    turn = guess.motion[-1, 0] - guess.motion[0, 0]
    turn = round(float(turn + (guess.motion[1, 0] - guess.motion[0, 0])) / (2 * np.pi)) * 2 * np.pi

    begin, end = ca.SX.sym("begin", 8), ca.SX.sym("end", 8)  # place, motion
    h = ca.SX.sym("h")
    change = (end[6:] - begin[6:]) / h
    before, after = rates(car, begin[2:], change[0]), rates(car, end[2:], change[0])
    middle = (begin + end) / 2
    middle[:6] += h / 8 * (before - after)
    within = rates(car, middle[2:], change[0])
    defect = end[:6] - begin[:6] - h / 6 * (before + 4 * within + after)
    aim = ca.vertcat(begin[7], end[7]) + car.motor_lag * change[1]
    asked = ca.vertcat(begin[6], end[6]) + car.steering_lag * change[0]
    step = ca.Function("step", [begin, end, h], [defect, ca.vertcat(change[0], asked, aim)])

    w, motion, slow = ca.MX.sym("w", count), ca.MX.sym("motion", 6, count), ca.MX.sym("s", count)
    place = ca.horzcat(*(gates.at[:, k] + w * gates.across[:, k] for k in (0, 1))).T
    here = ca.vertcat(place, motion)
    there = here[:, following]
    wrap = np.zeros((8, count))
    wrap[2, -1] = turn
    time = slow * chord
    gaps, limits = step.map(count)(here, there + wrap, time.T)

    sine = ca.sin(motion[0, :].T - np.arctan2(-gates.across[:, 0], gates.across[:, 1]))
    centre, half = (car.wheel_front + car.wheel_rear) / 2, (car.wheel_front - car.wheel_rear) / 2
    beside = car.wheel_side * ca.sqrt(1 - 0.999 * sine * sine)
    soft = ca.sqrt(sine * sine + _SMOOTH**2)
    if rule == "all_wheels":  # the innermost of the wheels has to be on the road
        inwards = beside + half * (soft - _SMOOTH) - _MARGIN
        rooms = [w + centre * sine - inwards, w + centre * sine + inwards]
    elif rule == "any_wheel":
        outwards = beside + half * soft + _MARGIN
        rooms = [w + centre * sine + outwards, w + centre * sine - outwards]
    else:
        rooms = [w, w]
    top = car.speed_max * car.speed_gain
    aims = [car.speed_min * car.speed_gain, top]
    turns = [car.steering_rate, car.steering_max, car.steering_max]
    most = np.array([*turns, aims[1], aims[1]])
    least = np.array([*(-np.array(turns)), aims[0], aims[0]])
    far = np.full(count, np.inf)
    yaw, same = guess.motion[:, 0], np.ones(count)
    low, high = (
        np.stack([yaw + sign * 1.5, *(value * same for value in values)])
        for sign, values in (
            (-1, (_SLOWEST, -0.8 * top, -40.0, -car.steering_max, aims[0])),
            (1, (1.1 * top, 0.8 * top, 40.0, car.steering_max, aims[1])),
        )
    )
    # A ripple in the commands costs no time; the smallest one is taken.
    ripple = 1e-5 * ca.sumsqr(limits[0, :])
    problem: dict[str, Any] = {
        "x": ca.vertcat(w, ca.vec(motion), slow),
        "f": ca.sum1(time) + ripple,
        "g": ca.vertcat(ca.vec(gaps), ca.vec(limits), *rooms),
    }
    options: dict[str, Any] = {
        "print_time": False,
        "ipopt": {
            "print_level": 0,
            "sb": "yes",
            "tol": 1e-5,
            "acceptable_tol": 1e-4,
            "max_iter": 1500,
            "mu_strategy": "adaptive",
        },
    }
    solver = ca.nlpsol("drive", "ipopt", problem, options)
    beyond = 0.3
    solved = solver(
        x0=np.concatenate([guess.w, guess.motion.ravel(), guess.seconds / chord]),
        lbx=np.concatenate([gates.low - beyond, low.T.ravel(), np.full(count, 0.3 / top)]),
        ubx=np.concatenate([gates.high + beyond, high.T.ravel(), np.full(count, 1 / _SLOWEST)]),
        lbg=np.concatenate([np.zeros(6 * count), np.tile(least, count), -far, gates.low]),
        ubg=np.concatenate([np.zeros(6 * count), np.tile(most, count), gates.high, far]),
    )
    stats: dict[str, Any] = solver.stats()
    if not stats["success"]:
        raise SimulationError(
            f"the single track found no fastest lap in {stats['iter_count']} iterations "
            f"({stats['return_status']})"
        )
    found: Array = np.asarray(solved["x"], np.float64).ravel()
    return Drive(
        w=found[:count],
        motion=found[count : 7 * count].reshape(count, 6),
        seconds=found[7 * count :] * chord,
        iterations=int(stats["iter_count"]),
        message=str(stats["return_status"]),
    )
