"""Odometry and IMU: what a car feels of its own motion, with noise, bias and drift.

Both follow a car from step to step, because biases wander and dead reckoning adds up. They are
computed from the State before and after a control step, so they fit any simulator.
"""

from __future__ import annotations

import numpy as np
from pydantic import NonNegativeFloat

from hotlap.clock import ClockSettings
from hotlap.config import Settings
from hotlap.draws import Purpose, normal
from hotlap.simulator import State
from hotlap.types import Array, Float32

__all__ = ["Imu", "ImuSettings", "Odometry", "OdometrySettings"]


class OdometrySettings(Settings):
    """Wheel speed, yaw rate and steering angle, and the pose that follows from them."""

    speed_noise: NonNegativeFloat = 0.02
    """Standard deviation of the speed [m/s]."""
    speed_scale: NonNegativeFloat = 0.01
    """Standard deviation of each episode's error of scale, such as of the wheels' radius."""
    yaw_rate_noise: NonNegativeFloat = 0.01
    """Standard deviation of the yaw rate [rad/s]."""
    yaw_rate_bias: NonNegativeFloat = 0.005
    """Standard deviation of the bias of the yaw rate at an episode's start [rad/s]."""
    yaw_rate_drift: NonNegativeFloat = 0.0005
    """Standard deviation that the bias gains in a second [rad/s]; grows with the root of time."""
    steering_noise: NonNegativeFloat = 0.002
    """Standard deviation of the steering angle [rad]."""
    clock: ClockSettings = ClockSettings()
    """When the driver hears of it."""


class ImuSettings(Settings):
    """Accelerations and yaw rate at the centre of gravity, as a cheap sensor gives them."""

    acceleration_noise: NonNegativeFloat = 0.05
    """Standard deviation of the accelerations [m/s^2]."""
    acceleration_bias: NonNegativeFloat = 0.05
    """Standard deviation of their biases at an episode's start [m/s^2]."""
    acceleration_drift: NonNegativeFloat = 0.002
    """Standard deviation that a bias gains in a second [m/s^2]."""
    gyro_noise: NonNegativeFloat = 0.005
    """Standard deviation of the yaw rate [rad/s]."""
    gyro_bias: NonNegativeFloat = 0.005
    """Standard deviation of its bias at an episode's start [rad/s]."""
    gyro_drift: NonNegativeFloat = 0.0002
    """Standard deviation that the bias gains in a second [rad/s]."""
    clock: ClockSettings = ClockSettings()
    """When the driver hears of it."""


class Odometry:
    """What the wheels and a gyroscope tell N cars.

    A reading is (7,) float32: speed [m/s], yaw rate [rad/s], steering angle [rad]; then the pose
    since the episode's start by dead reckoning, in the frame of that start: x ahead [m], y to the
    left [m], cosine and sine of the heading. Sideways slip is not felt, as on a real car.
    """

    size = 7

    def __init__(self, settings: OdometrySettings, rows: int, *, dt: float) -> None:
        self.settings, self._dt = settings, dt
        self._reading = np.zeros((rows, self.size), np.float32)
        self._errors = np.zeros((rows, 2))  # scale of the speed, bias of the yaw rate
        self._pose = np.zeros((rows, 3))  # x, y, heading

    def begin(self, rows: Array, state: State, *, seed: int) -> None:
        """Start an episode in M rows."""
        draws = _draws(seed, state, rows, Purpose.ODOMETRY_START, 2)
        self._errors[rows] = draws * [self.settings.speed_scale, self.settings.yaw_rate_bias]
        self._pose[rows] = 0
        self._measure(rows, state, seed)

    def advance(self, before: State, after: State, *, seed: int) -> None:
        """Follow all cars through one control step."""
        rows = np.arange(len(after.x))
        old = self._reading.astype(np.float64)
        drift = _draws(seed, after, rows, Purpose.ODOMETRY_DRIFT, 1)[:, 0]
        self._errors[:, 1] += self.settings.yaw_rate_drift * np.sqrt(self._dt) * drift
        self._measure(rows, after, seed)
        # along the chord of the arc between the two readings
        speed, turn = ((old[:, i] + self._reading[:, i]) / 2 * self._dt for i in (0, 1))
        toward = self._pose[:, 2] + turn / 2
        self._pose[:, 0] += speed * np.sinc(turn / (2 * np.pi)) * np.cos(toward)
        self._pose[:, 1] += speed * np.sinc(turn / (2 * np.pi)) * np.sin(toward)
        self._pose[:, 2] += turn
        self._show(rows)

    def _measure(self, rows: Array, state: State, seed: int) -> None:
        noise = _draws(seed, state, rows, Purpose.ODOMETRY, 3)
        sigma = self.settings
        scale, bias = 1 + self._errors[rows, 0], self._errors[rows, 1]
        self._reading[rows, 0] = state.vx[rows] * scale + sigma.speed_noise * noise[:, 0]
        self._reading[rows, 1] = state.yaw_rate[rows] + bias + sigma.yaw_rate_noise * noise[:, 1]
        self._reading[rows, 2] = state.steering[rows] + sigma.steering_noise * noise[:, 2]
        self._show(rows)

    def _show(self, rows: Array) -> None:
        x, y, heading = self._pose[rows].T
        self._reading[rows, 3:] = np.stack([x, y, np.cos(heading), np.sin(heading)], axis=1)

    def __call__(self, rows: Array | None = None) -> Float32:
        """Return the readings of the given rows (all if None): (M, 7)."""
        return self._reading.copy() if rows is None else self._reading[rows]

    def save(self) -> dict[str, Array]:
        """Return everything needed to continue exactly, as named arrays."""
        return {k: getattr(self, f"_{k}").copy() for k in ("reading", "errors", "pose")}

    def restore(self, arrays: dict[str, Array]) -> None:
        """Continue from what `save` returned."""
        for k in ("reading", "errors", "pose"):
            setattr(self, f"_{k}", arrays[k].copy())


class Imu:
    """What accelerometers and a gyroscope at the centre of gravity tell N cars.

    A reading is (3,) float32: acceleration ahead and to the left [m/s^2], as a mean over the last
    control step, with the centripetal one; yaw rate [rad/s]. The road is flat, so gravity is not
    felt.
    """

    size = 3

    def __init__(self, settings: ImuSettings, rows: int, *, dt: float) -> None:
        self.settings, self._dt = settings, dt
        self._reading = np.zeros((rows, self.size), np.float32)
        self._errors = np.zeros((rows, 3))

    def begin(self, rows: Array, state: State, *, seed: int) -> None:
        """Start an episode in M rows: whatever came before, the speed has not changed."""
        s = self.settings
        draws = _draws(seed, state, rows, Purpose.IMU_START, 3)
        self._errors[rows] = draws * [s.acceleration_bias, s.acceleration_bias, s.gyro_bias]
        self._measure(rows, state, state, seed)

    def advance(self, before: State, after: State, *, seed: int) -> None:
        """Follow all cars through one control step."""
        s, rows = self.settings, np.arange(len(after.x))
        gained = np.array([s.acceleration_drift, s.acceleration_drift, s.gyro_drift])
        draws = _draws(seed, after, rows, Purpose.IMU_DRIFT, 3)
        self._errors += gained * np.sqrt(self._dt) * draws
        self._measure(rows, before, after, seed)

    def _measure(self, rows: Array, before: State, after: State, seed: int) -> None:
        s = self.settings
        vx, vy, r = (np.stack([getattr(one, k)[rows] for one in (before, after)]).astype(float)
                     for k in ("vx", "vy", "yaw_rate"))  # fmt: skip
        # a = dv/dt + omega x v, in the body's frame
        ahead = (vx[1] - vx[0]) / self._dt - (r * vy).mean(axis=0)
        left = (vy[1] - vy[0]) / self._dt + (r * vx).mean(axis=0)
        noise = _draws(seed, after, rows, Purpose.IMU, 3)
        sigma = np.array([s.acceleration_noise, s.acceleration_noise, s.gyro_noise])
        true = np.stack([ahead, left, r[1]], axis=1)
        self._reading[rows] = true + self._errors[rows] + sigma * noise

    def __call__(self, rows: Array | None = None) -> Float32:
        """Return the readings of the given rows (all if None): (M, 3)."""
        return self._reading.copy() if rows is None else self._reading[rows]

    def save(self) -> dict[str, Array]:
        """Return everything needed to continue exactly, as named arrays."""
        return {"reading": self._reading.copy(), "errors": self._errors.copy()}

    def restore(self, arrays: dict[str, Array]) -> None:
        """Continue from what `save` returned."""
        self._reading, self._errors = arrays["reading"].copy(), arrays["errors"].copy()


def _draws(seed: int, state: State, rows: Array, purpose: Purpose, count: int) -> Float32:
    return normal(seed, state.row[rows], state.episode[rows], state.steps[rows], purpose, count)
