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

from hotlap.sim.look import Look
from hotlap.sim.walls import hide_row, is_before, is_near
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
    met, levels, spans, heights,
):  # fmt: skip
    """Paint the boxes (M, K, 8) of the images start..stop over them, the farthest first.

    `lenses`, of which `view` says which one: focal length [pixels], sine and cosine of the pitch,
    height above the ground [m], distance ahead of the pose [m]. `met`, `levels`, `spans` and
    `heights`: the walls that may hide them, see `walls.Walls`; `met` is empty where there are none.
    """
    order = np.empty(boxes.shape[1], np.int64)
    far = np.empty(boxes.shape[1], np.float32)
    # Of each side, each edge: a column + b row + c is the distance inside it [pixels].
    edges = np.empty((_SIDES, _CORNERS, 3), np.float32)
    count, face = np.empty(_SIDES, np.int64), np.empty(_SIDES, np.int64)
    corner, cut = np.empty((4, 3), np.float32), np.empty((_CORNERS, 3), np.float32)
    cover, share = np.empty(width, np.float32), np.empty(width, np.float32)
    light = np.empty((channels, width), np.float32)
    part = np.empty((_SIDES, 4), np.int64)
    span = np.empty(4, np.float32)
    plan = np.empty((_SIDES, 2), np.float32)
    for image in range(start, stop):
        lens, rows, beams = lenses[view[image]], levels[view[image]], spans[view[image]]
        tall, forward = lens[3], lens[4]
        walled = len(met) > 0 and heights[look[image]] > _ZERO
        ahead_x, ahead_y = _f4(math.cos(yaw[image])), _f4(math.sin(yaw[image]))
        lens_x, lens_y = x[image] + forward * ahead_x, y[image] + forward * ahead_y
        seen = _sort(boxes[image], lens_x, lens_y, ahead_x, ahead_y, tall, order, far)
        for place in range(seen):
            box = boxes[image, order[place]]
            # The lens in the frame of the box, and where it looks.
            dx, dy = lens_x - box[0], lens_y - box[1]
            there_x, there_y = box[2] * dx + box[3] * dy, box[2] * dy - box[3] * dx
            axis_x = box[2] * ahead_x + box[3] * ahead_y
            axis_y = box[2] * ahead_y - box[3] * ahead_x
            span[0], span[1], span[2], span[3] = _f4(width), _ZERO, _f4(height), _ZERO
            sides = 0
            for side in range(_SIDES):
                outside = (tall > box[6], abs(there_x) > box[4], abs(there_y) > box[5])
                if outside[side]:
                    _place(box, side, there_x, there_y, axis_x, axis_y, lens, corner)
                    kept = _clip(corner, cut)
                    if walled:
                        _lay_out(corner, side, lens, plan[sides])
                    if kept >= 3:
                        _project(cut, kept, lens[0], width, height, edges[sides], span)
                        count[sides], face[sides] = kept, side
                        sides += 1
            if sides == 0:
                continue
            left = _i8(max(math.floor(span[0]), _ZERO))
            right = _i8(min(math.ceil(span[1]), _f4(width)))
            top = _i8(max(math.floor(span[2]), _ZERO))
            bottom = _i8(min(math.ceil(span[3]), _f4(height)))
            if left >= right:  # beside the picture
                continue
            paint = shade[look[image], _i8(box[7])]
            # A wall that is farther than the whole box hides nothing of it.
            reach = math.sqrt(box[4] * box[4] + box[5] * box[5])
            end = max(reach - ahead_x * dx - ahead_y * dy, _NEAR)
            walls_near = walled and is_near(
                met[image], beams, rows, left, right, top, bottom, _ONE / end
            )
            for row in range(top, bottom):
                first, last = right, left
                for f in range(sides):
                    _spans(edges, f, count[f], _f4(row), left, right, part)
                    if part[f, 0] < part[f, 3]:
                        first, last = min(first, part[f, 0]), max(last, part[f, 3])
                _clear(share, light, first, last)
                for f in range(sides):
                    begin, inner, inner_end, end_ = part[f, 0], part[f, 1], part[f, 2], part[f, 3]
                    _cover_row(cover, edges, f, count[f], _f4(row), begin, inner)
                    _cover_row(cover, edges, f, count[f], _f4(row), inner_end, end_)
                    base = plan[f, 0] * (rows[row, 2] if face[f] == 0 else _ONE)
                    if walls_near and is_before(
                        met[image], beams, rows, begin, end_, row, base, plan[f, 1]
                    ):
                        cover[inner:inner_end] = _ONE
                        part[f, 2] = inner  # there is nothing whole any more
                        hide_row(
                            cover, rows[row, 0], rows[row, 1], rows[row, 2], rows[row, 3],
                            base, plan[f, 1], met[image], beams, heights[look[image]] - tall, tall,
                            begin, end_,
                        )  # fmt: skip
                        _add(cover, share, light, paint, face[f], begin, end_)
                    else:
                        _add(cover, share, light, paint, face[f], begin, inner)
                        _add(cover, share, light, paint, face[f], inner_end, end_)
                at = (image * height + row) * width * channels
                for c in range(channels):
                    if channels == 1:
                        _blend_row(out, at, 1, share, light, 0, first, last)
                    else:
                        _blend_row(out, at + c, 3, share, light, c, first, last)
                    for f in range(sides):
                        value = np.uint8(paint[face[f], c] + _HALF)
                        if channels == 1:
                            for column in range(part[f, 1], part[f, 2]):
                                out[_u8(at + column)] = value
                        else:
                            for column in range(part[f, 1], part[f, 2]):
                                out[_u8(at + c + 3 * column)] = value


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
    box, side, there_x, there_y, axis_x, axis_y, lens, corner
):
    """Put a side's corners into the camera's frame: to the right, down, along its axis [m]."""
    sine, cosine = lens[1], lens[2]
    for c in range(4):
        one = _ONE if c == 1 or c == 2 else -_ONE
        up = c > 1
        if side == 0:
            px, py, pz = one * box[4], (box[5] if up else -box[5]), box[6]
        elif side == 1:
            px, py = (box[4] if there_x > _ZERO else -box[4]), one * box[5]
            pz = box[6] if up else _ZERO
        else:
            px, py = one * box[4], (box[5] if there_y > _ZERO else -box[5])
            pz = box[6] if up else _ZERO
        px, py, pz = px - there_x, py - there_y, pz - lens[3]
        along = axis_x * px + axis_y * py
        corner[c, 0] = axis_y * px - axis_x * py
        corner[c, 1] = -sine * along - cosine * pz
        corner[c, 2] = cosine * along - sine * pz


@_compiled
def _lay_out(corner, side, lens, plan):  # type: ignore[no-untyped-def]
    """Find the inverse of how far ahead a side is: a + b t, at t metres aside a metre ahead.

    Of the top: a is for each metre up a metre ahead, and b is 0.
    """
    sine, cosine = lens[1], lens[2]
    ax, ay = cosine * corner[0, 2] - sine * corner[0, 1], corner[0, 0]
    bx, by = cosine * corner[1, 2] - sine * corner[1, 1], corner[1, 0]
    if side == 0:
        plan[0], plan[1] = _ONE / (-sine * corner[0, 2] - cosine * corner[0, 1]), _ZERO
    else:
        ex, ey = bx - ax, by - ay
        across = ax * ey - ay * ex
        over = _ONE / (across if abs(across) > _f4(1e-12) else _f4(1e-12))
        plan[0], plan[1] = ey * over, -ex * over


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
def _project(cut, kept, focal, width, height, edge, span):  # type: ignore[no-untyped-def]
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
    for c in range(kept):
        d = (c + 1) % kept
        ux, uy = cut[d, 0] - cut[c, 0], cut[d, 1] - cut[c, 1]
        inverse = turn / math.sqrt(ux * ux + uy * uy + _f4(1e-12))
        a, b = -uy * inverse, ux * inverse
        edge[c, 0], edge[c, 1] = a, b
        # Pixels are asked at their centres.
        edge[c, 2] = a * (_HALF - cut[c, 0]) + b * (_HALF - cut[c, 1])


@_inline
def _spans(edges, f, count, row, left, right, part):  # type: ignore[no-untyped-def]
    """Find which pixels of a row a polygon touches, and which of them it covers whole.

    `part`: the first that it touches, the first and the end of those that it covers, of which there
    may be none, and the end of those that it touches.
    """
    low, high = _f4(left), _f4(right)
    begin, end, inner, inner_end = low, high, low, high
    for c in range(count):
        a, b = edges[f, c, 0], edges[f, c, 1] * row + edges[f, c, 2]
        if abs(a) < _f4(1e-3):  # a level edge
            near, far = a * low + b, a * high + b
            end = end if max(near, far) > -_HALF else begin
            inner_end = inner_end if min(near, far) >= _HALF else inner
        else:
            # A pixel is touched where a column + b > -1/2, and covered where it is at least 1/2.
            over = _ONE / a
            out, in_ = (-_HALF - b) * over, (_HALF - b) * over
            if a > _ZERO:
                begin, inner = max(begin, out), max(inner, in_)
            else:
                end, inner_end = min(end, out + _ONE), min(inner_end, in_ + _ONE)
    first = _i8(min(begin, high))
    last = max(_i8(min(max(end, low), high)), first)
    whole = min(max(_i8(math.ceil(min(inner, high))), first), last)
    part[f, 0], part[f, 1], part[f, 3] = first, whole, last
    part[f, 2] = min(max(_i8(max(inner_end, low)), whole), last)


@_inline
def _clear(share, light, first, last):  # type: ignore[no-untyped-def]
    for column in range(first, last):
        share[_u8(column)] = _ZERO
    for c in range(light.shape[0]):
        for column in range(first, last):
            light[c, _u8(column)] = _ZERO


@_inline
def _cover_row(cover, edges, f, count, row, first, last):  # type: ignore[no-untyped-def]
    """Compute how much of each pixel of a row is inside a polygon: exact for upright rectangles."""
    half = (count + 1) // 2
    for column in range(first, last):
        at, part = _f4(column), _ONE
        for c in range(half):
            d = c + half
            near = edges[f, c, 0] * at + (edges[f, c, 1] * row + edges[f, c, 2])
            far = _HALF  # an odd number of edges: the last has none across from it
            if d < count:
                far = edges[f, d, 0] * at + (edges[f, d, 1] * row + edges[f, d, 2])
            part *= min(max(min(near, _HALF) + min(far, _HALF), _ZERO), _ONE)
        cover[_u8(column)] = part


@_inline
def _add(cover, share, light, paint, face, first, last):  # type: ignore[no-untyped-def]
    """Add what a side covers."""
    for column in range(first, last):
        share[_u8(column)] += cover[_u8(column)]
        for c in range(light.shape[0]):
            light[c, _u8(column)] += cover[_u8(column)] * paint[face, c]


@_inline
def _blend_row(out, begin, channels, share, light, c, first, last):  # type: ignore[no-untyped-def]
    for column in range(first, last):
        part = share[_u8(column)]
        part = part if part > _f4(0.002) else _ZERO
        lit = light[c, _u8(column)] / max(part, _ONE) if part > _ZERO else _ZERO
        at = _u8(begin + column * channels)
        kept = _ONE - min(part, _ONE)
        out[at] = np.uint8(_i4(_f4(out[at]) * kept + lit + _HALF))
