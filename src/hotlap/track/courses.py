"""Courses as plain waypoints: our own ones, drawn here, and what any course must fulfil.

Waypoints are rows (N, 6) of centre x, y, inner border x, y, outer border x, y in metres, in driving
order; the last row repeats the first when the course is a loop.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from hotlap.errors import TrackError
from hotlap.types import Array, Float64

__all__ = ["COURSES", "Course", "check", "draw", "median", "side"]

_SAME_POINT = 1e-9
"""Waypoints nearer than this [m] are one point, as in DeepRacer's own loader."""
_ROWS_MAX = 100_000
_FINE = 0.01
"""Distance [m] at which a course is drawn before its waypoints are picked."""
_ROWS_PER_WIDTH = 8
_EASE = 0.08
"""Standard deviation [m] of the blur along the line that lets curvature rise over a few decimetres.

A straight that meets an arc would make it jump, which no car can follow.
"""
_RUN_IN = 0.5
"""How far behind the start line [m] its straight begins."""


@dataclass(frozen=True)
class Course:
    """A course of our own: a polygon whose corners are rounded."""

    length: float
    """Arc length of the centre line [m]; the polygon is scaled to it."""
    width: float
    """Distance between the borders [m]."""
    corners: tuple[tuple[float, float, float], ...]
    """x, y and radius of each corner; the start is on the side before the first one.

    An open course begins at its first corner and ends at its last.
    """
    closed: bool = True
    clockwise: bool = False


COURSES = {
    "oval": Course(
        length=16.0,
        width=0.8,
        corners=((6.0, 0, 1.3), (6.0, 2.6, 1.3), (0, 2.6, 1.3), (0, 0, 1.3)),
    ),
    "easy": Course(
        length=22.0,
        width=0.9,
        corners=(
            (6.6, 0, 1.5),
            (8.0, 3.4, 1.5),
            (4.6, 4.6, 1.6),
            (2.2, 3.0, 1.6),
            (-1.2, 4.2, 1.4),
            (-1.4, 0, 1.5),
        ),
    ),
    "medium": Course(
        length=24.0,
        width=0.5,
        corners=(
            (5.6, 0, 0.9),
            (6.8, 2.6, 0.8),
            (4.6, 3.0, 0.8),
            (4.4, 1.4, 0.7),
            (2.6, 1.3, 0.7),
            (2.4, 4.2, 0.8),
            (0.2, 4.4, 0.9),
            (0.6, 2.4, 0.9),
            (-1.0, 1.6, 0.7),
            (-0.6, 0, 0.7),
        ),
    ),
    "reinvent_like": Course(
        length=17.6,
        width=0.76,
        corners=(
            (6.3, 0.0, 0.55),
            (6.2, 1.3, 0.55),
            (4.1, 1.4, 0.8),
            (3.0, 3.2, 0.8),
            (0.5, 3.4, 0.9),
            (-0.5, 0.0, 0.75),
        ),
    ),
    "hairpins": Course(
        length=34.0,
        width=0.7,
        clockwise=True,
        corners=(
            (6.0, 0, 0.65),
            (6.0, 1.3, 0.65),
            (1.6, 1.3, 0.65),
            (1.6, 2.6, 0.65),
            (6.0, 2.6, 0.65),
            (6.0, 3.9, 0.65),
            (2.4, 3.9, 0.65),
            (2.0, 5.2, 0.65),
            (5.6, 5.4, 0.7),
            (4.6, 7.0, 0.8),
            (0, 6.0, 1.0),
            (0, 0, 0.8),
        ),
    ),
    "kart": Course(
        length=45.0,
        width=1.07,
        corners=(
            (10.0, 0, 1.6),
            (12.0, 3.2, 1.3),
            (9.6, 5.0, 1.3),
            (7.6, 2.4, 1.2),
            (5.4, 2.4, 1.2),
            (5.2, 5.6, 1.3),
            (8.4, 7.2, 1.4),
            (7.2, 9.4, 1.3),
            (3.6, 8.6, 1.8),
            (0.0, 9.6, 1.6),
            (-1.0, 6.4, 1.6),
            (1.8, 4.6, 1.2),
            (1.6, 2.2, 1.1),
            (-1.6, 2.4, 1.0),
            (-1.6, 0, 1.0),
        ),
    ),
    "hard": Course(
        length=42.0,
        width=0.44,
        corners=(
            (5.0, 0, 0.7),
            (5.6, 1.3, 0.65),
            (7.0, 0.8, 0.65),
            (8.2, 1.8, 0.65),
            (7.4, 3.2, 0.65),
            (6.1, 2.6, 0.62),
            (4.9, 3.4, 0.62),
            (6.1, 4.5, 0.6),
            (7.8, 4.5, 0.62),
            (7.8, 5.8, 0.62),
            (5.6, 5.8, 0.65),
            (4.2, 4.9, 0.65),
            (3.2, 5.9, 0.62),
            (1.9, 5.2, 0.62),
            (3.4, 3.6, 0.6),
            (3.4, 1.5, 0.6),
            (2.1, 1.5, 0.6),
            (2.1, 3.2, 0.62),
            (0.7, 4.2, 0.62),
            (0.7, 6.2, 0.65),
            (-0.7, 6.2, 0.65),
            (-0.7, 3.6, 0.65),
            (0.75, 2.4, 0.62),
            (0.75, 1.2, 0.6),
            (-0.7, 1.2, 0.6),
            (-0.7, 0, 0.6),
        ),
    ),
    "straight": Course(length=12.0, width=0.8, corners=((0, 0, 0), (12.0, 0, 0)), closed=False),
}


def draw(course: Course) -> Float64:
    """Return the waypoints of a course of our own, eight for each width of the road."""
    fine = _rounded(course) if course.closed else np.array(course.corners, np.float64)[:, :2]
    if course.closed:
        fine = _eased(_resampled(fine * (course.length / _arc(fine)[-1]), _FINE))
    # Easing shortens the line a little, so the last scaling comes after it.
    fine = _resampled(fine, _FINE)
    fine *= course.length / _arc(fine)[-1]
    if course.clockwise:
        fine = fine * [1.0, -1.0]
    step = np.gradient(fine, axis=0)
    if course.closed:
        step[0] = step[-1] = fine[1] - fine[-2]
    normal = step[:, ::-1] * [-1.0, 1.0] / np.hypot(*step.T)[:, None]
    rows = (
        np.linspace(0, len(fine) - 1, round(_ROWS_PER_WIDTH * course.length / course.width) + 1)
        .round()
        .astype(int)
    )
    centre, off = fine[rows], normal[rows] * (course.width / 2)
    inner, outer = (
        (centre - off, centre + off) if course.clockwise else (centre + off, centre - off)
    )
    return np.hstack([centre, inner, outer])


def _arc(points: Float64) -> Float64:
    """Return the arc length at each point of a polyline."""
    return np.concatenate([[0.0], np.cumsum(np.hypot(*np.diff(points, axis=0).T))])


def _resampled(points: Float64, spacing: float) -> Float64:
    """Return points at equal distances along a polyline, both ends included."""
    arc = _arc(points)
    wanted = np.linspace(0, arc[-1], round(arc[-1] / spacing) + 1)
    return np.stack([np.interp(wanted, arc, column) for column in points.T], axis=1)


def _eased(loop: Float64) -> Float64:
    """Blur a loop along itself, so that straights and arcs join by easement curves."""
    reach = np.arange(-round(4 * _EASE / _FINE), round(4 * _EASE / _FINE) + 1)
    kernel = np.exp(-0.5 * (reach * _FINE / _EASE) ** 2)
    kernel /= kernel.sum()
    half = len(reach) // 2
    around = np.vstack([loop[-1 - half : -1], loop, loop[1 : 1 + half]])
    return np.stack([np.convolve(column, kernel, "valid") for column in around.T], axis=1)


def _rounded(course: Course) -> Float64:
    """Return the loop of straights and arcs of a polygon, from the start line round to it."""
    corners = np.array(course.corners, np.float64)
    corner, radius = corners[:, :2], corners[:, 2]
    side = np.roll(corner, -1, axis=0) - corner
    after = side / np.hypot(*side.T)[:, None]
    before = np.roll(after, 1, axis=0)
    turn = np.arctan2(
        before[:, 0] * after[:, 1] - before[:, 1] * after[:, 0], (before * after).sum(axis=1)
    )
    cut = radius * np.tan(np.abs(turn) / 2)
    points = []
    for i in range(len(corner)):
        centre = corner[i] - cut[i] * before[i]
        normal = np.array([-before[i, 1], before[i, 0]]) * np.sign(turn[i])
        swept = np.linspace(0, abs(turn[i]), 200)[:, None]
        points.append(
            centre + radius[i] * (np.sin(swept) * before[i] + (1 - np.cos(swept)) * normal)
        )
    start = points[-1][-1] + _RUN_IN * after[-1]
    return np.vstack([start, *points, start])


def check(waypoints: ArrayLike, source: str) -> tuple[Float64, bool]:
    """Return the distinct rows and whether they are a loop; refuse what cannot be driven."""
    allowed = "a track is an array (N, 6): centre x, y, inner x, y, outer x, y in metres"
    try:
        array = np.asarray(waypoints)
    except ValueError:
        raise TrackError(f"{source}: has rows of unequal length; {allowed}. Rebuild it.") from None
    if array.dtype.kind not in "fiu":
        raise TrackError(f"{source}: holds {array.dtype} values; {allowed}. Save real numbers.")
    if array.ndim != 2 or array.shape[1] != 6:
        raise TrackError(
            f"{source}: has the shape {array.shape}; {allowed}. Reshape or rebuild it."
        )
    if len(array) > _ROWS_MAX:
        raise TrackError(
            f"{source}: has {len(array)} rows; at most {_ROWS_MAX} are read. Keep every "
            f"{-(-len(array) // _ROWS_MAX)}th row, the first and the last."
        )
    rows = np.array(array, np.float64)
    bad = np.argwhere(~np.isfinite(rows))
    if len(bad):
        raise TrackError(
            f"{source}: {len(bad)} of {rows.size} values are not finite, the first in row "
            f"{bad[0, 0]}, column {bad[0, 1]}; every value must be a number. Remove or mend those "
            "rows."
        )
    if np.abs(rows).max(initial=0) > 1e9:
        raise TrackError(
            f"{source}: holds a value of {np.abs(rows).max():.3g}; coordinates are metres below "
            "1e9. Mend the file."
        )
    keep = np.ones(len(rows), bool)
    keep[1:] = np.hypot(*np.diff(rows[:, :2], axis=0).T) > _SAME_POINT
    rows = rows[keep]
    closed = len(rows) > 1 and bool(np.hypot(*(rows[0, :2] - rows[-1, :2])) <= _SAME_POINT)
    rows = rows[:-1] if closed else rows
    if len(rows) < 4:
        raise TrackError(
            f"{source}: has {len(rows)} distinct rows; a track needs at least 4, one every few "
            "decimetres. Add waypoints."
        )
    _check_road(rows, closed, source)
    return rows, closed


def _check_road(rows: Float64, closed: bool, source: str) -> None:
    """Refuse roads without width, borders on the wrong side and lines that cross."""
    centre, inner, outer = rows[:, :2], rows[:, 2:4], rows[:, 4:]
    width = np.hypot(*(inner - outer).T)
    for border, line in (("inner", inner), ("outer", outer)):
        near = np.hypot(*(line - centre).T)
        i = int(np.argmin(near))
        if near[i] <= 1e-6 * median(width) + _SAME_POINT:
            raise TrackError(
                f"{source}: the {border} border touches the centre line at {_place(centre[i])}, "
                f"row {i}; the road must have a width everywhere. Move the border outwards."
            )
    # float32 keeps 24 bits; beyond this the stations could not tell where in the road a car is.
    far = float(np.abs(rows).max())
    if far * 2.0**-24 > 1e-3 * median(width):
        raise TrackError(
            f"{source}: lies {far:.6g} from the origin with a road {median(width):.3g} wide; "
            f"at most {1e-3 * 2**24 * median(width):.6g} is allowed for that width. Subtract "
            "the mean from all points."
        )
    # Rows need not pair up across the road, so a border's side is what most of its rows say; that
    # it stays there follows from not crossing the centre line.
    if side(centre, inner, closed) == side(centre, outer, closed):
        raise TrackError(
            f"{source}: the inner and the outer border lie on the same side of the centre line, "
            f"as at {_place(centre[0])}; it must run between them. Check the order of the columns."
        )
    step = np.diff(np.vstack([centre, centre[:1]]) if closed else centre, axis=0)
    step /= np.hypot(*step.T)[:, None]
    turn = (step * np.roll(step, 1, axis=0)).sum(axis=1)
    turn = turn if closed else turn[1:]
    if turn.min() < -0.95:
        i = int(np.argmin(turn)) + (not closed)
        raise TrackError(
            f"{source}: the centre line turns back on itself at {_place(centre[i])}, row {i}; "
            "waypoints must follow each other along the road. Sort or mend them."
        )
    for border, line in (("centre line", centre), ("inner border", inner), ("outer border", outer)):
        place = _crossing(centre, line, closed, same=border == "centre line")
        if place is not None:
            what = "itself" if border == "centre line" else "the centre line"
            raise TrackError(
                f"{source}: the {border} crosses {what} near {_place(place)}; a track may not "
                "cross itself, nor a border the centre line. Mend the waypoints there."
            )


def median(values: Array) -> float:
    """Return the middle one of the values; NumPy's median would load its masked arrays first."""
    return float(np.sort(values)[len(values) // 2])


def _place(point: Float64) -> str:
    return f"(x, y) = ({point[0]:.2f}, {point[1]:.2f})"


def side(centre: Float64, border: Float64, closed: bool) -> int:
    """Return +1 if a border lies to the left of the centre line, -1 if to the right."""
    ahead = np.roll(centre, -1, axis=0) - np.roll(centre, 1, axis=0)
    if not closed:
        ahead[0], ahead[-1] = centre[1] - centre[0], centre[-1] - centre[-2]
    off = border - centre
    left = ahead[:, 0] * off[:, 1] > ahead[:, 1] * off[:, 0]
    return 1 if 2 * np.count_nonzero(left) > len(left) else -1


def _crossing(one: Float64, other: Float64, closed: bool, *, same: bool) -> Float64 | None:
    """Return a point where two polylines cross, or where one crosses itself if `same`."""
    if closed:
        one, other = np.vstack([one, one[:1]]), np.vstack([other, other[:1]])
    a, b, c, d = one[:-1], one[1:], other[:-1], other[1:]
    (west, south), (east, north) = np.minimum(c, d).T.copy(), np.maximum(c, d).T.copy()
    pieces, block = len(a), 64
    for start in range(0, pieces, block):
        i = np.arange(start, min(start + block, pieces))
        (x_low, y_low), (x_high, y_high) = (
            f(one[start : i[-1] + 2], axis=0) for f in (np.min, np.max)
        )
        near = (west <= x_high) & (east >= x_low) & (south <= y_high) & (north >= y_low)
        j = np.flatnonzero(near)
        p, q, r, s = a[i, None], b[i, None], c[None, j], d[None, j]
        apart = (np.maximum(p, q) < np.minimum(r, s)) | (np.minimum(p, q) > np.maximum(r, s))
        meets = ~apart.any(axis=-1)
        meets &= _turn(p, q, r) * _turn(p, q, s) <= 0
        meets &= _turn(r, s, p) * _turn(r, s, q) <= 0
        if same:
            gap = np.abs(i[:, None] - j[None])
            gap = np.minimum(gap, pieces - gap) if closed else gap
            meets &= gap > 1
        if meets.any():
            return np.asarray(a[i[np.argwhere(meets)[0, 0]]])
    return None


def _turn(p: Float64, q: Float64, r: Float64) -> Float64:
    """Return the sign of the turn p, q, r."""
    u, v = q - p, r - p
    return np.asarray(np.sign(u[..., 0] * v[..., 1] - u[..., 1] * v[..., 0]))
