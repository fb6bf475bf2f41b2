"""Obstacles and cars in the camera's image: boxes that stand on the ground, painted over it.

A box shows two of its sides and, from above, its top. Each is a convex polygon in the image, and a
pixel takes as much of its colour as the polygon covers of the pixel; where two sides of a box meet,
their shares add up, so nothing shines through the seam.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import njit

from hotlap.series import prefer_512_bits
from hotlap.sim.look import Look
from hotlap.sim.walls import hide_row, may_hide
from hotlap.types import Float32

__all__ = ["draw_boxes", "shades"]

_compiled = njit(cache=True, nogil=True, fastmath=True, error_model="numpy")
_inline: Any = njit(fastmath=True, error_model="numpy", forceinline=True)
"""For short loops: to hand over an array costs as much as ten pixels."""
_f4, _i4, _i8, _u8 = np.float32, np.int32, np.int64, np.uint64
_ZERO, _HALF, _ONE = _f4(0), _f4(0.5), _f4(1)
_NEAR = _f4(0.02)
"""Nothing nearer to the lens than this is drawn [m]. DeepRacer's near plane."""
_SIDES = 3
_CORNERS = 5
"""A side has four corners, five where the near plane cuts one off."""
_PAIRS = 3
"""Pairs of edges that lie across from each other."""
_LIGHT = (1.0, 0.78, 0.6)
"""Brightness of the top, of the ends and of the flanks of a box."""


def shades(look: Look, luminance: tuple[float, float, float] | None) -> Float32:
    """Return (2, 3, 3): obstacle and car; top, ends and flanks; channels, one in use for grey."""
    colours = np.array([look.obstacle, look.car], np.float64)
    if luminance is not None:
        colours[:, 0] = colours @ luminance
    light = np.array(_LIGHT)
    return np.asarray(colours[:, None, :] * light[None, :, None], np.float32)


@_compiled
def draw_boxes(  # type: ignore[no-untyped-def]
    start, stop, out, height, width, channels, x, y, yaw, look, view, boxes, shade, lenses,
    met, pieces, levels, spans, heights,
):  # fmt: skip
    """Paint the boxes (M, K, 8) of the images start..stop over them, the farthest first.

    `lenses`, of which `view` says which one: focal length [pixels], sine and cosine of the pitch,
    height above the ground [m], distance ahead of the pose [m]. `met`, `pieces`, `levels`, `spans`
    and `heights`: the walls that may hide them, see `walls.Walls`; `met` is empty where there are
    none.
    """
    order = np.empty(boxes.shape[1], np.int64)
    far = np.empty(boxes.shape[1], np.float32)
    # Of each side, each edge: a column + b row + c is the distance inside it [pixels].
    edges = np.empty((_SIDES, 2 * _PAIRS, 3), np.float32)
    corner, cut = np.empty((4, 3), np.float32), np.empty((_CORNERS, 3), np.float32)
    side = np.empty((_SIDES, 4), np.float32)
    touch, whole = np.empty(2 * _SIDES * height, np.float32), np.empty(2 * _SIDES * height, _f4)
    # Of a row's pixels, how much one side covers; zeros between boxes: all sides, and their light.
    cover, share = np.empty(width, np.float32), np.zeros(width, np.float32)
    lit = np.zeros(width * channels, np.float32)
    part, span = np.empty(4 * _SIDES * height, np.int32), np.empty(4, np.float32)
    nothing, none = np.zeros((3, 1, 1), np.float32), np.zeros(3, np.int32)
    for image in range(start, stop):
        walled = len(met) > 0 and heights[look[image]] > _ZERO
        seen, piece = (met[image], pieces[image]) if walled else (nothing, none)
        _draw_image(
            out, image * height * width * channels, height, width, channels,
            x[image], y[image], yaw[image], boxes[image], shade[look[image]], lenses[view[image]],
            walled, seen, piece, levels[view[image]], spans[view[image]],
            heights[look[image]],
            order, far, edges, corner, cut, side, touch, whole, cover, share, lit, part, span,
        )  # fmt: skip


@_compiled
def _draw_image(  # type: ignore[no-untyped-def]
    out, origin, height, width, channels, x, y, yaw, boxes, shade, lens, walled, seen, piece, rows,
    beams, wall, order, far, edges, corner, cut, side, touch, whole, cover, share, lit, part, span,
):  # fmt: skip
    """Paint the boxes of an image. No arrays are made or cut here: Numba would count them."""
    prefer_512_bits()
    tall, forward = lens[3], lens[4]
    ahead_x, ahead_y = _f4(math.cos(yaw)), _f4(math.sin(yaw))
    lens_x, lens_y = x + forward * ahead_x, y + forward * ahead_y
    many = _sort(boxes, lens_x, lens_y, ahead_x, ahead_y, tall, order, far)
    for place in range(many):
        box = _u8(order[place])
        # The lens in the frame of the box, and where it looks.
        dx, dy = lens_x - boxes[box, 0], lens_y - boxes[box, 1]
        c, s = boxes[box, 2], boxes[box, 3]
        there_x, there_y = c * dx + s * dy, c * dy - s * dx
        axis_x, axis_y = c * ahead_x + s * ahead_y, c * ahead_y - s * ahead_x
        span[0], span[1], span[2], span[3] = _f4(width), _ZERO, _f4(height), _ZERO
        sides = 0
        for face in range(_SIDES):
            if face == 0:
                outside = tall > boxes[box, 6]
            else:
                outside = abs(there_x if face == 1 else there_y) > boxes[box, 3 + face]
            if outside:
                _place(boxes, box, face, there_x, there_y, axis_x, axis_y, lens, corner)
                kept = _clip(corner, cut)
                if walled:
                    low, high, deep = _lay_out(corner, face, sides, lens, side)
                    base, rise = side[sides, 1], side[sides, 2]
                    if face == 0:
                        base = _ONE / max(deep, _NEAR)
                    hidden = may_hide(piece, seen, beams, low, high, base, rise)
                    side[sides, 3] = _ONE if hidden > 0 else _ZERO
                    # Nobody looks over a wall that is higher than the lens and than what is behind.
                    if hidden == 2 and face > 0 and wall >= max(tall, boxes[box, 6]):
                        kept = 0
                if kept >= 3:
                    _project(cut, kept, lens[0], width, height, edges, sides, span)
                    side[sides, 0] = _f4(face)
                    sides += 1
        if sides == 0:
            continue
        left = _i8(max(math.floor(span[0]), _ZERO))
        right = _i8(min(math.ceil(span[1]), _f4(width)))
        top = _i8(max(math.floor(span[2]), _ZERO))
        bottom = _i8(min(math.ceil(span[3]), _f4(height)))
        if left >= right or top >= bottom:  # beside the picture
            continue
        for f in range(sides):
            _span_rows(edges, f, left, right, top, bottom, height, touch, whole)
            _part(f, left, right, top, bottom, height, touch, whole, part)
        kind = _u8(boxes[box, 7])
        if channels == 1:
            _draw_rows(
                out, origin, 1, top, bottom, height, width, sides, part, shade, kind, edges, side,
                walled, seen, beams, rows, tall, wall, cover, share, lit,
            )  # fmt: skip
        else:
            _draw_rows(
                out, origin, 3, top, bottom, height, width, sides, part, shade, kind, edges, side,
                walled, seen, beams, rows, tall, wall, cover, share, lit,
            )  # fmt: skip


@_inline
def _draw_rows(  # type: ignore[no-untyped-def]
    out, origin, channels, top, bottom, height, width, sides, part, shade, kind, edges, side,
    walled, seen, beams, rows, tall, wall, cover, share, lit,
):  # fmt: skip
    """Paint the rows of a box; of each side first what it covers whole."""
    for row in range(top, bottom):
        o, hides = origin + row * width * channels, walled and rows[row, 5] != _ZERO
        for f in range(sides):
            own, face = _u8(4 * f * height + row), _u8(side[f, 0])
            first, inner = _i8(part[own]), _i8(part[own + _u8(height)])
            outer, last = _i8(part[own + _u8(2 * height)]), _i8(part[own + _u8(3 * height)])
            if hides and side[f, 3] > _ZERO and first < last:
                for j in range(first, last):
                    cover[_u8(j)] = _share(edges, _u8(f), _f4(row), j)
                base = side[f, 1] * (rows[row, 2] if face == _u8(0) else _ONE)
                hide_row(
                    cover, rows[row, 0], rows[row, 1], rows[row, 2], rows[row, 3],
                    base, side[f, 2], seen, beams, wall - tall, tall, first, last,
                )  # fmt: skip
                for j in range(first, last):
                    _add(share, lit, channels, j, cover[_u8(j)], shade, kind, face)
                # All of it is now covered in part.
                part[own + _u8(height)], part[own + _u8(2 * height)] = last, last
                continue
            for c in range(channels):
                value = np.uint8(shade[kind, face, c] + _HALF)
                for j in range(inner, outer):
                    out[_u8(o + j * channels + c)] = value
            # What it covers in part is a few pixels at either end: one loop over both.
            for i in range(last - first - (outer - inner)):
                at = first + i + (outer - inner if first + i >= inner else _i8(0))
                one = _share(edges, _u8(f), _f4(row), at)
                _add(share, lit, channels, at, one, shade, kind, face)
        for f in range(sides):
            own = _u8(4 * f * height + row)
            first, inner = _i8(part[own]), _i8(part[own + _u8(height)])
            outer, last = _i8(part[own + _u8(2 * height)]), _i8(part[own + _u8(3 * height)])
            for i in range(last - first - (outer - inner)):
                at = first + i + (outer - inner if first + i >= inner else _i8(0))
                _blend(out, o, channels, share, lit, at)


@_compiled
def _sort(  # type: ignore[no-untyped-def]
    boxes, lens_x, lens_y, ahead_x, ahead_y, tall, order, far
):
    """List the boxes that may be in sight, the farthest first; return how many there are."""
    seen = 0
    for k in range(boxes.shape[0]):
        box = boxes[k]
        reach = math.sqrt(box[4] * box[4] + box[5] * box[5])
        dx, dy = box[0] - lens_x, box[1] - lens_y
        # A lens that looks down also sees what is a little behind it.
        if box[6] > _ZERO and ahead_x * dx + ahead_y * dy > -reach - _f4(6) * tall - box[6]:
            distance = dx * dx + dy * dy
            at = seen
            while at > 0 and far[at - 1] < distance:
                far[at], order[at] = far[at - 1], order[at - 1]
                at -= 1
            far[at], order[at] = distance, k
            seen += 1
    return seen


@_compiled
def _place(  # type: ignore[no-untyped-def]
    boxes, box, side, there_x, there_y, axis_x, axis_y, lens, corner
):
    """Put a side's corners into the camera's frame: to the right, down, along its axis [m]."""
    sine, cosine = lens[1], lens[2]
    long, wide, high = boxes[box, 4], boxes[box, 5], boxes[box, 6]
    for c in range(4):
        one = _ONE if c == 1 or c == 2 else -_ONE
        up = c > 1
        if side == 0:
            px, py, pz = one * long, (wide if up else -wide), high
        elif side == 1:
            px, py, pz = (long if there_x > _ZERO else -long), one * wide, (high if up else _ZERO)
        else:
            px, py, pz = one * long, (wide if there_y > _ZERO else -wide), (high if up else _ZERO)
        px, py, pz = px - there_x, py - there_y, pz - lens[3]
        along = axis_x * px + axis_y * py
        corner[c, 0] = axis_y * px - axis_x * py
        corner[c, 1] = -sine * along - cosine * pz
        corner[c, 2] = cosine * along - sine * pz


@_compiled
def _lay_out(corner, face, f, lens, side):  # type: ignore[no-untyped-def]
    """Find the inverse of how far ahead a side is: a + b t, at t metres aside a metre ahead.

    Of the top: a is for each metre up a metre ahead, and b is 0. Then from which t to which it is.
    """
    sine, cosine = lens[1], lens[2]
    low, high, deep = _f4(1e9), _f4(-1e9), _ZERO
    for c in range(4):
        ahead, aside = cosine * corner[c, 2] - sine * corner[c, 1], corner[c, 0]
        t = aside / ahead if ahead > _NEAR else _f4(0)
        low, high, deep = min(low, t), max(high, t), max(deep, ahead)
        if ahead <= _NEAR:
            low, high = _f4(-1e9), _f4(1e9)
    ax, ay = cosine * corner[0, 2] - sine * corner[0, 1], corner[0, 0]
    bx, by = cosine * corner[1, 2] - sine * corner[1, 1], corner[1, 0]
    if face == 0:
        side[f, 1], side[f, 2] = _ONE / (-sine * corner[0, 2] - cosine * corner[0, 1]), _ZERO
    else:
        ex, ey = bx - ax, by - ay
        across = ax * ey - ay * ex
        over = _ONE / (across if abs(across) > _f4(1e-12) else _f4(1e-12))
        side[f, 1], side[f, 2] = ey * over, -ex * over
    return low, high, deep


@_compiled
def _clip(corner, cut):  # type: ignore[no-untyped-def]
    """Cut a side at the near plane (Sutherland and Hodgman); return how many corners are left."""
    kept = 0
    for c in range(4):
        d = (c + 1) % 4
        if corner[c, 2] >= _NEAR:
            for axis in range(3):
                cut[kept, axis] = corner[c, axis]
            kept += 1
        if (corner[c, 2] >= _NEAR) != (corner[d, 2] >= _NEAR):
            share = (_NEAR - corner[c, 2]) / (corner[d, 2] - corner[c, 2])
            for axis in range(3):
                cut[kept, axis] = corner[c, axis] + share * (corner[d, axis] - corner[c, axis])
            kept += 1
    return kept


@_compiled
def _project(cut, kept, focal, width, height, edges, f, span):  # type: ignore[no-untyped-def]
    """Project a polygon, write its edges, and widen `span`: left, right, top, bottom [pixels]."""
    area = _ZERO
    for c in range(kept):
        inverse = focal / cut[c, 2]
        cut[c, 0] = cut[c, 0] * inverse + _HALF * _f4(width)
        cut[c, 1] = cut[c, 1] * inverse + _HALF * _f4(height)
        span[0], span[1] = min(span[0], cut[c, 0]), max(span[1], cut[c, 0])
        span[2], span[3] = min(span[2], cut[c, 1]), max(span[3], cut[c, 1])
    for c in range(kept):
        d = (c + 1) % kept
        area += cut[c, 0] * cut[d, 1] - cut[d, 0] * cut[c, 1]
    turn = _ONE if area > _ZERO else -_ONE
    # Across from the first half of the edges lies the other half, _PAIRS further on, or nothing.
    for c in range(2 * _PAIRS):
        edges[f, c, 0], edges[f, c, 1], edges[f, c, 2] = _ZERO, _ZERO, _HALF
    half = (kept + 1) // 2
    for c in range(kept):
        d = (c + 1) % kept
        ux, uy = cut[d, 0] - cut[c, 0], cut[d, 1] - cut[c, 1]
        inverse = turn / math.sqrt(ux * ux + uy * uy + _f4(1e-12))
        a, b = -uy * inverse, ux * inverse
        e = c if c < half else c - half + _PAIRS
        edges[f, e, 0], edges[f, e, 1] = a, b
        # Pixels are asked at their centres.
        edges[f, e, 2] = a * (_HALF - cut[c, 0]) + b * (_HALF - cut[c, 1])


@_inline
def _span_rows(  # type: ignore[no-untyped-def]
    edges, f, left, right, top, bottom, height, touch, whole
):
    """Find between which columns each row of a polygon is touched, and between which it is whole.

    `touch`, `whole`: of each polygon, where that begins in each row, and then where it ends.
    """
    low, high = _f4(left), _f4(right)
    begin, end = _u8(2 * f * height), _u8((2 * f + 1) * height)
    for row in range(top, bottom):
        touch[begin + _u8(row)] = low
        whole[begin + _u8(row)] = low
        touch[end + _u8(row)] = high
        whole[end + _u8(row)] = high
    for c in range(2 * _PAIRS):
        a, b, d = edges[f, c, 0], edges[f, c, 1], edges[f, c, 2]
        if abs(a) < _f4(1e-3):  # a level edge
            near, far = min(a * low, a * high) + d, max(a * low, a * high) + d
            for row in range(top, bottom):
                at, i = b * _f4(_i4(row)), end + _u8(row)
                touch[i] = touch[i] if far + at > -_HALF else low
                whole[i] = whole[i] if near + at >= _HALF else low
        else:
            # A pixel is touched where a column + b > -1/2, and covered where it is at least 1/2.
            over = _ONE / a
            out, in_, lean = (-_HALF - d) * over, (_HALF - d) * over, -b * over
            if a > _ZERO:
                for row in range(top, bottom):
                    at, i = lean * _f4(_i4(row)), begin + _u8(row)
                    touch[i], whole[i] = max(touch[i], out + at), max(whole[i], in_ + at)
            else:
                for row in range(top, bottom):
                    at, i = lean * _f4(_i4(row)) + _ONE, end + _u8(row)
                    touch[i], whole[i] = min(touch[i], out + at), min(whole[i], in_ + at)


@_inline
def _part(f, left, right, top, bottom, height, touch, whole, part):  # type: ignore[no-untyped-def]
    """Find which pixels of each row a polygon touches, and which of them it covers whole.

    `part`: of each polygon, the first pixel that it touches in each row; the first and the end of
    those that it covers, of which there may be none; the end of those that it touches.
    """
    low, high = _f4(left), _f4(right)
    begin, end = _u8(2 * f * height), _u8((2 * f + 1) * height)
    own, far = _u8(4 * f * height), _u8(height)
    for row in range(top, bottom):
        i, j, k = begin + _u8(row), end + _u8(row), own + _u8(row)
        first = _i4(min(touch[i], high))
        last = max(_i4(min(max(touch[j], low), high)), first)
        inner = min(max(_i4(np.ceil(min(whole[i], high))), first), last)
        part[k], part[k + far] = first, inner
        part[k + far + far] = min(max(_i4(max(whole[j], low)), inner), last)
        part[k + far + far + far] = last


@_inline
def _share(edges, f, row, column):  # type: ignore[no-untyped-def]
    """Compute how much of a pixel is inside a polygon; exact for upright rectangles."""
    at = _f4(_i4(column))
    d0 = edges[f, 0, 0] * at + (edges[f, 0, 1] * row + edges[f, 0, 2])
    d1 = edges[f, 1, 0] * at + (edges[f, 1, 1] * row + edges[f, 1, 2])
    d2 = edges[f, 2, 0] * at + (edges[f, 2, 1] * row + edges[f, 2, 2])
    d3 = edges[f, 3, 0] * at + (edges[f, 3, 1] * row + edges[f, 3, 2])
    d4 = edges[f, 4, 0] * at + (edges[f, 4, 1] * row + edges[f, 4, 2])
    p = min(max(min(d0, _HALF) + min(d3, _HALF), _ZERO), _ONE)
    q = min(max(min(d1, _HALF) + min(d4, _HALF), _ZERO), _ONE)
    return p * q * min(max(min(d2, _HALF) + _HALF, _ZERO), _ONE)


@_inline
def _add(share, lit, channels, j, part, shade, kind, face):  # type: ignore[no-untyped-def]
    """Add what a side covers of a pixel."""
    share[_u8(j)] += part
    for c in range(channels):
        lit[_u8(j * channels + c)] += part * shade[kind, face, c]


@_inline
def _blend(out, o, channels, share, lit, j):  # type: ignore[no-untyped-def]
    """Paint a pixel that sides cover in part, and forget it: where two meet, both come here."""
    part = share[_u8(j)]
    clear, over = _ONE - min(part, _ONE), _ONE / max(part, _ONE)
    share[_u8(j)] = _ZERO
    for c in range(channels):
        at, k = _u8(o + j * channels + c), _u8(j * channels + c)
        out[at] = np.uint8(_i4(_f4(out[at]) * clear + lit[k] * over + _HALF))
        lit[k] = _ZERO
