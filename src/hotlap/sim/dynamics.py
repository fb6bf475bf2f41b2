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
_PI, _TWO_PI, _HALF_PI = np.float32(math.pi), np.float32(2 * math.pi), np.float32(math.pi / 2)
_TURNS = np.float32(1 / (2 * math.pi))
_CREEP = np.float32(0.01)
_LEAST = np.float32(0.04)
_TINY = np.float32(1e-30)
_SIX, _TEN, _FIFTEEN = np.float32(6), np.float32(10), np.float32(15)

# Minimax fits by Lawson's iteration in float64: sine on [0, pi/2], cosine on [0, 1.3], arctangent
# on [0, 1], each with its leading terms fixed, so that small angles stay exact.
_S3, _S5, _S7, _S9 = (
    np.float32(c) for c in (-1.66666571e-01, 8.33301729e-03, -1.98066151e-04, 2.60005465e-06)
)
_C2, _C4, _C6, _C8 = (
    np.float32(c) for c in (-4.99999849e-01, 4.16657935e-02, -1.38732225e-03, 2.36901069e-05)
)
_A3, _A5, _A7, _A9, _A11, _A13 = (
    np.float32(c)
    for c in (-0.33325395, 0.19861856, -0.13398801, 0.08216779, -0.03551991, 0.00737401)
)

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
def sin_quarter(angle):  # type: ignore[no-untyped-def]
    """Sine inside +-pi/2, error below 2e-7."""
    q = angle * angle
    return angle + angle * q * (_S3 + q * (_S5 + q * (_S7 + q * _S9)))


@_inline
def cos_small(angle):  # type: ignore[no-untyped-def]
    """Cosine inside +-1.3 rad, error below 2e-7."""
    q = angle * angle
    return _ONE + q * (_C2 + q * (_C4 + q * (_C6 + q * _C8)))


@_inline
def sin_cos(angle):  # type: ignore[no-untyped-def]
    """Sine and cosine inside +-pi, error below 3e-7."""
    size = abs(angle)
    sine = sin_quarter(min(size, _PI - size))
    return (sine if angle > _ZERO else -sine), sin_quarter(_HALF_PI - size)


@_inline
def root(square):  # type: ignore[no-untyped-def]
    """Square root of a number from 0 to 1e30, relative error below 3e-7.

    The machine estimates an inverse square root in a sixth of the time that it takes a square root.
    """
    return square / math.sqrt(square + _TINY)


@_inline
def atan_positive(ratio):  # type: ignore[no-untyped-def]
    """Arctangent of a ratio that is not negative, error below 6e-7 rad."""
    z = min(ratio, _ONE) / max(ratio, _ONE)
    q = z * z
    p = _A3 + q * (_A5 + q * (_A7 + q * (_A9 + q * (_A11 + q * _A13))))
    angle = z + z * q * p
    return _HALF_PI - angle if ratio > _ONE else angle


@_inline
def wrap(angle):  # type: ignore[no-untyped-def]
    """Bring an angle into [-pi, pi)."""
    return angle - _TWO_PI * np.floor(angle * _TURNS + _HALF)


@_inline
def tyre(slip, stiff, shape):  # type: ignore[no-untyped-def]
    """Magic Formula with E = 0: cornering force over its peak, sin(C atan(B tan(alpha)))."""
    # C atan(.) stays inside [0, pi]; fold it into [0, pi/2] where the series holds.
    phase = shape * atan_positive(stiff * abs(slip))
    force = sin_quarter(min(phase, _PI - phase))
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
