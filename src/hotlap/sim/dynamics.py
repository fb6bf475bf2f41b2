"""The car: a dynamic single track with lags and saturating tyres, many cars stepped at once.

Eight states a car: position, yaw, forward and sideways speed, yaw rate, steering angle, speed
reference. The tyres follow the Magic Formula and share their grip between pulling and cornering
(friction ellipse); at walking pace, where slip angles lose their meaning, the model blends into
the kinematic one. The equations stand in docs/physics.md. Every limit that acts while driving is
smooth, because a kink costs an integrator its order: with clipped limits the same step was ten
times less exact.

Source: Rajamani, Vehicle Dynamics and Control (2012), ch. 2 (single track) and 4 (loads);
Pacejka, Tire and Vehicle Dynamics (2012), eq. 4.E19 with E = 0 over tan(alpha) (tyre) and
sec. 1.2.1 (ellipse);
Kabzan et al. 2019, arXiv:1905.05150 (blending kinematic and dynamic);
Carpenter and Kennedy 1994, NASA TM-109112 (integrator). We changed: the motor is a speed
controller, as in DeepRacer and VESC cars, whose force saturates as x / sqrt(1 + x^2); the blend
pulls the car onto the kinematic motion with a time constant instead of switching.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import njit

from hotlap.series import PI, atan_positive, cos_small, root, sin_quarter
from hotlap.vehicle import (
    BLEND_LAG_INVERSE,
    BLEND_LOW,
    BLEND_SPAN_INVERSE,
    DRAG,
    DRIVE_MAX,
    FRONT_DRIVE,
    GRIP_FRONT,
    GRIP_REAR,
    GRIP_SHIFT,
    LF,
    LF_INERTIA,
    LR,
    LR_INERTIA,
    MOTOR_GAIN,
    ROLLING,
    SHAPE,
    SLIP_SPEED,
    STIFF_FRONT,
    STIFF_REAR,
    WHEELBASE_INVERSE,
)

__all__ = ["CARRY", "GAIN", "STAGES", "SUBSTEP_MAX", "motor_force", "rates"]

SUBSTEP_MAX = 1 / 60
"""Longest integration step [s]: under 1 mm from a 1 ms reference after 5 s of hard driving."""

# Float32 and branch-free, so that LLVM runs 8 or 16 cars at once.
_inline: Any = njit(fastmath=True, error_model="numpy", forceinline=True)

_ZERO, _HALF, _ONE, _TWO = (np.float32(v) for v in (0, 0.5, 1, 2))
_CREEP = np.float32(0.01)
_LEAST = np.float32(0.04)
_SIX, _TEN, _FIFTEEN = np.float32(6), np.float32(10), np.float32(15)

# Carpenter and Kennedy's five-stage fourth-order scheme, the solution 3 of their table.
STAGES = 5
CARRY = np.array(
    [
        0.0,
        -567301805773 / 1357537059087,
        -2404267990393 / 2016746695238,
        -3550918686646 / 2091501179385,
        -1275806237668 / 842570457699,
    ],
    np.float32,
)
"""A: how much of the last stage's increment each stage keeps."""
GAIN = np.array(
    [
        1432997174477 / 9575080441755,
        5161836677717 / 13612068292357,
        1720146321549 / 2090206949498,
        3134564353537 / 4481467310338,
        2277821191437 / 14882151754819,
    ],
    np.float32,
)
"""B: how much of its increment each stage adds to the state."""


@_inline
def tyre(slip, stiff, shape):  # type: ignore[no-untyped-def]
    """Magic Formula with E = 0: cornering force over its peak, sin(C atan(B tan(alpha)))."""
    # C atan(.) stays inside [0, pi]; fold it into [0, pi/2] where the series holds.
    phase = shape * atan_positive(stiff * abs(slip))
    force = sin_quarter(min(phase, PI - phase))
    return force if slip > _ZERO else -force


@_inline
def motor_force(vx, reference, m, j):  # type: ignore[no-untyped-def]
    """Acceleration by the motor [m/s^2]: proportional to the speed error, smoothly saturated."""
    share = m[MOTOR_GAIN, j] * (reference - vx)
    return m[DRIVE_MAX, j] * share / math.sqrt(_ONE + share * share)


@_inline
def rates(vx, vy, r, delta, delta_rate, reference, m, j):  # type: ignore[no-untyped-def]
    """Time derivatives of (vx, vy, r) of car j, whose parameters are in column j of m."""
    lf, lr = m[LF, j], m[LR, j]
    drive = motor_force(vx, reference, m, j)
    forward = vx * vx
    resistance = vx * (m[ROLLING, j] / math.sqrt(forward + _CREEP) + m[DRAG, j] * abs(vx))
    ahead = drive - resistance

    # Loads and grip; the friction ellipse leaves sqrt(D^2 - Fx^2) for cornering.
    shift = m[GRIP_SHIFT, j] * ahead
    grip_front, grip_rear = m[GRIP_FRONT, j] - shift, m[GRIP_REAR, j] + shift
    front = m[FRONT_DRIVE, j] * drive
    rear = drive - front
    grip_front, grip_rear = grip_front * grip_front, grip_rear * grip_rear
    side_front = root(max(grip_front - front * front, _LEAST * grip_front))
    side_rear = root(max(grip_rear - rear * rear, _LEAST * grip_rear))

    # Lateral slip of each wheel in its own frame, tan(alpha), and cornering forces.
    sin_d, cos_d = sin_quarter(delta), cos_small(delta)
    front_vy, rear_vy = vy + lf * r, vy - lr * r
    along, across = vx * cos_d + front_vy * sin_d, vx * sin_d - front_vy * cos_d
    slip_front = across / math.sqrt(along * along + m[SLIP_SPEED, j])
    slip_rear = -rear_vy / math.sqrt(forward + m[SLIP_SPEED, j])
    corner_front = side_front * tyre(slip_front, m[STIFF_FRONT, j], m[SHAPE, j])
    corner_rear = side_rear * tyre(slip_rear, m[STIFF_REAR, j], m[SHAPE, j])

    # Newton and Euler in the body's frame.
    front_y = corner_front * cos_d + front * sin_d
    vx_rate = rear + front * cos_d - corner_front * sin_d - resistance + vy * r
    vy_rate = corner_rear + front_y - vx * r
    r_rate = m[LF_INERTIA, j] * front_y - m[LR_INERTIA, j] * corner_rear

    # Kinematic motion, and the pull onto it.
    upright = _ONE / cos_d
    tan_over_length = sin_d * upright * m[WHEELBASE_INVERSE, j]
    r_k = vx * tan_over_length
    r_rate_k = (
        ahead * tan_over_length + vx * delta_rate * upright * upright * m[WHEELBASE_INVERSE, j]
    )
    vy_rate_k = lr * r_rate_k + (lr * r_k - vy) * m[BLEND_LAG_INVERSE, j]
    r_rate_k = r_rate_k + (r_k - r) * m[BLEND_LAG_INVERSE, j]

    w = (root(forward + vy * vy) - m[BLEND_LOW, j]) * m[BLEND_SPAN_INVERSE, j]
    w = min(max(w, _ZERO), _ONE)
    w = w * w * w * (_TEN + w * (_SIX * w - _FIFTEEN))
    return (
        ahead + w * (vx_rate - ahead),
        vy_rate_k + w * (vy_rate - vy_rate_k),
        r_rate_k + w * (r_rate - r_rate_k),
    )
