"""The `state` observation: what a driver would know with perfect instruments and a map."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numba import njit
from pydantic import Field, NonNegativeInt, PositiveFloat

from hotlap.clock import ClockSettings
from hotlap.config import Settings
from hotlap.simulator import State
from hotlap.stations import StationTable
from hotlap.threads import spread
from hotlap.track import Track
from hotlap.types import Array, Float32

__all__ = ["StateObservation", "StateSettings"]


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


_SHARE = 1024
"""Rows that are worth a thread of their own."""

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


@njit(cache=True, nogil=True, error_model="numpy")
def _features(  # type: ignore[no-untyped-def]
    start, stop, rows, out, times, speed_min, objects, sight, there, beside, pace, boxes,
    x, y, yaw, vx, vy, yaw_rate, steering, reference, s, n, heading_error, curvature, left, right,
    track, stations, first, segments, spacing, closed,
):  # fmt: skip
    for j in range(start, stop):
        i = rows[j]
        out[j, 0] = vx[i]
        out[j, 1] = vy[i]
        out[j, 2] = yaw_rate[i]
        out[j, 3] = steering[i]
        out[j, 4] = reference[i]
        out[j, 5] = n[i]
        out[j, 6] = math.sin(heading_error[i])
        out[j, 7] = math.cos(heading_error[i])
        out[j, 8] = left[i] - n[i]
        out[j, 9] = right[i] + n[i]
        out[j, 10] = curvature[i]
        c, sn = math.cos(yaw[i]), math.sin(yaw[i])
        which = track[i]
        count, gap = segments[which], spacing[which]
        inverse = np.float32(1) / gap
        speed = max(vx[i], speed_min)
        for k in range(len(times)):
            distance = speed * times[k]
            at = (s[i] + distance) * inverse
            station = np.int64(math.floor(at))
            share = at - np.float32(station)
            if closed[which] == 1:
                while station >= count:  # faster than a remainder: it is one lap at most
                    station -= count
            elif station >= count:
                station, share = np.int64(count - 1), np.float32(1)
            elif station < 0:
                station, share = np.int64(0), np.float32(0)
            a = first[which] + station
            px = stations[a, 0] + share * (stations[a + 1, 0] - stations[a, 0]) - x[i]
            py = stations[a, 1] + share * (stations[a + 1, 1] - stations[a, 1]) - y[i]
            far = np.float32(1) / distance
            out[j, _OWN + 2 * k] = (c * px + sn * py) * far
            out[j, _OWN + 2 * k + 1] = (c * py - sn * px) * far
        # the next objects, one after the other; those passed over are nearer than `near`
        near = -_BESIDE
        for slot in range(objects):
            found, least = -1, sight
            for k in range(there.shape[1]):
                ahead = there[i, k] - s[i]
                if closed[which] == 1:
                    ahead = ahead - count * gap if ahead > count * gap - _BESIDE else ahead
                    ahead = ahead + count * gap if ahead <= -_BESIDE else ahead
                if near < ahead < least and boxes[i, k, 6] > 0:
                    found, least = k, ahead
            at = _OWN + 2 * len(times) + _EACH * slot
            out[j, at] = least
            out[j, at + 1] = beside[i, found] - n[i] if found >= 0 else np.float32(0)
            out[j, at + 2] = pace[i, found] - vx[i] if found >= 0 else np.float32(0)
            out[j, at + 3] = boxes[i, found, 5] if found >= 0 else np.float32(0)
            near = least
