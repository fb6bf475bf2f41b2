"""Vehicle: a car's parameters, and the sets that come with hotlap.

Everything that is known of a car is here; how it moves is in `sim.dynamics`.
"""

from __future__ import annotations

import math
from typing import Self

import numpy as np
from pydantic import Field, NonNegativeFloat, PositiveFloat, model_validator

from hotlap.config import Settings
from hotlap.errors import ConfigError
from hotlap.types import Float32

__all__ = ["GRAVITY", "VEHICLES", "Vehicle", "load_vehicle"]

GRAVITY = 9.81
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
