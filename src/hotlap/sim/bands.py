"""Colour bands: Robotini's eight colours, all that its racers see of a camera image.

Each pixel becomes pure red, green or blue, or black. Four groups of columns, left to right, then
four groups of rows, top to bottom, say which colours they hold, the strongest as 1 and the weakest
as 0.

Source: robotini-ddpg by M. Lindgren, its `features.py`, step by step. That program also merges all
frames that wait for it by the greatest value of each pixel. Here, as with every other sensor, a
driver sees the newest one that has arrived.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from pydantic import Field

from hotlap.clock import ClockSettings
from hotlap.config import Settings
from hotlap.errors import ConfigError
from hotlap.threads import spread
from hotlap.types import Array, Float32

__all__ = ["BANDS", "ColorBandsSettings", "color_bands"]

BANDS = (8, 3)
"""Shape of an observation: four groups of columns and four of rows; red, green, blue."""
_GROUPS = 4
_compiled = njit(cache=True, nogil=True, error_model="numpy")
_f4, _i4, _u8 = np.float32, np.int32, np.uint64


class ColorBandsSettings(Settings):
    """How the colour bands are read from the camera's image, which must be RGB."""

    cut: float = Field(0.25, ge=0, le=0.9)
    """Share of the rows that are cut off at the top. Robotini: 20 of 80."""
    threshold: int = Field(100, ge=0, le=255)
    """Pixels that are nowhere brighter than this are black."""
    clock: ClockSettings = ClockSettings()
    """When the bands are taken and reach the driver."""


def color_bands(images: Array, settings: ColorBandsSettings, *, threads: int = 1) -> Float32:
    """Return the colour bands of M images.

    Args:
        images: (M, H, W, 3) uint8, at least 4 columns, and 4 rows below the cut.
        settings: how.
        threads: how many threads share the work.

    Returns:
        (M, 8, 3) float32 in [0, 1].

    Raises:
        ConfigError: the images are not RGB, or too small.
    """
    if images.ndim != 4 or images.shape[3] != 3 or images.dtype != np.uint8:
        raise ConfigError(
            f"color_bands: images must be (M, H, W, 3) uint8, got {images.dtype} {images.shape}"
        )
    top = round(settings.cut * images.shape[1])
    check_size(images.shape[1:], settings)
    out = np.empty((len(images), *BANDS), np.float32)
    images = np.ascontiguousarray(images)
    spread(
        _bands,
        len(images),
        *(images.reshape(-1), images.shape[1], images.shape[2], top, settings.threshold, out),
        block=1,
        threads=threads,
    )
    return out


def check_size(shape: tuple[int, ...], settings: ColorBandsSettings) -> None:
    """Refuse cameras, (H, W, C), of which there can be no colour bands.

    Raises:
        ConfigError: they are grey, a pair, or too small.
    """
    height, width, channels = shape
    if channels != 3:
        raise ConfigError(
            "observation: color_bands need one camera in colours; set observation.camera.color=rgb "
            "and observation.camera.stereo_baseline=0"
        )
    left = height - round(settings.cut * height)
    if left < _GROUPS or width < _GROUPS:
        raise ConfigError(
            f"observation.color_bands: an image of {width}x{height} leaves {left} rows below the "
            f"cut of {settings.cut:g}; 4 rows and 4 columns are the least"
        )


@_compiled
def _bands(start, stop, images, height, width, top, threshold, out):  # type: ignore[no-untyped-def]
    """Read the bands of the images start..stop: colours are counted, in columns and in rows."""
    across, left = 3 * width, height - top
    column = np.empty((3, width), np.int32)
    pure = np.empty((3, width), np.uint8)
    row = np.empty(3, np.int32)
    for image in range(start, stop):
        column[:] = 0
        out[image] = _f4(0)
        for line in range(left):
            begin = _u8((image * height + top + line) * across)
            red, green, blue = pure[0], pure[1], pure[2]
            for i in range(width):
                at = begin + _u8(3 * i)
                r, g, b = images[at], images[at + _u8(1)], images[at + _u8(2)]
                most = max(max(r, g), b)
                bright = most > threshold
                red[i] = np.uint8(bright & (r == most))
                green[i] = np.uint8(bright & (g == most))
                blue[i] = np.uint8(bright & (b == most))
            for c in range(3):
                count, of, here = _i4(0), column[c], pure[c]
                for i in range(width):
                    of[i] += _i4(here[i])
                    count += _i4(here[i])
                row[c] = count
            group = ((line + 1) * _GROUPS - 1) // left
            _add(out[image, _GROUPS + group], row[0], row[1], row[2])
        for i in range(width):
            group = ((i + 1) * _GROUPS - 1) // width
            _add(out[image, group], column[0, i], column[1, i], column[2, i])
        for group in range(_GROUPS):
            wide = (group + 1) * width // _GROUPS - group * width // _GROUPS
            tall = (group + 1) * left // _GROUPS - group * left // _GROUPS
            for c in range(3):
                out[image, group, c] /= _f4(wide)
                out[image, _GROUPS + group, c] /= _f4(tall)


@_compiled
def _add(to, red, green, blue):  # type: ignore[no-untyped-def]
    """Add the colours of one column or row, scaled so that the strongest is 1, the weakest 0."""
    low, high = min(min(red, green), blue), max(max(red, green), blue)
    scale = _f4(1) / _f4(max(high - low, 1))
    to[0] += _f4(red - low) * scale
    to[1] += _f4(green - low) * scale
    to[2] += _f4(blue - low) * scale
