"""Actions: what the numbers of a policy mean to the car."""

from __future__ import annotations

import math
from typing import Annotated, Literal, TypeAlias

import numpy as np
from pydantic import Field, PositiveFloat, model_validator

from hotlap.config import Settings
from hotlap.errors import ConfigError
from hotlap.simulator import Command
from hotlap.types import Array, Float32

__all__ = [
    "ActionSettings",
    "Actions",
    "ContinuousActions",
    "GridActions",
    "ListActions",
    "MetadataActions",
]

Degrees: TypeAlias = Annotated[float, Field(ge=-60, le=60)]
Speed: TypeAlias = Annotated[float, Field(ge=0, le=100)]


class _Ranges(Settings):
    steering_low_deg: Degrees = -30.0
    """Steering furthest to the right [degrees]."""
    steering_high_deg: Degrees = 30.0
    """Steering furthest to the left [degrees]."""
    speed_low: Speed = 0.5
    """Slowest speed [m/s]."""
    speed_high: Speed = 4.0
    """Fastest speed [m/s]."""

    @model_validator(mode="after")
    def _in_order(self) -> _Ranges:
        for name in ("steering", "speed"):
            unit = "_deg" if name == "steering" else ""
            low, high = getattr(self, f"{name}_low{unit}"), getattr(self, f"{name}_high{unit}")
            if low >= high:
                raise ValueError(f"{name}_low{unit} {low:g} must lie below {high:g}")
        return self


class ContinuousActions(_Ranges):
    """Two numbers in [-1, 1], (steering, speed), stretched over the ranges."""

    kind: Literal["continuous"] = "continuous"
    """Which actions."""


class GridActions(_Ranges):
    """Every combination of steering and speed on two regular scales."""

    kind: Literal["grid"] = "grid"
    """Which actions."""
    steering_interval_deg: PositiveFloat = 15.0
    """Step of the steering scale [degrees]; both ends always belong to it."""
    speed_interval: PositiveFloat = 1.0
    """Step of the speed scale [m/s]; both ends always belong to it."""

    @property
    def size(self) -> int:
        """How many actions."""
        turn = self.steering_high_deg - self.steering_low_deg
        steering = _points(turn, self.steering_interval_deg)
        return steering * _points(self.speed_high - self.speed_low, self.speed_interval)

    @property
    def pairs(self) -> tuple[tuple[float, float], ...]:
        """(steering [degrees], speed [m/s]) of each action, rightmost and slowest first."""
        steering = _scale(self.steering_low_deg, self.steering_high_deg, self.steering_interval_deg)
        speeds = _scale(self.speed_low, self.speed_high, self.speed_interval)
        return tuple((angle, speed) for angle in steering for speed in speeds)


class ListActions(Settings):
    """The actions one by one."""

    kind: Literal["list"] = "list"
    """Which actions."""
    list: tuple[tuple[Degrees, Speed], ...] = Field(min_length=1)
    """[steering in degrees, speed in m/s] of each action."""

    @property
    def size(self) -> int:
        """How many actions."""
        return len(self.list)

    @property
    def pairs(self) -> tuple[tuple[float, float], ...]:
        """(steering [degrees], speed [m/s]) of each action."""
        return self.list


class MetadataActions(Settings):
    """The action space of a DeepRacer model_metadata.json."""

    kind: Literal["metadata"] = "metadata"
    """Which actions."""
    path: str
    """The file."""


ActionSettings: TypeAlias = Annotated[
    ContinuousActions | GridActions | ListActions | MetadataActions, Field(discriminator="kind")
]

_ACTIONS_MAX = 1000


def _points(span: float, interval: float) -> int:
    # The span may be a hair more than its intervals; and it may be too many intervals to count.
    return max(1, math.ceil(min(span / interval, 1e9) - 1e-6)) + 1


def _scale(low: float, high: float, interval: float) -> list[float]:
    return [*(low + interval * i for i in range(_points(high - low, interval) - 1)), high]


class Actions:
    """Turns the actions of N policies into commands.

    Args:
        settings: continuous, or the discrete actions one by one.

    Raises:
        ConfigError: more actions than a policy can sensibly tell apart.
    """

    def __init__(self, settings: ContinuousActions | GridActions | ListActions) -> None:
        self.settings = settings
        self.discrete = not isinstance(settings, ContinuousActions)
        if isinstance(settings, ContinuousActions):
            low = np.array([np.radians(settings.steering_low_deg), settings.speed_low])
            high = np.array([np.radians(settings.steering_high_deg), settings.speed_high])
            self._middle: Float32 = ((low + high) / 2).astype(np.float32)
            self._half: Float32 = ((high - low) / 2).astype(np.float32)
            self.size = 2
        else:
            if settings.size > _ACTIONS_MAX:
                remedy = (
                    "Widen steering_interval_deg or speed_interval."
                    if isinstance(settings, GridActions)
                    else "List fewer."
                )
                raise ConfigError(
                    f"actions: {settings.size} actions; at most {_ACTIONS_MAX} are allowed. "
                    + remedy
                )
            pairs = np.array(settings.pairs, np.float64)
            self._table: Float32 = np.stack([np.radians(pairs[:, 0]), pairs[:, 1]], axis=1).astype(
                np.float32
            )
            self.size = len(pairs)

    def decode(self, action: Array) -> Command:
        """Turn actions into commands.

        Args:
            action: (N,) integers in [0, size) or (N, 2) floats, clipped to [-1, 1].
        """
        if self.discrete:
            chosen = self._table[np.asarray(action, np.int64)]
            return Command(
                steering=np.ascontiguousarray(chosen[:, 0]),
                speed=np.ascontiguousarray(chosen[:, 1]),
            )
        given = np.asarray(action, np.float32)
        # A column at a time, as NumPy is slow along axes of two; and np.clip is slow on few cars.
        steering, speed = (
            self._middle[i] + np.minimum(np.maximum(given[:, i], -1), 1) * self._half[i]
            for i in range(2)
        )
        return Command(steering=steering, speed=speed)
