"""Relief: how far away what a camera sees is, and what it is, asked at the centre of each pixel.

Nothing is filtered here: the mean of two distances, or of two classes, is the place of nothing.
"""

from __future__ import annotations

import math
from enum import IntEnum

import numpy as np
from numba import njit
from pydantic import PositiveFloat, model_validator

from hotlap.clock import ClockSettings
from hotlap.config import Settings
from hotlap.sim.objects import stand_boxes
from hotlap.types import Array, Float32

__all__ = [
    "CLASSES",
    "Class",
    "DepthSettings",
    "SegmentationSettings",
    "depth_picture",
    "metres",
    "relief",
    "segmentation_picture",
]

_compiled = njit(cache=True, nogil=True, fastmath=True, error_model="numpy")
_f4, _i4, _i8, _u8 = np.float32, np.int32, np.int64, np.uint64
_ZERO, _HALF, _ONE = _f4(0), _f4(0.5), _f4(1)


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
_SKY, _GROUND, _ROAD, _BORDER, _DASH, _WALL, _OBSTACLE = (int(one) for one in list(Class)[:7])
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


@_compiled
def relief(  # type: ignore[no-untyped-def]
    start, stop, inverse, kind, named, height, width, x, y, yaw, track, look, view,
    lenses, levels, spans, met, heights, boxes, looks, floors, field, frames, sizes,
):  # fmt: skip
    """Fill the images start..stop of `inverse`, flat (M * H * W), with 1 / depth, 0 for the sky.

    `kind` is filled with the classes if `named` is 1; else it is only scratch. The other arguments:
    see `camera.Camera`, `floor.floors`, `walls.Walls` and `objects.draw_boxes`.
    """
    for image in range(start, stop):
        lens, rows, beams = lenses[view[image]], levels[view[image]], spans[view[image]]
        focal, sine, cosine, tall = lens[0], lens[1], lens[2], lens[3]
        walled = len(met) > 0 and heights[look[image]] > _ZERO
        paint, frame, size = looks[look[image]], frames[track[image]], sizes[track[image]]
        c, s = _f4(math.cos(yaw[image])), _f4(math.sin(yaw[image]))
        lens_x, lens_y = x[image] + c * lens[4], y[image] + s * lens[4]
        for row in range(height):
            v = (_f4(row) + _HALF - _HALF * _f4(height)) / focal
            fall = sine + v * cosine
            o = (image * height + row) * width
            ground = max(fall, _ZERO) / tall
            for column in range(width):
                inverse[_u8(o + column)] = ground
                kind[_u8(o + column)] = np.uint8(_GROUND if fall > _ZERO else _SKY)
            if named == 1 and ground > _ZERO:
                depth = _ONE / ground
                ahead, step = depth * (cosine - v * sine), depth / focal
                aside = step * (_HALF - _HALF * _f4(width))
                _name_row(
                    kind, o, width, lens_x + c * ahead + s * aside, lens_y + s * ahead - c * aside,
                    s * step, -c * step, paint, floors[look[image], 1, 0], frame, size, field,
                )  # fmt: skip
            if walled and rows[row, 5] != _ZERO:
                _stand_walls(
                    inverse, kind, o, width, rows[row, 0], rows[row, 1], rows[row, 2],
                    _ONE / rows[row, 4], met, image, beams, heights[look[image]] - tall, tall,
                )  # fmt: skip
    stand_boxes(
        start, stop, inverse, kind, _OBSTACLE, height, width, x, y, yaw, view, boxes, lenses
    )


@_compiled
def _stand_walls(  # type: ignore[no-untyped-def]
    inverse, kind, o, width, begin, step, up, share, met, image, beams, tall, low
):
    """Put the nearest wall that a row's pixels meet into them."""
    for column in range(width):
        t = begin + step * _f4(column)
        k = _u8(_i8((t - beams[1]) * beams[2] + _HALF))
        off = t - beams[1] - _f4(k) * beams[3]
        for layer in range(met.shape[2]):
            if met[image, 0, layer, k] > _ZERO:
                q = met[image, 0, layer, k] + met[image, 1, layer, k] * off
                if -low * q <= up <= tall * q:
                    at = _u8(o + column)
                    if q * share > inverse[at]:
                        inverse[at], kind[at] = q * share, np.uint8(_WALL)
                    break


@_compiled
def _name_row(  # type: ignore[no-untyped-def]
    kind, o, width, x, y, dx, dy, paint, kerb, frame, size, field
):
    """Name what is painted on the ground under a row of pixels, from (x, y) in steps (dx, dy)."""
    right, top = _f4(size[1] - 1), _f4(size[2] - 1)
    columns, reach = _i8(size[1]), _ONE / (frame[2] * _f4(127))
    border, middle = paint[6, 0], paint[7, 0] * _HALF
    period = paint[8, 0] + paint[9, 0]
    duty = paint[8, 0] / period
    frequency = max(np.floor(frame[6] / period + _HALF), _ONE) / frame[6]
    for column in range(width):
        u = (x + dx * _f4(column) - frame[0]) * frame[2]
        v = (y + dy * _f4(column) - frame[1]) * frame[2]
        i, j = _i8(min(max(u, _ZERO), right)), _i8(min(max(v, _ZERO), top))
        word = field[_u8(size[0] + j * columns + i)]
        u -= _f4(i) + _HALF
        v -= _f4(j) + _HALF
        low, high = _i4(word), _i4(word >> 32)
        nx, ny = _f4(_i4(_i4(low << 16) >> 24)), _f4(_i4(_i4(low << 24) >> 24))
        d = _f4(_i4(low >> 16)) * frame[3] + (u * nx + v * ny) * reach
        half = _f4(_i4((high >> 8) & 0xFF)) * frame[4]
        offset = half + d if (high & 1) != 0 else abs(d)
        found = _BORDER if offset < half + kerb else _GROUND
        if offset < half:
            found = _BORDER if offset > half - border else _ROAD
            if offset < middle:
                s = _f4(_i4((high >> 16) & 0xFFFF)) * frame[5] + (u * ny - v * nx) * reach
                turn = s * frequency
                found = _DASH if turn - np.floor(turn) < duty else found
        kind[_u8(o + column)] = np.uint8(found)


def metres(inverse: Float32, range_max: float) -> Float32:
    """Turn 1 / depth into depths, at most `range_max`, in place."""
    np.maximum(inverse, np.float32(1 / range_max), out=inverse)
    return np.divide(np.float32(1), inverse, out=inverse)
