"""Track: a course to drive on; maps points (x, y) to (s, n) along its centre line and back.

Tracks come from the built-in courses, from the generator, from the user's own collection and from
`.npy` files of (N, 6) waypoints: centre x, y, inner border x, y, outer border x, y, one row a
point, in driving order and in metres; the last row repeats the first when the course is a loop.
"""

from __future__ import annotations

import io
import json
import re
from dataclasses import dataclass, field
from functools import cache, cached_property, lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike

from hotlap.errors import TrackError
from hotlap.files import user_folder
from hotlap.track.courses import COURSES, check, draw, median, side
from hotlap.track.formats import MAPS, TABLES, read_map, read_table
from hotlap.track.official import official_hint, official_id
from hotlap.types import Array, Float32, Float64

__all__ = [
    "DEFAULT_TRACK",
    "NAME",
    "Stations",
    "Track",
    "attribution_of",
    "collection_folder",
    "known_name",
    "load_track",
    "read_track",
    "split_names",
    "track_names",
    "unknown_track",
    "whole_names",
]

DEFAULT_TRACK = "reinvent_like"
"""Where cars drive that are sent nowhere else."""

_SAME_PLACE = 1e-9
"""Rounding [m] that does not yet put a point off the road."""
_STATIONS_PER_WIDTH = 15
_STATIONS_MIN, _STATIONS_MAX = 200, 4000
_BYTES_MAX = 64 * 2**20
_NEAR_WIDTHS = 1.5
"""How far `project` looks from the given stations, in road widths along the centre line."""


@dataclass(frozen=True, eq=False)
class Stations:
    """S points at equal arc length on the centre line's spline, as float32 arrays for the kernels.

    On a closed track segment S-1 joins station 0.
    """

    x: Float32
    """(S,) [m]."""
    y: Float32
    """(S,) [m]."""
    tx: Float32
    """(S,) unit tangent, x; the normal to the left is (-ty, tx)."""
    ty: Float32
    """(S,) unit tangent, y."""
    heading: Float32
    """(S,) of the tangent [rad], in [-pi, pi]; interpolate the tangent, not this."""
    curvature: Float32
    """(S,) [1/m], positive in a left turn."""
    left: Float32
    """(S,) distance along the normal to the left border [m], > 0."""
    right: Float32
    """(S,) distance against the normal to the right border [m], > 0."""
    spacing: float
    """Arc length between neighbours [m]."""
    closed: bool
    """Whether the last station is followed by the first."""

    @property
    def count(self) -> int:
        """How many stations there are."""
        return len(self.x)


@dataclass(frozen=True, eq=False)
class Track:
    """A course: centre line and borders in driving order, and its stations. Immutable.

    Two tracks are equal only if they are the same object; compare `fingerprint` for the geometry.
    """

    name: str
    centre: Float64
    """(N, 2) waypoints of the centre line [m]; a closed track does not repeat its first row."""
    inner: Float64
    """(N, 2) waypoints of the border that the file calls inner [m]."""
    outer: Float64
    """(N, 2) waypoints of the border that the file calls outer [m]."""
    closed: bool
    reverse_direction: bool
    """Whether it is driven against the order of its file."""
    attribution: str
    """Who made the course and under which licence; empty if not known."""
    stations: Stations
    length: float
    """Arc length of the centre line's spline [m]."""
    _frame: Float64 = field(repr=False)
    """(S, 4) x, y, tx, ty of the stations before their rounding to float32."""

    @classmethod
    def from_waypoints(
        cls,
        waypoints: ArrayLike,
        *,
        name: str,
        attribution: str = "",
        source: str = "",
    ) -> Track:
        """Build a track from waypoints and check that it can be driven.

        Args:
            waypoints: (N, 6) rows of centre, inner and outer x, y [m] in driving order, at any
                spacing; closed if the last row repeats the first. Repeated rows are dropped.
            name: what the track is called.
            attribution: who made it and under which licence.
            source: what error messages call it; the name if empty.

        Raises:
            TrackError: the waypoints have a wrong shape, are not finite, leave no road, or cross
                themselves; the message names the place.
        """
        rows, closed = check(waypoints, source or f"track {name!r}")
        return cls._build(rows, closed, name, attribution, reverse_direction=False)

    @classmethod
    def _build(
        cls, rows: Float64, closed: bool, name: str, attribution: str, *, reverse_direction: bool
    ) -> Track:
        """Fit the spline, place the stations and measure the road; `rows` are checked already."""
        centre, inner, outer = (np.ascontiguousarray(rows[:, i : i + 2]) for i in (0, 2, 4))
        spline = _Spline(centre, closed)
        across = np.hypot(*(inner - outer).T)
        wanted = round(spline.length / (median(across) / _STATIONS_PER_WIDTH))
        count = min(max(wanted, _STATIONS_MIN), _STATIONS_MAX)
        spacing = spline.length / (count if closed else count - 1)
        arc: Float64 = spacing * np.arange(count, dtype=np.float64)
        frame, curvature = spline.at(arc)
        on_left = side(centre, inner, closed) > 0
        reach = _NEAR_WIDTHS * float(across.max())
        left = _to_border(frame, inner if on_left else outer, spline, arc, reach, 1.0)
        right = _to_border(frame, outer if on_left else inner, spline, arc, reach, -1.0)
        x, y, tx, ty = frame.T
        stations = Stations(
            x=_single(x),
            y=_single(y),
            tx=_single(tx),
            ty=_single(ty),
            heading=_single(np.arctan2(ty, tx)),
            curvature=_single(curvature),
            left=_single(left),
            right=_single(right),
            spacing=spacing,
            closed=closed,
        )
        for array in (centre, inner, outer, frame):
            array.flags.writeable = False
        return cls(
            name=name,
            centre=centre,
            inner=inner,
            outer=outer,
            closed=closed,
            reverse_direction=reverse_direction,
            attribution=attribution,
            stations=stations,
            length=spline.length,
            _frame=frame,
        )

    @cached_property
    def width(self) -> float:
        """The median width of the road [m]."""
        return median(self.stations.left + self.stations.right)

    @cached_property
    def fingerprint(self) -> str:
        """Sixteen hexadecimal digits of the SHA-256 of the waypoints in driving order."""
        import hashlib  # loads OpenSSL, so only when asked

        digest = hashlib.sha256(b"closed" if self.closed else b"open")
        digest.update(np.ascontiguousarray(self.waypoints, "<f8").tobytes())
        return digest.hexdigest()[:16]

    @property
    def waypoints(self) -> Float64:
        """(N, 6) rows in driving order, the first repeated at the end of a loop, as in a file."""
        rows = np.hstack([self.centre, self.inner, self.outer])
        return np.vstack([rows, rows[:1]]) if self.closed else rows

    def reversed(self) -> Track:
        """Return the same road driven the other way; a loop keeps its first row.

        Inner stays inner and outer stays outer; left and right change places.
        """
        rows = np.hstack([self.centre, self.inner, self.outer])[::-1]
        rows = np.roll(rows, 1, axis=0) if self.closed else rows
        return self._build(
            rows,
            self.closed,
            self.name,
            self.attribution,
            reverse_direction=not self.reverse_direction,
        )

    def locate(self, s: ArrayLike, n: ArrayLike) -> Float64:
        """Return the points (M, 2) at arc length `s` and offset `n` to the left [m].

        `s` wraps around on a loop and stops at the ends of an open track. Between two stations the
        centre is interpolated linearly, and so is the normal, which is then made a unit again.
        """
        s, n = np.broadcast_arrays(np.asarray(s, np.float64), np.asarray(n, np.float64))
        count = self.stations.count
        place = s % self.length if self.closed else np.clip(s, 0.0, self.length)
        place = place / self.stations.spacing
        k = np.minimum(place.astype(np.int64), count - 1 if self.closed else count - 2)
        t = (place - k)[..., None]
        this, following = self._frame[k], self._frame[(k + 1) % count]
        x, y, tx, ty = np.moveaxis(this + t * (following - this), -1, 0)
        along = n / np.hypot(tx, ty)
        return np.stack([x - along * ty, y + along * tx], axis=-1)

    def project(self, xy: ArrayLike, near: ArrayLike | None = None) -> tuple[Float64, Float64]:
        """Return arc length `s` and offset `n` [m] of M points; inside the road, undoes `locate`.

        Of several places on the centre line the one on whose road the point lies wins, then the
        nearest. A point beyond an end of an open track gets that end's `s`.

        Args:
            xy: (M, 2) points [m].
            near: (M,) indices of stations; only places within one and a half road widths of them
                are considered, so that a car cannot hop to the other leg of a hairpin. A point
                that has no place there gets the nearest station of that stretch.

        Returns:
            s: (M,) in [0, length) on a loop, [0, length] on an open track.
            n: (M,) positive to the left.
        """
        xy = np.asarray(xy, np.float64).reshape(-1, 2)
        count = self.stations.count
        if near is None:
            window = np.arange(count + 1 if self.closed else count)[None, :] % count
        else:
            reach = int(np.ceil(_NEAR_WIDTHS * self.width / self.stations.spacing))
            reach = min(reach, (count - 1) // 2)
            window = np.asarray(near, np.int64).reshape(-1, 1) + np.arange(-reach, reach + 1)
            window = window % count if self.closed else np.clip(window, 0, count - 1)
            window = np.broadcast_to(window, (len(xy), window.shape[1]))
        s, n = np.empty(len(xy)), np.empty(len(xy))
        block = max(1, 2**18 // window.shape[1])
        for i in range(0, len(xy), block):
            rows = slice(i, i + block)
            s[rows], n[rows] = self._strips(xy[rows], window if near is None else window[rows])
        return s, n

    def _strips(self, xy: Float64, window: Array) -> tuple[Float64, Float64]:
        """Project M points on the strips between neighbours of `window`, (M, K) or (1, K)."""
        span = 4.0 * self.length + float(np.abs(xy).max(initial=0.0)) * 4.0
        x, y, tx, ty = (a[window] for a in self._frame.T)
        dx, dy = xy[:, :1] - x, xy[:, 1:] - y
        along, across = dx * tx + dy * ty, dy * tx - dx * ty
        # A strip holds the point if the point is ahead of its first normal, behind its second.
        i, j = np.nonzero((along[:, :-1] >= 0) & (along[:, 1:] < 0))
        held = np.broadcast_to(window, along.shape)
        first, second = self._frame[held[i, j]], self._frame[held[i, j + 1]]
        t, n = _on_strip(xy[i], first, second)
        borders = self.stations.left, self.stations.right
        left, right = (b[held[i, j]] * (1 - t) + b[held[i, j + 1]] * t for b in borders)
        off_road = (n > left + _SAME_PLACE) | (n < -right - _SAME_PLACE)
        # Every point also has its nearest station, in case no strip holds it. It competes with
        # the strips only where the road truly ends.
        every = np.arange(len(xy))
        nearest = np.argmin(along**2 + across**2, axis=1)
        station = held[every, nearest]
        distance = np.hypot(along[every, nearest], across[every, nearest])
        ends = np.isin(station, (0, self.stations.count - 1)) & (not self.closed)
        point = np.concatenate([i, every])
        cost = np.concatenate([np.abs(n) + span * off_road, distance + span * np.where(ends, 1, 2)])
        place = np.concatenate([held[i, j] + t, station])
        offset = np.concatenate([n, across[every, nearest]])
        order = np.lexsort((cost, point))
        best = order[np.searchsorted(point[order], every)]
        s = place[best] * self.stations.spacing
        if self.closed:
            s = np.where(s >= self.length, s - self.length, s)
        return s, offset[best]


def _on_strip(xy: Float64, first: Float64, second: Float64) -> tuple[Float64, Float64]:
    """Solve p = C(t) + n N(t)/|N(t)| for t in [0, 1] and n, with C and N linear in t.

    (p - C(t)) x N(t) = 0 is a quadratic c + b t + a t^2 that falls from c >= 0 to below 0.
    """
    x, y, tx, ty = first.T
    dx, dy, dtx, dty = (second - first).T
    qx, qy = xy[:, 0] - x, xy[:, 1] - y
    # With N = (-ty, tx), a cross product with N is a dot product with the tangent.
    c = qx * tx + qy * ty
    b = qx * dtx + qy * dty - (dx * tx + dy * ty)
    a = -(dx * dtx + dy * dty)
    root = np.sqrt(np.maximum(b * b - 4 * a * c, 0.0))
    # Two spellings of the falling root; each is free of cancellation where it is used.
    falling = b < 0
    t = np.where(
        falling,
        2 * c / np.where(falling, root - b, 1.0),
        (-b - root) / np.where(falling, 1.0, np.where(a < 0, 2 * a, -1.0)),
    )
    t = np.clip(t, 0.0, 1.0)
    nx, ny = -(ty + t * dty), tx + t * dtx
    n = ((qx - t * dx) * nx + (qy - t * dy) * ny) / np.hypot(nx, ny)
    return t, n


class _Spline:
    """Cubic spline through points, chord-length parameter: periodic if closed, else natural.

    Solved here because importing SciPy's would cost more start-up time than all the rest.
    """

    # Gauss-Legendre rule of five points on [0, 1]: exact to degree 9.
    _NODES = np.array(
        [0.04691007703066802, 0.23076534494715845, 0.5, 0.7692346550528415, 0.953089922969332]
    )
    _WEIGHTS = np.array(
        [
            0.11846344252809454,
            0.23931433524968324,
            0.28444444444444444,
            0.23931433524968324,
            0.11846344252809454,
        ]
    )

    def __init__(self, points: Float64, closed: bool) -> None:
        self.closed = closed
        knots = np.vstack([points, points[:1]]) if closed else points
        step = np.diff(knots, axis=0)
        self.h = np.hypot(step[:, 0], step[:, 1])
        h = self.h[:, None]
        bend = _second_derivatives(knots, closed)
        this, following = bend[:-1], bend[1:]
        self.a, self.b = knots[:-1], step / h - h * (2 * this + following) / 6
        self.c, self.d = this / 2, (following - this) / (6 * h)
        pieces = self._arc(np.arange(len(self.h)), self.h)
        self.arc = np.concatenate([[0.0], np.cumsum(pieces)])
        """Arc length at each knot, from 0 to the whole [m]."""
        self.length = float(self.arc[-1])

    def _speed(self, i: Array, u: Float64) -> Float64:
        """Return the spline's metres of arc per unit of parameter."""
        u = u[..., None]
        rate = self.b[i] + u * (2 * self.c[i] + 3 * u * self.d[i])
        return np.asarray(np.hypot(rate[..., 0], rate[..., 1]))

    def _arc(self, i: Array, u: Float64) -> Float64:
        """Return the arc length of pieces `i` from their start to parameter `u`."""
        speed = self._speed(i[:, None], u[:, None] * self._NODES)
        return np.asarray(u * (speed @ self._WEIGHTS))

    def at(self, arc: Float64) -> tuple[Float64, Float64]:
        """Return x, y and the unit tangent, (M, 4), and the curvature at arc lengths."""
        i = np.clip(np.searchsorted(self.arc, arc, side="right") - 1, 0, len(self.h) - 1)
        wanted = arc - self.arc[i]
        u = wanted / (self.arc[i + 1] - self.arc[i]) * self.h[i]
        for _ in range(5):  # Newton; the speed is nearly 1, so it converges at once
            u = np.clip(
                u - (self._arc(i, u) - wanted) / np.maximum(self._speed(i, u), 1e-9), 0, self.h[i]
            )
        v = u[:, None]
        place = self.a[i] + v * (self.b[i] + v * (self.c[i] + v * self.d[i]))
        rate = self.b[i] + v * (2 * self.c[i] + 3 * v * self.d[i])
        bend = 2 * self.c[i] + 6 * v * self.d[i]
        speed = np.hypot(rate[:, 0], rate[:, 1])
        # k = (x' y'' - y' x'') / (x'^2 + y'^2)^(3/2)
        curvature = (rate[:, 0] * bend[:, 1] - rate[:, 1] * bend[:, 0]) / speed**3
        return np.hstack([place, rate / speed[:, None]]), curvature


def _second_derivatives(knots: Float64, closed: bool) -> Float64:
    """Solve for the spline's second derivatives M at the knots, ends included.

    h[i-1] M[i-1] + 2 (h[i-1] + h[i]) M[i] + h[i] M[i+1] = 6 (slope[i] - slope[i-1]), M = 0 at both
    ends. A loop is unrolled far enough that its ends no longer matter: each row divides their
    influence by more than two, so that sixty leave nothing of it in float64.
    """
    unrolled = 60 if closed else 0
    if closed:
        knots = knots[np.arange(-unrolled, len(knots) + unrolled) % (len(knots) - 1)]
    # Complex numbers hold x and y at once; lists because elimination goes one by one.
    points = knots[:, 0] + 1j * knots[:, 1]
    step = np.diff(points)
    h = np.abs(step)
    upper, diagonal = h[1:-1].tolist(), (2 * (h[:-1] + h[1:])).tolist()
    bend = (6 * np.diff(step / h)).tolist()
    for i in range(1, len(bend)):
        factor = upper[i - 1] / diagonal[i - 1]
        diagonal[i] -= factor * upper[i - 1]
        bend[i] -= factor * bend[i - 1]
    bend[-1] /= diagonal[-1]
    for i in range(len(bend) - 2, -1, -1):
        bend[i] = (bend[i] - upper[i] * bend[i + 1]) / diagonal[i]
    solved = np.array([0, *bend, 0])[unrolled : len(points) - unrolled]
    return np.stack([solved.real, solved.imag], axis=1)


def _to_border(
    frame: Float64, border: Float64, spline: _Spline, arc: Float64, reach: float, side: float
) -> Float64:
    """Return how far each station is from a border, along its normal to that side.

    Only the pieces of the border whose waypoints lie within `reach` of the station along the road
    count, so that another leg's border is never taken for this one's.
    """
    pieces, length = len(spline.h), spline.length
    knots = spline.arc
    if spline.closed:
        knots = np.concatenate([knots[:-1] - length, knots[:-1], knots + length])
    first = np.searchsorted(knots, arc - reach, side="right") - 1
    last = np.searchsorted(knots, arc + reach, side="left")
    width = min(int((last - first).max()), pieces)
    held = first[:, None] + np.arange(width)
    held = held % pieces if spline.closed else np.clip(held, 0, pieces - 1)
    distance = np.empty(len(arc))
    block = max(1, 2**20 // width)
    for i in range(0, len(arc), block):
        rows = slice(i, i + block)
        a = border[held[rows]]
        e = border[(held[rows] + 1) % len(border)] - a
        a = a - frame[rows, None, :2]
        nx, ny = -side * frame[rows, 3:], side * frame[rows, 2:3]
        # The ray meets the piece where r N = a + u e.
        with np.errstate(divide="ignore", invalid="ignore"):
            slant = nx * e[..., 1] - ny * e[..., 0]
            ray = (a[..., 0] * e[..., 1] - a[..., 1] * e[..., 0]) / slant
            u = (a[..., 0] * ny - a[..., 1] * nx) / slant
        hit = (ray > 0) & (u >= -1e-9) & (u <= 1 + 1e-9)
        # A ray that misses the tip of a border, as inside the tightest bends, or its end, gets the
        # distance of the nearest point.
        u = np.clip(-(a * e).sum(-1) / np.maximum((e * e).sum(-1), 1e-300), 0, 1)[..., None]
        nearest = np.hypot(*np.moveaxis(a + u * e, -1, 0)).min(axis=1)
        ray = np.where(hit, ray, np.inf).min(axis=1)
        distance[rows] = np.where(ray <= 1.5 * nearest, ray, nearest)
    return distance


def _single(array: Array) -> Float32:
    single = np.ascontiguousarray(array, np.float32)
    single.flags.writeable = False
    return single


def track_names() -> list[str]:
    """Return the names that `load_track` knows: the built-in courses, then the user's own."""
    return [*COURSES, *sorted(path.stem for path in collection_folder().glob("*.npy"))]


def known_name(word: str) -> str | None:
    """Return the name of a track that is there; None where there is none.

    An official track has several: `re:Invent 2018` is `reinvent_base`.
    """
    if word in COURSES:
        return word
    for name in (word, official_id(word) or ""):
        if NAME.fullmatch(name) and (collection_folder() / f"{name}.npy").is_file():
            return name
    return None


def split_names(text: str) -> list[str]:
    """Return the names of single tracks in a list with commas, ranges of seeds written out.

    >>> split_names("oval, generated:seed=3-4")
    ['oval', 'generated:seed=3', 'generated:seed=4']
    """
    return [one for name in _listed(text) for one in _each(name)]


def whole_names(text: str) -> str:
    """Return a list of names with commas in which files are named by their whole path."""
    return ",".join(map(_whole, _listed(text)))


def _whole(name: str) -> str:
    if not _is_generated(name):
        return str(Path(name).resolve()) if Path(name).is_file() else name
    from hotlap.track.generator import anchored

    return anchored(name)


def _listed(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def _is_generated(name: str) -> bool:
    return name.partition(":")[0] == "generated"


def _each(name: str) -> list[str]:
    if not _is_generated(name):
        return [name]
    # The generator reads settings, so it needs pydantic, which other tracks shall not wait for.
    from hotlap.track.generator import names_of

    return names_of(name)


def load_track(name_or_path: str | Path) -> Track:
    """Load a track by name, draw a generated one, or read a file (`.npy`, `.csv`, `.yaml`).

    Raises:
        TrackError: no track has that name, the file does not describe one, or no generated course
            can be as asked.
        ConfigError: the name of a generated course has a setting that does not exist.
    """
    name = str(name_or_path)
    if name in COURSES:
        return _built_in(name)
    if _is_generated(name):
        several = _each(name)
        if len(several) > 1:
            raise TrackError(
                f"{name!r} names {len(several)} tracks, where one is needed. Choose one of them, "
                f"such as {several[0]!r}."
            )
        return _generated(several[0])
    path = Path(name_or_path)
    if known := known_name(name):
        own = collection_folder() / f"{known}.npy"
        return read_track(own, known, attribution_of(own))
    if path.suffix in (".npy", *TABLES, *MAPS) or path.name != name or path.exists():
        return read_track(path, path.stem, attribution_of(path))
    raise TrackError(unknown_track(name))


def unknown_track(name: str) -> str:
    """Say what may be meant by a name that no track has, and where tracks come from."""
    import difflib  # an error may take its time

    known = track_names()
    if official := official_id(name):
        bases = {re.sub(r"_c?cw$", "", official), re.sub(r"_c?cw$", "", official) + "_ccw"}
        others = [base for base in known if base in bases]
        turned = (
            f". You have {others[0]}, the same course; start.direction=reversed turns it"
            if others
            else ""
        )
        return f"{official_hint(official)}{turned}."
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    hint = f"; did you mean {_either(near)}?" if near else "."
    if "=" in name:
        hint = f"; settings of a generated course follow colons: generated:seed=1:{name}."
    return (
        f"unknown track {name!r}{hint} "
        f"List all {len(known)} with `hotlap tracks list`, or give the path of a .npy file."
    )


NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
"""What the name of a track may be."""


def _either(words: list[str]) -> str:
    return " or ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def collection_folder() -> Path:
    """Return the folder of the user's own tracks, which need not exist."""
    return user_folder("tracks", "data")


@lru_cache(maxsize=1024)
def _generated(name: str) -> Track:
    """Draw a course; its name becomes one that a file may have."""
    from hotlap.track.generator import generate, parse

    # What the generator returns it has checked, so this is not done again.
    rows = generate(parse(name))[:-1]
    called = re.sub(r"[^A-Za-z0-9_.]+", "-", name)
    return Track._build(rows, True, called, f"hotlap ({name}), Apache-2.0", reverse_direction=False)


@cache
def _built_in(name: str) -> Track:
    # Our own courses are checked by the tests, not at every start.
    course = COURSES[name]
    rows = draw(course)[: -1 if course.closed else None]
    return Track._build(rows, course.closed, name, "hotlap, Apache-2.0", reverse_direction=False)


def read_track(path: Path, name: str, attribution: str) -> Track:
    """Read a file of waypoints, a table or a map; nothing is ever unpickled."""
    fix = (
        "Give a .npy file of waypoints (N, 6), a table (.csv), a map (.yaml), or a name from "
        "`hotlap tracks list`."
    )
    if path.is_dir():
        raise TrackError(f"{path}: is a folder, and a track is one file. {fix}")
    try:
        if path.stat().st_size > _BYTES_MAX:
            raise TrackError(f"{path}: is larger than {_BYTES_MAX >> 20} MiB, so no track. {fix}")
        data = path.read_bytes()
    except FileNotFoundError:
        raise TrackError(f"{path}: no such file. {fix}") from None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise TrackError(f"{path}: cannot be read ({reason}). {fix}") from None
    if not data:
        raise TrackError(f"{path}: is empty. {fix}")
    if path.suffix.lower() in (*TABLES, *MAPS):
        table = path.suffix.lower() in TABLES
        rows = read_table(data.decode("utf-8", "replace"), str(path)) if table else read_map(path)
        return Track.from_waypoints(rows, name=name, attribution=attribution, source=str(path))
    if path.suffix.lower() in (".png", ".pgm"):
        raise TrackError(f"{path}: is an image; give the .yaml file that says its resolution.")
    if not data.startswith(np.lib.format.MAGIC_PREFIX):
        raise TrackError(
            f"{path}: is not a .npy file; pickles, archives and text are not read. Save the array "
            "with numpy.save."
        )
    try:
        array = np.lib.format.read_array(io.BytesIO(data), allow_pickle=False)
    except (ValueError, EOFError, MemoryError, OverflowError, TypeError) as error:
        if "Object arrays" in str(error):
            raise TrackError(
                f"{path}: holds pickled Python objects, which are never loaded; only plain numbers "
                "are. Save it again as a float64 array (N, 6)."
            ) from None
        raise TrackError(
            f"{path}: is truncated or damaged ({len(data)} bytes; NumPy says: "
            f"{str(error).splitlines()[0]}). Copy or export it again."
        ) from None
    return Track.from_waypoints(array, name=name, attribution=attribution, source=str(path))


def attribution_of(path: Path) -> str:
    """Return the attribution in the `.json` beside a track; empty if there is none to be had."""
    try:
        about = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return ""
    found = about.get("attribution", "") if isinstance(about, dict) else ""
    return found if isinstance(found, str) else ""
