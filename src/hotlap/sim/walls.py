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
from hotlap.types import Array, Float32, Int32

__all__ = ["FULL", "Walls", "hide_row", "level_rows", "may_hide"]

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
_CLEAR, FULL, _MIXED = 0, 1, 2
"""What walls cover of a chunk of a row: nothing, all, perhaps a part."""
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

    def judge(self, cover: Array, look: Array, view: Array, met: Float32) -> Int32:
        """Write into `cover`, (M, H, chunks) uint8 zeros, what was met does to chunks of pixels.

        Returns:
            (M, K + 2) pieces of columns with the same walls: their number, the first column of
            each, number of columns.
        """
        pieces = np.empty((len(met), met.shape[3] + 2), np.int32)
        spread(
            _judge, len(met), cover, pieces, look, view, met,
            self._looks, self._lenses, self._rows, self._beams,
            block=1, threads=self._threads,
        )  # fmt: skip
        return pieces

    def paint(
        self, out: Array, width: int, channels: int, cover: Array, pieces: Int32, look: Array,
        view: Array, met: Float32,
    ) -> None:  # fmt: skip
        """Paint what was met over the images, flat (M * H * W * C) uint8."""
        spread(
            _paint, len(met), out, width, channels, cover, pieces, look, view, met,
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


# Rows of a layer of a chunk, with 2 * _CHUNK numbers each, of the left halves of its pixels and of
# their right ones: a and b of the inverse distance a + b t, brightness; inverse heights over which
# its upper and its lower edge pass through a half of a pixel.
_A, _B, _TONE, _OVER, _UNDER = (2 * _CHUNK * row for row in range(5))
_LAYER = 2 * _CHUNK * 5


@_compiled
def _judge(  # type: ignore[no-untyped-def]
    start, stop, cover, pieces, look, view, met, looks, lenses, levels, spans
):
    """Find the pieces of the images start..stop, and what they do to each chunk."""
    extent = np.empty((cover.shape[2], 3), np.float32)
    for image in range(start, stop):
        low = lenses[view[image], 3]
        tall = looks[look[image], 3] - low
        beams, seen, piece = spans[view[image]], met[image], pieces[image]
        nearest = _part(piece, seen, 1 if tall >= _ZERO else met.shape[2], beams)
        if nearest > _ZERO:
            _judge_image(
                cover[image], piece, seen, nearest, tall, low, levels[view[image]], beams, extent
            )


@_compiled
def _judge_image(  # type: ignore[no-untyped-def]
    cover, piece, seen, nearest, tall, low, rows, beams, extent
):
    """Tell what walls do to each chunk of an image."""
    height, chunks = cover.shape
    highest, lowest = max(tall, _ZERO) * nearest, -low * nearest
    for top in range(0, height, _TOGETHER):
        bottom, middle = min(top + _TOGETHER, height), _middle(rows, top)
        first, last = rows[top, 2], rows[bottom - 1, 2]
        deep, step = max(rows[top, 3], rows[bottom - 1, 3]), rows[middle, 1]
        if last - deep > highest or first + deep < lowest:
            continue
        _measure(piece, seen, rows[middle, 0], step, beams, extent)
        for chunk in range(chunks):
            far, near, steep = extent[chunk, 0], extent[chunk, 1], extent[chunk, 2] * step
            # What is true of the first and of the last row is true of those between them.
            kind = _kind(far, near, steep, first, deep, tall, low)
            if kind != _kind(far, near, steep, last, deep, tall, low):
                kind = _MIXED
            for row in range(top, bottom):
                one = kind
                if kind == _MIXED:
                    one = _kind(far, near, steep, rows[row, 2], rows[row, 3], tall, low)
                cover[row, chunk] = one if rows[row, 5] != _ZERO else _CLEAR


@_inline
def _middle(rows, top):  # type: ignore[no-untyped-def]
    """Return the row whose columns those share that begin at `top`."""
    middle = min(top + _TOGETHER // 2, len(rows) - 1)
    return middle if rows[middle, 5] != _ZERO else top


@_compiled
def _paint(  # type: ignore[no-untyped-def]
    start, stop, out, width, channels, cover, pieces, look, view, met, looks, lenses, levels, spans
):
    """Paint the walls of the images start..stop, in each column the farthest first."""
    m = np.empty(met.shape[2] * _LAYER, np.float32)
    mix, flat = np.empty(4 * _CHUNK, np.float32), np.empty(_CHUNK * channels, np.uint8)
    aside = np.empty(2 * _CHUNK, np.float32)
    for j in range(_CHUNK):
        aside[j], aside[_CHUNK + j] = _f4(j) - _f4(0.25), _f4(j) + _f4(0.25)
    for image in range(start, stop):
        _paint_image(
            out, image * cover.shape[1] * width * channels, width, channels, cover[image],
            pieces[image], met[image], looks[look[image]], lenses[view[image]],
            levels[view[image]], spans[view[image]], m, mix, flat, aside,
        )  # fmt: skip


@_compiled
def _paint_image(  # type: ignore[no-untyped-def]
    out, origin, width, channels, cover, piece, met, paint, lens, rows, beams, m, mix, flat, aside
):
    """Paint the walls of an image; its chunks one after the other, `_TOGETHER` rows each.

    No arrays are made or cut here: Numba would count, chunk by chunk, who uses them.
    """
    prefer_512_bits()
    height, chunks = cover.shape
    # Always _CHUNK; but a loop known to be short is unrolled before it can be vectorised.
    lanes = min(width, _CHUNK)
    low = lens[3]
    tall = paint[3] - low
    layers = 1 if tall >= _ZERO else met.shape[1]
    for top in range(0, height, _TOGETHER):
        bottom, middle, begun = min(top + _TOGETHER, height), _middle(rows, top), 1
        begin, step, deep = rows[middle, 0] - beams[1], rows[middle, 1], rows[middle, 3]
        for chunk in range(chunks):
            kind: Any = _CLEAR
            for row in range(top, bottom):
                kind = max(kind, _i8(cover[row, chunk]))
            if kind == _CLEAR:
                continue
            left = chunk * _CHUNK
            pixels = min(width - left, _CHUNK)
            first = begin + step * _f4(left)
            k0 = _i4((first + step * aside[0]) * beams[2] + _HALF)
            k1 = _i4((first + step * aside[2 * _CHUNK - 1]) * beams[2] + _HALF)
            while begun < piece[0] and piece[begun + 1] <= k0:
                begun += 1
            end = begun + 1
            while end <= piece[0] and piece[end] <= k1:
                end += 1
            depth = 0
            while depth < (layers if kind == _MIXED else 1):
                some, own = _ZERO, _u8(depth * _LAYER)
                for n in range(begun, end):
                    k = _u8(piece[n])
                    slope, light = met[1, depth, k], met[2, depth, k]
                    inverse = met[0, depth, k] - slope * (_f4(piece[n]) * beams[3])
                    edge = (_f4(piece[n]) - _HALF) * beams[3]
                    edge = edge if n > begun else _f4(-1e9)
                    _lay(m, own, lanes, aside, first, step, edge, inverse, slope, light)
                    some += light
                if some <= _ZERO:
                    break
                depth += 1
                if kind == _MIXED:
                    _scale(m, own, lanes, deep, _HALF * step, tall, low)
            _flatten(flat, channels, lanes, m, paint)
            for row in range(top, bottom):
                o = origin + (row * width + left) * channels
                if cover[row, chunk] == FULL:
                    for i in range(pixels * channels):
                        out[_u8(o + i)] = flat[_u8(i)]
                elif cover[row, chunk] == _MIXED:
                    for i in range(4 * lanes):
                        mix[i] = _ZERO
                    first = rows[row, 0] - beams[1] + rows[row, 1] * _f4(left)
                    for i in range(depth):
                        behind = _u8((depth - 1 - i) * _LAYER)
                        _cover(
                            m,
                            behind,
                            lanes,
                            mix,
                            aside,
                            first,
                            rows[row, 1],
                            rows[row, 2],
                            tall,
                            low,
                        )
                    if channels == 1:
                        _blend(out, o, 1, 0, pixels, mix, paint)
                    else:
                        for c in range(3):
                            _blend(out, o, 3, c, pixels, mix, paint)


@_compiled
def _part(piece, seen, layers, beams):  # type: ignore[no-untyped-def]
    """Part the columns where another wall begins; return the greatest inverse.

    `piece`: number of pieces, the first column of each, number of columns.
    """
    columns, half, nearest = _i8(beams[0]), _HALF * beams[3], _ZERO
    count, piece[1] = 1, 0
    for k in range(1, columns):
        new = False
        for layer in range(layers):
            new |= seen[1, layer, _u8(k)] != seen[1, layer, _u8(k - 1)]
            new |= seen[2, layer, _u8(k)] != seen[2, layer, _u8(k - 1)]
        if new:
            count += 1
            piece[_u8(count)] = k
    piece[0], piece[_u8(count + 1)] = count, columns
    for n in range(1, count + 1):
        for end in (_i8(piece[_u8(n)]), _i8(piece[_u8(n + 1)]) - 1):
            nearest = max(nearest, seen[0, 0, _u8(end)] + half * abs(seen[1, 0, _u8(end)]))
    return nearest


@_inline
def _measure(piece, seen, begin, step, beams, extent):  # type: ignore[no-untyped-def]
    """Find what the chunks of a row have of the nearest walls.

    `extent`: of each chunk the least and the greatest inverse, and 2.5 times the greatest slope:
    rows that share this differ by less than 1.5 columns.
    """
    last, width, i = _i8(beams[0]) - 1, beams[3], 1
    for chunk in range(len(extent)):
        first = begin + step * (_f4(chunk * _CHUNK) - _HALF) - beams[1]
        k0 = max(_i8(first * beams[2]), 0)
        k1 = min(_i8((first + step * _f4(_CHUNK)) * beams[2] + _ONE), last)
        while i < piece[0] and piece[_u8(i + 1)] <= k0:
            i += 1
        far, near, steep, n = _f4(1e9), _ZERO, _ZERO, i
        while n <= piece[0] and piece[_u8(n)] <= k1:
            k = piece[_u8(n)]
            slope = seen[1, 0, _u8(k)]
            base = seen[0, 0, _u8(k)] - slope * width * _f4(k)
            a = base + slope * width * (_f4(max(k0, k)) - _HALF)
            b = base + slope * width * (_f4(min(k1, piece[_u8(n + 1)])) + _HALF)
            far, near, steep = min(far, a, b), max(near, a, b), max(steep, abs(slope))
            n += 1
        extent[chunk, 0], extent[chunk, 1], extent[chunk, 2] = far, near, _f4(2.5) * steep


@_inline
def _lay(m, o, lanes, aside, first, step, edge, inverse, slope, light):  # type: ignore[no-untyped-def]
    """Lay a piece of wall into the pixels of a chunk that are to the right of its left edge."""
    for j in range(2 * lanes):
        old = first + step * aside[j] < edge
        m[o + _u8(_A + j)] = m[o + _u8(_A + j)] if old else inverse
        m[o + _u8(_B + j)] = m[o + _u8(_B + j)] if old else slope
        m[o + _u8(_TONE + j)] = m[o + _u8(_TONE + j)] if old else light


@_inline
def _scale(m, o, lanes, deep, slide, tall, low):  # type: ignore[no-untyped-def]
    """Compute over which heights the edges of a layer pass through the halves of pixels."""
    square = deep * deep
    for j in range(2 * lanes):
        over, under = tall * m[o + _u8(_B + j)] * slide, low * m[o + _u8(_B + j)] * slide
        m[o + _u8(_OVER + j)] = _ONE / math.sqrt(square + over * over)
        m[o + _u8(_UNDER + j)] = _ONE / math.sqrt(square + under * under)


@_inline
def _flatten(flat, channels, lanes, m, paint):  # type: ignore[no-untyped-def]
    """Compute the colours of a chunk where the nearest walls cover all of it."""
    for j in range(lanes):
        tone = m[_u8(_TONE + j)] + m[_u8(_TONE + _CHUNK + j)]
        if channels == 1:
            flat[j] = np.uint8(_i4(_HALF * tone * paint[0] + _HALF))
        else:
            for c in range(3):
                flat[3 * j + c] = np.uint8(_i4(_HALF * tone * paint[c] + _HALF))


@_inline
def _kind(far, near, steep, up, deep, tall, low):  # type: ignore[no-untyped-def]
    """Tell whether the nearest walls cover all of a row of a chunk, nothing, or perhaps a part."""
    margin, under = deep + abs(tall) * steep, deep + low * steep
    if up - margin > max(tall, _ZERO) * near or up + under < -low * near:
        return _CLEAR
    least = tall * (far if tall > _ZERO else near)
    return FULL if up + margin < least and up - under > -low * far else _MIXED


@_inline
def _cover(m, o, lanes, mix, aside, first, step, up, tall, low):  # type: ignore[no-untyped-def]
    """Put a layer over what is behind it in a row of a chunk.

    `mix`: share of the left halves of its pixels, then of the right ones, and their tones.
    """
    for j in range(2 * lanes):
        q = m[o + _u8(_A + j)] + m[o + _u8(_B + j)] * (first + step * aside[j])
        c = min(max(_HALF + (tall * q - up) * m[o + _u8(_OVER + j)], _ZERO), _ONE) - _ONE
        c += min(max(_HALF + (low * q + up) * m[o + _u8(_UNDER + j)], _ZERO), _ONE)
        c = max(c, _ZERO)
        share, tone = mix[j], mix[2 * _CHUNK + j]
        mix[j] = share + c * (_ONE - share)
        mix[2 * _CHUNK + j] = tone + c * (m[o + _u8(_TONE + j)] - tone)


@_inline
def _blend(out, o, channels, c, pixels, mix, paint):  # type: ignore[no-untyped-def]
    """Paint a row of a chunk that is part wall in one channel."""
    colour = paint[c]
    for j in range(pixels):
        clear = _ONE - _HALF * (mix[_u8(j)] + mix[_u8(_CHUNK + j)])
        lit = _HALF * (mix[_u8(2 * _CHUNK + j)] + mix[_u8(3 * _CHUNK + j)]) * colour
        at = _u8(o + j * channels + c)
        out[at] = np.uint8(_i4(_f4(out[at]) * clear + lit + _HALF))


@_compiled
def hide_row(  # type: ignore[no-untyped-def]
    cover, begin, step, up, deep, base, rise, seen, beams, tall, low, first, last, start
):
    """Take from a row of a box's side what walls before it cover.

    `base + rise t` is the inverse of how far ahead the side is at t metres aside a metre ahead;
    `cover` begins at column `start`.
    """
    for column in range(first, last):
        if cover[_u8(column - start)] > _ZERO:
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
                    cover[_u8(column - start)] *= _ONE - max(c, _ZERO)


@_compiled
def may_hide(piece, seen, beams, low, high, base, rise):  # type: ignore[no-untyped-def]
    """Tell whether a wall may be before a box's side; see `hide_row`.

    `low`, `high`: how far aside for each metre ahead the side begins and ends.
    """
    last, half = beams[0] - _ONE, _HALF * beams[3]
    k0 = _i8(min(max((low - beams[1]) * beams[2] - _ONE, _ZERO), last))
    k1 = _i8(min(max((high - beams[1]) * beams[2] + _f4(2), _ZERO), last))
    for n in range(1, piece[0] + 1):
        first, end = piece[_u8(n)], piece[_u8(n + 1)] - 1
        if end >= k0 and first <= k1:
            k = _u8(first)
            slope = seen[1, 0, k]
            for at in (_i8(max(first, k0)), _i8(min(end, k1))):
                q = seen[0, 0, k] + slope * beams[3] * _f4(at - first) + half * abs(slope)
                if q > base + rise * (beams[1] + beams[3] * _f4(at)) - half * abs(rise):
                    return True
    return False
