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
_MOST = 32
"""Columns of the level image that are asked at once what is in them; no more than in a chunk."""
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

    def judge(self, cover: Array, look: Array, view: Array, met: Float32) -> tuple[Int32, Array]:
        """Write into `cover`, (M, H, chunks) uint8 zeros, what was met does to chunks of pixels.

        Returns:
            (M, K + 2) pieces of columns with the same walls: their number, the first column of
            each, number of columns.
            (M, H / 4, chunks) uint8 what is in four rows of a chunk together: `FULL` and mixed
            ones, added up.
        """
        pieces = np.empty((len(met), met.shape[3] + 2), np.int32)
        rows = -(-cover.shape[1] // _TOGETHER)
        together = np.zeros((len(met), rows, cover.shape[2]), np.uint8)
        spread(
            _judge, len(met), cover, together, pieces, look, view, met,
            self._looks, self._lenses, self._rows, self._beams,
            block=1, threads=self._threads,
        )  # fmt: skip
        return pieces, together

    def paint(
        self, out: Array, width: int, channels: int, cover: Array, judged: tuple[Int32, Array],
        look: Array, view: Array, met: Float32,
    ) -> None:  # fmt: skip
        """Paint what was met and `judged` over the images, flat (M * H * W * C) uint8."""
        spread(
            _paint, len(met), out, width, channels, cover, *judged, look, view, met,
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


_WIDE = 512
"""Most pixels of a row that are painted together."""
_ROW = _WIDE + 2 * _CHUNK
"""Length of the rows below: pieces are laid by whole chunks, so the last may go too far."""
# Rows of a layer, of the left halves of pixels and of their right ones: a and b of the inverse
# distance a + b t, brightness; inverse heights over which its upper and its lower edge pass through
# a half of a pixel.
_A, _B, _TONE, _OVER, _UNDER = (2 * _ROW * row for row in range(5))
_LAYER = 2 * _ROW * 5
# Rows of what is painted: how much of the halves of pixels walls cover, and their light.
_SHARE, _LIT = 0, 2 * _ROW
_MIX = 4 * _ROW


@_compiled
def _judge(  # type: ignore[no-untyped-def]
    start, stop, cover, together, pieces, look, view, met, looks, lenses, levels, spans
):
    """Find the pieces of the images start..stop, and what they do to each chunk."""
    size = met.shape[3]
    begins, tables = np.empty(size, np.int32), np.empty((2, 3, size), np.float32)
    for image in range(start, stop):
        low = lenses[view[image], 3]
        tall = looks[look[image], 3] - low
        beams, seen, piece = spans[view[image]], met[image], pieces[image]
        layers = 1 if tall >= _ZERO else met.shape[2]
        nearest = _part(piece, seen, layers, beams, begins)
        if nearest > _ZERO:
            _judge_image(
                cover[image], together[image], seen, nearest, tall, low, levels[view[image]], beams,
                tables,
            )  # fmt: skip


@_compiled
def _judge_image(  # type: ignore[no-untyped-def]
    cover, together, seen, nearest, tall, low, rows, beams, tables
):
    """Tell what walls do to each chunk of an image."""
    prefer_512_bits()
    height, chunks = cover.shape
    columns, per_step = _i8(beams[0]), beams[2]
    narrow = rows[0, 1]
    for row in range(height):
        narrow = min(narrow, rows[row, 1])
    of = _u8(_stretch(seen, columns, _HALF * beams[3], narrow * per_step, tables))
    many = _MOST if of > 0 else 1
    highest, lowest = max(tall, _ZERO) * nearest, -low * nearest
    for top in range(0, height, _TOGETHER):
        bottom, middle = min(top + _TOGETHER, height), _middle(rows, top)
        first, last = rows[top, 2], rows[bottom - 1, 2]
        deep, step = max(rows[top, 3], rows[bottom - 1, 3]), rows[middle, 1]
        if last - deep > highest or first + deep < lowest:
            continue
        begin, wide = rows[middle, 0] - beams[1] - _HALF * step, step * _f4(_CHUNK)
        for chunk in range(chunks):
            left = begin + wide * _f4(chunk)
            end = min(_i8((left + wide) * per_step + _ONE), columns - 1) + 1 - many
            at: Any = max(min(_i8(left * per_step), end), 0)
            far, near, steep = (
                tables[of, 0, _u8(at)],
                tables[of, 1, _u8(at)],
                tables[of, 2, _u8(at)],
            )
            while at < end:
                at = min(at + many, end)
                far, near = min(far, tables[of, 0, _u8(at)]), max(near, tables[of, 1, _u8(at)])
                steep = max(steep, tables[of, 2, _u8(at)])
            # 2.5: rows that share what is met differ by less than 1.5 columns.
            steep *= _f4(2.5) * step
            # What is true of the first and of the last row is true of those between them.
            kind = _kind(far, near, steep, first, deep, tall, low)
            if kind != _kind(far, near, steep, last, deep, tall, low):
                kind = _MIXED
            if kind == _CLEAR:
                continue
            all_of: Any = _CLEAR
            for row in range(top, bottom):
                one = kind
                if kind == _MIXED:
                    one = _kind(far, near, steep, rows[row, 2], rows[row, 3], tall, low)
                one = one if rows[row, 5] != _ZERO else _CLEAR
                cover[_u8(row), _u8(chunk)] = one
                all_of |= one
            together[_u8(top // _TOGETHER), _u8(chunk)] = all_of


@_inline
def _stretch(seen, columns, half, narrow, tables):  # type: ignore[no-untyped-def]
    """Find the least and the greatest inverse and the greatest slope, in each column.

    Returns:
        1 if in the second one of `tables` they are found in `_MOST` columns from each one on; 0 if
        a chunk of the narrowest row, which has `narrow` columns in a pixel, has fewer.
    """
    for k in range(columns):
        q, slope = seen[0, 0, _u8(k)], abs(seen[1, 0, _u8(k)])
        tables[0, 0, _u8(k)], tables[0, 1, _u8(k)] = q - half * slope, q + half * slope
        tables[0, 2, _u8(k)] = slope
    # It may be less than one too few, as a chunk also takes in the columns that it begins in.
    if narrow * _f4(_CHUNK) < _f4(_MOST - 1) or columns < _MOST:
        return 0
    _gather(tables, 0, 1, columns, 3, 1)
    _gather(tables, 1, 0, columns, 15, 4)
    _gather(tables, 0, 1, columns, 31, 8)
    return 1


@_inline
def _gather(tables, of, to, columns, less, by):  # type: ignore[no-untyped-def]
    """Take in what was found in the columns that are `by` to the right, and twice and thrice it."""
    one, two, three = _u8(by), _u8(2 * by), _u8(3 * by)
    for j in range(columns - less):
        k = _u8(j)
        a = min(tables[of, 0, k], tables[of, 0, k + one])
        tables[to, 0, k] = min(a, tables[of, 0, k + two], tables[of, 0, k + three])
    for j in range(columns - less):
        k = _u8(j)
        a = max(tables[of, 1, k], tables[of, 1, k + one])
        tables[to, 1, k] = max(a, tables[of, 1, k + two], tables[of, 1, k + three])
    for j in range(columns - less):
        k = _u8(j)
        a = max(tables[of, 2, k], tables[of, 2, k + one])
        tables[to, 2, k] = max(a, tables[of, 2, k + two], tables[of, 2, k + three])


@_inline
def _middle(rows, top):  # type: ignore[no-untyped-def]
    """Return the row whose columns those share that begin at `top`."""
    middle = min(top + _TOGETHER // 2, len(rows) - 1)
    return middle if rows[middle, 5] != _ZERO else top


@_compiled
def _paint(  # type: ignore[no-untyped-def]
    start, stop, out, width, channels, cover, pieces, together, look, view, met, looks, lenses,
    levels, spans,
):  # fmt: skip
    """Paint the walls of the images start..stop, in each column the farthest first."""
    layers, size = met.shape[2], met.shape[3] + 2 * _CHUNK
    m = np.zeros(_MIX + layers * _LAYER, np.float32)
    flat = np.zeros(_ROW * channels, np.uint8)
    words = flat.view(np.uint64)
    # Of each piece: its left edge; the first pixels whose left and whose right halves it covers;
    # then, of each layer, what is laid.
    edge, lefts = np.zeros(size, np.float32), np.zeros(size, np.float32)
    rights, plan = np.zeros(size, np.float32), np.zeros((layers, 5, size), np.float32)
    for image in range(start, stop):
        _paint_image(
            out, image * cover.shape[1] * width * channels, width, channels, cover[image],
            together[image], pieces[image], met[image], looks[look[image]], lenses[view[image]],
            levels[view[image]], spans[view[image]], m, flat, words, edge, lefts, rights, plan,
        )  # fmt: skip


@_compiled
def _paint_image(  # type: ignore[no-untyped-def]
    out, origin, width, channels, cover, together, piece, met, paint, lens, rows, beams, m, flat,
    words, edge, lefts, rights, plan,
):  # fmt: skip
    """Paint the walls of an image, `_TOGETHER` rows each: from clear chunk to clear chunk.

    No arrays are made or cut here: Numba would count, run by run, who uses them.
    """
    prefer_512_bits()
    height, chunks = cover.shape
    low = lens[3]
    tall = paint[3] - low
    layers = 1 if tall >= _ZERO else met.shape[1]
    # Whole vectors; but a loop over a known number would be unrolled.
    many = (_i8(piece[0]) + 2 + _CHUNK - 1) & -_CHUNK
    _list(edge, plan, piece, met, layers, beams)
    for group in range(len(together)):
        top = group * _TOGETHER
        bottom, middle = min(top + _TOGETHER, height), _middle(rows, top)
        chunk, planned, begun = 0, False, 1
        while chunk < chunks:
            kind = _i8(together[_u8(group), _u8(chunk)])
            if kind == _CLEAR:
                chunk += 1
                continue
            if not planned:
                _plan(
                    edge, lefts, rights, plan, many, layers, rows[middle, 0] - beams[1],
                    rows[middle, 1], rows[middle, 3], tall, low,
                )  # fmt: skip
                planned = True
            begin, most = chunk, min(chunks, chunk + _WIDE // _CHUNK)
            chunk += 1
            while chunk < most and together[_u8(group), _u8(chunk)] != _CLEAR:
                kind |= _i8(together[_u8(group), _u8(chunk)])
                chunk += 1
            left = begin * _CHUNK
            pixels = min(width, chunk * _CHUNK) - left
            while lefts[_u8(begun + 1)] <= _f4(left):
                begun += 1
            depth = _lay_run(m, lefts, rights, plan, begun, layers, left, pixels, kind)
            if kind & FULL != 0:
                _flatten(flat, channels, pixels, m, paint)
            for row in range(top, bottom):
                _paint_run(
                    out, origin, width, channels, cover, paint, rows, beams, m, words,
                    row, begin, chunk, depth, tall, low,
                )  # fmt: skip


@_inline
def _list(edge, plan, piece, met, layers, beams):  # type: ignore[no-untyped-def]
    """List the pieces, and a nameless one after the last."""
    count, width = _i8(piece[0]), beams[3]
    for n in range(1, count + 1):
        edge[_u8(n)] = (_f4(piece[_u8(n)]) - _HALF) * width if n > 1 else _f4(-1e6)
    edge[_u8(count + 1)] = _f4(1e6)
    for layer in range(layers):
        for n in range(1, count + 1):
            k, j = _u8(piece[_u8(n)]), _u8(layer)
            slope = met[1, j, k]
            plan[j, 0, _u8(n)] = met[0, j, k] - slope * (_f4(piece[_u8(n)]) * width)
            plan[j, 1, _u8(n)] = slope
            plan[j, 2, _u8(n)] = met[2, j, k]


@_inline
def _plan(  # type: ignore[no-untyped-def]
    edge, lefts, rights, plan, many, layers, begin, step, deep, tall, low
):
    """Find where in a row the pieces begin, and over which heights their edges pass."""
    per_pixel, square, slide = _ONE / step, deep * deep, _HALF * step
    for n in range(many):
        at = (edge[_u8(n)] - begin) * per_pixel
        lefts[_u8(n)] = np.ceil(at + _f4(0.25))
        rights[_u8(n)] = np.ceil(at - _f4(0.25))
    for layer in range(layers):
        for n in range(many):
            slope = plan[_u8(layer), 1, _u8(n)] * slide
            over, under = tall * slope, low * slope
            plan[_u8(layer), 3, _u8(n)] = _ONE / math.sqrt(square + over * over)
            plan[_u8(layer), 4, _u8(n)] = _ONE / math.sqrt(square + under * under)


@_inline
def _lay_run(m, lefts, rights, plan, begun, layers, left, pixels, kind):  # type: ignore[no-untyped-def]
    """Lay pieces into a run of pixels, each over what is right of it; return how many layers."""
    last, depth = _f4(left + pixels), 0
    while depth < (layers if kind & _MIXED != 0 else 1):
        some, n, o = _ZERO, _u8(begun), _u8(_MIX + depth * _LAYER)
        while rights[n] < last:
            some += plan[_u8(depth), 2, n]
            right, begin = max(_i8(rights[n]) - left, 0), max(_i8(lefts[n]) - left, 0)
            end = min(_i8(lefts[n + _u8(1)]) - left, pixels)
            count = (end - right + _CHUNK - 1) & -_CHUNK
            a, b, tone = plan[_u8(depth), 0, n], plan[_u8(depth), 1, n], plan[_u8(depth), 2, n]
            over, under = plan[_u8(depth), 3, n], plan[_u8(depth), 4, n]
            if kind & _MIXED != 0:
                _lay(m, o + _u8(_ROW + right), count, a, b, tone, over, under)
                _lay(m, o + _u8(begin), count, a, b, tone, over, under)
            else:
                _tint(m, o + _u8(_ROW + right), count, tone)
                _tint(m, o + _u8(begin), count, tone)
            n += _u8(1)
        if some <= _ZERO:
            break
        depth += 1
    return depth


@_inline
def _lay(m, o, count, a, b, tone, over, under):  # type: ignore[no-untyped-def]
    """Lay a piece into halves of pixels."""
    for i in range(count):
        m[o + _u8(_A + i)] = a
        m[o + _u8(_B + i)] = b
        m[o + _u8(_TONE + i)] = tone
        m[o + _u8(_OVER + i)] = over
        m[o + _u8(_UNDER + i)] = under


@_inline
def _tint(m, o, count, tone):  # type: ignore[no-untyped-def]
    """Lay only the brightness of a piece into halves of pixels."""
    for i in range(count):
        m[o + _u8(_TONE + i)] = tone


@_inline
def _flatten(flat, channels, pixels, m, paint):  # type: ignore[no-untyped-def]
    """Compute the colours of a run where the nearest walls cover all of it."""
    o = _u8(_MIX + _TONE)
    for c in range(channels):
        colour = _HALF * paint[c]
        for j in range(pixels):
            tone = m[o + _u8(j)] + m[o + _u8(_ROW + j)]
            flat[_u8(channels * j + c)] = np.uint8(_i4(tone * colour + _HALF))


@_inline
def _paint_run(  # type: ignore[no-untyped-def]
    out, origin, width, channels, cover, paint, rows, beams, m, words, row, begin, end, depth,
    tall, low,
):  # fmt: skip
    """Paint a row of a run: what is full, and what is mixed."""
    left, chunk = begin * _CHUNK, begin
    o = origin + (row * width + left) * channels
    while chunk < end:
        kind, first = _i8(cover[_u8(row), _u8(chunk)]), chunk
        chunk += 1
        while chunk < end and _i8(cover[_u8(row), _u8(chunk)]) == kind:
            chunk += 1
        a, b = first * _CHUNK - left, min(chunk * _CHUNK, width) - left
        if kind == FULL:
            from_, to = (a * channels) >> 3, (b * channels) >> 3
            for k in range(from_, to):
                _stamp(out, _u8(o + 8 * k), words[_u8(k)])
            for i in range(8 * to, b * channels):
                out[_u8(o + i)] = np.uint8(words[_u8(to)] >> _u8(8 * (i - 8 * to)))
        elif kind == _MIXED:
            step, up = rows[_u8(row), 1], rows[_u8(row), 2]
            t = rows[_u8(row), 0] - beams[1] + step * _f4(left)
            if depth == 1:
                _cover(m, a, b, t, step, up, tall, low)
            else:
                for j in range(a, b):
                    m[_u8(_SHARE + j)], m[_u8(_SHARE + _ROW + j)] = _ZERO, _ZERO
                    m[_u8(_LIT + j)], m[_u8(_LIT + _ROW + j)] = _ZERO, _ZERO
                for layer in range(depth):
                    behind = _MIX + (depth - 1 - layer) * _LAYER
                    _cover_more(m, behind, 0, a, b, t - _f4(0.25) * step, step, up, tall, low)
                    _cover_more(m, behind, _ROW, a, b, t + _f4(0.25) * step, step, up, tall, low)
                for j in range(a, b):
                    m[_u8(_SHARE + j)] += m[_u8(_SHARE + _ROW + j)]
                    m[_u8(_LIT + j)] += m[_u8(_LIT + _ROW + j)]
            if channels == 1:
                _blend(out, o, 1, a, b, m, paint[0])
            else:
                for c in range(3):
                    _blend(out, o + c, 3, a, b, m, paint[c])


@_inline
def _stamp(out, o, word):  # type: ignore[no-untyped-def]
    """Write eight bytes; LLVM joins them to one store."""
    for k in range(8):
        out[o + _u8(k)] = np.uint8(word >> _u8(8 * k))


@_compiled
def _part(piece, seen, layers, beams, begins):  # type: ignore[no-untyped-def]
    """Part the columns where another wall begins; return the greatest inverse.

    `piece`: number of pieces, the first column of each, number of columns.
    """
    columns, half, nearest = _i8(beams[0]), _HALF * beams[3], _ZERO
    for k in range(1, columns):
        new = seen[1, 0, _u8(k)] != seen[1, 0, _u8(k - 1)]
        begins[_u8(k)] = new | (seen[2, 0, _u8(k)] != seen[2, 0, _u8(k - 1)])
    for layer in range(1, layers):
        for k in range(1, columns):
            new = seen[1, _u8(layer), _u8(k)] != seen[1, _u8(layer), _u8(k - 1)]
            new |= seen[2, _u8(layer), _u8(k)] != seen[2, _u8(layer), _u8(k - 1)]
            begins[_u8(k)] |= new
    count, piece[1] = 1, 0
    for k in range(1, columns):
        piece[_u8(count + 1)] = k
        count += begins[_u8(k)]
    piece[0], piece[_u8(count + 1)] = count, columns
    for n in range(1, count + 1):
        for end in (_i8(piece[_u8(n)]), _i8(piece[_u8(n + 1)]) - 1):
            nearest = max(nearest, seen[0, 0, _u8(end)] + half * abs(seen[1, 0, _u8(end)]))
    return nearest


@_inline
def _kind(far, near, steep, up, deep, tall, low):  # type: ignore[no-untyped-def]
    """Tell whether the nearest walls cover all of a row of a chunk, nothing, or perhaps a part."""
    margin, under = deep + abs(tall) * steep, deep + low * steep
    if up - margin > max(tall, _ZERO) * near or up + under < -low * near:
        return _CLEAR
    least = tall * (far if tall > _ZERO else near)
    return FULL if up + margin < least and up - under > -low * far else _MIXED


@_inline
def _part_of(a, b, over, under, t, up, tall, low):  # type: ignore[no-untyped-def]
    """Compute how much of half a pixel lies between the foot and the top of a wall."""
    q = a + b * t
    c = min(max(_HALF + (tall * q - up) * over, _ZERO), _ONE) - _ONE
    c += min(max(_HALF + (low * q + up) * under, _ZERO), _ONE)
    return max(c, _ZERO)


@_inline
def _cover(m, begin, end, first, step, up, tall, low):  # type: ignore[no-untyped-def]
    """Compute how much of some pixels the only layer covers, twice, and its light."""
    o, right, quarter = _u8(_MIX), _u8(_MIX + _ROW), _f4(0.25) * step
    for j in range(begin, end):
        t, k = first + step * _f4(_i4(j)), _u8(j)
        c = _part_of(
            m[o + _u8(_A) + k], m[o + _u8(_B) + k], m[o + _u8(_OVER) + k], m[o + _u8(_UNDER) + k],
            t - quarter, up, tall, low,
        )  # fmt: skip
        d = _part_of(
            m[right + _u8(_A) + k], m[right + _u8(_B) + k], m[right + _u8(_OVER) + k],
            m[right + _u8(_UNDER) + k], t + quarter, up, tall, low,
        )  # fmt: skip
        m[_u8(_SHARE) + k] = c + d
        m[_u8(_LIT) + k] = c * m[o + _u8(_TONE) + k] + d * m[right + _u8(_TONE) + k]


@_inline
def _cover_more(m, behind, side, begin, end, first, step, up, tall, low):  # type: ignore[no-untyped-def]
    """Put a layer over what is behind it in some pixels' left or right halves."""
    own, mix = _u8(behind + side), _u8(side)
    for j in range(begin, end):
        t, k = first + step * _f4(_i4(j)), own + _u8(j)
        c = _part_of(
            m[k + _u8(_A)], m[k + _u8(_B)], m[k + _u8(_OVER)], m[k + _u8(_UNDER)], t, up, tall, low
        )
        share, lit = m[mix + _u8(_SHARE + j)], m[mix + _u8(_LIT + j)]
        m[mix + _u8(_SHARE + j)] = share + c * (_ONE - share)
        m[mix + _u8(_LIT + j)] = lit + c * (m[k + _u8(_TONE)] - lit)


@_inline
def _blend(out, o, channels, begin, end, m, colour):  # type: ignore[no-untyped-def]
    """Paint pixels that are part wall in one channel."""
    colour = _HALF * colour
    for j in range(begin, end):
        clear = _ONE - _HALF * m[_u8(_SHARE + j)]
        at = _u8(o + j * channels)
        out[at] = np.uint8(_i4(_f4(out[at]) * clear + m[_u8(_LIT + j)] * colour + _HALF))


@_compiled
def hide_row(  # type: ignore[no-untyped-def]
    cover, begin, step, up, deep, base, rise, seen, beams, tall, low, first, last
):
    """Take from a row of a box's side what walls before it cover.

    `base + rise t` is the inverse of how far ahead the side is at t metres aside a metre ahead.
    """
    for column in range(first, last):
        if cover[_u8(column)] > _ZERO:
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
                    cover[_u8(column)] *= _ONE - max(c, _ZERO)


@_compiled
def may_hide(piece, seen, beams, low, high, base, rise):  # type: ignore[no-untyped-def]
    """Tell whether a wall may be before a box's side (1), or is before all of it (2), or none is.

    `low`, `high`: how far aside for each metre ahead the side begins and ends; see `hide_row`.
    """
    last, half, some, every = beams[0] - _ONE, _HALF * beams[3], 0, 2
    k0 = _i8(min(max((low - beams[1]) * beams[2] - _ONE, _ZERO), last))
    k1 = _i8(min(max((high - beams[1]) * beams[2] + _f4(2), _ZERO), last))
    for n in range(1, piece[0] + 1):
        first, end = piece[_u8(n)], piece[_u8(n + 1)] - 1
        if end >= k0 and first <= k1:
            k = _u8(first)
            slope = seen[1, 0, k]
            for at in (_i8(max(first, k0)), _i8(min(end, k1))):
                q = seen[0, 0, k] + slope * beams[3] * _f4(at - first)
                q -= base + rise * (beams[1] + beams[3] * _f4(at))
                margin = half * (abs(slope) + abs(rise))
                some = 1 if q > -margin else some
                every = every if q > margin else 0
    return max(some, every)
