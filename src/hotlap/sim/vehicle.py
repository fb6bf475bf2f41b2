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
from typing import Any, Self

import numpy as np
from numba import njit
from pydantic import Field, NonNegativeFloat, PositiveFloat, model_validator

from hotlap.config import Settings
from hotlap.errors import ConfigError
from hotlap.types import Float32

__all__ = ["SUBSTEP_MAX", "VEHICLES", "Vehicle", "load_vehicle"]

GRAVITY = 9.81
SUBSTEP_MAX = 1 / 60
"""Longest integration step [s]: under 1 mm from a 1 ms reference after 5 s of hard driving."""

LAG_MIN = 0.02
"""Shortest time constant [s] that such a step follows."""


class Vehicle(Settings):
    """A car's parameters. SI units; forces are per mass, so they are accelerations."""

    name: str
    source: str
    """Where the numbers come from."""

    front_axle: PositiveFloat
    """Centre of gravity to front axle [m], as the yaw response feels it."""
    rear_axle: PositiveFloat
    """Centre of gravity to rear axle [m], as the yaw response feels it."""
    cg_height: NonNegativeFloat
    """Height of the centre of gravity [m]; moves load to the rear under power."""
    gyration: PositiveFloat
    """Radius of gyration about the vertical axis [m]: sqrt(Iz / mass)."""

    friction: PositiveFloat
    """Peak tyre force over its load, both axles."""
    front_peak_slip: PositiveFloat = Field(lt=0.6)
    """Front slip angle of the greatest cornering force [rad]."""
    rear_peak_slip: PositiveFloat = Field(lt=0.6)
    """Rear slip angle of the greatest cornering force [rad]."""
    slide_loss: float = Field(ge=0, lt=0.6)
    """Share of the peak force that is lost when the tyre slides far beyond the peak."""
    front_drive: float = Field(ge=0, le=1)
    """Share of the motor's force at the front axle."""

    steering_max: PositiveFloat = Field(lt=1.0)
    """Largest angle of the front wheels [rad]."""
    steering_lag: float = Field(ge=LAG_MIN)
    """Time constant of the servo [s]."""
    steering_rate: PositiveFloat
    """Fastest turn of the front wheels [rad/s]."""

    speed_min: NonNegativeFloat
    """Commands below are raised to this [m/s]."""
    speed_max: PositiveFloat
    """Commands above are lowered to this [m/s]."""
    speed_gain: PositiveFloat
    """Speed that the car settles at over the speed commanded."""
    motor_gain: PositiveFloat
    """Acceleration asked for by each m/s of speed error [1/s]."""
    motor_lag: NonNegativeFloat
    """Time constant with which the controller takes over a new speed command [s]; 0: at once."""
    drive_max: PositiveFloat
    """Greatest acceleration by the motor, forward or braking [m/s^2]."""
    rolling: NonNegativeFloat
    """Rolling resistance over mass [m/s^2]."""
    drag: NonNegativeFloat
    """Air drag over mass and squared speed [1/m]."""

    blend_low: PositiveFloat
    """Below this speed the car moves kinematically [m/s]."""
    blend_high: PositiveFloat
    """Above this speed the tyres decide alone [m/s]."""
    blend_lag: PositiveFloat
    """Time in which the blend pulls the car onto the kinematic motion [s]."""

    wheel_front: float
    """Front wheels ahead of the centre of gravity [m], for off-track."""
    wheel_rear: float
    """Rear wheels ahead of the centre of gravity [m] (negative), for off-track."""
    wheel_side: PositiveFloat
    """Wheels beside the middle of the car [m], for off-track."""
    body_length: PositiveFloat
    """Outer length [m], centred on the centre of gravity."""
    body_width: PositiveFloat
    """Outer width [m]."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not self.blend_low < self.blend_high:
            raise ValueError(
                f"blend_high must be above blend_low ({self.blend_low}), got {self.blend_high}"
            )
        if 0 < self.motor_lag < LAG_MIN:
            raise ValueError(f"motor_lag must be 0 or at least {LAG_MIN} s, got {self.motor_lag}")
        if not self.speed_min < self.speed_max:
            raise ValueError(
                f"speed_max must be above speed_min ({self.speed_min}), got {self.speed_max}"
            )
        return self

    @property
    def radius_min(self) -> float:
        """Radius of the tightest turn at walking pace [m]."""
        return (self.front_axle + self.rear_axle) / math.tan(self.steering_max)

    def parameters(self) -> Float32:
        """Return the (PARAMETERS,) float32 vector that the kernel reads, by the names below."""
        # sin(C pi/2) is what remains far beyond the peak; C atan(B peak) = pi/2 puts the peak.
        shape = 2 - 2 / math.pi * math.asin(1 - self.slide_loss)
        stiff = math.tan(math.pi / 2 / shape)
        wheelbase = self.front_axle + self.rear_axle
        values = {
            LF: self.front_axle,
            LR: self.rear_axle,
            WHEELBASE_INVERSE: 1 / wheelbase,
            LF_INERTIA: self.front_axle / self.gyration**2,
            LR_INERTIA: self.rear_axle / self.gyration**2,
            GRIP_FRONT: self.friction * GRAVITY * self.rear_axle / wheelbase,
            GRIP_REAR: self.friction * GRAVITY * self.front_axle / wheelbase,
            GRIP_SHIFT: self.friction * self.cg_height / wheelbase,
            STIFF_FRONT: stiff / math.tan(self.front_peak_slip),
            STIFF_REAR: stiff / math.tan(self.rear_peak_slip),
            SHAPE: shape,
            FRONT_DRIVE: self.front_drive,
            MOTOR_GAIN: self.motor_gain / self.drive_max,
            DRIVE_MAX: self.drive_max,
            MOTOR_LAG_INVERSE: 1 / self.motor_lag if self.motor_lag else 0,
            ROLLING: self.rolling,
            DRAG: self.drag,
            BLEND_LOW: self.blend_low,
            BLEND_SPAN_INVERSE: 1 / (self.blend_high - self.blend_low),
            BLEND_LAG_INVERSE: 1 / self.blend_lag,
            SLIP_SPEED: (0.6 * self.blend_low) ** 2,
            STEERING_LAG_INVERSE: 1 / self.steering_lag,
            STEERING_RATE: self.steering_rate,
            STEERING_MAX: self.steering_max,
            SPEED_MIN: self.speed_min,
            SPEED_MAX: self.speed_max,
            SPEED_GAIN: self.speed_gain,
            WHEEL_FRONT: self.wheel_front,
            WHEEL_REAR: self.wheel_rear,
            WHEEL_SIDE: self.wheel_side,
        }
        return np.array([values[row] for row in range(PARAMETERS)], np.float32)


# Rows of the parameter array, one column a car.
PARAMETERS = 30
(
    LF, LR, WHEELBASE_INVERSE, LF_INERTIA, LR_INERTIA, GRIP_FRONT, GRIP_REAR, GRIP_SHIFT,
    STIFF_FRONT, STIFF_REAR, SHAPE, FRONT_DRIVE, MOTOR_GAIN, DRIVE_MAX, MOTOR_LAG_INVERSE, ROLLING,
    DRAG, BLEND_LOW, BLEND_SPAN_INVERSE, BLEND_LAG_INVERSE, SLIP_SPEED, STEERING_LAG_INVERSE,
    STEERING_RATE, STEERING_MAX, SPEED_MIN, SPEED_MAX, SPEED_GAIN, WHEEL_FRONT, WHEEL_REAR,
    WHEEL_SIDE,
) = range(PARAMETERS)  # fmt: skip


VEHICLES: dict[str, Vehicle] = {
    vehicle.name: vehicle
    for vehicle in (
        Vehicle(
            name="deepracer",
            source="AWS DeepRacer simulation, physics versions 5 and 6: geometry from its URDF; "
            "lags, gain and effective wheelbase fitted to its logs; friction from the 6.7 m/s^2 "
            "that its league logs show; tyre slip of a rubber wheel on carpet (estimate)",
            front_axle=0.12,
            rear_axle=0.12,
            cg_height=0.06,
            gyration=0.12,
            friction=0.70,
            front_peak_slip=0.23,
            rear_peak_slip=0.21,
            slide_loss=0.10,
            front_drive=0.5,
            steering_max=math.radians(30),
            steering_lag=0.20,
            steering_rate=8.0,
            speed_min=0.1,
            speed_max=4.0,
            speed_gain=1.028,
            motor_gain=17.0,
            motor_lag=0.0,
            drive_max=5.0,
            rolling=0.1,
            drag=0.005,
            blend_low=1.0,
            blend_high=1.8,
            blend_lag=0.05,
            wheel_front=0.0823,
            wheel_rear=-0.0817,
            wheel_side=0.080,
            body_length=0.324,
            body_width=0.196,
        ),
    )
}


def load_vehicle(name: str) -> Vehicle:
    """Return a parameter set by name.

    Raises:
        ConfigError: there is none of that name.
    """
    try:
        return VEHICLES[name]
    except KeyError:
        raise ConfigError(f"vehicle: no set {name!r}; choose from {', '.join(VEHICLES)}") from None


# --- the kernel's inner functions: float32, branch-free, so that LLVM runs 8 or 16 cars at once ---

_inline: Any = njit(fastmath=True, error_model="numpy", forceinline=True)

_ZERO, _HALF, _ONE, _TWO = (np.float32(v) for v in (0, 0.5, 1, 2))
_PI, _TWO_PI, _HALF_PI = np.float32(math.pi), np.float32(2 * math.pi), np.float32(math.pi / 2)
_TURNS = np.float32(1 / (2 * math.pi))
_CREEP = np.float32(0.01)
_LEAST = np.float32(0.04)
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
    side_front = math.sqrt(max(grip_front - front * front, _LEAST * grip_front))
    side_rear = math.sqrt(max(grip_rear - rear * rear, _LEAST * grip_rear))

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

    w = (math.sqrt(forward + vy * vy) - m[BLEND_LOW, j]) * m[BLEND_SPAN_INVERSE, j]
    w = min(max(w, _ZERO), _ONE)
    w = w * w * w * (_TEN + w * (_SIX * w - _FIFTEEN))
    return (
        ahead + w * (vx_rate - ahead),
        vy_rate_k + w * (vy_rate - vy_rate_k),
        r_rate_k + w * (r_rate - r_rate_k),
    )
