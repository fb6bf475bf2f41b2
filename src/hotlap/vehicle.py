"""Vehicle: a car's parameters, and the sets that come with hotlap.

Everything that is known of a car is here; how it moves is in `sim.dynamics`.
"""

from __future__ import annotations

import difflib
import json
import math
from pathlib import Path
from typing import Self

import numpy as np
from pydantic import Field, NonNegativeFloat, PositiveFloat, model_validator

from hotlap.config import Settings, read_toml, resolve
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
        Vehicle(
            name="deepracer-v4",
            source="as deepracer, with the slower lags of its physics version 4 (force-controlled "
            "wheels): speed 0.26 to 0.28 s, steering 0.48 to 0.50 s, gain 1.0 to 1.1, all fitted "
            "to its logs",
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
            steering_lag=0.47,  # tyres and yaw add 0.016 s to it in such a fit
            steering_rate=8.0,
            speed_min=0.1,
            speed_max=4.0,
            speed_gain=1.05,
            motor_gain=1 / 0.27,
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
        Vehicle(
            name="f1tenth",
            source="ForzaETH race_stack, car NUC2 on an indoor floor: geometry, servo lag and "
            "tyres identified on the car (mean of its two peaks 0.650 and 0.618; the rear's peak "
            "of 0.087 rad widened to 0.12, as its fit has no data there); speed lag of 0.1 s from "
            "TUM's F1TENTH set; body from f1tenth_gym",
            front_axle=0.162,
            rear_axle=0.145,
            cg_height=0.014,
            gyration=0.128,  # sqrt(0.05797 / 3.54)
            friction=0.634,
            front_peak_slip=0.20,
            rear_peak_slip=0.12,
            slide_loss=0.10,
            front_drive=0.5,
            steering_max=0.4189,
            steering_lag=0.158,
            steering_rate=3.2,
            speed_min=0.0,
            speed_max=10.0,
            speed_gain=1.0,
            motor_gain=10.0,
            motor_lag=0.0,
            drive_max=5.0,
            rolling=0.1,
            drag=0.004,
            blend_low=1.2,
            blend_high=2.2,
            blend_lag=0.05,
            wheel_front=0.162,
            wheel_rear=-0.145,
            wheel_side=0.13,
            body_length=0.58,
            body_width=0.31,
        ),
        Vehicle(
            name="robotini",
            source="Robotini simulator: axles, wheels, steering and tyre curves (peak 1.0 at slip "
            "0.2, 0.75 far beyond) of its car; acceleration from the braking tests of the real car "
            "(0.5 s of throttle, then brake: 1.15 m); its steering, 0.2 s from lock to lock, as a "
            "lag of 0.1 s; gyration of its box, centre of gravity and speed lag: estimates",
            front_axle=0.085,
            rear_axle=0.085,
            cg_height=0.03,
            gyration=0.079,  # a box of 0.24 x 0.13 m
            friction=1.0,
            front_peak_slip=0.21,
            rear_peak_slip=0.20,
            slide_loss=0.25,
            front_drive=0.5,
            steering_max=math.radians(30),
            steering_lag=0.10,
            steering_rate=12.0,
            speed_min=0.0,
            speed_max=4.34,
            speed_gain=1.0,
            motor_gain=10.0,
            motor_lag=0.0,
            drive_max=5.0,
            rolling=0.2,
            drag=0.01,
            blend_low=1.0,
            blend_high=1.8,
            blend_lag=0.05,
            wheel_front=0.085,
            wheel_rear=-0.085,
            wheel_side=0.045,
            body_length=0.24,
            body_width=0.13,
        ),
        Vehicle(
            name="donkey",
            source="Donkey car: steering of 16 degrees from its simulator (sdsandbox); wheelbase "
            "and size of the 1/16 kit that it is built on; the rest are estimates for a rubber "
            "wheel indoors",
            front_axle=0.087,
            rear_axle=0.087,
            cg_height=0.05,
            gyration=0.095,
            friction=0.80,
            front_peak_slip=0.23,
            rear_peak_slip=0.21,
            slide_loss=0.10,
            front_drive=0.5,
            steering_max=math.radians(16),
            steering_lag=0.10,
            steering_rate=6.0,
            speed_min=0.0,
            speed_max=5.0,
            speed_gain=1.0,
            motor_gain=5.0,
            motor_lag=0.0,
            drive_max=5.0,
            rolling=0.2,
            drag=0.01,
            blend_low=1.2,
            blend_high=2.0,
            blend_lag=0.05,
            wheel_front=0.087,
            wheel_rear=-0.087,
            wheel_side=0.075,
            body_length=0.285,
            body_width=0.195,
        ),
        Vehicle(
            name="sedan",
            source="BMW 320i of CommonRoad (vehicle 2): mass, axles, inertia, size and the "
            "cornering stiffness and shape of its tyre; steering lag of TUM's full-size set; "
            "steering lowered from 1.066 rad to a turning circle of 10.5 m; speed lag, resistance: "
            "estimates; one greatest force and one share of it at the front, between those of its "
            "engine (rear) and its brakes",
            front_axle=1.1562,
            rear_axle=1.4227,
            cg_height=0.575,
            gyration=1.2801,  # sqrt(1791.6 / 1093.3)
            friction=1.0489,
            # B = 21.92 / (1.3507 * 1.0489) = 15.47; the peak is at tan(pi / 2 / 1.3507) / B.
            front_peak_slip=0.149,
            rear_peak_slip=0.149,
            slide_loss=0.148,  # 1 - sin(1.3507 * pi / 2)
            front_drive=0.45,
            steering_max=0.588,
            steering_lag=0.20,
            steering_rate=0.4,
            speed_min=0.0,
            speed_max=50.8,
            speed_gain=1.0,
            motor_gain=2.0,
            motor_lag=0.0,
            drive_max=6.0,
            rolling=0.1,
            drag=0.0004,
            blend_low=3.0,
            blend_high=6.0,
            blend_lag=0.1,
            wheel_front=1.1562,
            wheel_rear=-1.4227,
            wheel_side=0.69,
            body_length=4.508,
            body_width=1.61,
        ),
    )
}


def load_vehicle(name: str) -> Vehicle:
    """Return a parameter set by name, or the one that a TOML file describes.

    The file holds fields of `Vehicle`, and in `base` the set whose other fields it takes over:

        base = "deepracer"
        friction = 0.55

    Args:
        name: one of VEHICLES, or a path that ends in .toml.

    Raises:
        ConfigError: there is no such set or file, or a field in it is wrong.
    """
    if name in VEHICLES:
        return VEHICLES[name]
    if not name.endswith(".toml"):
        near = difflib.get_close_matches(name, VEHICLES, n=1)
        raise ConfigError(
            f"vehicle: no set {name!r}{f' (did you mean {near[0]}?)' if near else ''}; choose from "
            f"{', '.join(VEHICLES)}, or give a file that ends in .toml"
        )
    fields = read_toml(Path(name))
    base = fields.pop("base", None)
    if base is None:
        start = {}
    elif isinstance(base, str) and base in VEHICLES:
        start = VEHICLES[base].model_dump()
    else:
        raise ConfigError(
            f"{name}: base: choose from {', '.join(VEHICLES)} (got {json.dumps(base, default=str)})"
        )
    said = {"name": Path(name).stem, "source": f"{Path(name).name}, from {base or 'nothing else'}"}
    try:
        return resolve(Vehicle, start | said | fields)
    except ConfigError as error:
        hint = "" if base else '\nbase = "deepracer" would fill in what is missing'
        raise ConfigError(
            "\n".join(f"{name}: {line}" for line in f"{error}{hint}".split("\n"))
        ) from None
