"""Road: the floor of plain looks, a road between lines on the ground, painted as a camera sees it.

Most chunks of pixels are all road or all ground, and one look into the field says so. The others
are painted pixel by pixel, each as far as its outline on the ground covers road, lines and dashes.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
from numba import njit

from hotlap.series import prefer_512_bits
from hotlap.sim.walls import FULL
from hotlap.types import Float32, Int32

if TYPE_CHECKING:
    from hotlap.sim.camera import CameraSettings

__all__ = ["CHUNK", "cut_rows", "ground_rows", "paint_road"]

CHUNK = 16
"""Pixels painted together. With 8, LLVM unrolls the loop over them and does not vectorise it."""
_MIXED, _ROAD, _GROUND, _LINES = 0, 1, 2, 3
"""What is in a chunk: perhaps all, only road, only ground, all but dashes."""
_compiled = njit(cache=True, nogil=True, fastmath=True, error_model="numpy")
_inline: Any = njit(fastmath=True, error_model="numpy", forceinline=True)
_f4, _i4, _u8 = np.float32, np.int32, np.uint64
_ZERO, _HALF, _ONE = _f4(0), _f4(0.5), _f4(1)


def ground_rows(settings: CameraSettings) -> tuple[Float32, Float32]:
    """Return what is constant along each image row.

    With the pitch p and v the tangent of a row's angle below the optical axis, the ray of the row
    falls at sin p + v cos p and meets the ground after h / (sin p + v cos p) focal lengths.

    Returns:
        (H, 8): distance ahead of the lens of the row's ground points [m]; how far to the right the
        first column's is [m]; from column to column [m]; how far a pixel reaches ahead [m]; share
        of ground in the pixels; then, the same for all rows, cos p times the tangent of the first
        column's angle to the right, and from column to column; distance of the lens ahead of the
        car's origin [m].
        (H,) where the sky's colour lies between horizon (0) and top (1).
    """
    width, height = settings.width, settings.height
    focal = width / 2 / math.tan(math.radians(settings.fov_deg) / 2)
    pitch = math.radians(settings.pitch_deg)
    sine, cosine = math.sin(pitch), math.cos(pitch)
    edge = (np.arange(height + 1) - height / 2) / focal
    horizon = -math.tan(pitch)
    top, bottom = np.maximum(edge[:-1], horizon), np.maximum(edge[1:], horizon)
    share = np.round((bottom - top) * focal, 6)
    middle = np.where(share > 0, (top + bottom) / 2, horizon + 1.0)
    fall = sine + middle * cosine
    depth = settings.mount_height / fall
    first = (0.5 - width / 2) / focal
    rows = np.zeros((height, 8))
    rows[:, 0] = depth * (cosine - middle * sine)
    rows[:, 1] = depth * first
    rows[:, 2] = depth / focal
    # Twice the way to the pixel's near edge: next to the horizon its far edge is without end.
    near = settings.mount_height / np.where(share > 0, sine + bottom * cosine, 1.0)
    rows[:, 3] = 2 * (rows[:, 0] - near * (cosine - bottom * sine))
    rows[:, 4] = share
    rows[:, 5] = cosine * first
    rows[:, 6] = cosine / focal
    rows[:, 7] = settings.mount_forward
    up = np.arctan(-(edge[:-1] + edge[1:]) / 2) - pitch
    return rows.astype(np.float32), np.clip(up / math.radians(45), 0, 1).astype(np.float32)


def cut_rows(rows: Float32, width: int) -> tuple[Int32, Float32]:
    """Cut the rows with ground into chunks of `CHUNK` pixels; the last may overlap the one before.

    Returns:
        (2, chunks) int32: row and first column.
        (3, chunks) float32: distance ahead of the lens and to the right of the chunk's middle on
        the ground [m]; the radius about it in which the outlines of all its pixels lie [m].
    """
    columns = np.minimum(np.arange(0, width, CHUNK), width - CHUNK)
    row, column = (
        a.ravel() for a in np.meshgrid(np.nonzero(rows[:, 4])[0], columns, indexing="ij")
    )
    ahead, lateral, step, long, share, tangent, per_column = rows[row, :7].T.astype(float)
    ends = tangent + per_column * column, tangent + per_column * (column + CHUNK - 1)
    tilt = np.maximum(*np.abs(ends))
    # 1.1: across a change of the road's width the stored distance is not quite Euclidean.
    radius = 1.1 * np.hypot(step * CHUNK / 2 + tilt * long / 2, long / 2) + 0.002
    radius[share < 1] = 1e9
    lateral += step * (column + (CHUNK - 1) / 2)
    spots = np.stack([ahead, lateral, radius]).astype(np.float32)
    return np.stack([row, column]).astype(np.int32), spots


@_compiled
def paint_road(  # type: ignore[no-untyped-def]
    start, stop, out, width, channels, x, y, yaw, track, look, view,
    all_rows, skies, cover, edges, all_chunks, all_spots, looks, field, frames, sizes,
):  # fmt: skip
    """Draw the images start..stop: all chunks in one colour, then those with a line in them.

    Chunks that are `FULL` in `cover` (M, H, chunks) get any colour, as walls will hide them; M is 0
    where there are no walls.
    """
    height = all_rows.shape[1]
    count = 0
    for k in range(len(edges) - 1):
        count = max(count, edges[k + 1] - edges[k])
    low = np.empty(count * CHUNK, np.int32)
    high = np.empty(count * CHUNK, np.int32)
    index = np.empty(count * CHUNK, np.int32)
    mixed, lined = np.empty(count, np.int32), np.empty(count, np.int32)
    kind = np.empty(count, np.int32)
    shares = np.empty(3 * CHUNK, np.float32)
    mix = np.empty((height, channels, 4), np.float32)
    for image in range(start, stop):
        frame, size, paint = frames[track[image]], sizes[track[image]], looks[look[image]]
        rows, sky = all_rows[view[image]], skies[view[image]]
        a, b = edges[view[image]], edges[view[image] + 1]
        count = b - a
        chunks = all_chunks[2 * a : 2 * b].reshape(2, count)
        spots = all_spots[3 * a : 3 * b].reshape(3, count)
        cosine, sine = _f4(math.cos(yaw[image])), _f4(math.sin(yaw[image]))
        lens_x = (x[image] + cosine * rows[0, 7] - frame[0]) * frame[2]
        lens_y = (y[image] + sine * rows[0, 7] - frame[1]) * frame[2]
        ex, ey = cosine * frame[2], sine * frame[2]
        first = image * height * width * channels
        _palette(paint, rows, sky, mix)
        _look_at_chunks(lens_x, lens_y, ex, ey, spots, size, index)
        _fetch(count, index, field, size, low, high)
        _classify(lens_x, lens_y, ex, ey, spots, frame, size, paint, low, high, kind)
        many, others = _flood(out, first, width, mix, rows, chunks, kind, mixed, lined)
        if len(cover):
            many = _omit(many, mixed, chunks, cover[image])
            others = _omit(others, lined, chunks, cover[image])
        _look_at_pixels(many, mixed, chunks, rows, lens_x, lens_y, ex, ey, size, index)
        _fetch(many * CHUNK, index, field, size, low, high)
        _shade(
            out, first, width, many, mixed, chunks, rows, lens_x, lens_y, ex, ey, frame, size,
            paint, low, high, shares, mix,
        )  # fmt: skip
        _look_at_pixels(others, lined, chunks, rows, lens_x, lens_y, ex, ey, size, index)
        _fetch(others * CHUNK, index, field, size, low, high)
        _shade_lines(
            out, first, width, others, lined, chunks, rows, lens_x, lens_y, ex, ey, frame, size,
            paint, low, high, shares, mix,
        )  # fmt: skip


@_compiled
def _palette(paint, rows, sky, mix):  # type: ignore[no-untyped-def]
    """Compute what each row adds to a channel: base, line over ground, road over line, dash."""
    for row in range(mix.shape[0]):
        share = rows[row, 4]
        for c in range(mix.shape[1]):
            above = paint[5, c] + (paint[4, c] - paint[5, c]) * sky[row]
            mix[row, c, 0] = above * (_ONE - share) + paint[1, c] * share + _HALF
            mix[row, c, 1] = (paint[2, c] - paint[1, c]) * share
            mix[row, c, 2] = (paint[0, c] - paint[2, c]) * share
            mix[row, c, 3] = (paint[3, c] - paint[0, c]) * share


@_compiled
def _look_at_chunks(lens_x, lens_y, ex, ey, spots, size, index):  # type: ignore[no-untyped-def]
    """Find the texels under the middles of all chunks."""
    prefer_512_bits()
    columns, right, top = _i4(size[1]), _f4(size[1] - 1), _f4(size[2] - 1)
    for i in range(spots.shape[1]):
        u = lens_x + ex * spots[0, i] + ey * spots[1, i]
        v = lens_y + ey * spots[0, i] - ex * spots[1, i]
        index[i] = _i4(min(max(v, _ZERO), top)) * columns + _i4(min(max(u, _ZERO), right))


@_compiled
def _fetch(count, index, field, size, low, high):  # type: ignore[no-untyped-def]
    first = size[0]
    for i in range(count):
        word = field[_u8(first + index[i])]
        low[i] = _i4(word)
        high[i] = _i4(word >> 32)


@_compiled
def _classify(  # type: ignore[no-untyped-def]
    lens_x, lens_y, ex, ey, spots, frame, size, paint, low, high, kind
):
    """Tell which chunks are all road, all ground or perhaps neither.

    The distance to the nearest line grows by no more than the way walked, so one texel will do.
    """
    prefer_512_bits()
    right, top = _f4(size[1] - 1), _f4(size[2] - 1)
    step_d, step_w, reach = frame[3], frame[4], _ONE / (frame[2] * _f4(127))
    border, dash = paint[6, 0], paint[7, 0] * _HALF
    for i in range(spots.shape[1]):
        u = lens_x + ex * spots[0, i] + ey * spots[1, i]
        v = lens_y + ey * spots[0, i] - ex * spots[1, i]
        u -= _f4(_i4(min(max(u, _ZERO), right))) + _HALF
        v -= _f4(_i4(min(max(v, _ZERO), top))) + _HALF
        a, flag = low[i], high[i] & 1
        d = _f4(_i4(a >> 16)) * step_d
        d += (u * _f4(_i4(_i4(a << 16) >> 24)) + v * _f4(_i4(_i4(a << 24) >> 24))) * reach
        clear = spots[2, i]
        ground = _i4(_GROUND) if (flag != 0) & (d > clear) else _i4(_MIXED)
        inside, away = abs(d) if flag == 0 else -d, clear + dash
        clear += border if flag != 0 else dash
        offset = abs(d) if flag == 0 else d + _f4(_i4((high[i] >> 8) & 0xFF)) * step_w
        ground = _i4(_LINES) if (ground == _MIXED) & (offset > away) else ground
        kind[i] = _i4(_ROAD) if inside > clear else ground


@_compiled
def _flood(  # type: ignore[no-untyped-def]
    out, first, width, mix, rows, chunks, kind, mixed, lined
):
    """Paint sky and all chunks in one colour; list those that need more, and how many there are."""
    height, channels = mix.shape[0], mix.shape[1]
    for row in range(height):
        if rows[row, 4] <= _ZERO:
            a, b, c = _pattern(mix[row], _ZERO)
            for column in range(0, width, CHUNK):
                o = first + (row * width + min(column, width - CHUNK)) * channels
                _stamp(out, _u8(o), channels, a, b, c)
    a0, b0, c0 = _pattern(mix[height - 1], _ZERO)
    a1, b1, c1 = _pattern(mix[height - 1], _ONE)
    many, others = 0, 0
    for i in range(chunks.shape[1]):
        o = first + (chunks[0, i] * width + chunks[1, i]) * channels
        mixed[_u8(many)], lined[_u8(others)] = i, i
        many += 1 if kind[i] == _MIXED else 0
        others += 1 if kind[i] == _LINES else 0
        road = kind[i] == _ROAD
        _stamp(out, _u8(o), channels, a1 if road else a0, b1 if road else b0, c1 if road else c0)
    return many, others


@_compiled
def _omit(many, mixed, chunks, cover):  # type: ignore[no-untyped-def]
    """Take chunks that walls hide off a list; return how many are left."""
    left = 0
    for i in range(many):
        chunk = mixed[_u8(i)]
        row, column = _u8(chunks[0, chunk]), chunks[1, chunk]
        # The last one of a row may reach back into the one before it.
        a, b = cover[row, _u8(column // CHUNK)], cover[row, _u8((column + CHUNK - 1) // CHUNK)]
        mixed[_u8(left)] = chunk
        left += 0 if (a == FULL) & (b == FULL) else 1
    return left


@_compiled
def _pattern(mix, road):  # type: ignore[no-untyped-def]
    """Return three words of eight bytes that repeat the colour of road (1), ground or sky (0)."""
    r = _u8(_i4(mix[0, 0] + road * (mix[0, 1] + mix[0, 2])))
    if mix.shape[0] == 1:
        a = r * _u8(0x0101010101010101)
        return a, a, a
    g = _u8(_i4(mix[1, 0] + road * (mix[1, 1] + mix[1, 2])))
    b = _u8(_i4(mix[2, 0] + road * (mix[2, 1] + mix[2, 2])))
    p = r | (g << _u8(8)) | (b << _u8(16))
    return (
        p | (p << _u8(24)) | (p << _u8(48)),
        (p >> _u8(16)) | (p << _u8(8)) | (p << _u8(32)) | (p << _u8(56)),
        (p >> _u8(8)) | (p << _u8(16)) | (p << _u8(40)),
    )


@_compiled
def _stamp(out, o, channels, a, b, c):  # type: ignore[no-untyped-def]
    """Write a chunk of one colour; LLVM joins eight shifted bytes to one store."""
    for k in range(8):
        out[o + _u8(k)] = np.uint8(a >> _u8(8 * k))
    for k in range(8):
        out[o + _u8(8 + k)] = np.uint8(b >> _u8(8 * k))
    if channels == 3:
        for k in range(8):
            out[o + _u8(16 + k)] = np.uint8(c >> _u8(8 * k))
        for k in range(8):
            out[o + _u8(24 + k)] = np.uint8(a >> _u8(8 * k))
        for k in range(8):
            out[o + _u8(32 + k)] = np.uint8(b >> _u8(8 * k))
        for k in range(8):
            out[o + _u8(40 + k)] = np.uint8(c >> _u8(8 * k))


@_compiled
def _look_at_pixels(  # type: ignore[no-untyped-def]
    many, mixed, chunks, rows, lens_x, lens_y, ex, ey, size, index
):
    """Find the texels under the pixels of the listed chunks."""
    prefer_512_bits()
    columns, right, top = _i4(size[1]), _f4(size[1] - 1), _f4(size[2] - 1)
    for i in range(many):
        row, left = chunks[0, mixed[i]], _f4(chunks[1, mixed[i]])
        ahead, lateral, step = rows[row, 0], rows[row, 1], rows[row, 2]
        u0, v0 = lens_x + ex * ahead + ey * lateral, lens_y + ey * ahead - ex * lateral
        du, dv = ey * step, -ex * step
        k = _u8(i * CHUNK)
        for j in range(CHUNK):
            fj = left + _f4(_i4(j))
            u = min(max(u0 + du * fj, _ZERO), right)
            v = min(max(v0 + dv * fj, _ZERO), top)
            index[k + _u8(j)] = _i4(v) * columns + _i4(u)


@_compiled
def _shade(  # type: ignore[no-untyped-def]
    out, first, width, many, mixed, chunks, rows, lens_x, lens_y, ex, ey, frame, size, paint,
    low, high, cover, mix,
):  # fmt: skip
    """Paint the listed chunks by how much of each pixel is inside a border, a line or a dash."""
    prefer_512_bits()
    _shade_chunks(
        out, first, width, many, mixed, chunks, rows, lens_x, lens_y, ex, ey, frame, size, paint,
        low, high, cover, mix, True,
    )  # fmt: skip


@_compiled
def _shade_lines(  # type: ignore[no-untyped-def]
    out, first, width, many, mixed, chunks, rows, lens_x, lens_y, ex, ey, frame, size, paint,
    low, high, cover, mix,
):  # fmt: skip
    """Paint the listed chunks, in which there are no dashes."""
    prefer_512_bits()
    _shade_chunks(
        out, first, width, many, mixed, chunks, rows, lens_x, lens_y, ex, ey, frame, size, paint,
        low, high, cover, mix, False,
    )  # fmt: skip


@_inline
def _shade_chunks(  # type: ignore[no-untyped-def]
    out, first, width, many, mixed, chunks, rows, lens_x, lens_y, ex, ey, frame, size, paint,
    low, high, cover, mix, dashed,
):  # fmt: skip
    """Paint the listed chunks; `dashed` is known where this is called, so there is no branch."""
    channels = mix.shape[1]
    # Always CHUNK; but a loop known to be short is unrolled before it can be vectorised.
    lanes = min(width, CHUNK)
    right, top = _f4(size[1] - 1), _f4(size[2] - 1)
    step_d, step_w, step_s = frame[3], frame[4], frame[5]
    reach = _ONE / (frame[2] * _f4(127))
    cosine, sine = ex * reach, ey * reach
    border, dash_width = paint[6, 0], paint[7, 0] * _HALF
    period = paint[8, 0] + paint[9, 0]
    duty = paint[8, 0] / period
    # As many periods as fit best, so that the pattern closes after a lap.
    frequency = max(np.floor(frame[6] / period + _HALF), _ONE) / frame[6]
    stretched = _ONE / frequency
    for i in range(many):
        row, column = chunks[0, mixed[i]], chunks[1, mixed[i]]
        left = _f4(column)
        ahead, lateral, step, long = rows[row, 0], rows[row, 1], rows[row, 2], rows[row, 3]
        tangent, tangent_step = rows[row, 5], rows[row, 6]
        u0, v0 = lens_x + ex * ahead + ey * lateral, lens_y + ey * ahead - ex * lateral
        du, dv = ey * step, -ex * step
        t = _u8(i * CHUNK)
        for j in range(CHUNK):
            fj = left + _f4(_i4(j))
            u = u0 + du * fj
            v = v0 + dv * fj
            u -= _f4(_i4(min(max(u, _ZERO), right))) + _HALF
            v -= _f4(_i4(min(max(v, _ZERO), top))) + _HALF
            a, b = low[t + _u8(j)], high[t + _u8(j)]
            d = _f4(_i4(a >> 16)) * step_d
            nx = _f4(_i4(_i4(a << 16) >> 24))
            ny = _f4(_i4(_i4(a << 24) >> 24))
            s = _f4(_i4((b >> 16) & 0xFFFF)) * step_s
            half = _f4(_i4((b >> 8) & 0xFF)) * step_w
            d += (u * nx + v * ny) * reach
            s += (u * ny - v * nx) * reach
            offset = half + d if (b & 1) != 0 else abs(d)
            # The pixel's outline on the ground, across and along the line.
            toward = cosine * nx + sine * ny
            aside = sine * nx - cosine * ny
            tilt = tangent + tangent_step * fj
            p, q = step * aside, long * (toward + tilt * aside)
            inverse = _ONE / math.sqrt(p * p + q * q + _f4(1e-12))
            p, q = step * toward, long * (aside - tilt * toward)
            # The pixel's length along the line, in periods, and its inverse by the same root.
            square = p * p + q * q + _f4(1e-12)
            thin = _ONE / math.sqrt(square)
            wide = square * thin * frequency
            offset *= inverse
            half *= inverse
            edge = offset - half
            line = border * inverse
            middle = dash_width * inverse
            c0 = min(max(_HALF - edge, _ZERO), _ONE) + min(offset + half, _HALF) - _HALF
            c1 = min(max(_HALF - edge - line, _ZERO), _ONE)
            c1 += min(offset + half - line, _HALF) - _HALF
            c2 = min(max(middle - offset, -_HALF), _HALF) + min(middle + offset, _HALF)
            rear = s * frequency - wide * _HALF
            fore = rear + wide
            b0, b1 = np.floor(rear), np.floor(fore)
            painted = (b1 - b0) * duty + min(fore - b1, duty) - min(rear - b0, duty)
            cover[_u8(j)] = c0
            cover[_u8(j + CHUNK)] = c1
            cover[_u8(j + 2 * CHUNK)] = c2 * painted * thin * stretched if dashed else _ZERO
        o = first + (row * width + column) * channels
        if channels == 1:
            m0, m1, m2, m3 = mix[row, 0, 0], mix[row, 0, 1], mix[row, 0, 2], mix[row, 0, 3]
            for j in range(lanes):
                value = m0 + m1 * cover[_u8(j)] + m2 * cover[_u8(j + CHUNK)]
                out[_u8(o + j)] = np.uint8(_i4(value + m3 * cover[_u8(j + 2 * CHUNK)]))
        else:
            r0, r1, r2, r3 = mix[row, 0, 0], mix[row, 0, 1], mix[row, 0, 2], mix[row, 0, 3]
            g0, g1, g2, g3 = mix[row, 1, 0], mix[row, 1, 1], mix[row, 1, 2], mix[row, 1, 3]
            h0, h1, h2, h3 = mix[row, 2, 0], mix[row, 2, 1], mix[row, 2, 2], mix[row, 2, 3]
            for j in range(lanes):
                f0, f1 = cover[_u8(j)], cover[_u8(j + CHUNK)]
                f2 = cover[_u8(j + 2 * CHUNK)]
                k = o + 3 * j
                out[_u8(k)] = np.uint8(_i4(r0 + r1 * f0 + r2 * f1 + r3 * f2))
                out[_u8(k + 1)] = np.uint8(_i4(g0 + g1 * f0 + g2 * f1 + g3 * f2))
                out[_u8(k + 2)] = np.uint8(_i4(h0 + h1 * f0 + h2 * f1 + h3 * f2))
