"""Optics: what lens, sensor and compression make of a drawn picture before the driver gets it.

In this order: blur by the lens and by turning while the shutter is open, light lost towards the
corners, exposure and white balance, gamma and contrast, noise, JPEG. All that happens to a pixel
alone is one look-up in a table that each car has of its own.
"""

from __future__ import annotations

import math
from typing import Annotated

import numpy as np
from numba import njit
from pydantic import Field, NonNegativeFloat, PositiveFloat, model_validator

from hotlap.config import Settings
from hotlap.draws import Purpose, keys, uniform
from hotlap.grain import grain
from hotlap.sim.jpeg import compress, quantisers
from hotlap.threads import spread
from hotlap.types import Array, Float32

__all__ = ["PARTS", "Optics", "OpticsRanges", "OpticsSettings"]

PARTS = (
    "exposure", "contrast", "gamma", "red", "green", "blue",
    "vignetting", "blur", "shutter", "noise", "quality",
)  # fmt: skip
"""Columns of the (N, 11) float32 that say how each car sees."""
_EXPOSURE, _CONTRAST, _GAMMA, _RED, _VIGNETTING, _BLUR, _SHUTTER, _NOISE, _QUALITY = (
    PARTS.index(n)
    for n in ("exposure", "contrast", "gamma", "red", "vignetting", "blur", "shutter", "noise",
              "quality")
)  # fmt: skip
_LUMINANCE = (0.299, 0.587, 0.114)
_LEVELS = 1024
"""Entries of a table: four for each grey level, of use where light was lost or blurred."""
_GREATEST = 1020.0
_REACH = 9
"""Pixels to each side that the lens blurs: three deviations of the greatest."""
_SWEEP = 24
"""Pixels to each side that turning may smear; faster turns are smeared no more."""
_STEP = 3
"""Place of the draws among those of `Purpose.DOMAIN`."""
_STREAMS = 16

Range = tuple[PositiveFloat, PositiveFloat]


class OpticsSettings(Settings):
    """How the camera differs from a perfect one. As it stands, it does not, and costs nothing."""

    exposure: PositiveFloat = 1.0
    """Factor on the light; what then exceeds white is white."""
    contrast: NonNegativeFloat = 1.0
    """Factor on the distance from middle grey."""
    gamma: PositiveFloat = 1.0
    """Exponent of the tone curve on values between 0 and 1; above 1 darkens the middle."""
    white_balance: tuple[PositiveFloat, PositiveFloat, PositiveFloat] = (1.0, 1.0, 1.0)
    """Factors on red, green and blue; a grey camera sees their mean by luminance."""
    vignetting: float = Field(0.0, ge=0, le=1)
    """Share of the light that is lost in the corners; it grows with the square of the distance
    from the middle."""
    blur: float = Field(0.0, ge=0, le=3)
    """Deviation of the lens's blur [pixels]."""
    shutter: float = Field(0.0, ge=0, le=0.1)
    """Time that the shutter is open [s]: a turning car's pictures are smeared sideways."""
    noise: float = Field(0.0, ge=0, le=64)
    """Deviation of each pixel [grey levels]."""
    quality: int = Field(0, ge=0, le=100)
    """JPEG quality, as libjpeg counts it, colours at half resolution; 0: not compressed."""

    @property
    def perfect(self) -> bool:
        """Whether pictures are left as they are."""
        return self == OpticsSettings()

    def parts(self) -> Float32:
        """Return (11,) by PARTS."""
        three = dict(zip(("red", "green", "blue"), self.white_balance, strict=True))
        return np.array([three.get(n) or getattr(self, n, 0) for n in PARTS], np.float32)


class OpticsRanges(Settings):
    """How optics differ from episode to episode. As it stands, they do not."""

    exposure: Range = (1.0, 1.0)
    """Factor on the exposure: 0.5,1.8."""
    contrast: Range = (1.0, 1.0)
    """Factor on the contrast: 0.6,1.4."""
    gamma: Range = (1.0, 1.0)
    """Factor on gamma: 0.7,1.4."""
    white_balance: Annotated[float, Field(ge=0, le=0.5)] = 0.0
    """Greatest relative error of red, green and blue: 0.15."""
    vignetting: float = Field(0.0, ge=0, le=1)
    """Greatest further vignetting: 0.4."""
    blur: float = Field(0.0, ge=0, le=3)
    """Greatest further blur [pixels]: 0.8."""
    shutter: float = Field(0.0, ge=0, le=0.1)
    """Greatest further time that the shutter is open [s]: 0.02."""
    noise: float = Field(0.0, ge=0, le=64)
    """Greatest further noise [grey levels]: 8."""
    quality: int = Field(0, ge=0, le=95)
    """Worst JPEG quality: each episode has one between this and 95. 0: all have the camera's."""

    @model_validator(mode="after")
    def _check(self) -> OpticsRanges:
        for name in ("exposure", "contrast", "gamma"):
            low, high = getattr(self, name)
            if low > high:
                raise ValueError(f"{name}: the first is the smaller one (got {low:g}, {high:g})")
        return self

    @property
    def any(self) -> bool:
        """Whether optics differ."""
        return self != OpticsRanges()


class Optics:
    """The cameras of N cars, each with its own flaws; only its owner may call it.

    Args:
        settings: what all have.
        ranges: what differs from episode to episode.
        rows: how many cars.
        shape: (H, W, C) of the pictures.
        eyes: how many pictures share the channels.
        focal: pixels that a turn of one radian moves the middle of the picture.
        threads: how many threads share the work; the result does not depend on it.
    """

    def __init__(
        self,
        settings: OpticsSettings,
        ranges: OpticsRanges,
        rows: int,
        shape: tuple[int, int, int],
        *,
        eyes: int = 1,
        focal: float = 100.0,
        threads: int = 1,
    ) -> None:
        self.settings, self.ranges = settings, ranges
        self._shape, self._eyes, self._focal, self._threads = shape, eyes, focal, threads
        self.drawn = np.tile(settings.parts(), (rows, 1))
        """(N, 11) float32 by PARTS: what the running episodes have."""
        height, width, channels = shape
        self._colours = channels // eyes
        self._table = np.empty((rows, self._colours, _LEVELS), np.float32)
        self._steps = quantisers()
        down = (np.arange(height)[:, None] + 0.5) / height - 0.5
        aside = (np.arange(width) + 0.5) / width - 0.5
        aspect = height / width
        far = (aside**2 + (down * aspect) ** 2) / (0.25 + 0.25 * aspect**2)
        self._far = np.repeat(far, channels, axis=1).astype(np.float32)
        """(H, W * C) squares of the distance from the middle, 1 in the corners."""
        self._fill(np.arange(rows))

    def begin(self, rows: Array, seed: int, ids: Array, episode: Array, breadth: float) -> None:
        """Draw the optics of new episodes; arguments as for `Domain.begin`."""
        if not self.ranges.any:
            return
        step = np.full(len(rows), _STEP, np.int64)
        draws = uniform(seed, ids, episode, step, Purpose.DOMAIN, len(PARTS))
        base, ranges, drawn = self.settings.parts(), self.ranges, self.drawn.copy()
        for k, name in enumerate(PARTS[:3]):
            low, high = (breadth * math.log(bound) for bound in getattr(ranges, name))
            drawn[rows, k] = base[k] * np.exp(low + (high - low) * draws[:, k])
        error = breadth * ranges.white_balance
        drawn[rows, _RED : _RED + 3] = base[_RED : _RED + 3] * (
            1 + error * (2 * draws[:, _RED : _RED + 3] - 1)
        )
        for k in (_VIGNETTING, _BLUR, _SHUTTER, _NOISE):
            drawn[rows, k] = base[k] + breadth * getattr(ranges, PARTS[k]) * draws[:, k]
        drawn[rows, _VIGNETTING] = np.minimum(drawn[rows, _VIGNETTING], 1)
        drawn[rows, _BLUR] = np.minimum(drawn[rows, _BLUR], 3)
        if ranges.quality:
            worst = breadth * (95 - ranges.quality) * draws[:, _QUALITY]
            drawn[rows, _QUALITY] = np.rint(95 - worst)
        self.drawn = drawn
        self._fill(rows)

    def restore(self, drawn: Float32) -> None:
        """Continue with the optics that `drawn` had."""
        self.drawn = drawn.copy()
        self._fill(np.arange(len(drawn)))

    def _fill(self, rows: Array) -> None:
        """Compute the tables of the given cars: grey levels out for quarters of grey levels in."""
        part = self.drawn[rows, :, None].astype(np.float64)
        light = np.arange(_LEVELS) / _GREATEST
        balance = part[:, _RED : _RED + 3]
        if self._colours == 1:
            balance = np.tensordot(balance, _LUMINANCE, (1, 0))[:, None]
        tone = np.minimum(part[:, _EXPOSURE, None] * balance * light, 1) ** part[:, _GAMMA, None]
        tone = 0.5 + part[:, _CONTRAST, None] * (tone - 0.5)
        self._table[rows] = 255 * np.clip(tone, 0, 1)

    def develop(
        self, pictures: Array, rows: Array, *, seed: int, ids: Array, episode: Array, steps: Array,
        yaw_rate: Array,
    ) -> Array:  # fmt: skip
        """Make of M drawn pictures what the cameras of the given cars make of them, in place.

        Args:
            pictures: (M, H, W, C) uint8, C-contiguous.
            rows: (M,) which cars.
            seed: the run's seed.
            ids: (M,) global ids of the rows.
            episode: (M,) their episodes.
            steps: (M,) control steps since the start of their episodes.
            yaw_rate: (M,) [rad/s].

        Returns:
            `pictures`.
        """
        height, width, channels = self._shape
        counter = np.asarray(steps, np.int64) * _STREAMS
        part = np.ascontiguousarray(self.drawn[rows])
        sweep = np.abs(yaw_rate) * part[:, _SHUTTER] * np.float32(self._focal)
        spread(
            _develop,
            len(pictures),
            pictures.reshape(-1),
            *(height, width, channels, self._eyes),
            np.ascontiguousarray(rows, np.int64),
            part,
            np.minimum(sweep, 2 * _SWEEP - 1).astype(np.float32),
            self._table,
            self._far,
            self._steps,
            keys(seed, ids, episode, counter, Purpose.OPTICS),
            block=1,
            threads=self._threads,
        )
        return pictures


_compiled = njit(cache=True, nogil=True, fastmath=True, error_model="numpy")
_f4, _i4, _i8, _u4, _u8 = np.float32, np.int32, np.int64, np.uint32, np.uint64
_ZERO, _HALF, _ONE, _WHITE = _f4(0), _f4(0.5), _f4(1), _f4(255)


@_compiled
def _develop(  # type: ignore[no-untyped-def]
    start, stop, pictures, height, width, channels, eyes, rows, part, sweep, table, far, steps,
    key,
):  # fmt: skip
    """Develop the pictures start..stop."""
    across, colours = width * channels, channels // eyes
    size = height * across
    light = np.empty((height, across), np.float32)
    sharp = np.empty((height, across), np.float32)
    edge = np.empty((width + 2 * (_REACH + _SWEEP)) * channels, np.float32)
    weight, lens = np.empty(2 * (_REACH + _SWEEP) + 1, np.float32), np.empty(20, np.float32)
    index, level = np.empty(across, np.int32), np.empty(across, np.float32)
    offset = np.empty(across, np.int32)
    for i in range(across):
        offset[i] = i % colours * _LEVELS
    planes = np.empty((3, height, width), np.float32)
    blocks = np.empty((2, 1024), np.float32)
    for image in range(start, stop):
        first = _u8(image * size)
        tones = table[rows[image]].reshape(-1)
        blur, noise = part[image, _BLUR], part[image, _NOISE]
        blurred = blur > _f4(0.05) or sweep[image] > _f4(0.1)
        if blurred:
            _blur(pictures, first, channels, blur, sweep[image], light, sharp, edge, weight, lens)
        low, high = _u4(key[image]), _u4(key[image] >> _u8(32))
        lost = part[image, _VIGNETTING]
        for row in range(height):
            begin = first + _u8(row * across)
            if blurred:
                for i in range(across):
                    level[i] = sharp[row, i]
            else:
                for i in range(across):
                    level[i] = _f4(pictures[begin + _u8(i)])
            for i in range(across):
                index[i] = _i4(level[i] * (_f4(4) - _f4(4) * lost * far[row, i]) + _HALF)
                index[i] += offset[i]
            for i in range(across):
                level[i] = _HALF
            if noise > _ZERO:
                for i in range(across):
                    level[i] += noise * grain(_u4(row * across + i), low, high)
            for i in range(across):
                level[i] += tones[_u8(index[i])]
            for i in range(across):
                pictures[begin + _u8(i)] = np.uint8(_i4(min(max(level[i], _ZERO), _WHITE)))
        quality = _i4(part[image, _QUALITY])
        if quality > 0:
            one = pictures[image * size : (image + 1) * size]
            for eye in range(eyes):
                begin = eye * colours
                compress(
                    one, height, width, channels, begin, colours, steps[quality], planes, blocks
                )


@_compiled
def _blur(  # type: ignore[no-untyped-def]
    pictures, first, channels, blur, sweep, light, out, edge, weight, lens,
):  # fmt: skip
    """Blur a picture into `out`: along its rows by lens and motion, then along its columns."""
    height, across = light.shape
    width = across // channels
    near = _i8(min(np.ceil(_f4(3) * blur), _f4(_REACH)))
    total = _ZERO
    for k in range(2 * near + 1):
        d = _f4(k - near)
        lens[k] = _f4(math.exp(-d * d / (_f4(2) * blur * blur + _f4(1e-9))))
        total += lens[k]
    for k in range(2 * near + 1):
        lens[k] /= total
    aside = _i8(min(np.ceil(sweep * _HALF), _f4(_SWEEP)))
    reach = near + aside
    for k in range(2 * reach + 1):
        weight[k] = _ZERO
    for j in range(2 * aside + 1):
        share = _smear(_f4(j - aside), sweep)
        for k in range(2 * near + 1):
            weight[j + k] += share * lens[k]
    for row in range(height):
        begin = first + _u8(row * across)
        for c in range(channels):
            left, right = pictures[begin + _u8(c)], pictures[begin + _u8(across - channels + c)]
            for k in range(reach):
                edge[k * channels + c] = _f4(left)
                edge[(reach + width + k) * channels + c] = _f4(right)
        for i in range(across):
            edge[reach * channels + i] = _f4(pictures[begin + _u8(i)])
        line = light[row]
        for i in range(across):
            line[i] = _ZERO
        for k in range(2 * reach + 1):
            share, shift = weight[k], _u8(k * channels)
            for i in range(across):
                line[i] += share * edge[shift + _u8(i)]
    for row in range(height):
        line = out[row]
        for i in range(across):
            line[i] = _ZERO
        for k in range(2 * near + 1):
            share, other = lens[k], light[min(max(row + k - near, 0), height - 1)]
            for i in range(across):
                line[i] += share * other[i]


@_compiled
def _smear(d, sweep):  # type: ignore[no-untyped-def]
    """Weigh the pixel d away in the mean over a path of that length: that of a hat about it."""
    if sweep < _f4(0.1):
        return _ONE if d == _ZERO else _ZERO
    a, b = _hat(_HALF * sweep - d), _hat(-_HALF * sweep - d)
    return (a - b) / sweep


@_compiled
def _hat(t):  # type: ignore[no-untyped-def]
    t = min(max(t, -_ONE), _ONE)
    return _HALF * (_ONE + t) ** 2 if t < _ZERO else _ONE - _HALF * (_ONE - t) ** 2
