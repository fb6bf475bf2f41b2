"""Walls along the borders in the camera's image: cast in the plan, painted row by row.

Where the camera does not roll, a point of the image has a place in a level image too: how far aside
and how far up a ray goes for each metre ahead. There upright walls stand on columns. So walls are
met once for each column, in two dimensions, and each pixel is asked which of them cover it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numba import njit

from hotlap.series import prefer_512_bits
from hotlap.sim.lidar import track_walls, wall_chains
from hotlap.sim.look import Look
from hotlap.threads import spread
from hotlap.track import Track
from hotlap.types import Array, Float32

__all__ = ["Walls", "hide_row", "is_before", "is_near", "level_rows"]

_compiled = njit(cache=True, nogil=True, fastmath=True, error_model="numpy")
_inline: Any = njit(fastmath=True, error_model="numpy", forceinline=True)
"""For short loops: to hand over an array costs as much as ten pixels."""
_f4, _i4, _i8, _u8 = np.float32, np.int32, np.int64, np.uint64
_ZERO, _HALF, _ONE = _f4(0), _f4(0.5), _f4(1)
_NEAR = _f4(0.02)
"""Nothing nearer to the lens than this is met [m]; as for boxes."""
_LEAST_AHEAD = 0.08
"""Rows whose rays go ahead by less than this, for each focal length, show no walls."""
_BEAMS_MAX = 16
"""Most columns of the level image, in columns of the image."""
_TAPS = 2
"""Columns of the level image in the narrowest column of the image."""
_LAYERS = 6
"""Walls behind each other that are remembered where a lens looks over the nearest one."""
_TOGETHER = 4
"""Rows that share what is met, but not its distance."""
_CHUNK = 16
"""Pixels of a row that are judged together."""
_BLOCK = 8
"""Columns of the level image that are judged together."""
_CLEAR, _FULL, _MIXED = 0, 1, 2
_SUN = (math.cos(0.6), math.sin(0.6))
_LIGHT = (0.76, 0.2)
"""Brightness of a wall along the light, and how much more or less of one across it."""


def level_rows(width: int, height: int, focal: float, pitch: float) -> tuple[Float32, Float32]:
    """Return where the rows of an image lie in a level image, and the columns of that.

    With u to the right and v down from the middle, in focal lengths, a ray of pitch p goes
    cos p - v sin p ahead, u aside and sin p + v cos p down.

    Returns:
        (H, 6): how far aside for each metre ahead the middle of the first column is, and from
        column to column; how far up for each metre ahead the row's middle is, and how much the row
        covers of that; metres along the axis for each metre ahead; whether walls are seen in it.
        (4,): number of columns, where the first is, columns for each metre aside, and its inverse.
    """
    sine, cosine = math.sin(pitch), math.cos(pitch)
    edge = (np.arange(height + 1) - height / 2) / focal
    v = (edge[:-1] + edge[1:]) / 2
    # Both edges must lie ahead too: a row over the foot point of the lens has no place.
    ahead = np.minimum(cosine - edge[:-1] * sine, cosine - edge[1:] * sine)
    seen = ahead > _LEAST_AHEAD
    ahead = np.where(seen, cosine - v * sine, 1.0)
    rows = np.zeros((height, 6))
    rows[:, 0] = (0.5 - width / 2) / focal / ahead
    rows[:, 1] = 1 / focal / ahead
    rows[:, 2] = -(sine + v * cosine) / ahead
    # d/dv of the line above is -1 / ahead^2
    rows[:, 3] = 1 / focal / ahead**2
    rows[:, 4] = 1 / ahead
    rows[:, 5] = seen
    step = rows[:, 1].min() / _TAPS
    reach = width / 2 * rows[seen, 1].max(initial=step) + step
    step = max(step, 2 * reach / (_BEAMS_MAX * width))
    beams = math.ceil(2 * reach / step) + 1
    return rows.astype(np.float32), np.array([beams, -reach, 1 / step, step], np.float32)


class Walls:
    """The walls of some tracks in some looks.

    They are those of `lidar.track_walls` with the look's offset, so a LIDAR of the same
    `wall_offset` measures to them.
    """

    def __init__(
        self,
        tracks: Sequence[Track],
        looks: Sequence[Look],
        luminance: tuple[float, float, float] | None,
        lenses: Float32,
        rows: Float32,
        beams: Float32,
        *,
        threads: int,
    ) -> None:
        self._lenses, self._rows, self._beams, self._threads = lenses, rows, beams, threads
        offsets = sorted({look.wall_offset for look in looks if look.wall_height})
        self.stand = bool(offsets)
        """Whether any look has walls."""
        colours = np.array([look.wall for look in looks], float)
        if luminance is not None:
            colours[:, 0] = colours @ luminance
        # Of each look: colour, height [m], and which chains are its.
        sets = [offsets.index(look.wall_offset) if look.wall_height else 0 for look in looks]
        tall = [look.wall_height for look in looks]
        self._looks = np.column_stack([colours, tall, np.array(sets) * len(tracks)]).astype(_f4)
        self._corners, self._circles, self._first = wall_chains(
            [track_walls(track, offset) for offset in offsets for track in tracks]
        )
        over = any(0 < look.wall_height < lenses[:, 3].max() for look in looks)
        self._layers = _LAYERS if over else 1

    def meet(
        self, x: Array, y: Array, yaw: Array, track: Array, look: Array, view: Array,
        *, through: tuple[Float32, Float32] | None = None,
    ) -> Float32:  # fmt: skip
        """Find what M cameras see of the walls; `view` says which lens each one has.

        `through`: lenses and the columns of their level images, other than those of the pictures.

        Returns:
            (M, 3, L, K), for the nearest L walls in each of K columns: the inverse of how far ahead
            it is [1/m], 0 for none; how that grows to the right, for each metre aside a metre
            ahead; its brightness. M is 0 where no look has walls.
        """
        lenses, beams = through or (self._lenses, self._beams)
        count = len(x) if self.stand else 0
        met = np.empty((count, 3, self._layers, int(beams[:, 0].max())), np.float32)
        spread(
            _meet, count, met, x, y, yaw, track, look, view,
            self._looks, lenses, beams, self._corners, self._circles, self._first,
            block=1, threads=self._threads,
        )  # fmt: skip
        return met

    def paint(
        self, out: Array, shape: tuple[int, int, int], look: Array, view: Array, met: Float32
    ) -> None:
        """Paint what was met over the images, flat (M * H * W * C) uint8."""
        spread(
            _paint, len(met), out, *shape, look, view, met,
            self._looks, self._lenses, self._rows, self._beams,
            block=1, threads=self._threads,
        )  # fmt: skip

    @property
    def heights(self) -> Float32:
        """(looks,) height of the walls [m]."""
        return np.ascontiguousarray(self._looks[:, 3])


@_compiled
def _meet(  # type: ignore[no-untyped-def]
    start, stop, met, x, y, yaw, track, look, view, looks, lenses, spans, corners, circles, first
):
    """Meet the walls of the images start..stop."""
    size = corners.shape[2]
    ahead, aside = np.empty(size, np.float32), np.empty(size, np.float32)
    at = np.empty(size, np.float32)
    for image in range(start, stop):
        lens, beams = lenses[view[image]], spans[view[image]]
        last = _i8(beams[0]) - 1
        low, per_step, step = beams[1], beams[2], beams[3]
        wide = max(-low, _ONE)
        seen = met[image]
        seen[:] = _ZERO
        paint = looks[look[image]]
        if paint[3] <= _ZERO:
            continue
        # A wall that is higher than the lens hides all walls behind it.
        layers = 1 if paint[3] >= lens[3] else met.shape[2]
        c, s = _f4(math.cos(yaw[image])), _f4(math.sin(yaw[image]))
        ox, oy = x[image] + lens[4] * c, y[image] + lens[4] * s
        sun_x, sun_y = c * _f4(_SUN[0]) + s * _f4(_SUN[1]), c * _f4(_SUN[1]) - s * _f4(_SUN[0])
        which = _i8(paint[4]) + track[image]
        for chain in range(first[which], first[which + 1]):
            dx, dy, radius = circles[0, chain] - ox, circles[1, chain] - oy, circles[2, chain]
            middle, beside = c * dx + s * dy, abs(c * dy - s * dx)
            # The sides of the view: beside <= wide * ahead, moved out by the radius.
            if middle < _NEAR - radius or beside - wide * middle > (_ONE + wide) * radius:
                continue
            for j in range(size):
                dx, dy = corners[chain, 0, j] - ox, corners[chain, 1, j] - oy
                ahead[j], aside[j] = c * dx + s * dy, s * dx - c * dy
                at[j] = (aside[j] / max(ahead[j], _NEAR) - low) * per_step
            for j in range(size - 1):
                ax, ay, bx, by = ahead[j], aside[j], ahead[j + 1], aside[j + 1]
                if max(ax, bx) < _NEAR:
                    continue
                from_, to = at[j], at[j + 1]
                ex, ey = bx - ax, by - ay
                if ax < _NEAR:
                    from_ = ((ay + (_NEAR - ax) / ex * ey) / _NEAR - low) * per_step
                if bx < _NEAR:
                    to = ((ay + (_NEAR - ax) / ex * ey) / _NEAR - low) * per_step
                # p + w e = D (1, t), so 1 / D = (e_y - t e_x) / (p x e): linear in t.
                across = ax * ey - ay * ex
                if abs(across) < _f4(1e-9) * (abs(ex) + abs(ey)):
                    continue
                over = _ONE / across
                slope = -ex * over
                # Half open, so that what two segments share is met once.
                k0 = _i8(math.ceil(max(min(from_, to), _ZERO)))
                k1 = _i8(math.ceil(min(max(from_, to), _f4(last + 1))))
                if k0 >= k1:
                    continue
                length = math.sqrt(ex * ex + ey * ey)
                # The side that is seen: its normal points to the lens.
                turn = _ONE if across > _ZERO else -_ONE
                light = _f4(_LIGHT[1]) * turn * (-ey * sun_x - ex * sun_y) / length
                light += _f4(_LIGHT[0])
                base = ey * over + slope * low
                for k in range(k0, k1):
                    inverse = base + slope * step * _f4(k)
                    if layers == 1:
                        if inverse > seen[0, 0, _u8(k)]:
                            seen[0, 0, _u8(k)] = inverse
                            seen[1, 0, _u8(k)] = slope
                            seen[2, 0, _u8(k)] = light
                    else:
                        _insert(seen, layers, k, inverse, slope, light)


@_compiled
def _insert(seen, layers, k, inverse, slope, light):  # type: ignore[no-untyped-def]
    """Put a wall among those of a column, the nearest first."""
    for layer in range(layers):
        if inverse > seen[0, layer, k]:
            inverse, seen[0, layer, k] = seen[0, layer, k], inverse
            slope, seen[1, layer, k] = seen[1, layer, k], slope
            light, seen[2, layer, k] = seen[2, layer, k], light


# Rows of the scratch, each with a number for every pixel: its tone where a wall covers all of it;
# then from _SEEN on, for each layer and half of the pixel, a and b of the inverse distance a + b t,
# and the brightness.
_FLAT, _SEEN = 0, 1


@_compiled
def _paint(  # type: ignore[no-untyped-def]
    start, stop, out, height, width, channels, look, view, met, looks, lenses, levels, spans
):
    """Paint the walls of the images start..stop, in each column the farthest first."""
    prefer_512_bits()
    columns = met.shape[3]
    count = (width + _CHUNK - 1) // _CHUNK
    m = np.empty((_SEEN + 6 * met.shape[2], count * _CHUNK), np.float32)
    blocks = np.empty((3, (columns + _BLOCK - 1) // _BLOCK), np.float32)
    extent, mix = np.empty((count, 3), np.float32), np.empty(4 * _CHUNK, np.float32)
    fetched = np.empty(count, np.int64)
    for image in range(start, stop):
        rows, beams, low = levels[view[image]], spans[view[image]], lenses[view[image], 3]
        which = _u8(look[image])
        tall = looks[which, 3] - low
        layers = 1 if tall >= _ZERO else met.shape[2]
        nearest = _bound(met, image, beams, blocks)
        if nearest <= _ZERO:
            continue
        highest, lowest = max(tall, _ZERO) * nearest, -low * nearest
        held, begin0, step0 = -_TOGETHER, _ZERO, _ZERO
        for row in range(height):
            up, deep, begin, step = rows[row, 2], rows[row, 3], rows[row, 0], rows[row, 1]
            if rows[row, 5] == _ZERO or up - deep > highest or up + deep < lowest:
                continue
            if row >= held + _TOGETHER:
                held = row
                middle = min(row + _TOGETHER // 2, height - 1)
                middle = middle if rows[middle, 5] != _ZERO else row
                begin0, step0 = rows[middle, 0], rows[middle, 1]
                _measure(blocks, begin0, step0, beams, extent)
                fetched[:] = _CLEAR
            o = (image * height + row) * width * channels
            covered = 0  # pixels to the left of a chunk that are all wall, and not yet painted
            for chunk in range(count + 1):
                left, kind = chunk * _CHUNK, _CLEAR
                if chunk < count:
                    far, near = extent[chunk, 0], extent[chunk, 1]
                    kind = _judge(far, near, extent[chunk, 2] * step, up, deep, tall, low)
                    if kind > fetched[chunk]:
                        _fetch(met, image, layers, kind, begin0, step0, beams, left, m)
                        fetched[chunk] = kind
                if kind == _FULL:
                    covered += _CHUNK
                    continue
                if covered:
                    end = min(left, width)
                    if channels == 1:
                        _fill(out, o, 1, 0, left - covered, end, m, looks, which)
                    else:
                        for c in range(3):
                            _fill(out, o, 3, c, left - covered, end, m, looks, which)
                    covered = 0
                if kind == _MIXED:
                    end = min(left + _CHUNK, width)
                    _cover(m, mix, layers, left, begin, step, up, deep, tall, low)
                    if channels == 1:
                        _blend(out, o, 1, 0, left, end, mix, looks, which)
                    else:
                        for c in range(3):
                            _blend(out, o, 3, c, left, end, mix, looks, which)


@_compiled
def _bound(met, image, beams, blocks):  # type: ignore[no-untyped-def]
    """Find what blocks of columns have of the nearest walls; return the greatest inverse of all.

    `blocks`: of each the least and the greatest inverse, and the greatest slope.
    """
    columns, half, nearest = met.shape[3], _HALF * beams[3], _ZERO
    for block in range(blocks.shape[1]):
        far, near, steep = _f4(1e9), _ZERO, _ZERO
        for k in range(block * _BLOCK, min(block * _BLOCK + _BLOCK, columns)):
            inverse, slope = met[image, 0, 0, k], abs(met[image, 1, 0, k])
            far, near = min(far, inverse - slope * half), max(near, inverse + slope * half)
            steep = max(steep, slope)
        blocks[0, block], blocks[1, block], blocks[2, block] = far, near, steep
        nearest = max(nearest, near)
    return nearest


@_compiled
def _measure(blocks, begin, step, beams, extent):  # type: ignore[no-untyped-def]
    """Find what the chunks of a row have of the nearest walls.

    `extent`: of each chunk the least and the greatest inverse, and 2.5 times the greatest slope:
    rows that share this differ by less than 1.5 columns.
    """
    last = int(beams[0]) - 1
    for chunk in range(len(extent)):
        first = begin + step * (_f4(chunk * _CHUNK) - _HALF)
        k0 = int((first - beams[1]) * beams[2])
        k1 = int((first + step * _f4(_CHUNK) - beams[1]) * beams[2] + _ONE)
        far, near, steep = _f4(1e9), _ZERO, _ZERO
        for block in range(max(k0, 0) // _BLOCK, min(k1, last) // _BLOCK + 1):
            b = _u8(block)
            far, near = min(far, blocks[0, b]), max(near, blocks[1, b])
            steep = max(steep, blocks[2, b])
        extent[chunk, 0], extent[chunk, 1], extent[chunk, 2] = far, near, _f4(2.5) * steep


@_inline
def _fetch(  # type: ignore[no-untyped-def]
    met, image, layers, kind, begin, step, beams, left, m
):
    """Fetch what a chunk needs to be painted: tones, or all that is met in its columns."""
    last = beams[0] - _ONE
    for j in range(_CHUNK):
        i = _u8(left + j)
        m[_FLAT, i] = _ZERO
    for tap in range(2):
        first = begin + step * ((_f4(tap) - _HALF) * _HALF + _f4(left))
        for j in range(_CHUNK):
            i = _u8(left + j)
            b = (first + step * _f4(_i4(j)) - beams[1]) * beams[2] + _HALF
            k = _u8(_i4(min(b, last)))
            m[_FLAT, i] += _HALF * met[image, 2, 0, k]
            if kind == _MIXED:
                for layer in range(layers):
                    o = _u8(_SEEN + 6 * layer + 3 * tap)
                    slope = met[image, 1, layer, k]
                    m[o, i] = met[image, 0, layer, k] - slope * (beams[1] + _f4(_i4(k)) * beams[3])
                    m[o + _u8(1), i], m[o + _u8(2), i] = slope, met[image, 2, layer, k]


@_inline
def _judge(far, near, steep, up, deep, tall, low):  # type: ignore[no-untyped-def]
    """Tell whether the nearest walls cover all of a row of a chunk, nothing, or perhaps a part."""
    margin, under = deep + abs(tall) * steep, deep + low * steep
    if up - margin > max(tall, _ZERO) * near or up + under < -low * near:
        return _CLEAR
    least = tall * (far if tall > _ZERO else near)
    return _FULL if up + margin < least and up - under > -low * far else _MIXED


@_inline
def _cover(m, mix, layers, chunk, begin, step, up, deep, tall, low):  # type: ignore[no-untyped-def]
    """Put the walls over what a chunk has, the farthest first.

    `mix`: share and tone of the left halves of its pixels, then of the right ones.
    """
    square, slide = deep * deep, step * _HALF
    for j in range(4 * _CHUNK):
        mix[_u8(j)] = _ZERO
    for tap in range(2):
        first = begin + step * ((_f4(tap) - _HALF) * _HALF + _f4(chunk))
        for k in range(layers):
            o = _u8(_SEEN + 6 * (layers - 1 - k) + 3 * tap)
            rises, lights = o + _u8(1), o + _u8(2)
            if tap == 0:
                _layer(mix, 0, m, o, rises, lights, chunk, first, step,
                       square, slide, up, tall, low)  # fmt: skip
            else:
                _layer(mix, 2 * _CHUNK, m, o, rises, lights, chunk, first, step,
                       square, slide, up, tall, low)  # fmt: skip


@_inline
def _layer(  # type: ignore[no-untyped-def]
    mix, into, m, o, rises, lights, chunk, first, step, square, slide, up, tall, low
):
    for j in range(_CHUNK):
        i = _u8(chunk + j)
        rise = m[rises, i]
        q = m[o, i] + rise * (first + step * _f4(_i4(j)))
        over, under = tall * rise * slide, low * rise * slide
        top = (tall * q - up) / math.sqrt(square + over * over)
        bottom = (low * q + up) / math.sqrt(square + under * under)
        c = min(max(_HALF + top, _ZERO), _ONE) + min(max(_HALF + bottom, _ZERO), _ONE)
        c = max(c - _ONE, _ZERO)
        share, tone = mix[_u8(into + j)], mix[_u8(into + _CHUNK + j)]
        mix[_u8(into + j)] = share + c * (_ONE - share)
        mix[_u8(into + _CHUNK + j)] = tone + c * (m[lights, i] - tone)


@_inline
def _fill(out, o, channels, c, left, end, m, looks, which):  # type: ignore[no-untyped-def]
    """Paint pixels that are all wall in one channel."""
    colour = looks[which, c]
    for j in range(left, end):
        value = m[_u8(_FLAT), _u8(j)] * colour + _HALF
        out[_u8(o + j * channels + c)] = np.uint8(_i4(value))


@_inline
def _blend(out, o, channels, c, left, end, mix, looks, which):  # type: ignore[no-untyped-def]
    """Paint a chunk that is part wall in one channel."""
    colour = looks[which, c]
    for j in range(end - left):
        clear = _ONE - _HALF * (mix[_u8(j)] + mix[_u8(2 * _CHUNK + j)])
        lit = _HALF * (mix[_u8(_CHUNK + j)] + mix[_u8(3 * _CHUNK + j)]) * colour
        at = _u8(o + (left + j) * channels + c)
        out[at] = np.uint8(_i4(_f4(out[at]) * clear + lit + _HALF))


@_compiled
def hide_row(  # type: ignore[no-untyped-def]
    cover, begin, step, up, deep, base, rise, seen, beams, tall, low, first, last
):
    """Take from a row of a box's side what walls before it cover.

    `base + rise t` is the inverse of how far ahead the side is at t metres aside a metre ahead.
    """
    for column in range(first, last):
        if cover[column] > _ZERO:
            t = begin + step * _f4(column)
            k = _u8(_i8((t - beams[1]) * beams[2] + _HALF))
            off = t - beams[1] - _f4(k) * beams[3]
            behind = (base + rise * t) * _f4(1.0001)
            for layer in range(seen.shape[1]):
                q = seen[0, layer, k] + seen[1, layer, k] * off
                if seen[0, layer, k] > _ZERO and q > behind:
                    over, under = seen[1, layer, k] * step * tall, seen[1, layer, k] * step * low
                    top = (tall * q - up) / math.sqrt(deep * deep + over * over)
                    bottom = (low * q + up) / math.sqrt(deep * deep + under * under)
                    c = min(max(_HALF + top, _ZERO), _ONE) - _ONE
                    c += min(max(_HALF + bottom, _ZERO), _ONE)
                    cover[column] *= _ONE - max(c, _ZERO)


@_compiled
def is_near(seen, beams, rows, left, right, top, bottom, inverse):  # type: ignore[no-untyped-def]
    """Tell whether any wall in a part of the image is nearer than 1 / `inverse` metres ahead."""
    low, high = _f4(1e9), _f4(-1e9)
    for row in range(top, bottom):
        if rows[row, 5] != _ZERO:
            low = min(low, rows[row, 0] + rows[row, 1] * _f4(left - 1))
            high = max(high, rows[row, 0] + rows[row, 1] * _f4(right))
    k0 = _i8(max((low - beams[1]) * beams[2], _ZERO))
    k1 = _i8(min((high - beams[1]) * beams[2] + _ONE, beams[0] - _ONE))
    nearest = _ZERO
    for k in range(k0, k1 + 1):
        nearest = max(nearest, seen[0, 0, _u8(k)])
    return nearest > inverse


@_compiled
def is_before(seen, beams, rows, left, right, row, base, rise):  # type: ignore[no-untyped-def]
    """Tell whether a wall may be before a box's side in some columns of a row; see `hide_row`."""
    if left >= right or rows[row, 5] == _ZERO:
        return False
    begin, step = rows[row, 0], rows[row, 1]
    low, high = begin + step * _f4(left), begin + step * _f4(right - 1)
    k0 = _i8((low - beams[1]) * beams[2] + _HALF)
    k1 = _i8((high - beams[1]) * beams[2] + _HALF)
    nearest, half = _ZERO, _HALF * beams[3]
    for k in range(k0, k1 + 1):
        nearest = max(nearest, seen[0, 0, _u8(k)] + abs(seen[1, 0, _u8(k)]) * half)
    return nearest > min(base + rise * low, base + rise * high)
