"""Relief: how far away what a camera sees is, and what it is, asked at the centre of each pixel.

Nothing is filtered here: the mean of two distances, or of two classes, is the place of nothing.
"""

from __future__ import annotations

from enum import IntEnum

import numpy as np
from pydantic import PositiveFloat, model_validator

from hotlap.clock import ClockSettings
from hotlap.config import Settings
from hotlap.types import Array

__all__ = [
    "CLASSES",
    "Class",
    "DepthSettings",
    "SegmentationSettings",
    "depth_picture",
    "segmentation_picture",
]


class Class(IntEnum):
    """What a pixel of a segmentation shows."""

    SKY = 0
    GROUND = 1
    """Off the road."""
    ROAD = 2
    BORDER = 3
    """The line along a border, or the kerb outside of it."""
    DASH = 4
    """The dashes on the centre line."""
    WALL = 5
    OBSTACLE = 6
    CAR = 7


CLASSES = len(Class)
_COLOURS = np.array(
    [
        (140, 180, 220), (60, 120, 60), (70, 70, 80), (245, 245, 245),
        (250, 190, 40), (150, 110, 80), (220, 90, 200), (220, 50, 40),
    ],
    np.uint8,
)  # fmt: skip


class DepthSettings(Settings):
    """Distances from the camera, along its axis."""

    range_max: PositiveFloat = 10.0
    """What the sky and all that is farther away says [m]."""
    clock: ClockSettings = ClockSettings()
    """When images are taken and reach the driver, and how noisy they are."""


class SegmentationSettings(Settings):
    """What the camera's pixels show.

    0 sky, 1 ground, 2 road, 3 border, 4 dash, 5 wall, 6 obstacle, 7 car.
    """

    clock: ClockSettings = ClockSettings()
    """When images are taken and reach the driver; classes have no noise."""

    @model_validator(mode="after")
    def _without_noise(self) -> SegmentationSettings:
        if self.clock.noise or self.clock.noise_share:
            raise ValueError("clock.noise and clock.noise_share must be 0: classes are not amounts")
        return self


def depth_picture(depth: Array, range_max: float) -> Array:
    """Turn depths (..., H, W, 1) [m] into grey levels, near ones bright."""
    return np.asarray(255 * (1 - np.clip(depth / range_max, 0, 1)) + 0.5, np.uint8)


def segmentation_picture(classes: Array) -> Array:
    """Turn classes (..., H, W, 1) into colours (..., H, W, 3) uint8."""
    return np.asarray(_COLOURS[classes[..., 0]])
