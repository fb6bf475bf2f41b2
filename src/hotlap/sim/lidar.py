"""LIDAR: distances to borders, obstacles and cars around N cars, exact and without a ray cast.

Each wall segment is looked at once: the two directions in which its ends lie say which beams it
meets, and along a segment the inverse of the distance is linear in the direction of the beam. So a
scan costs a look at each segment and a few operations for each hit, not one test for each pair of
beam and segment. Segments come in chains; chains that lie behind what was already met are left out.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Any, Literal, TypeAlias

import numpy as np
from numba import njit
from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt, model_validator

from hotlap.clock import ClockSettings
from hotlap.config import Settings
from hotlap.errors import ConfigError, SimulationError
from hotlap.threads import spread
from hotlap.track import Track
from hotlap.types import Array, Float32, Float64

__all__ = [
    "DeepRacerLidar",
    "DeepRacerSectorLidar",
    "DeepRacerSectorsOneHot",
    "Lidar",
    "LidarSettings",
    "RangeLidar",
    "track_walls",
    "wall_chains",
]

_CHAIN = 16
"""Corners of a chain: what AVX-512 turns and measures at once. It holds one segment less."""
_SLACK = 2e-6
"""Directions are known to that [rad]; a beam that misses a segment by less meets it."""
_THINNED = 5e-4
"""How far walls may lie from the borders [m], so that straight pieces need few segments."""
_NEAR = 2.0
"""Chains within so many road widths come first: what they hide is never looked at."""
_compiled = njit(cache=True, nogil=True, fastmath=True, error_model="numpy")
_inline: Any = njit(fastmath=True, error_model="numpy", forceinline=True)
_f4, _i4 = np.float32, np.int32
_ZERO, _HALF, _ONE = _f4(0), _f4(0.5), _f4(1)
_PI, _QUARTER = _f4(math.pi), _f4(math.pi / 2)
# Least-maximum fit of the arctangent over [0, 1]: error 1.3e-7 rad in float32.
_A1, _A3, _A5, _A7 = _f4(0.99999934), _f4(-0.3332986), _f4(0.19946565), _f4(-0.13908629)
_A9, _A11, _A13, _A15 = _f4(0.09642195), _f4(-0.05591229), _f4(0.02186293), _f4(-0.00405456)


class _Beams(Settings):
    beams: int = Field(64, ge=1, le=4096)
    """How many beams there are, from right to left."""
    fov_deg: float = Field(270.0, gt=0, le=360)
    """Angle between the first beam and the last [degrees]; at 360 the circle is divided evenly."""
    facing_deg: float = Field(0.0, ge=-180, le=180)
    """Where the middle of the field of view points [degrees], 0 ahead, positive to the left."""
    range_min: NonNegativeFloat = 0.05
    """Shortest distance that it reports [m]."""
    range_max: PositiveFloat = 10.0
    """Longest distance that it reports [m]; also what it says where there is nothing."""
    mount_forward: float = 0.0
    """Where it sits, ahead of the car's centre of gravity [m]."""
    walls: bool = True
    """Whether the borders of the track stand up as walls; obstacles and cars always do."""
    wall_offset: NonNegativeFloat = 0.0
    """How far outside of the borders the walls stand [m]."""
    noise: NonNegativeFloat = 0.0
    """Standard deviation of a distance [m]."""
    clock: ClockSettings = ClockSettings()
    """When scans are taken and reach the driver; noise of the readings, after all else."""

    @model_validator(mode="after")
    def _in_order(self) -> _Beams:
        if self.range_min >= self.range_max:
            raise ValueError(
                f"range_min {self.range_min:g} must lie below range_max {self.range_max:g}"
            )
        return self


class RangeLidar(_Beams):
    """A LIDAR for racing: distances in metres to walls at the borders, obstacles and cars."""

    kind: Literal["ranges"] = "ranges"
    """Which LIDAR."""

    @property
    def size(self) -> int:
        """How many numbers a driver gets."""
        return self.beams

    @property
    def longest(self) -> float:
        """The greatest number that a driver gets."""
        return self.range_max


class _DeepRacer(_Beams):
    # Source: deepracer-simapp, markov/sensors/constants.py, and its urdf: turned by 180 degrees.
    fov_deg: float = Field(math.degrees(2 * 2.61799), gt=0, le=360)
    """Angle between the first beam and the last [degrees]."""
    facing_deg: float = Field(180.0, ge=-180, le=180)
    """Where the middle of the field of view points [degrees]: backward, the camera looks ahead."""
    range_min: NonNegativeFloat = 0.15
    """Shortest distance that it measures [m]."""
    range_max: PositiveFloat = 12.0
    """Longest distance that it measures [m]."""
    mount_forward: float = 0.02913
    """Where it sits, ahead of the car's centre of gravity [m]."""
    walls: bool = False
    """Whether the borders of the track stand up as walls; obstacles and cars always do."""
    noise: NonNegativeFloat = 0.01
    """Standard deviation of a distance [m]."""
    clock: ClockSettings = ClockSettings(rate=10)
    """When scans are taken and reach the driver; noise of the readings, after all else."""


class DeepRacerLidar(_DeepRacer):
    """DeepRacer's `LIDAR`: 64 distances, clipped to what its network is given."""

    kind: Literal["deepracer"] = "deepracer"
    """Which LIDAR."""
    clip: PositiveFloat = 1.0
    """Longest distance that the driver is told [m]."""

    @property
    def size(self) -> int:
        """How many numbers a driver gets."""
        return self.beams

    @property
    def longest(self) -> float:
        """The greatest number that a driver gets."""
        return min(self.clip, self.range_max)


class _Sectors(_DeepRacer):
    sectors: PositiveInt = 8
    """How many sectors the beams are divided into, from right to left."""

    @property
    def longest(self) -> float:
        """The greatest number that a driver gets."""
        return 1.0

    @model_validator(mode="after")
    def _divided(self) -> _Sectors:
        if self.beams % self.sectors:
            raise ValueError(f"sectors must divide the {self.beams} beams (got {self.sectors})")
        return self


class DeepRacerSectorLidar(_Sectors):
    """DeepRacer's `SECTOR_LIDAR`: for each sector, 1 if anything is near and 0 if not."""

    kind: Literal["deepracer_sectors"] = "deepracer_sectors"
    """Which LIDAR."""
    clip: PositiveFloat = 0.5
    """Nearer than this something is near [m]."""

    @property
    def size(self) -> int:
        """How many numbers a driver gets."""
        return self.sectors


class DeepRacerSectorsOneHot(_Sectors):
    """DeepRacer's `DISCRETIZED_SECTOR_LIDAR`: for each sector, in which step the nearest lies.

    A sector gives as many numbers as there are steps: 1 for the step, 0 for the others; all 0 where
    nothing is within range.
    """

    kind: Literal["deepracer_discretized"] = "deepracer_discretized"
    """Which LIDAR."""
    clip: float = Field(2.0, ge=0.15, le=12.0)
    """Range that is divided into steps [m]; `clipping_dist` of a model_metadata.json."""
    steps: PositiveInt = 8
    """How many steps; `num_values_per_sector` of a model_metadata.json."""

    @property
    def size(self) -> int:
        """How many numbers a driver gets."""
        return self.sectors * self.steps


LidarSettings: TypeAlias = Annotated[
    RangeLidar | DeepRacerLidar | DeepRacerSectorLidar | DeepRacerSectorsOneHot,
    Field(discriminator="kind"),
]


class Lidar:
    """Scans the surroundings of M cars. A scan is a pure function of poses, tracks and boxes.

    Distances are exact for the walls that `track_walls` returns and for the boxes, to 1e-4 of the
    distance; they see the edge of a thing up to 2e-6 rad beside where it is. A beam that starts
    inside of a box measures 0 before `range_min`.

    Args:
        settings: what the LIDAR is.
        tracks: the courses; a car's walls are those of its track.
        threads: how many threads share the work; the result does not depend on it.
    """

    def __init__(
        self, settings: LidarSettings, tracks: Sequence[Track], *, threads: int = 1
    ) -> None:
        if not tracks:
            raise ConfigError("a LIDAR needs at least one track; pass the tracks of the simulator")
        self.settings = settings
        self.shape = (settings.size,)
        self._threads = threads
        full = settings.fov_deg >= 360
        fov = math.radians(settings.fov_deg)
        parts = settings.beams if full else max(settings.beams - 1, 1)
        step, first = fov / parts, -fov / 2 if settings.beams > 1 else 0.0
        beams: Float64 = first + step * np.arange(settings.beams, dtype=np.float64)
        self.angles: Float64 = beams + math.radians(settings.facing_deg)
        """(K,) direction of each beam in the car's frame [rad], 0 ahead, positive to the left."""
        self._beams = np.stack([np.cos(beams), np.sin(beams)]).astype(np.float32)
        self._frame = np.array(
            [
                *(math.cos(math.radians(settings.facing_deg)),),
                *(math.sin(math.radians(settings.facing_deg)),),
                *(settings.mount_forward, 1 / settings.range_max, settings.range_min),
                *(first, 1 / step, _SLACK / step, 2 * math.pi / step),
            ],
            np.float32,
        )
        self._near = np.array([_NEAR * track.width for track in tracks], np.float32)
        self._corners, self._circles, self._first = wall_chains(
            [track_walls(track, settings.wall_offset) if settings.walls else [] for track in tracks]
        )

    def scan(
        self,
        x: Array,
        y: Array,
        yaw: Array,
        track: Array,
        boxes: Array | None = None,
    ) -> Float32:
        """Measure around M cars, without noise.

        Args:
            x: (M,) centre of gravity [m].
            y: (M,) centre of gravity [m].
            yaw: (M,) heading [rad].
            track: (M,) index into the tracks.
            boxes: (M, B, 8) by `simulator.BOX_FIELDS`, what is around each car; None is nothing.
                All are high enough to be met; those of height 0 do not exist.

        Returns:
            (M, K) distance from the LIDAR along each beam [m], first beam rightmost, in
            [range_min, range_max].

        Raises:
            ConfigError: shapes disagree, or a track index does not exist.
            SimulationError: a pose is not finite.
        """
        x, y, yaw = (np.ascontiguousarray(a, np.float32) for a in (x, y, yaw))
        track = np.ascontiguousarray(track, np.int32)
        count, tracks = len(x), len(self._near)
        if boxes is None:
            boxes = np.empty((count, 0, 8), np.float32)
        boxes = np.ascontiguousarray(boxes, np.float32)
        if any(a.shape != (count,) for a in (x, y, yaw, track)) or (
            boxes.ndim != 3 or boxes.shape[::2] != (count, 8)
        ):
            shapes = ", ".join(str(a.shape) for a in (x, y, yaw, track))
            raise ConfigError(
                f"x, y, yaw and track must share one shape (M,), got {shapes}; boxes must be "
                f"(M, B, 8), got {boxes.shape}"
            )
        if count and not 0 <= track.min() <= track.max() < tracks:
            raise ConfigError(f"track must be in 0..{tracks - 1}, got {track.min()}..{track.max()}")
        finite = np.isfinite(x) & np.isfinite(y) & np.isfinite(yaw)
        if not finite.all():
            row = int(np.argmin(finite))
            raise SimulationError(
                f"a LIDAR cannot measure from x={x[row]}, y={y[row]}, yaw={yaw[row]} (row {row}); "
                "reset cars whose state is not finite before they look around"
            )
        out = np.empty((count, self.settings.beams), np.float32)
        spread(
            _scan, count, out, x, y, yaw, track, boxes, self._beams, self._frame,
            self._near, self._corners, self._circles, self._first,
            block=_SHARE, threads=self._threads,
        )  # fmt: skip
        return out

    def reading(self, distances: Array) -> Float32:
        """Turn distances (M, K) [m] into what the driver is given, (M, size) float32."""
        settings = self.settings
        low, high = settings.range_min, settings.range_max
        found: Float32 = np.clip(distances, low, high).astype(np.float32)
        if isinstance(settings, RangeLidar):
            return found
        if isinstance(settings, DeepRacerLidar):
            clipped: Float32 = np.minimum(found, np.float32(settings.clip))
            return clipped
        nearest = found.reshape(len(found), settings.sectors, -1).min(axis=2)
        if isinstance(settings, DeepRacerSectorLidar):
            near: Float32 = (nearest < settings.clip).astype(np.float32)
            return near
        step = np.floor(nearest / np.float32(settings.clip / settings.steps))
        hot = step[:, :, None] == np.arange(settings.steps, dtype=np.float32)
        one_hot: Float32 = hot.reshape(len(found), -1).astype(np.float32)
        return one_hot


def track_walls(track: Track, offset: float = 0.0) -> list[Float64]:
    """Return the walls along both borders as chains of corners, each (C, 2) [m].

    A closed chain ends with its first corner. Walls lie within 0.5 mm of the borders' waypoints, or
    of the lines `offset` outside of the borders. These lines are left out where they are nearer
    than `offset` to a border, because two pieces of road are closer than two offsets or turn on
    themselves. An open track has no walls at its ends.
    """
    if not offset:
        chains = [np.vstack([a, a[:1]]) if track.closed else a for a in (track.inner, track.outer)]
        return [_thinned(chain) for chain in chains]
    st = track.stations
    s = st.spacing * np.arange(st.count + int(track.closed))
    left, right = (np.append(a, a[:1]) if track.closed else a for a in (st.left, st.right))
    edges = [track.locate(s, left), track.locate(s, -right)]
    borders = np.vstack(edges)
    found: list[Float64] = []
    for line in (track.locate(s, left + offset), track.locate(s, -right - offset)):
        free = _clear(line, borders, offset - 0.25 * st.spacing)
        kept = line[free]
        if not len(kept):
            continue
        # What turned on itself leaves its two ends side by side: these are joined.
        apart = np.hypot(*np.diff(kept, axis=0).T) > max(4 * st.spacing, offset)
        found += [_thinned(part) for part in np.split(kept, np.flatnonzero(apart) + 1)]
    return [part for part in found if len(part) > 1]


def _clear(points: Float64, others: Float64, distance: float) -> Array:
    """Tell which points (P, 2) are no nearer than `distance` to all others (Q, 2)."""
    free = np.ones(len(points), bool)
    for start in range(0, len(points), 256):
        gap = points[start : start + 256, None] - others
        free[start : start + 256] = (gap**2).sum(axis=2).min(axis=1) >= distance**2
    return free


def _thinned(points: Float64) -> Float64:
    """Leave out corners that lie within `_THINNED` of the line between those that stay.

    Source: Douglas and Peucker 1973, "Algorithms for the reduction of the number of points".
    """
    keep = np.zeros(len(points), bool)
    keep[[0, len(points) // 2, -1]] = True  # a loop begins where it ends
    ahead = [(0, len(points) // 2), (len(points) // 2, len(points) - 1)]
    while ahead:
        i, j = ahead.pop()
        if j - i < 2:
            continue
        a, along = points[i], points[j] - points[i]
        to = points[i + 1 : j] - a
        share = np.clip(to @ along / max(float(along @ along), 1e-12), 0, 1)
        off = np.hypot(*(to - share[:, None] * along).T)
        worst = int(np.argmax(off))
        if off[worst] > _THINNED:
            keep[i + 1 + worst] = True
            ahead += [(i, i + 1 + worst), (i + 1 + worst, j)]
    return points[keep]


def wall_chains(walls: Sequence[Sequence[Float64]]) -> tuple[Float32, Float32, Array]:
    """Cut walls into chains of equal size.

    Returns:
        (chains, 2, 16) float32: x and y of the corners; the last one is repeated as needed.
        (3, chains) float32: centre and radius of a circle about each chain [m].
        (tracks + 1,) int64: first chain of each track.
    """
    corners, first = [np.zeros((0, _CHAIN, 2))], [0]
    for track in walls:
        for line in track:
            pieces = -(-(len(line) - 1) // (_CHAIN - 1))
            index = np.arange(pieces)[:, None] * (_CHAIN - 1) + np.arange(_CHAIN)
            corners.append(line[np.minimum(index, len(line) - 1)])
        first.append(sum(len(part) for part in corners))
    table = np.concatenate(corners).astype(np.float32)
    centre = (table.min(axis=1) + table.max(axis=1)) / 2
    gap = table - centre[:, None]
    radius = np.hypot(gap[..., 0], gap[..., 1]).max(axis=1, initial=0) * 1.0001
    circles = np.concatenate([centre.T, radius[None]]).astype(np.float32)
    return np.ascontiguousarray(table.transpose(0, 2, 1)), circles, np.array(first, np.int64)


_SHARE = 16
"""Scans that are worth a thread of their own."""


@_inline
def _direction(x, y):  # type: ignore[no-untyped-def]
    """Angle of (x, y) [rad] in [-pi, pi]."""
    ax, ay = abs(x), abs(y)
    z = min(ax, ay) / max(max(ax, ay), _f4(1e-30))
    q = z * z
    p = _A9 + q * (_A11 + q * (_A13 + q * _A15))
    angle = z * (_A1 + q * (_A3 + q * (_A5 + q * (_A7 + q * p))))
    angle = _QUARTER - angle if ay > ax else angle
    angle = _PI - angle if x < _ZERO else angle
    return -angle if y < _ZERO else angle


@_inline
def _meet(count, px, py, at, a, b, low, high, inverse, bx, by, frame):  # type: ignore[no-untyped-def]
    """Let the segments between `count` corners, seen from the LIDAR, shorten the beams."""
    last: Any = _i4(len(bx) - 1)
    first, per_step, slack, circle = frame[5], frame[6], frame[7], frame[8]
    for j in range(count):
        at[j] = (_direction(px[j], py[j]) - first) * per_step
    half = circle * _HALF
    for j in range(count - 1):
        ex, ey = px[j + 1] - px[j], py[j + 1] - py[j]
        # p + u e = t d, so 1 / t = (d x e) / (p x e): linear in the beam's direction d.
        across = px[j] * ey - py[j] * ex
        over = _ONE / (across if abs(across) > _f4(1e-20) else _f4(1e-20))
        a[j], b[j] = ey * over, -ex * over
        least, most = min(at[j], at[j + 1]) - slack, max(at[j], at[j + 1]) + slack
        turned = most - least > half
        low[j] = _i4(np.ceil(max(least, -_ONE)))
        high[j] = _i4(np.floor(most))
        if turned:  # it passes behind the middle of the field of view: beams outside are met
            low[j] = _i4(np.floor(least + slack + slack)) + _i4(1 << 20)
            high[j] = _i4(np.ceil(most - slack - slack))
    for j in range(count - 1):
        k0, k1 = low[j], high[j]
        if k0 >= _i4(1 << 19):
            for k in range(min(k0 - _i4(1 << 20), last) + 1):
                inverse[k] = max(inverse[k], a[j] * bx[k] + b[j] * by[k])
            for k in range(max(k1, 0), last + 1):
                inverse[k] = max(inverse[k], a[j] * bx[k] + b[j] * by[k])
        else:
            for k in range(max(k0, 0), min(k1, last) + 1):
                inverse[k] = max(inverse[k], a[j] * bx[k] + b[j] * by[k])


@_compiled
def _scan(  # type: ignore[no-untyped-def]
    start, stop, out, x, y, yaw, track, boxes, beams, frame, near, corners, circles, first
):
    """Scan for the cars start..stop: boxes, then the chains close by, then those not hidden."""
    bx, by = beams[0], beams[1]
    last = len(bx) - 1
    px, py, at = np.empty(_CHAIN, _f4), np.empty(_CHAIN, _f4), np.empty(_CHAIN, _f4)
    a, b = np.empty(_CHAIN, _f4), np.empty(_CHAIN, _f4)
    low, high = np.empty(_CHAIN, _i4), np.empty(_CHAIN, _i4)
    inverse = np.empty(len(bx), _f4)
    chains = circles.shape[1]
    gap, least, most = np.empty(chains, _f4), np.empty(chains, _f4), np.empty(chains, _f4)
    lanes = min(corners.shape[2], _CHAIN)  # known to be short, the loop would be unrolled
    for i in range(start, stop):
        inverse[:] = frame[3]
        head, side = _f4(math.cos(yaw[i])), _f4(math.sin(yaw[i]))
        ox, oy = x[i] + head * frame[2], y[i] + side * frame[2]
        c, s = head * frame[0] - side * frame[1], side * frame[0] + head * frame[1]
        inside = False
        for k in range(boxes.shape[1]):
            box = boxes[i, k]
            if box[6] > _ZERO:
                dx, dy = box[0] - ox, box[1] - oy
                ahead, left = c * dx + s * dy, c * dy - s * dx
                u, v = c * box[2] + s * box[3], c * box[3] - s * box[2]
                long, wide = box[4], box[5]
                inside |= (abs(ahead * u + left * v) < long) & (abs(left * u - ahead * v) < wide)
                for j in range(5):
                    fore = long if (j == 0) | (j >= 3) else -long
                    beside = wide if (j <= 1) | (j == 4) else -wide
                    px[j], py[j] = ahead + u * fore - v * beside, left + v * fore + u * beside
                _meet(5, px, py, at, a, b, low, high, inverse, bx, by, frame)
        begin, end = first[track[i]], first[track[i] + 1]
        for k in range(begin, end):
            dx, dy, radius = circles[0, k] - ox, circles[1, k] - oy, circles[2, k]
            distance = math.sqrt(dx * dx + dy * dy)
            gap[k] = distance - radius
            # asin z <= pi/2 z; about the LIDAR itself there is no direction.
            wide = _QUARTER * radius / max(distance, radius) * frame[6] + frame[7]
            middle = (_direction(c * dx + s * dy, c * dy - s * dx) - frame[5]) * frame[6]
            least[k], most[k] = middle - wide, middle + wide
        close = near[track[i]]
        for far in range(2):
            for k in range(begin, end):
                if (gap[k] < close) == (far == 0) and gap[k] * frame[3] < _ONE:
                    if far == 1:
                        hidden = True
                        k0: Any = _i4(np.floor(least[k]))
                        k1: Any = _i4(np.ceil(most[k]))
                        reach = _ONE / gap[k]
                        for beam in range(max(k0, 0), min(k1, last) + 1):
                            hidden &= inverse[beam] >= reach
                        turn: Any = _i4(np.floor(frame[8]))
                        for beam in range(max(k0 + turn, 0), last + 1):
                            hidden &= inverse[beam] >= reach
                        for beam in range(min(k1 - turn, last) + 1):
                            hidden &= inverse[beam] >= reach
                        if hidden:
                            continue
                    for j in range(lanes):
                        dx, dy = corners[k, 0, j] - ox, corners[k, 1, j] - oy
                        px[j], py[j] = c * dx + s * dy, c * dy - s * dx
                    _meet(lanes, px, py, at, a, b, low, high, inverse, bx, by, frame)
        for k in range(len(bx)):
            out[i, k] = _ZERO if inside else max(_ONE / inverse[k], frame[4])
        if inside:
            for k in range(len(bx)):
                out[i, k] = frame[4]
