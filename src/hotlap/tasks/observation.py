"""The `state` observation: what a driver would know with perfect instruments and a map."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numba import njit
from pydantic import Field, NonNegativeInt, PositiveFloat

from hotlap.clock import ClockSettings
from hotlap.config import Settings
from hotlap.series import sin_cos, wrap
from hotlap.simulator import State
from hotlap.stations import StationTable
from hotlap.threads import spread
from hotlap.track import Track
from hotlap.types import Array, Float32

__all__ = ["StateObservation", "StateSettings"]


_inline: Any = njit(fastmath={"contract", "arcp", "nsz"}, error_model="numpy", forceinline=True)


class StateSettings(Settings):
    """What the state observation looks at."""

    lookahead: tuple[PositiveFloat, ...] = (0.1, 0.2, 0.35, 0.5, 0.75, 1.0, 1.4, 1.8)
    """Times [s] at which the car, at its present speed, will reach the points it sees ahead."""
    speed_min: PositiveFloat = 1.0
    """Slower cars look ahead as if they drove this fast [m/s]."""
    objects: NonNegativeInt = Field(4, le=16)
    """How many of the next objects and cars it sees, where any share the road."""
    objects_range: PositiveFloat = 5.0
    """How far ahead it sees them [m]."""
    clock: ClockSettings = ClockSettings()
    """When the driver hears of it, and how noisy it is."""


_SHARE = 4096
"""Fewer rows are looked at before another thread has woken up."""

_OWN = 11
"""Features before the look-ahead points."""

_EACH = 4
"""Features of an object."""
_BESIDE = np.float32(1.0)
"""An object so far behind the car is still beside it [m]."""


class StateObservation:
    """Features of N cars: own motion, place on the road, and the centre line ahead.

    (N, O) float32: forward and sideways speed [m/s], yaw rate [rad/s], steering angle [rad], speed
    reference [m/s], lateral offset [m], sine and cosine of the heading error, distance to the left
    and right border [m], curvature [1/m]; then for each look-ahead time the point of the centre
    line, forward and left of the car [m], over the distance looked ahead. Where others share the
    road, for each of the next ones: distance ahead along the road [m] (the range where there is
    none), how far it is to the left of the car [m], how much faster it is [m/s], and half its
    width [m].
    """

    def __init__(
        self,
        settings: StateSettings,
        tracks: Sequence[Track],
        *,
        shared: bool = False,
        threads: int = 1,
    ) -> None:
        self._objects = settings.objects if shared else 0
        self._range = np.float32(settings.objects_range)
        self.size = _OWN + 2 * len(settings.lookahead) + _EACH * self._objects
        self._times = np.array(settings.lookahead, np.float32)
        self._speed_min = np.float32(settings.speed_min)
        self._table = StationTable(tracks)
        self._threads = threads

    def __call__(self, state: State, rows: Array | None = None) -> Float32:
        """Compute the features of the given rows (all if None)."""
        picked = np.arange(len(state.x)) if rows is None else np.asarray(rows)
        out = np.empty((len(picked), self.size), np.float32)
        table, around = self._table, state.around
        none = np.zeros((len(state.x), 0), np.float32)
        there, beside, speed, boxes = (
            (none, none, none, none[:, :, None])
            if around is None
            else (around.s, around.n, around.speed, around.boxes)
        )
        spread(
            _features, len(picked), picked, out, self._times, self._speed_min,
            self._objects, self._range, there, beside, speed, boxes,
            state.x, state.y, state.yaw, state.vx, state.vy, state.yaw_rate, state.steering,
            state.reference, state.s, state.n, state.heading_error, state.curvature, state.left,
            state.right, state.track,
            table.stations, table.first, table.segments, table.spacing, table.closed,
            block=_SHARE, threads=self._threads,
        )  # fmt: skip
        return out


# Rows of the scratch, with one number a car.
(
    _X, _Y, _S, _COS, _SIN, _SPEED, _INVERSE, _COUNT, _LAP, _FIRST, _ERROR, _SHARE_OF, _FAR,
    _PX, _PY, _QX, _QY,
) = range(17)  # fmt: skip
_LANES = 32
"""Cars that share one pass: LLVM runs 8 or 16 of them at once."""


@njit(cache=True, nogil=True, fastmath={"contract", "arcp", "nsz"}, error_model="numpy")
def _features(  # type: ignore[no-untyped-def]
    start, stop, rows, out, times, speed_min, objects, sight, there, beside, pace, boxes,
    x, y, yaw, vx, vy, yaw_rate, steering, reference, s, n, heading_error, curvature, left, right,
    track, stations, first, segments, spacing, closed,
):  # fmt: skip
    m = np.empty((17, _LANES), np.float32)
    at, which = np.empty(_LANES, np.int32), np.empty(_LANES, np.int32)
    ahead = np.empty((2 * len(times), _LANES), np.float32)
    often = np.float32(1) / times
    for base in range(start, stop, _LANES):
        here = min(stop - base, _LANES)
        for j in range(_LANES):
            # Unsigned: a signed index could count from the end, and to ask costs time.
            i = np.uint64(rows[np.uint64(base + min(j, here - 1))])
            course = np.uint64(track[i])
            m[_X, j], m[_Y, j], m[_S, j], m[_COS, j] = x[i], y[i], s[i], yaw[i]
            m[_SPEED, j], m[_ERROR, j] = max(vx[i], speed_min), heading_error[i]
            m[_INVERSE, j], m[_COUNT, j] = spacing[course], np.float32(segments[course])
            m[_LAP, j] = np.float32(segments[course] * closed[course])
            at[j] = first[course]
        for j in range(_LANES):
            m[_SIN, j], m[_COS, j] = sin_cos(wrap(m[_COS, j]))
            m[_ERROR, j], m[_SHARE_OF, j] = sin_cos(wrap(m[_ERROR, j]))
            m[_INVERSE, j] = np.float32(1) / m[_INVERSE, j]
            m[_FAR, j] = np.float32(1) / m[_SPEED, j]
            m[_FIRST, j] = np.float32(1) / m[_COUNT, j]
        for j in range(here):
            i, row = np.uint64(rows[np.uint64(base + j)]), np.uint64(base + j)
            out[row, 0], out[row, 1], out[row, 2] = vx[i], vy[i], yaw_rate[i]
            out[row, 3], out[row, 4], out[row, 5] = steering[i], reference[i], n[i]
            out[row, 6], out[row, 7] = m[_ERROR, j], m[_SHARE_OF, j]
            out[row, 8], out[row, 9] = left[i] - n[i], right[i] + n[i]
            out[row, 10] = curvature[i]
        for k in range(len(times)):
            time, per = times[k], often[k]
            _look_up(m, at, which, time, stations)
            right_, up = np.uint64(2 * k), np.uint64(2 * k + 1)
            for j in range(_LANES):
                share, far = m[_SHARE_OF, j], m[_FAR, j] * per
                px = m[_PX, j] + share * (m[_QX, j] - m[_PX, j]) - m[_X, j]
                py = m[_PY, j] + share * (m[_QY, j] - m[_PY, j]) - m[_Y, j]
                ahead[right_, j] = (m[_COS, j] * px + m[_SIN, j] * py) * far
                ahead[up, j] = (m[_COS, j] * py - m[_SIN, j] * px) * far
        for j in range(here):
            row = np.uint64(base + j)
            for k in range(len(ahead)):
                out[row, np.uint64(_OWN + k)] = ahead[np.uint64(k), j]
    if objects:
        _see_objects(
            start, stop, rows, out, len(times), objects, sight, there, beside, pace, boxes, vx, s,
            n, track, segments, spacing, closed,
        )  # fmt: skip


@_inline
def _look_up(m, first, which, time, stations):  # type: ignore[no-untyped-def]
    """Find between which stations cars will be after a time, and how far between them."""
    for j in range(_LANES):
        place = (m[_S, j] + m[_SPEED, j] * time) * m[_INVERSE, j]
        # Round a loop, by as many laps as it takes; to the end of an open course.
        place = place - m[_LAP, j] * np.floor(place * m[_FIRST, j])
        place = min(max(place, np.float32(0)), m[_COUNT, j])
        # Clip the integer too: a NaN would point outside of the stations.
        station = min(max(np.int32(place), np.int32(0)), np.int32(m[_COUNT, j]) - np.int32(1))
        m[_SHARE_OF, j] = place - np.float32(station)
        which[j] = first[j] + station
    for j in range(_LANES):
        a = np.uint64(which[j])
        m[_PX, j], m[_PY, j] = stations[a, 0], stations[a, 1]
        m[_QX, j], m[_QY, j] = stations[a + np.uint64(1), 0], stations[a + np.uint64(1), 1]


@_inline
def _see_objects(  # type: ignore[no-untyped-def]
    start, stop, rows, out, times, objects, sight, there, beside, pace, boxes, vx, s, n, track,
    segments, spacing, closed,
):  # fmt: skip
    """Write the next objects, one after the other; those passed over are nearer than `near`."""
    for j in range(start, stop):
        i = rows[j]
        row, which = out[j], track[i]
        lap = segments[which] * spacing[which]
        near = -_BESIDE
        for slot in range(objects):
            found, least = -1, sight
            for k in range(there.shape[1]):
                ahead = there[i, k] - s[i]
                if closed[which] == 1:
                    ahead = ahead - lap if ahead > lap - _BESIDE else ahead
                    ahead = ahead + lap if ahead <= -_BESIDE else ahead
                if near < ahead < least and boxes[i, k, 6] > 0:
                    found, least = k, ahead
            at = _OWN + 2 * times + _EACH * slot
            row[at] = least
            row[at + 1] = beside[i, found] - n[i] if found >= 0 else np.float32(0)
            row[at + 2] = pace[i, found] - vx[i] if found >= 0 else np.float32(0)
            row[at + 3] = boxes[i, found, 5] if found >= 0 else np.float32(0)
            near = least
