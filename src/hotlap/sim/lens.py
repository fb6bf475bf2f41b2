"""Lens and mounting: in which direction each pixel looks, and how a bent picture is drawn.

The camera draws straight pictures only: a flat sensor behind a hole, level with the ground. A lens
that distorts, or a camera that is mounted askew, sees the same light in other places; so straight
views are drawn, finer than the picture, and each pixel takes its light from where it looks. All
that a straight view shows is bent alike: road, boxes, whatever else is drawn.

A pixel blends the four samples about its middle. They are so fine that the blend gathers light from
as far about as the pixel itself, in the mean square: see `_FINE`.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numba import njit
from pydantic import Field, NonNegativeFloat, NonNegativeInt, model_validator

from hotlap.config import Settings
from hotlap.draws import Purpose, uniform
from hotlap.errors import ConfigError
from hotlap.threads import spread
from hotlap.types import Array, Float32, Float64, Int32

if TYPE_CHECKING:
    from hotlap.sim.camera import CameraSettings

__all__ = ["Mounting", "MountingRanges", "Warp", "random_mountings", "ray_angle"]

_FINE = 1.6
"""Samples across a pixel where they are fewest. A sample is a mean over its own width w, and the
blend of two weighs them like a hat of half width w: w^2 (1/12 + 1/6), a pixel's 1/12 at 1.73."""
_NARROW = {"pinhole": math.radians(72), "fisheye": math.radians(52)}
"""Farther than this to a side no single view looks; at the rim of a wide one, samples are many."""
_FARTHEST = math.radians(62)
"""Farther than this from its axis none of several views looks."""
_STEEPEST = math.radians(85)
_OBLIQUE = math.radians(60)
"""Views to all sides look no more steeply: what is upright is not drawn beyond the foot point."""
_BEHIND = math.radians(150)
"""The farthest from its axis that a lens may look."""
_TABLES_MAX = 1 << 28
_ZENITH = math.radians(45)
"""Height above which the sky is in one colour, as `Look` says."""
_STEP = 4
"""Place of the draws among those of `Purpose.DOMAIN`."""
_compiled = njit(cache=True, nogil=True, fastmath=True, error_model="numpy")
_inline = njit(nogil=True, fastmath=True, error_model="numpy", forceinline=True)
_f4, _i4, _u4, _u8 = np.float32, np.int32, np.uint32, np.uint64
_ZERO, _HALF, _ONE = _f4(0), _f4(0.5), _f4(1)


class MountingRanges(Settings):
    """How cameras are mounted differently from car to car. As it stands, they are not."""

    stock: NonNegativeInt = Field(0, le=1024)
    """How many cameras to draw; each episode takes one of them. 0: the camera as it is."""
    height: NonNegativeFloat = 0.0
    """Greatest error of the lens's height [m]: 0.01."""
    pitch_deg: float = Field(0.0, ge=0, le=30)
    """Greatest error of the pitch [degrees]: 3."""
    yaw_deg: float = Field(0.0, ge=0, le=30)
    """Greatest error to the left or right [degrees]: 2."""
    roll_deg: float = Field(0.0, ge=0, le=30)
    """Greatest roll [degrees]: 1.5. Pictures are then drawn finer and turned, see the camera."""
    fov: float = Field(0.0, ge=0, le=0.5)
    """Greatest relative error of the field of view: 0.05."""
    distortion: float = Field(0.0, ge=0, le=1)
    """Greatest relative error of the lens's distortion: 0.2."""

    @model_validator(mode="after")
    def _check(self) -> MountingRanges:
        named = [n for n in type(self).model_fields if n != "stock" and getattr(self, n)]
        if named and not self.stock:
            raise ValueError(f"{', '.join(named)} need cameras to differ in: stock=64")
        return self


@dataclass(frozen=True)
class Mounting:
    """What one camera differs in from the settings: sums, but for the two factors."""

    height: float = 0.0
    """[m]."""
    pitch: float = 0.0
    """[rad], down."""
    yaw: float = 0.0
    """[rad], to the left."""
    roll: float = 0.0
    """[rad], the right side down."""
    fov: float = 1.0
    """Factor on the field of view."""
    distortion: float = 1.0
    """Factor on the distortion."""


def random_mountings(ranges: MountingRanges, seed: int) -> tuple[Mounting, ...]:
    """Draw `ranges.stock` mountings, the first as it should be, the farthest from it last.

    So episodes that choose from the first ones only, have the smaller errors.
    """
    if not ranges.stock:
        return (Mounting(),)
    names = ("height", "pitch_deg", "yaw_deg", "roll_deg", "fov", "distortion")
    which = np.arange(1, ranges.stock)
    step = np.full(len(which), _STEP)
    draws = 2 * uniform(seed, which, which * 0, step, Purpose.DOMAIN, len(names)).astype(float) - 1
    used = np.array([getattr(ranges, name) > 0 for name in names])
    draws = draws[np.argsort((draws[:, used] ** 2).sum(axis=1), kind="stable")]
    errors = draws * [getattr(ranges, name) for name in names]
    errors[:, 1:4] = np.radians(errors[:, 1:4])
    errors[:, 4:] += 1
    return (Mounting(), *(Mounting(*(float(e) for e in row)) for row in errors))


def focal_length(settings: CameraSettings, mounting: Mounting) -> float:
    """Return the focal length [pixels]; a pixel of a fisheye is so many parts of a radian."""
    half = math.radians(settings.fov_deg * mounting.fov) / 2
    return settings.width / 2 / (half if settings.lens == "fisheye" else math.tan(half))


def ray_angle(distance: Float64, settings: CameraSettings, factor: float = 1.0) -> Float64:
    """Return how far from the axis a pixel looks [rad], by its distance from the middle.

    Source: Brown 1966, "Decentering distortion of lenses" (radial terms); for fisheyes Kannala and
    Brandt 2006, eq. 6. Both as OpenCV's calibrations give them.

    Args:
        distance: any shape, over the focal length.
        settings: the lens and its distortion k1, k2.
        factor: on the distortion.

    Returns:
        The angle a with r (1 + k1 r^2 + k2 r^4) = distance, where r = tan a, for a fisheye r = a.

    Raises:
        ConfigError: the lens bends back, so that two directions would meet in one pixel.
    """
    k1, k2 = (factor * k for k in settings.distortion)
    fisheye = settings.lens == "fisheye"
    r = np.linspace(0, _BEHIND if fisheye else math.tan(math.radians(85)), 40_001)
    bent = r * (1 + k1 * r**2 + k2 * r**4)
    falls = np.flatnonzero(np.diff(bent) <= 0)
    end = falls[0] + 1 if len(falls) else len(r)
    if distance.max() > bent[end - 1]:
        raise ConfigError(
            f"observation.camera: with fov_deg={settings.fov_deg:g} and "
            f"distortion={[k1, k2]} no direction is seen in the corners of the image: the lens "
            f"reaches {bent[end - 1]:.3g} focal lengths from the middle, they are at "
            f"{distance.max():.3g}; take a smaller fov_deg or distortion"
        )
    found = np.interp(distance, bent[:end], r[:end])
    for _ in range(3):  # Newton
        value = found * (1 + k1 * found**2 + k2 * found**4) - distance
        found = found - value / (1 + 3 * k1 * found**2 + 5 * k2 * found**4)
    return np.asarray(found if fisheye else np.arctan(found), float)


def rays(settings: CameraSettings, mounting: Mounting, parts: int = 1) -> Float64:
    """Return (H * parts, W * parts, 3): right, down and ahead of the level camera, for each part.

    Level: turned as the camera is to the left or right, but neither down nor about its axis.
    """
    focal = focal_length(settings, mounting)
    column = (np.arange(settings.width * parts) + 0.5) / parts - settings.width / 2
    row = (np.arange(settings.height * parts) + 0.5) / parts - settings.height / 2
    x, y = np.meshgrid(column / focal, row / focal)
    distance = np.hypot(x, y)
    angle = ray_angle(distance, settings, mounting.distortion)
    aside = np.sin(angle) / np.maximum(distance, 1e-12)
    roll = math.radians(settings.roll_deg) + mounting.roll
    pitch = math.radians(settings.pitch_deg) + mounting.pitch
    right = aside * (math.cos(roll) * x - math.sin(roll) * y)
    down = aside * (math.sin(roll) * x + math.cos(roll) * y)
    ahead = np.cos(angle)
    return np.stack(
        [
            right,
            ahead * math.sin(pitch) + down * math.cos(pitch),
            ahead * math.cos(pitch) - down * math.sin(pitch),
        ],
        axis=-1,
    )


class Warp:
    """Bends straight views into the pictures of M cameras.

    Args:
        settings: the camera.
        mountings: K of them.

    Raises:
        ConfigError: the lens is not one, or the tables would need more than 2 GiB.
    """

    width: int
    """Columns of a view."""
    height: int
    """Rows of a view."""
    fov_deg: float
    """Horizontal field of view of a view [degrees]."""
    axes: tuple[tuple[float, float], ...]
    """How much farther than the camera each view looks down and to the left [rad]."""

    def __init__(self, settings: CameraSettings, mountings: tuple[Mounting, ...]) -> None:
        self.settings = settings
        seen = [rays(settings, mounting) for mounting in mountings]
        pitches = [math.radians(settings.pitch_deg) + mounting.pitch for mounting in mountings]
        self.axes = _axes(seen[0], pitches[0], _NARROW[settings.lens])
        placed = [self._place(one, pitch) for one, pitch in zip(seen, pitches, strict=True)]
        self.axes = tuple(
            axis
            for v, axis in enumerate(self.axes)
            if any((view == v).any() for view, _, _ in placed)
        )
        placed = [self._place(one, pitch) for one, pitch in zip(seen, pitches, strict=True)]
        steps = np.concatenate([_steps(*one) for one in placed])
        focal = _FINE / float(np.quantile(steps, 0.1))
        parts = max(1, round(focal * float(np.quantile(steps, 0.98)) / (2 * _FINE)))
        wide = max(float(np.abs(u).max()) for _, u, _ in placed)
        tall = max(float(np.abs(v).max()) for _, _, v in placed)
        self.width = max(16, 2 * math.ceil(focal * wide) + 4)
        self.height = max(8, 2 * math.ceil(focal * tall) + 4)
        self.fov_deg = math.degrees(2 * math.atan(self.width / 2 / focal))
        pixels = settings.width * settings.height
        size = len(mountings) * parts * parts * pixels
        if max(size, len(self.axes) * self.width * self.height) > _TABLES_MAX:
            raise ConfigError(
                f"observation.camera: {len(mountings)} mountings of {settings.width}x"
                f"{settings.height} pixels with this lens need {8 * size / 2**30:.1f} GiB of "
                "tables; take fewer (randomize.mounting.stock) or smaller images"
            )
        # Views have a sky in one colour: shaded by their rows, it would not fit together.
        self._sky = np.empty((len(mountings), parts * parts, pixels), np.float32)
        self._index = np.empty((len(mountings), parts * parts, pixels), np.int32)
        self._share = np.empty((len(mountings), parts * parts, pixels), np.int32)
        for k, mounting in enumerate(mountings):
            self._tabulate(k, rays(settings, mounting, parts), pitches[k], focal, parts)

    def _place(self, one: Float64, pitch: float) -> tuple[Array, Float64, Float64]:
        """Say for each ray which view is nearest to it, and where in it: u right, v down."""
        turned = np.stack([_turn(one, pitch, axis) for axis in self.axes])
        view = turned[..., 2].argmax(axis=0)
        chosen = np.take_along_axis(turned, view[None, ..., None], axis=0)[0]
        return view, chosen[..., 0] / chosen[..., 2], chosen[..., 1] / chosen[..., 2]

    def _tabulate(self, k: int, fine: Float64, pitch: float, focal: float, parts: int) -> None:
        view, u, v = self._place(fine, pitch)
        column = np.clip(u * focal + self.width / 2 - 0.5, 0, self.width - 1.001)
        row = np.clip(v * focal + self.height / 2 - 0.5, 0, self.height - 1.001)
        index = (view * self.height + row.astype(int)) * self.width + column.astype(int)
        share = (256 * (column % 1)).astype(int) | (256 * (row % 1)).astype(int) << 8
        height, width = self.settings.height, self.settings.width
        up = -np.arcsin(np.clip(fine[..., 1], -1, 1)) / _ZENITH
        for table, found in ((self._index, index), (self._share, share), (self._sky, up)):
            cut = found.reshape(height, parts, width, parts).transpose(1, 3, 0, 2)
            table[k] = cut.reshape(parts * parts, -1)

    def bend(
        self, views: Array, out: Array, mount: Int32, look: Int32, sky: Float32, threads: int
    ) -> None:
        """Fill M pictures.

        Args:
            views: (M * axes, height, width, C) uint8: all views of a picture after each other.
            out: (M, H, W, C) uint8.
            mount: (M,) int32 which mounting each picture has.
            look: (M,) int32 which look each has.
            sky: (looks, 2, C or more) colours of the sky above 45 degrees and at the horizon.
            threads: how many threads share the work.
        """
        spread(
            _bend,
            len(out),
            *(views.reshape(-1), out.reshape(-1), mount, look, sky),
            *(self._index, self._share, self._sky),
            *(self.width, len(self.axes) * self.height * self.width, out.shape[3]),
            block=1,
            threads=threads,
        )


def _axes(seen: Float64, pitch: float, narrow: float) -> tuple[tuple[float, float], ...]:
    """Return where views look: one if it can see everything, else the cheapest grid of them."""
    level = _turn(seen, pitch, (0.0, 0.0))
    if (np.abs(level[..., :2]) < math.tan(narrow) * level[..., 2:]).all():
        return ((0.0, 0.0),)
    height, width = level.shape[:2]
    aside = np.abs(np.arctan2(level[..., 0], level[..., 2])[height // 2]).max()
    tilt = np.abs(np.arctan2(level[..., 1], level[..., 2])[:, width // 2]).max()
    some = np.ix_(
        np.linspace(0, height - 1, 25, dtype=int), np.linspace(0, width - 1, 33, dtype=int)
    )
    grids = []
    for across, down in itertools.product(range(1, 6), range(1, 6)):
        tilts = pitch + tilt * ((2 * np.arange(down) + 1) / down - 1)
        asides = -aside * ((2 * np.arange(across) + 1) / across - 1)
        grids.append((np.unique(np.clip(tilts, -_STEEPEST, _STEEPEST)), asides))
    found = _cheapest(seen[some], pitch, grids)
    if found is None:  # it also sees what is behind the foot of its stand, or overhead
        slopes = np.arcsin(np.clip(seen[some][..., 1], -1, 1))
        low, high = np.clip([slopes.min(), slopes.max()], -_OBLIQUE, _OBLIQUE)
        grids = [
            (np.linspace(low, high, down), 2 * math.pi / around * np.arange(around))
            for around, down in itertools.product(range(3, 7), range(1, 5))
        ]
        found = _cheapest(seen[some], pitch, grids)
    assert found is not None  # six times four views see everything
    return found


def _cheapest(
    few: Float64, pitch: float, grids: Sequence[tuple[Float64, Float64]]
) -> tuple[tuple[float, float], ...] | None:
    """Return the views, of grids of how far down and to the left, that need the fewest samples."""
    best, least = None, math.inf
    for tilts, asides in grids:
        axes = tuple((float(t), float(a)) for t in tilts - pitch for a in asides)
        turned = np.stack([_turn(few, pitch, axis) for axis in axes]).reshape(len(axes), -1, 3)
        view = turned[..., 2].argmax(axis=0)
        chosen = turned[view, np.arange(len(view))]
        if chosen[:, 2].min() < math.cos(_FARTHEST):
            continue
        wide, tall = np.abs(chosen[:, :2] / chosen[:, 2:]).max(axis=0)
        samples = len(np.unique(view)) * wide * tall
        if samples < least:
            best, least = axes, samples
    return best


def _turn(one: Float64, pitch: float, axis: tuple[float, float]) -> Float64:
    """Turn level rays into the frame of a view."""
    tilt, aside = pitch + axis[0], axis[1]
    right = math.cos(aside) * one[..., 0] + math.sin(aside) * one[..., 2]
    ahead = math.cos(aside) * one[..., 2] - math.sin(aside) * one[..., 0]
    down = math.cos(tilt) * one[..., 1] - math.sin(tilt) * ahead
    along = math.cos(tilt) * ahead + math.sin(tilt) * one[..., 1]
    return np.stack([right, down, along], axis=-1)


def _steps(view: Array, u: Float64, v: Float64) -> Float64:
    """Return how far neighbouring pixels of one view are from each other in it."""
    found = []
    for axis in (0, 1):
        same = np.diff(view, axis=axis) == 0
        found.append(np.hypot(np.diff(u, axis=axis), np.diff(v, axis=axis))[same])
    return np.concatenate(found)


@_compiled
def _bend(  # type: ignore[no-untyped-def]
    start, stop, views, out, mount, look, sky, index, share, up, width, size, channels
):
    """Bend the pictures start..stop; where views show the sky, shade it by its height."""
    parts, pixels = index.shape[1], index.shape[2]
    packed = np.zeros(size + width + 1, np.uint32)
    words = np.empty((4, pixels), np.uint32)
    total, lift = np.empty((channels, pixels), np.float32), np.empty(pixels, np.float32)
    for image in range(start, stop):
        first = _u8(image * size * channels)
        colours = sky[look[image]]
        clear = _u4(0)
        for c in range(channels):
            clear |= _u4(_i4(colours[1, c] + _HALF)) << _u4(8 * c)
        if channels == 1:
            _pack_squares(views, first, size, width, packed)
            clear = clear * _u4(0x01010101)
        else:
            _pack_colours(views, first, size, packed)
        total[:] = _HALF
        for part in range(parts):
            where, near = index[mount[image], part], share[mount[image], part]
            height = up[mount[image], part]
            _fetch(packed, where, 0, words[0])
            if channels == 3:
                _fetch(packed, where, 1, words[1])
                _fetch(packed, where, width, words[2])
                _fetch(packed, where, width + 1, words[3])
            for c in range(channels):
                rise = colours[0, c] - colours[1, c]
                if channels == 1:
                    _lift_grey(words[0], clear, rise, height, lift)
                    _blend_grey(words[0], near, lift, parts, total[c])
                else:
                    _lift_colour(words, clear, rise, height, lift)
                    _blend_colour(words, _u4(8 * c), near, lift, parts, total[c])
        for c in range(channels):
            begin, step, level = _u8(image * pixels * channels + c), _u8(channels), total[c]
            for i in range(pixels):
                out[begin + _u8(i) * step] = np.uint8(_i4(level[i]))


@_compiled
def _pack_squares(views, first, size, width, packed):  # type: ignore[no-untyped-def]
    """Put a grey sample and its neighbours right, below and both into one word: one look-up."""
    for i in range(size - width - 1):
        at = first + _u8(i)
        above = _u4(views[at]) | (_u4(views[at + _u8(1)]) << _u4(8))
        at += _u8(width)
        packed[i] = above | (_u4(views[at]) << _u4(16)) | (_u4(views[at + _u8(1)]) << _u4(24))


@_compiled
def _pack_colours(views, first, size, packed):  # type: ignore[no-untyped-def]
    """Put red, green and blue of a sample into one word."""
    for i in range(size):
        at = first + _u8(3 * i)
        green = _u4(views[at + _u8(1)]) << _u4(8)
        packed[i] = _u4(views[at]) | green | (_u4(views[at + _u8(2)]) << _u4(16))


@_compiled
def _fetch(packed, where, shift, word):  # type: ignore[no-untyped-def]
    """Look up; apart from the sums, which LLVM then vectorises."""
    for i in range(len(word)):
        word[i] = packed[_u8(where[i] + shift)]


@_compiled
def _lift_grey(word, clear, rise, height, lift):  # type: ignore[no-untyped-def]
    """Compute how much brighter the sky is than it was drawn, 0 where there is something else."""
    for i in range(len(word)):
        share = min(max(height[i], _ZERO), _ONE)
        lift[i] = rise * share if word[i] == clear else _ZERO


@_compiled
def _lift_colour(words, clear, rise, height, lift):  # type: ignore[no-untyped-def]
    a, b, d, e = words[0], words[1], words[2], words[3]
    for i in range(len(lift)):
        share = min(max(height[i], _ZERO), _ONE)
        other = (a[i] ^ clear) | (b[i] ^ clear) | (d[i] ^ clear) | (e[i] ^ clear)
        lift[i] = rise * share if other == _u4(0) else _ZERO


@_inline
def _mean(a, b, d, e, near):  # type: ignore[no-untyped-def]
    """Blend a sample with those right, below and both, by shares in 256ths."""
    across = _f4(_i4(near & _i4(255))) * _f4(1 / 256)
    down = _f4(_i4(near >> _i4(8))) * _f4(1 / 256)
    above = _f4(_i4(a)) + across * (_f4(_i4(b)) - _f4(_i4(a)))
    below = _f4(_i4(d)) + across * (_f4(_i4(e)) - _f4(_i4(d)))
    return above + down * (below - above)


@_compiled
def _blend_grey(word, near, lift, parts, total):  # type: ignore[no-untyped-def]
    scale, byte = _ONE / _f4(parts), _u4(255)
    for i in range(len(total)):
        w = word[i]
        b, d = (w >> _u4(8)) & byte, (w >> _u4(16)) & byte
        total[i] += scale * (_mean(w & byte, b, d, w >> _u4(24), near[i]) + lift[i])


@_compiled
def _blend_colour(words, shift, near, lift, parts, total):  # type: ignore[no-untyped-def]
    scale, byte = _ONE / _f4(parts), _u4(255)
    a, b, d, e = words[0], words[1], words[2], words[3]
    for i in range(len(total)):
        value = _mean(
            (a[i] >> shift) & byte, (b[i] >> shift) & byte, (d[i] >> shift) & byte,
            (e[i] >> shift) & byte, near[i],
        )  # fmt: skip
        total[i] += scale * (value + lift[i])
