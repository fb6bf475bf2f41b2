"""Floors that are more than a road and two lines: bands across the road, kerbs, wear, light, shade.

They are painted from the same field as the plain ones of `road`, but pixel by pixel, with as much
filtering; a batch whose looks are all plain never comes here.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numba import njit

from hotlap.series import prefer_512_bits
from hotlap.sim.look import Look
from hotlap.sim.walls import FULL
from hotlap.types import Array, Float32

__all__ = ["floors", "paint_floor"]

_compiled = njit(cache=True, nogil=True, fastmath=True, error_model="numpy")
_inline: Any = njit(fastmath=True, error_model="numpy", forceinline=True)
"""For chunks: to hand over an array costs as much as ten pixels."""
_f4, _i4, _i8, _u4, _u8 = np.float32, np.int32, np.int64, np.uint32, np.uint64
_ZERO, _HALF, _ONE = _f4(0), _f4(0.5), _f4(1)
_CHUNK = 16
"""Pixels painted together: one array with constant parts, so that LLVM can vectorise."""
_FIXED = 4
"""Rows of a floor before its bands."""
_TAPS = 8
"""Most points of a pixel, from its near edge to its far one, at which light and shade are asked."""
_MEAN = 0.1789
"""Mean of light and of shade over the floor, where they are finer than that."""
_LEAST = 1e-3
"""Less paint than that [pixels] in a chunk is not asked how worn it is."""
_GRAIN = 0.7
"""Size of the spots where paint is gone, in line widths."""
# Parts of the scratch, 16 numbers each: signed offset, half road, inverse width of the pixel across
# the road; share of the dash; shares beyond the inner edges of lines, the borders and the kerbs;
# paint that is left; light and shade; place on the floor; colour.
_N, _HALF_ROAD, _ACROSS, _DASH, _LINE, _KERB, _GROUND, _LEFT, _LIT, _DARK, _X, _Y, _COLOUR = (
    k * _CHUNK for k in range(13)
)
_SCRATCH = _COLOUR + _CHUNK


def floors(looks: Sequence[Look], luminance: tuple[float, float, float] | None) -> Float32:
    """Return what `paint_floor` needs of each look, (looks, 4 + 2 B, 3) float32.

    Rows: kerb; width of the kerb [m], wear, grain of the wear [m]; light, shade, patches for each
    metre; number of bands, pattern, whether this look needs `paint_floor`. Then for each band its
    colour; its left and right edge, from 1 at the left border to -1 at the right one.
    """
    most = max(len(look.bands) for look in looks)
    table = np.zeros((len(looks), _FIXED + 2 * most, 3))

    def colour(given: tuple[int, int, int]) -> Array:
        channels = np.array(given, float)
        if luminance is not None:
            channels[0] = channels @ luminance
        return channels

    for row, look in zip(table, looks, strict=True):
        grain = _GRAIN * max(look.border_width, look.dash_width, 1e-3)
        row[0] = colour(look.kerb)
        row[1] = look.kerb_width, look.wear, grain
        row[2] = look.light, look.shade, 1 / look.patch_size
        row[3] = len(look.bands), look.pattern % 65521, not look.plain
        for k, (start, stop, painted) in enumerate(look.bands):
            row[_FIXED + 2 * k] = colour(painted)
            row[_FIXED + 2 * k + 1, :2] = 1 - 2 * start, 1 - 2 * stop
    return table.astype(np.float32)


@_compiled
def paint_floor(  # type: ignore[no-untyped-def]
    start, stop, out, width, channels, x, y, yaw, track, look, view, every_row, every_sky,
    cover, looks, table, field, frames, sizes,
):  # fmt: skip
    """Draw floor and sky of the images start..stop whose look needs it.

    Chunks that are `FULL` in `cover` (M, H, chunks) are left as they are, as walls will hide them;
    M is 0 where there are no walls.
    """
    prefer_512_bits()
    height = every_row.shape[1]
    m = np.zeros(_SCRATCH, np.float32)
    low, high = np.empty(_CHUNK, np.int32), np.empty(_CHUNK, np.int32)
    right, top = np.empty(_CHUNK, np.float32), np.empty(_CHUNK, np.float32)
    for image in range(start, stop):
        which = look[image]
        paint, floor = looks[which], table[which]
        if floor[3, 2] == _ZERO:
            continue
        rows, sky = every_row[view[image]], every_sky[view[image]]
        frame, size = frames[track[image]], sizes[track[image]]
        cosine, sine = _f4(math.cos(yaw[image])), _f4(math.sin(yaw[image]))
        lens_x = (x[image] + cosine * rows[0, 7] - frame[0]) * frame[2]
        lens_y = (y[image] + sine * rows[0, 7] - frame[1]) * frame[2]
        ex, ey = cosine * frame[2], sine * frame[2]
        for row in range(height):
            o = (image * height + row) * width * channels
            share = rows[row, 4]
            for column in range(0, width, _CHUNK):
                if len(cover) and cover[image, row, column // _CHUNK] == FULL:
                    continue
                pixels = min(width - column, _CHUNK)
                if share > _ZERO:
                    _fetch_chunk(
                        lens_x, lens_y, ex, ey, rows, row, column, field, frame, size,
                        low, high, right, top,
                    )  # fmt: skip
                    _locate_chunk(
                        m, rows, row, column, ex, ey, paint, floor, frame, size,
                        low, high, right, top,
                    )  # fmt: skip
                    _light_chunk(m, rows, row, column, cosine, sine, floor)
                for c in range(channels):
                    above = paint[5, c] + (paint[4, c] - paint[5, c]) * sky[row]
                    if share > _ZERO:
                        _colour_chunk(m, paint, floor, c)
                        for j in range(pixels):
                            value = above + share * (m[_u8(_COLOUR + j)] - above) + _HALF
                            out[_u8(o + (column + j) * channels + c)] = np.uint8(_i4(value))
                    else:
                        for j in range(pixels):
                            out[_u8(o + (column + j) * channels + c)] = np.uint8(_i4(above + _HALF))


@_inline
def _fetch_chunk(  # type: ignore[no-untyped-def]
    lens_x, lens_y, ex, ey, rows, row, column, field, frame, size, low, high, right, top
):
    """Find the texels under a chunk's pixels, and where in them these are."""
    columns, last, highest = _i4(size[1]), _f4(size[1] - 1), _f4(size[2] - 1)
    step, ahead = rows[row, 2], rows[row, 0]
    aside = rows[row, 1] + step * _f4(column)
    u0, v0 = lens_x + ex * ahead + ey * aside, lens_y + ey * ahead - ex * aside
    for j in range(_CHUNK):
        u, v = u0 + ey * step * _f4(_i4(j)), v0 - ex * step * _f4(_i4(j))
        right[j], top[j] = u, v
        low[j] = _i4(min(max(v, _ZERO), highest)) * columns + _i4(min(max(u, _ZERO), last))
    for j in range(_CHUNK):
        word = field[_u8(size[0] + low[j])]
        low[j], high[j] = _i4(word), _i4(word >> 32)


@_inline
def _locate_chunk(  # type: ignore[no-untyped-def]
    m, rows, row, column, ex, ey, paint, floor, frame, size, low, high, right, top
):
    """Compute where across the road a chunk's pixels are, and how much of each thing is in them."""
    reach = _ONE / (frame[2] * _f4(127))
    cosine, sine = ex * reach, ey * reach
    step, long = rows[row, 2], rows[row, 3]
    line, dash = paint[6, 0], paint[7, 0] * _HALF
    kerb = floor[1, 0]
    last, highest = _f4(size[1] - 1), _f4(size[2] - 1)
    period = paint[8, 0] + paint[9, 0]
    duty = paint[8, 0] / period
    frequency = max(np.floor(frame[6] / period + _HALF), _ONE) / frame[6]
    for j in range(_CHUNK):
        a, b = low[j], high[j]
        nx, ny = _f4(_i4(_i4(a << 16) >> 24)), _f4(_i4(_i4(a << 24) >> 24))
        u, v = right[j], top[j]
        # Texels beyond the field repeat its edge.
        i = np.floor(min(max(u, _ZERO), last)) + _HALF
        k = np.floor(min(max(v, _ZERO), highest)) + _HALF
        m[_X + j], m[_Y + j] = u / frame[2], v / frame[2]
        u, v = u - i, v - k
        d = _f4(_i4(a >> 16)) * frame[3] + (u * nx + v * ny) * reach
        s = _f4(_i4((b >> 16) & 0xFFFF)) * frame[5] + (u * ny - v * nx) * reach
        half = _f4(_i4((b >> 8) & 0xFF)) * frame[4]
        outside = (b & 1) != 0
        offset = half + d if outside else abs(d)
        sign = (-_ONE if (b & 2) != 0 else _ONE) if outside else (_ONE if d >= _ZERO else -_ONE)
        toward, aside = cosine * nx + sine * ny, sine * nx - cosine * ny
        tilt = rows[row, 5] + rows[row, 6] * _f4(column + _i4(j))
        p, q = step * aside, long * (toward + tilt * aside)
        inverse = _ONE / math.sqrt(p * p + q * q + _f4(1e-12))
        p, q = step * toward, long * (aside - tilt * toward)
        wide = math.sqrt(p * p + q * q + _f4(1e-12)) * frequency
        m[_N + j], m[_HALF_ROAD + j], m[_ACROSS + j] = sign * offset, half, inverse
        h = max(half - line, _ZERO)
        within = min(max(_HALF - (offset - h) * inverse, _ZERO), _ONE)
        m[_LINE + j] = _ONE + _HALF - within - min((offset + h) * inverse, _HALF)
        within = min(max(_HALF - (offset - half) * inverse, _ZERO), _ONE)
        m[_KERB + j] = _ONE + _HALF - within - min((offset + half) * inverse, _HALF)
        h = half + kerb
        within = min(max(_HALF - (offset - h) * inverse, _ZERO), _ONE)
        m[_GROUND + j] = _ONE + _HALF - within - min((offset + h) * inverse, _HALF)
        c = min(max((dash - offset) * inverse, -_HALF), _HALF) + min(
            (dash + offset) * inverse, _HALF
        )
        rear = s * frequency - wide * _HALF
        fore = rear + wide
        b0, b1 = np.floor(rear), np.floor(fore)
        painted = (b1 - b0) * duty + min(fore - b1, duty) - min(rear - b0, duty)
        m[_DASH + j] = c * painted / wide


@_inline
def _noise(x, y, seed):  # type: ignore[no-untyped-def]
    """Return smooth noise in [0, 1], its mean 1/2: one number at each whole (x, y), blended."""
    fx, fy = np.floor(x), np.floor(y)
    ix, iy = _i4(fx), _i4(fy)
    u, v = x - fx, y - fy
    u, v = u * u * (_f4(3) - _f4(2) * u), v * v * (_f4(3) - _f4(2) * v)
    a, b = _number(ix, iy, seed), _number(ix + 1, iy, seed)
    c, d = _number(ix, iy + 1, seed), _number(ix + 1, iy + 1, seed)
    low, high = a + u * (b - a), c + u * (d - c)
    return low + v * (high - low)


@_inline
def _number(ix, iy, seed):  # type: ignore[no-untyped-def]
    h = _u4(_u4(ix) * _u4(0x9E3779B1) + _u4(iy) * _u4(0x85EBCA77) + _u4(seed) * _u4(0xC2B2AE3D))
    h = _u4((h ^ (h >> _u4(15))) * _u4(0x2C1B3C6D))
    h = _u4((h ^ (h >> _u4(12))) * _u4(0x297A2D39))
    return _f4(_i4((h ^ (h >> _u4(15))) & _u4(0xFFFF))) * _f4(1 / 65535)


@_inline
def _light_chunk(m, rows, row, column, cosine, sine, floor):  # type: ignore[no-untyped-def]
    """Compute wear, light and shade of a chunk; what is finer than a pixel becomes its mean."""
    pixel = max(rows[row, 2], rows[row, 3])
    wear, grain = floor[1, 1], floor[1, 2]
    seed = _i4(floor[3, 1])
    paint = _ZERO
    if wear > _ZERO:
        for j in range(_CHUNK):
            paint += m[_DASH + j] + m[_LINE + j] - m[_KERB + j]
    if paint > _LEAST:
        clear, each = min(grain / pixel, _ONE), _ONE / grain
        for j in range(_CHUNK):
            spots = _noise(m[_X + j] * each, m[_Y + j] * each, seed) - _HALF
            left = min(max(_ONE - wear - _f4(2) * wear * clear * spots, _ZERO), _ONE)
            m[_DASH + j] *= left
            m[_LEFT + j] = left
    else:
        for j in range(_CHUNK):
            m[_LEFT + j] = _ONE
    if floor[2, 0] > _ZERO or floor[2, 1] > _ZERO:
        each, long = floor[2, 2], rows[row, 3]
        taps: Any = min(max(_i4(np.ceil(_f4(4) * long * each)), 1), _TAPS)
        clear = min(_ONE / (max(rows[row, 2], long / _f4(taps)) * each), _ONE) / _f4(taps)
        mean = (_ONE - clear * _f4(taps)) * _f4(_MEAN)
        for j in range(_CHUNK):
            m[_LIT + j], m[_DARK + j] = mean, mean
        for tap in range(taps):
            off = long * each * ((_f4(tap) + _HALF) / _f4(taps) - _HALF)
            for j in range(_CHUNK):
                tilt = rows[row, 5] + rows[row, 6] * _f4(column + _i4(j))
                px = m[_X + j] * each + off * (cosine + tilt * sine)
                py = m[_Y + j] * each + off * (sine - tilt * cosine)
                patch = _f4(4) * (_noise(px, py, seed + 1) - _HALF)
                m[_LIT + j] += clear * min(max(patch - _f4(0.4), _ZERO), _ONE)
                m[_DARK + j] += clear * min(max(-patch - _f4(0.4), _ZERO), _ONE)
        for j in range(_CHUNK):
            m[_LIT + j] *= floor[2, 0]
            m[_DARK + j] = _ONE - floor[2, 1] * m[_DARK + j]
    else:
        for j in range(_CHUNK):
            m[_LIT + j], m[_DARK + j] = _ZERO, _ONE


@_inline
def _colour_chunk(m, paint, floor, c):  # type: ignore[no-untyped-def]
    """Lay road, bands, dashes, lines, kerb and ground over one another in one channel."""
    road = paint[0, c]
    for j in range(_CHUNK):
        m[_COLOUR + j] = road
    for k in range(_i8(floor[3, 0])):
        change = floor[_FIXED + 2 * k, c] - road
        left, right = floor[_FIXED + 2 * k + 1, 0], floor[_FIXED + 2 * k + 1, 1]
        for j in range(_CHUNK):
            n, half, inverse = m[_N + j], m[_HALF_ROAD + j], m[_ACROSS + j]
            inside = min(max((left * half - n) * inverse, -_HALF), _HALF)
            inside -= min(max((right * half - n) * inverse, -_HALF), _HALF)
            m[_COLOUR + j] += change * inside
    dash, line, kerb, ground = paint[3, c], paint[2, c], floor[0, c], paint[1, c]
    for j in range(_CHUNK):
        colour = m[_COLOUR + j]
        painted = colour + m[_LEFT + j] * (line - colour)
        colour += m[_DASH + j] * (dash - colour)
        colour += m[_LINE + j] * (painted - colour)
        colour += m[_KERB + j] * (kerb - painted) + m[_GROUND + j] * (ground - kerb)
        colour *= m[_DARK + j]
        m[_COLOUR + j] = colour + m[_LIT + j] * (_f4(255) - colour)
