"""The car: a dynamic single track with lags and saturating tyres, many cars stepped at once.

Eight states a car: position, yaw, forward and sideways speed, yaw rate, steering angle, speed
reference. The tyres follow the Magic Formula and share their grip between pulling and cornering
(friction ellipse); at walking pace, where slip angles lose their meaning, the model blends into
the kinematic one. The lags of servo and motor are linear and solved exactly; the rest is integrated
by RK4 with substeps of at most 1/60 s. Every limit that acts while driving is smooth, because a
kink costs an integrator its order: with clipped limits the same step was ten times less exact.

Source: Rajamani, Vehicle Dynamics and Control (2012), ch. 2 (single track) and 4 (loads);
Pacejka, Tire and Vehicle Dynamics (2012), eq. 4.E19 with E = 0 over tan(alpha) (tyre) and
sec. 1.2.1 (ellipse);
Kabzan et al. 2019, arXiv:1905.05150 (blending kinematic and dynamic). We changed: the motor is a
speed controller, as in DeepRacer and VESC cars, whose force saturates as x / sqrt(1 + x^2); the blend
pulls the car onto the kinematic motion with a time constant instead of switching.
"""

from __future__ import annotations

import math
from enum import IntEnum, unique

import numpy as np
from numba import njit
from pydantic import Field, NonNegativeFloat, PositiveFloat

from hotlap.config import Settings
from hotlap.errors import ConfigError
from hotlap.types import Float32

__all__ = ["BLOCK", "SUBSTEP_MAX", "VEHICLES", "Parameter", "Vehicle", "load_vehicle"]

GRAVITY = 9.81
SUBSTEP_MAX = 1 / 60
"""Longest integration step [s]; RK4 then stays under 1 mm of a 1 ms reference after 5 s."""

BLOCK = 128
"""Cars that share one pass of the kernel: their states and parameters fit the first-level cache."""


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
    steering_lag: PositiveFloat
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
    """Time constant with which the controller takes over a new speed command [s]."""
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

    @property
    def radius_min(self) -> float:
        """Radius of the tightest turn at walking pace [m]."""
        return (self.front_axle + self.rear_axle) / math.tan(self.steering_max)

    def parameters(self, substep: float) -> Float32:
        """Return the (P,) float32 vector that the kernel reads, in the order of `Parameter`.

        Args:
            substep: length of an integration step [s], for the exact decay of the lags.
        """
        # sin(C pi/2) is what remains far beyond the peak; C atan(B peak) = pi/2 puts the peak.
        shape = 2 - 2 / math.pi * math.asin(1 - self.slide_loss)
        stiff = math.tan(math.pi / 2 / shape)
        wheelbase = self.front_axle + self.rear_axle
        values = {
            Parameter.LF: self.front_axle,
            Parameter.LR: self.rear_axle,
            Parameter.WHEELBASE_INVERSE: 1 / wheelbase,
            Parameter.LF_INERTIA: self.front_axle / self.gyration**2,
            Parameter.LR_INERTIA: self.rear_axle / self.gyration**2,
            Parameter.LOAD_FRONT: GRAVITY * self.rear_axle / wheelbase,
            Parameter.LOAD_REAR: GRAVITY * self.front_axle / wheelbase,
            Parameter.LOAD_SHIFT: self.cg_height / wheelbase,
            Parameter.FRICTION: self.friction,
            Parameter.STIFF_FRONT: stiff / math.tan(self.front_peak_slip),
            Parameter.STIFF_REAR: stiff / math.tan(self.rear_peak_slip),
            Parameter.SHAPE: shape,
            Parameter.FRONT_DRIVE: self.front_drive,
            Parameter.STEERING_MAX: self.steering_max,
            Parameter.STEERING_LAG_INVERSE: 1 / self.steering_lag,
            Parameter.STEERING_DECAY: math.exp(-substep / 2 / self.steering_lag),
            Parameter.STEERING_RATE: self.steering_rate,
            Parameter.SPEED_MIN: self.speed_min,
            Parameter.SPEED_MAX: self.speed_max,
            Parameter.SPEED_GAIN: self.speed_gain,
            Parameter.MOTOR_GAIN: self.motor_gain,
            Parameter.MOTOR_DECAY: math.exp(-substep / 2 / self.motor_lag) if self.motor_lag else 0,
            Parameter.DRIVE_MAX: self.drive_max,
            Parameter.DRIVE_MAX_INVERSE: 1 / self.drive_max,
            Parameter.ROLLING: self.rolling,
            Parameter.DRAG: self.drag,
            Parameter.BLEND_LOW: self.blend_low,
            Parameter.BLEND_SPAN_INVERSE: 1 / (self.blend_high - self.blend_low),
            Parameter.BLEND_LAG_INVERSE: 1 / self.blend_lag,
            Parameter.SLIP_SPEED: (0.6 * self.blend_low) ** 2,
            Parameter.WHEEL_FRONT: self.wheel_front,
            Parameter.WHEEL_REAR: self.wheel_rear,
            Parameter.WHEEL_SIDE: self.wheel_side,
        }
        return np.array([values[p] for p in Parameter], np.float32)


@unique
class Parameter(IntEnum):
    """Rows of the parameter array that the kernel reads, one column a car."""

    LF = 0
    LR = 1
    WHEELBASE_INVERSE = 2
    LF_INERTIA = 3
    LR_INERTIA = 4
    LOAD_FRONT = 5
    LOAD_REAR = 6
    LOAD_SHIFT = 7
    FRICTION = 8
    STIFF_FRONT = 9
    STIFF_REAR = 10
    SHAPE = 11
    FRONT_DRIVE = 12
    MOTOR_GAIN = 13
    DRIVE_MAX = 14
    DRIVE_MAX_INVERSE = 15
    ROLLING = 16
    DRAG = 17
    BLEND_LOW = 18
    BLEND_SPAN_INVERSE = 19
    BLEND_LAG_INVERSE = 20
    SLIP_SPEED = 21
    STEERING_LAG_INVERSE = 22
    STEERING_RATE = 23
    STEERING_DECAY = 24
    MOTOR_DECAY = 25
    STEERING_MAX = 26
    SPEED_MIN = 27
    SPEED_MAX = 28
    SPEED_GAIN = 29
    WHEEL_FRONT = 30
    WHEEL_REAR = 31
    WHEEL_SIDE = 32


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

_ZERO, _HALF, _ONE, _TWO = (np.float32(v) for v in (0, 0.5, 1, 2))
_SIXTH = np.float32(1 / 6)
_PI, _TWO_PI, _HALF_PI = np.float32(math.pi), np.float32(2 * math.pi), np.float32(math.pi / 2)
_TWO_PI_INVERSE = np.float32(1 / (2 * math.pi))
_CREEP = np.float32(0.01)
_NEARLY = np.float32(0.96)
_THREE = np.float32(3)
_A1, _A2, _A3, _A4, _A5, _A6, _A7, _A8 = (
    np.float32(c)
    for c in (
        -0.3333314528,
        0.1999355085,
        -0.1420889944,
        0.1065626393,
        -0.0752896400,
        0.0429096138,
        -0.0161657367,
        0.0028662257,
    )
)
_S3, _S5, _S7, _S9 = (np.float32(c) for c in (-1 / 6, 1 / 120, -1 / 5040, 1 / 362880))
_C4, _C6, _C8 = (np.float32(c) for c in (1 / 24, -1 / 720, 1 / 40320))
_inline = njit(fastmath=True, error_model="numpy", forceinline=True)


@_inline
def atan(ratio):  # type: ignore[no-untyped-def]
    """Arctangent, error below 2e-7 rad (Abramowitz and Stegun 1964, 4.4.49)."""
    size = abs(ratio)
    swap = size > _ONE
    z = _ONE / size if swap else size
    q = z * z
    p = _A4 + q * (_A5 + q * (_A6 + q * (_A7 + q * _A8)))
    p = z * (_ONE + q * (_A1 + q * (_A2 + q * (_A3 + q * p))))
    p = _HALF_PI - p if swap else p
    return -p if ratio < _ZERO else p


@_inline
def sin_small(angle):  # type: ignore[no-untyped-def]
    """Sine by its series; error below 3e-7 inside +-1.6 rad."""
    q = angle * angle
    return angle + angle * q * (_S3 + q * (_S5 + q * (_S7 + q * _S9)))


@_inline
def cos_small(angle):  # type: ignore[no-untyped-def]
    """Cosine by its series; error below 3e-7 inside +-1 rad."""
    q = angle * angle
    return _ONE + q * (-_HALF + q * (_C4 + q * (_C6 + q * _C8)))


@_inline
def wrap(angle):  # type: ignore[no-untyped-def]
    """Bring an angle into [-pi, pi)."""
    return angle - _TWO_PI * math.floor((angle + _PI) * _TWO_PI_INVERSE)


@_inline
def tyre(slip, stiff, shape):  # type: ignore[no-untyped-def]
    """Magic Formula with E = 0: cornering force over its peak, sin(C atan(B tan(alpha)))."""
    # C atan(.) stays inside +-pi; fold it into +-pi/2 where the series holds.
    phase = shape * atan(stiff * slip)
    size = abs(phase)
    size = _PI - size if size > _HALF_PI else size
    force = sin_small(size)
    return -force if phase < _ZERO else force


@_inline
def derivative(vx, vy, r, delta, delta_rate, reference, car):  # type: ignore[no-untyped-def]
    """Time derivatives of (vx, vy, r), the model of the module's docstring."""
    (
        lf, lr, wheelbase_inverse, lf_inertia, lr_inertia, load_front, load_rear, load_shift,
        friction, stiff_front, stiff_rear, shape, front_drive, motor_gain, drive_max,
        drive_max_inverse, rolling, drag, blend_low, blend_span_inverse, blend_lag_inverse,
        slip_speed,
    ) = car  # fmt: skip
    drive = motor_force(vx, reference, motor_gain, drive_max, drive_max_inverse)
    sin_d, cos_d = sin_small(delta), cos_small(delta)
    forward = vx * vx
    resistance = vx * (rolling / math.sqrt(forward + _CREEP) + drag * abs(vx))

    # Loads and grip; the friction ellipse leaves sqrt(D^2 - Fx^2) for cornering.
    shift = load_shift * (drive - resistance)
    grip_front, grip_rear = friction * (load_front - shift), friction * (load_rear + shift)
    front, rear = front_drive * drive, (_ONE - front_drive) * drive
    grip2_front, grip2_rear = grip_front * grip_front, grip_rear * grip_rear
    side_front = math.sqrt(grip2_front - min(front * front, _NEARLY * grip2_front))
    side_rear = math.sqrt(grip2_rear - min(rear * rear, _NEARLY * grip2_rear))

    # Lateral slip of each wheel in its own frame, tan(alpha), and cornering forces.
    front_vy, rear_vy = vy + lf * r, vy - lr * r
    along, across = vx * cos_d + front_vy * sin_d, vx * sin_d - front_vy * cos_d
    slip_front = across / math.sqrt(along * along + slip_speed)
    slip_rear = -rear_vy / math.sqrt(forward + slip_speed)
    corner_front = side_front * tyre(slip_front, stiff_front, shape)
    corner_rear = side_rear * tyre(slip_rear, stiff_rear, shape)

    # Newton and Euler in the body's frame.
    across = corner_front * cos_d + front * sin_d
    vx_rate = rear + front * cos_d - corner_front * sin_d - resistance + vy * r
    vy_rate = corner_rear + across - vx * r
    r_rate = lf_inertia * across - lr_inertia * corner_rear

    # Kinematic motion, and the pull onto it.
    tan_d = sin_d / cos_d
    vx_rate_k = drive - resistance
    r_k = vx * tan_d * wheelbase_inverse
    r_rate_k = (vx_rate_k * tan_d + vx * delta_rate / (cos_d * cos_d)) * wheelbase_inverse
    vy_rate_k = lr * r_rate_k + (lr * r_k - vy) * blend_lag_inverse
    r_rate_k = r_rate_k + (r_k - r) * blend_lag_inverse

    w = (math.sqrt(forward + vy * vy) - blend_low) * blend_span_inverse
    w = min(max(w, _ZERO), _ONE)
    w = w * w * (_THREE - _TWO * w)
    return (
        vx_rate_k + w * (vx_rate - vx_rate_k),
        vy_rate_k + w * (vy_rate - vy_rate_k),
        r_rate_k + w * (r_rate - r_rate_k),
    )


@_inline
def motor_force(vx, reference, motor_gain, drive_max, drive_max_inverse):  # type: ignore[no-untyped-def]
    """Acceleration by the motor [m/s^2]: proportional to the speed error, smoothly saturated."""
    share = motor_gain * (reference - vx) * drive_max_inverse
    return drive_max * share / math.sqrt(_ONE + share * share)


@_inline
def turn(delta, target, decay, reach):  # type: ignore[no-untyped-def]
    """Move the steering for half a substep: exponential approach, at most `reach`."""
    return delta + min(max((target - delta) * (_ONE - decay), -reach), reach)


@_inline
def rk4(motion, target_delta, target_speed, h, actuators, car):  # type: ignore[no-untyped-def]
    """Advance one car by h seconds (Runge and Kutta's classical fourth order).

    `motion` holds x, y, psi counted from the start of the control step, so that the small-angle
    series serve and float32 loses nothing, then vx, vy, r, delta, reference.
    """
    x, y, psi, vx, vy, r, delta, reference = motion
    lag_inverse, rate, delta_decay, reference_decay = actuators
    half, sixth = h * _HALF, h * _SIXTH
    delta_mid = turn(delta, target_delta, delta_decay, rate * half)
    delta_end = turn(delta_mid, target_delta, delta_decay, rate * half)
    u1 = min(max((target_delta - delta) * lag_inverse, -rate), rate)
    u2 = min(max((target_delta - delta_mid) * lag_inverse, -rate), rate)
    u4 = min(max((target_delta - delta_end) * lag_inverse, -rate), rate)
    reference_mid = target_speed + (reference - target_speed) * reference_decay
    reference_end = target_speed + (reference_mid - target_speed) * reference_decay

    c, s = cos_small(psi), sin_small(psi)
    x1, y1 = vx * c - vy * s, vx * s + vy * c
    a1, b1, r1 = derivative(vx, vy, r, delta, u1, reference, car)

    vx2, vy2, w2 = vx + half * a1, vy + half * b1, r + half * r1
    psi2 = psi + half * r
    c, s = cos_small(psi2), sin_small(psi2)
    x2, y2 = vx2 * c - vy2 * s, vx2 * s + vy2 * c
    a2, b2, r2 = derivative(vx2, vy2, w2, delta_mid, u2, reference_mid, car)

    vx3, vy3, w3 = vx + half * a2, vy + half * b2, r + half * r2
    psi3 = psi + half * w2
    c, s = cos_small(psi3), sin_small(psi3)
    x3, y3 = vx3 * c - vy3 * s, vx3 * s + vy3 * c
    a3, b3, r3 = derivative(vx3, vy3, w3, delta_mid, u2, reference_mid, car)

    vx4, vy4, w4 = vx + h * a3, vy + h * b3, r + h * r3
    psi4 = psi + h * w3
    c, s = cos_small(psi4), sin_small(psi4)
    x4, y4 = vx4 * c - vy4 * s, vx4 * s + vy4 * c
    a4, b4, r4 = derivative(vx4, vy4, w4, delta_end, u4, reference_end, car)
    return (
        x + sixth * (x1 + _TWO * (x2 + x3) + x4),
        y + sixth * (y1 + _TWO * (y2 + y3) + y4),
        psi + sixth * (r + _TWO * (w2 + w3) + w4),
        vx + sixth * (a1 + _TWO * (a2 + a3) + a4),
        vy + sixth * (b1 + _TWO * (b2 + b3) + b4),
        r + sixth * (r1 + _TWO * (r2 + r3) + r4),
        delta_end,
        reference_end,
    )
